"""A busy machine's process table: sleeping processes up to a number, some of them jobs, and control groups of units."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carbon_exporter.jobs.cgroups import find_hierarchy

__all__ = ["Crowd", "crowd"]

PROCESSES = 300
MARKED_BY_JOB = {"train": 4, "eval": 3, "serve": 3}
UNITS = 50
_PROGRAM = (sys.executable, "-c", "import json, time; time.sleep(3600)")
"""What a marked process runs: as large as a small Python program, so that its memory is worth a look."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """What there is now."""

    processes: int
    """On the whole machine, kernel threads included."""
    marked: int
    units: int
    """Groups that were made; 0 where the groups may not be written."""

    def __str__(self) -> str:
        """For a figure's note."""
        groups = f"{self.units} units" if self.units else "no units (the control groups may not be written)"
        return f"{self.processes} processes, {self.marked} of them in {len(MARKED_BY_JOB)} jobs, {groups}"


@contextmanager
def crowd() -> Iterator[Crowd]:
    """Fill the machine up to `PROCESSES` and `UNITS` while the block runs."""
    jobs = [name for name, count in MARKED_BY_JOB.items() for _ in range(count)]
    with contextlib.ExitStack() as stack:
        for name in jobs:
            stack.enter_context(_running(*_PROGRAM, job=name))
        while _count_processes() < PROCESSES:
            stack.enter_context(_running("sleep", "3600"))
        units = sum(stack.enter_context(_group(f"bench-{number:02}.service")) for number in range(UNITS))
        yield Crowd(_count_processes(), len(jobs), units)


@contextmanager
def _running(*command: str, job: str = "") -> Iterator[None]:
    """One process; marked if a job is given."""
    environ = {key: value for key, value in os.environ.items() if key != "CARBON_JOB"}
    with subprocess.Popen(command, env={**environ, "CARBON_JOB": job} if job else environ) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def _group(name: str) -> Iterator[bool]:
    """An empty control group where the exporter looks for them; False where it may not be made."""
    hierarchy = find_hierarchy(Path("/sys"))
    path = hierarchy.cpu_root / name if hierarchy else None
    try:
        if path is not None:
            path.mkdir(exist_ok=True)
    except OSError:
        path = None
    try:
        yield path is not None
    finally:
        if path is not None:
            path.rmdir()


def _count_processes() -> int:
    return sum(entry.name.isdigit() for entry in Path("/proc").iterdir())
