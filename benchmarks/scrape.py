"""How long does a scrape take while the exporter samples, and how long with prometheus_client's own exposition?"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.exporter import Exporter

from benchmarks.figure import Figure, Plan, percentile
from benchmarks.fleet import SERIES_BY_DEVICE, record_fleet
from benchmarks.reference import reference
from benchmarks.scraper import FLOOR_PATH, OPENMETRICS_GZIP, PLAIN_TEXT, Scrapes, scrape_for, series_on_page

__all__ = ["figures"]

PAGES = {"OpenMetrics, gzip": OPENMETRICS_GZIP, "plain text": PLAIN_TEXT}
LIMIT_MS_BY_SERIES = {10_000: 20.0, 1_000: 5.0}
"""What p99 must stay under."""
_WARM_TICKS = 2
"""After which the pages that are asked for are made beforehand."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One run: both servers with the same recording."""

    series: int
    ours: dict[str, Scrapes]
    theirs: dict[str, Scrapes]


def figures(plan: Plan) -> Iterator[Figure]:
    """p50 and p99 by number of series and page, and prometheus_client's beside them."""
    for wanted, limit in LIMIT_MS_BY_SERIES.items():
        runs = [_run(wanted, plan) for _ in range(plan.runs)]
        for page in PAGES:
            yield from _compare(runs, page, limit)


def _run(wanted: int, plan: Plan) -> _Run:
    seconds, beside = plan.seconds(16, 6), plan.seconds(5, 3)
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "fleet.jsonl"
        record_fleet(recording, math.ceil(wanted / SERIES_BY_DEVICE), 2 * seconds + 30)
        room = 2 * wanted
        flags = (f"--replay.file={recording}", f"--series.max={room}", f"--storage.path={folder}/state")
        with reference(recording, room) as their_port:
            with Exporter(*flags) as exporter:
                scrape_for(exporter.port, OPENMETRICS_GZIP, 0)
                exporter.wait_for_samples(_WARM_TICKS)
                port = exporter.port
                ours = {page: scrape_for(port, headers, seconds, floor=True) for page, headers in PAGES.items()}
                series = series_on_page(port)
            theirs = {page: scrape_for(their_port(), headers, beside) for page, headers in PAGES.items()}
    return _Run(series, ours, theirs)


def _compare(runs: list[_Run], page: str, limit: float) -> Iterator[Figure]:
    """The rows of one page."""
    series, size = runs[-1].series, runs[-1].ours[page].body_bytes
    what = f"scrape of {series} series, {page}"
    ours = {percent: tuple(_ms(run.ours[page], percent) for run in runs) for percent in (50, 99, 100)}
    theirs = {percent: tuple(_ms(run.theirs[page], percent) for run in runs) for percent in (50, 99)}
    floor = {percent: tuple(1000 * percentile(run.ours[page].floor, percent) for run in runs) for percent in (50, 99)}
    count = len(runs[-1].ours[page].seconds)
    yield Figure(f"{what}: p50", ours[50], "ms", note=f"{count} scrapes a run, {size} bytes")
    yield Figure(f"{what}: p99", ours[99], "ms", limit, f"worst of a run: {max(ours[100]):.1f} ms at most")
    yield Figure(f"  {FLOOR_PATH} in between: p50", floor[50], "ms")
    yield Figure(f"  {FLOOR_PATH} in between: p99", floor[99], "ms", note="what machine and Python add themselves")
    yield Figure("  prometheus_client: p50", theirs[50], "ms", note=_ratio(theirs[50], ours[50]))
    yield Figure("  prometheus_client: p99", theirs[99], "ms", note=_ratio(theirs[99], ours[99]))


def _ms(scrapes: Scrapes, percent: float) -> float:
    return percentile(scrapes.seconds, percent) * 1000


def _ratio(theirs: tuple[float, ...], ours: tuple[float, ...]) -> str:
    """How many times as long theirs took, run by run."""
    ratio = Figure("", tuple(t / o for t, o in zip(theirs, ours, strict=True)), "times ours")
    return f"{ratio.median:.1f} {ratio.unit}, in the same run; it samples nothing"
