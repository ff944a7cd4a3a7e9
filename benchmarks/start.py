"""How long until the exporter is ready, and what does `import carbon_exporter` cost a training script?"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from support.exporter import Exporter

from benchmarks.figure import Figure, Plan

__all__ = ["figures"]

READY_LIMIT_SECONDS = 2.0
IMPORT_LIMIT_MS = 30.0
HEAVY = ("prometheus_client", "opentelemetry", "pynvml", "requests", "yaml", "h11", "msgspec", "psutil")
_STARTS = 10
"""Interpreters started a run: one start takes some 20 ms, and varies by a few."""


def figures(plan: Plan) -> Iterator[Figure]:
    """Seconds to ready, milliseconds and modules of the import."""
    ready = tuple(_seconds_to_ready() for _ in range(plan.runs))
    yield Figure("start to /-/ready", ready, "s", READY_LIMIT_SECONDS, "from exec to the answer 200, default settings")
    costs = tuple(_import_ms() for _ in range(plan.runs))
    yield Figure("import carbon_exporter", costs, "ms", IMPORT_LIMIT_MS, "over bare Python (-c pass)")
    heavy = _heavy_modules()
    note = f"of {', '.join(HEAVY)}{': ' if heavy else ''}{', '.join(heavy)}"
    yield Figure("heavy modules it loads", (float(len(heavy)),), "", 1.0, note)


def _seconds_to_ready() -> float:
    with tempfile.TemporaryDirectory() as folder, Exporter(f"--storage.path={folder}") as exporter:
        exporter.get("/-/ready")
        return time.monotonic() - exporter.began


def _import_ms() -> float:
    """Median over interpreters started in turn, so that both meet the same noise."""
    pairs = [(_start("pass"), _start("import carbon_exporter")) for _ in range(_STARTS)]
    return 1000 * (statistics.median(two for _, two in pairs) - statistics.median(one for one, _ in pairs))


def _start(program: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - began


def _heavy_modules() -> list[str]:
    program = "import carbon_exporter, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    return [name for name in HEAVY if name in loaded]
