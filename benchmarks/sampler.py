"""What does a span cost the processor while it is open and nothing happens? In percent of one core.

A real process on a node of two packages, each with memory, and one board, whose counters move: its CPU time in an open
span, less that of the same process without one. Both sleep.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from support.fakenvml import FakeNvml, environment
from support.powercap import PowercapTree

from benchmarks.figure import Figure, Plan

__all__ = ["figures"]

CORE_LIMIT = 0.5
_WARM_SECONDS = 8.0
"""Until everything is loaded and the counter's rhythm is known."""
_SCRIPT = """
import sys, time
from contextlib import nullcontext
from carbon_exporter import carbon_span
with carbon_span("idle") if sys.argv[1] == "span" else nullcontext() as span:
    time.sleep(float(sys.argv[2]))
    began = time.process_time()
    time.sleep(float(sys.argv[3]))
    used = time.process_time() - began
    told = set(span.energy_by_device) if span else set()
    assert not span or {"cpu0", "cpu1", "dram0", "dram1", "gpu0"} <= told, told
print(used)
"""


def figures(plan: Plan) -> Iterator[Figure]:
    """Percent of one core."""
    seconds = plan.seconds(30, 4)
    with tempfile.TemporaryDirectory() as folder:
        environ = _node(Path(folder))
        used = [_used("span", environ, seconds) - _used("none", environ, seconds) for _ in range(plan.runs)]
    percent = tuple(100 * one / seconds for one in used)
    note = f"over {seconds:g} s, 10 readings a second of one board and two packages, 2 of their memory"
    yield Figure("an open span's CPU of one core", percent, "%", CORE_LIMIT, note)


def _node(folder: Path) -> Mapping[str, str]:
    """Where a process finds its meters."""
    fake = FakeNvml(folder / "nvml", boards=1)
    fake.boards[0].square(60, 300, 1.9)
    tree = PowercapTree(folder / "sys")
    for socket in (0, 1):
        tree.add(f"intel-rapl:{socket}", f"package-{socket}")
        tree.add(f"intel-rapl:{socket}:0", "dram")
    own = {key: value for key, value in os.environ.items() if not key.startswith(("CARBON_", "OTEL_"))}
    places = {"CARBON_EXPORTER_PATH_SYSFS": str(folder / "sys"), "CARBON_SDK_SOCKET": str(folder / "nobody")}
    return {**own, **environment(fake), **places, "CUDA_VISIBLE_DEVICES": "0"}


def _used(what: str, environ: Mapping[str, str], seconds: float) -> float:
    """CPU seconds of a process that does nothing, within a span or none."""
    command = [sys.executable, "-c", _SCRIPT, what, str(_WARM_SECONDS if what == "span" else 0.5), str(seconds)]
    return float(subprocess.check_output(command, text=True, env=dict(environ)))
