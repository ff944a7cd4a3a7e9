"""What does a span cost the processor while it is open and nothing happens? In percent of one core.

A real process on a node of two packages, each with memory, and one board, whose counters move: its CPU time in an open
span, less that of the same process without one. Both sleep. Once within a long span, in which meters are read less
often than at its beginning; once with short ones of one length in it, whose ends it learns to expect; once with short
ones of uneven lengths, so that they are read as often as ever; without an exporter, where it reads the meters itself,
and with one. Beside them stands what a thread costs that does no more than to wake up and read files as
often: less is not to be had by any Python program on this machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.exporter import Exporter
from support.fakenvml import FakeNvml, environment
from support.powercap import PowercapTree

from benchmarks.figure import Figure, Plan

__all__ = ["figures"]

CORE_LIMIT = 0.5
_WARM_SECONDS = {"none": 0.5, "even": 10.0, "uneven": 10.0, "span": 18.0}
"""Until everything is loaded, the counter's rhythm is known, a long span is one, and short ones are no news."""
_LENGTHS = {"none": "", "span": "", "even": "2.5", "uneven": "0.5 4.5 2.5"}
"""Seconds of the short spans, in turns; of the uneven ones none can be expected to last long."""
_READS, _FILES = 10, 4
"""A second, and each time."""
_SCRIPT = """
import itertools, sys, time
from contextlib import nullcontext
from carbon_exporter import carbon_span
lengths = itertools.cycle(map(float, sys.argv[4].split()))
def sleep(seconds):
    until = time.monotonic() + seconds
    for length in lengths:
        with carbon_span("short"):
            time.sleep(max(0.0, min(length, until - time.monotonic())))
        if time.monotonic() >= until:
            return
    time.sleep(seconds)
with nullcontext() if sys.argv[1] == "none" else carbon_span("idle") as span:
    sleep(float(sys.argv[2]))
    began = time.process_time()
    sleep(float(sys.argv[3]))
    used = time.process_time() - began
    told = set(span.energy_by_device) if span else set()
    assert not span or {"cpu0", "cpu1", "dram0", "dram1", "gpu0"} <= told, told
print(used)
"""
_BARE = """
import os, sys, threading, time
files = [os.open(path, os.O_RDONLY) for path in sys.argv[3:]]
def read():
    while True:
        time.sleep(float(sys.argv[1]))
        for file in files:
            os.pread(file, 32, 0)
threading.Thread(target=read, daemon=True).start()
began = time.process_time()
time.sleep(float(sys.argv[2]))
print(time.process_time() - began)
"""


def figures(plan: Plan) -> Iterator[Figure]:
    """Percent of one core."""
    seconds = plan.seconds(20, 4)
    with tempfile.TemporaryDirectory() as folder:
        environ = _node(Path(folder))
        with _exporter(Path(folder), environ) as socket:
            runs = [_run(Path(folder), environ, socket, seconds) for _ in range(plan.runs)]
    percent = [tuple(100 * one / seconds for one in used) for used in zip(*runs, strict=True)]
    note = f"over {seconds:g} s, one board and two packages"
    even = f"one of {_LENGTHS['even']} s after the other"
    uneven = f"of {_LENGTHS['uneven']} s in turns: 10 readings a second"
    for place, (span, short, other) in (("", percent[:3]), (" beside an exporter", percent[3:6])):
        yield Figure(f"an open span's CPU of one core{place}", span, "%", CORE_LIMIT, note)
        yield Figure("  with short ones in it", short, "%", CORE_LIMIT, even)
        yield Figure("  with uneven ones in it", other, "%", CORE_LIMIT, uneven)
    yield Figure("  a bare thread", percent[6], "%", None, f"{_READS} times a second {_FILES} files, and nothing else")


def _run(folder: Path, environ: Mapping[str, str], socket: str, seconds: float) -> tuple[float, ...]:
    """CPU seconds of a long span and of both sorts of short ones, without and with an exporter; of a bare thread."""
    nothing = _used("none", environ, seconds)
    files = [str(path) for path in sorted(folder.glob("sys/class/powercap/*/energy_uj"))][:_FILES]
    bare = subprocess.check_output([sys.executable, "-c", _BARE, str(1 / _READS), str(seconds), *files], text=True)
    places = (environ, {**environ, "CARBON_SDK_SOCKET": socket})
    used = [_used(what, place, seconds) for place in places for what in ("span", "even", "uneven")]
    return (*(one - nothing for one in used), float(bare) - nothing)


@contextmanager
def _exporter(folder: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """One on this node; its socket."""
    socket = f"{folder}/sdk.sock"
    flags = (f"--path.sysfs={folder}/sys", f"--sdk.socket={socket}", f"--storage.path={folder}/state")
    with Exporter(*flags, environ={name: value for name, value in environ.items() if name != "CARBON_SDK_SOCKET"}):
        yield socket


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
    command = [sys.executable, "-c", _SCRIPT, what, str(_WARM_SECONDS[what]), str(seconds), _LENGTHS[what]]
    return float(subprocess.check_output(command, text=True, env=dict(environ)))
