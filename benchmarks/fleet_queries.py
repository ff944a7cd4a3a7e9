"""What the Fleet board asks, as it stands in grafana/dashboards, and what it would ask without recording rules."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.demo.server import Server

__all__ = ["Ask", "fleet_board"]

_BOARD: Final = Path(__file__).parents[1] / "grafana/dashboards/carbon-fleet.json"
_POINTS: Final = 1000
"""Of a graph; Grafana asks for no more than it is wide."""
_SUMS: Final = re.compile(
    r"sum_over_time\((?P<record>[\w:]+:(?:increase5m|hourly))(?P<match>\{[^}]*\})?"
    r"\[(?P<range>\w+)(?::5m)?\] offset -2ms\)"
)
_RECORD: Final = re.compile(r"\w+:(?P<name>carbon_\w+):(?P<how>\w+)(?P<match>\{[^}]*\})?")
_SHARES: Final = {"carbon_idle_energy": "_idle_", "carbon_unattributed_energy": "_unattributed_"}


@dataclass(frozen=True, slots=True)
class Ask:
    """A query of a panel over `seconds`, the variables put in."""

    panel: str
    expression: str
    graph: bool
    """Asked at each step of the range; else once, at its end."""
    seconds: int

    def __call__(self, server: Server, end: float) -> float:
        """Seconds until the whole answer is here. Raises RuntimeError where it is refused."""
        begin = time.perf_counter()
        if self.graph:
            step = max(60, self.seconds // _POINTS)
            server.query_range(self.expression, end - self.seconds, end, step)
        else:
            server.query(self.expression, end)
        return time.perf_counter() - begin

    @property
    def raw(self) -> str:
        """The same of the series that exporters show, by increase(), as one would write it without rules."""
        summed = _SUMS.sub(
            lambda found: f"increase({_counter(found['record'])}{found['match'] or ''}[{found['range']}])",
            self.expression,
        )
        return _RECORD.sub(_raw, summed)


def fleet_board(seconds: int) -> Iterator[Ask]:
    """All queries of the board, over a range of so many seconds."""
    board = json.loads(_BOARD.read_text(encoding="utf-8"))
    step = max(60, seconds // _POINTS)
    # As the board opens: All.
    chosen = {variable["name"]: variable.get("allValue", "") for variable in board["templating"]["list"]}
    known = chosen | {
        "__range": f"{seconds}s",
        "__interval": f"{step}s",
        "__rate_interval": f"{max(4 * 15, step + 15)}s",
    }
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            expression = re.sub(r"\$\{?(\w+)\}?", lambda found: known[found[1]], target["expr"])
            yield Ask(panel["title"], " ".join(expression.split()), not target.get("instant", False), seconds)


def _counter(record: str) -> str:
    name = record.split(":")[1]
    return f"{name}_total"


def _raw(found: re.Match[str]) -> str:
    name, how, match = found["name"], found["how"], found["match"] or ""
    if how == "sum" and name.endswith("_watts"):
        return f"{name}{match}"
    if name in _SHARES:
        whole = f"increase(carbon_job_energy_kwh_total{match}[1h])"
        chosen = f'job_name="{_SHARES[name]}",{match[1:-1]}'
        share = f"increase(carbon_job_energy_kwh_total{{{chosen}}}[1h])"
        return f"(sum by (cluster, region) ({share}) / sum by (cluster, region) ({whole}))"
    window = re.fullmatch(r"(?:sum|increase)(\w+)", how)
    assert window, f"nobody has said what {found[0]} is without rules"
    return f"increase({name}_total{match}[{window[1]}])"
