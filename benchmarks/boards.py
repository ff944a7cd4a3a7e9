"""What does a tick cost on a GPU node? The whole pipeline in this process, over a fake NVML at its C ABI.

Eight boards and four RAPL zones with 64 processes on the boards, and a rack of 72 boards in one machine.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from support.fakenvml import FakeNvml, Process, load_in_process, unload
from support.powercap import PowercapTree

from benchmarks.figure import Figure, Plan
from carbon_exporter.carbon.grid import locate_grid
from carbon_exporter.carbon.static import StaticProvider
from carbon_exporter.config import Settings
from carbon_exporter.publish.prometheus import Renderer
from carbon_exporter.sensors.base import Host
from carbon_exporter.sensors.registry import discover
from carbon_exporter.service.keeper import Keeper
from carbon_exporter.service.pipeline import Pipeline

__all__ = ["figures"]

_TICKS = 12
"""Slow data is read every 12th tick."""
_WARM_TICKS = 36
"""The first ones are dearer, by a tenth: the interpreter is still learning what the code does."""
_PAUSE_SECONDS = 0.1
_PROGRAM = (sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()")


@dataclass(frozen=True, slots=True)
class _Node:
    boards: int
    processes: int
    """On each board."""
    limit: float
    """Milliseconds of CPU."""


def figures(plan: Plan) -> Iterator[Figure]:
    """CPU milliseconds of a tick, from reading to the rendered page, the mean of a minute's ticks."""
    for node in (_Node(8, 8, 10.0), _Node(72, 1, 60.0)):
        # Each in a process of its own, as an exporter is: what one leaves behind makes the next one dearer.
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            values = tuple(pool.apply(_run, (node,)) for _ in range(plan.runs))
        what = f"{node.boards} boards, {node.boards * node.processes} processes on them, 4 RAPL zones"
        yield Figure("tick of a GPU node", values, "ms CPU", node.limit, what)


def _run(node: _Node) -> float:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fake = _boards(node, folder, stack)
        _powercap(folder / "sys")
        load_in_process(fake)
        stack.callback(unload)
        host = Host(sysfs=folder / "sys")
        sensors, findings = discover(host)
        keeper = Keeper(folder / "state")
        stack.callback(keeper.close)
        grid = locate_grid("FR", StaticProvider("lifecycle"), 1.0, {})
        settings = replace(Settings(), series_max=20_000)
        pipeline = Pipeline(settings, host=host, grid=grid, keeper=keeper, sensors=sensors, findings=findings)
        stack.callback(pipeline.close)
        return _ticks(pipeline, node)


def _ticks(pipeline: Pipeline, node: _Node) -> float:
    """Milliseconds of CPU a tick."""
    renderer = Renderer()
    renderer.note_demand("openmetrics", compressed=True)
    used = 0.0
    for number in range(_WARM_TICKS + _TICKS):
        if number == _WARM_TICKS:
            gc.collect()
            gc.freeze()  # as `serve` does
        time.sleep(_PAUSE_SECONDS)
        began = time.process_time()
        snapshot = pipeline.tick()
        renderer.render(snapshot)
        used += time.process_time() - began if number >= _WARM_TICKS else 0.0
    boards = sum(state.device.kind == "gpu" and state.power is not None for state in snapshot.devices)
    assert boards == node.boards, f"{boards} of {node.boards} boards gave power"
    return 1000 * used / _TICKS


def _boards(node: _Node, folder: Path, stack: contextlib.ExitStack) -> FakeNvml:
    """Boards that are all held, by eight jobs."""
    fake = FakeNvml(folder / "nvml", boards=node.boards)
    for board in fake.boards:
        pids = [_process(f"job-{number % 8}", stack) for number in range(node.processes)]
        board.processes([Process(pid, sm=90 // node.processes) for pid in pids])
    return fake


def _process(job: str, stack: contextlib.ExitStack) -> int:
    process = subprocess.Popen(_PROGRAM, stdin=subprocess.PIPE, env={"CARBON_JOB": job})
    stack.enter_context(process)
    stack.callback(process.kill)
    return process.pid


def _powercap(sysfs: Path) -> None:
    tree = PowercapTree(sysfs)
    for socket in (0, 1):
        tree.add_socket(socket)
