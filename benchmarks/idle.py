"""What does the exporter cost a machine with many processes, while it samples and Prometheus scrapes it?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator

from support.exporter import Exporter

from benchmarks.crowd import crowd
from benchmarks.figure import Figure, Plan
from benchmarks.scraper import OPENMETRICS_GZIP, scrape_for
from benchmarks.usage import Memory, cpu_seconds, memory

__all__ = ["figures"]

CPU_LIMIT_PERCENT = 0.5
MEMORY_LIMIT_MIB = 60.0
_SCRAPE_SECONDS = 15.0
"""Between two scrapes: Prometheus's usual interval."""
_WARM_SECONDS = 12.0
"""Until the first samples, the first scrape and the first look at every environment are over."""


def figures(plan: Plan) -> Iterator[Figure]:
    """Share of one core, and memory."""
    seconds = plan.seconds(60, 15)
    with crowd() as around:
        runs = [_run(seconds) for _ in range(plan.runs)]
    note = f"at the default interval, over {seconds:g} s, a scrape every {_SCRAPE_SECONDS:g} s; {around}"
    yield Figure("steady CPU of one core", tuple(cpu for cpu, _ in runs), "%", CPU_LIMIT_PERCENT, note)
    resident, proportional = (tuple(size / 2**20 for size in sizes) for sizes in _columns(runs))
    yield Figure("resident memory", resident, "MiB", MEMORY_LIMIT_MIB)
    yield Figure("proportional memory (PSS)", proportional, "MiB", note="pages shared with other processes divided")


def _run(seconds: float) -> tuple[float, Memory]:
    """Percent of one core over `seconds`, and memory at their end."""
    with tempfile.TemporaryDirectory() as folder, Exporter(f"--storage.path={folder}") as exporter:
        scrape_for(exporter.port, OPENMETRICS_GZIP, 0)
        time.sleep(_WARM_SECONDS)
        used, began = cpu_seconds(exporter.process.pid), time.perf_counter()
        until = began + seconds
        while (left := until - time.perf_counter()) > 0:
            scrape_for(exporter.port, OPENMETRICS_GZIP, 0)
            time.sleep(min(left, _SCRAPE_SECONDS))
        used, passed = cpu_seconds(exporter.process.pid) - used, time.perf_counter() - began
        return 100 * used / passed, memory(exporter.process.pid)


def _columns(runs: list[tuple[float, Memory]]) -> tuple[list[float], list[float]]:
    return [size.resident for _, size in runs], [size.proportional for _, size in runs]
