"""This process's spans in the catalogue's exposition, for a page of its own or a Pushgateway."""

from __future__ import annotations

import time
from collections.abc import Callable

from carbon_exporter.carbon.grid import Grid
from carbon_exporter.carbon.spans import SpanAccount
from carbon_exporter.publish.catalogue import CATALOGUE, Metric
from carbon_exporter.publish.prometheus import Exposition, Renderer
from carbon_exporter.sdk.own_grid import own_grid
from carbon_exporter.snapshot import Snapshot, StoreHealth, Today
from carbon_exporter.units import Grams, Joules

__all__ = ["METRICS", "RUN_METRICS", "SpanExposition", "span_snapshot"]

_FAMILIES = (
    "carbon_span_",
    "carbon_spans_",
    "carbon_run_",
    "carbon_grid_",
    "carbon_pue_",
    "carbon_exporter_build_info",
)
METRICS: tuple[Metric, ...] = tuple(metric for metric in CATALOGUE if metric.name.startswith(_FAMILIES))
"""What a script can say of itself: its spans and runs, and the price they were counted at."""


RUN_METRICS: tuple[Metric, ...] = tuple(metric for metric in METRICS if metric.name.startswith("carbon_run_"))
"""Those of runs alone."""


def span_snapshot(account: SpanAccount, grid: Grid, started: float, run: str = "") -> Snapshot:
    """A snapshot that has spans, one run or all, and a grid, and nothing of a node; `started` is in Unix seconds."""
    return Snapshot(
        at=time.time(),
        started=started,
        interval=1.0,
        samples=1,
        grid=grid,
        store=StoreHealth("", "off"),
        today=Today("", Joules(0.0), Grams(0.0)),
        spans=account.totals,
        runs={key: total for key, total in account.runs().items() if key.run == run or not run},
        spans_folded=account.folded_total,
    )


class SpanExposition:
    """Renders an account when somebody wants it, and only if it has changed. For one thread, but for `start`."""

    def __init__(self, grid: Callable[[], Grid] = own_grid, metrics: tuple[Metric, ...] = METRICS) -> None:
        """`grid` is asked at `start`."""
        self.renderer = Renderer(metrics=metrics)
        self._find_grid = grid
        self._told: tuple[SpanAccount, Grid, float] | None = None
        self._run = ""
        self._last: tuple[object, Snapshot, Exposition] | None = None

    def start(self, account: SpanAccount, run: str = "") -> None:
        """From now on this account is rendered; of its runs one, or all."""
        self._told, self._run = (account, self._find_grid(), time.time()), run

    def latest(self) -> tuple[Snapshot, Exposition] | None:
        """The account as it stands now; None before `start`."""
        if self._told is None:
            return None
        account, grid, started = self._told
        if self._last is None or self._last[0] is not account.totals:
            totals = account.totals
            snapshot = span_snapshot(account, grid, started, self._run)
            self._last = (totals, snapshot, self.renderer.render(snapshot))
        return self._last[1:]
