"""A script that tracks itself: works in a carbon span when it is told to, and says what it used and what it was told.

    python tracked.py --duty 0.6 --seconds 5

It opens its meters in a first span, says `ready`, waits for a line on stdin, works for so long in a second one, and
prints a line of JSON: when that began and ended (CLOCK_MONOTONIC), the CPU time of that while by rusage, and joules by
device. From `ready` until it is killed it is in a span, whatever it does.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from carbon_exporter import carbon_span
from carbon_exporter.units import JOULES_PER_KWH

__all__ = ["Report", "Tracked", "tracked"]


@dataclass(frozen=True, slots=True)
class Report:
    """What one such script says."""

    start: float
    end: float
    cpu_seconds: float
    joules: Mapping[str, float]
    """By device."""
    uncertainty: float
    quality: str
    path: str

    @property
    def whole(self) -> float:
        """Joules of all devices."""
        return sum(self.joules.values())


class Tracked:
    """One that runs and is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        assert self._line() == "ready"

    def go(self) -> None:
        """Let it work."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def report(self) -> Report:
        """What it says in the end."""
        return Report(**json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def tracked(environ: Mapping[str, str], duty: float, seconds: float) -> Iterator[Tracked]:
    """Runs one while the block runs."""
    command = [sys.executable, __file__, f"--duty={duty}", f"--seconds={seconds}"]
    with subprocess.Popen(
        command, env=dict(environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Tracked(process)
        finally:
            process.kill()


def work(duty: float, until: float) -> None:
    """Burn and rest in turns of a twentieth of a second."""
    while time.monotonic() < until:
        turn = time.process_time() + 0.05 * duty
        while time.process_time() < turn:
            sum(range(500))
        time.sleep(0.05 * (1 - duty))


def _cpu_seconds() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


def _path() -> str:
    from carbon_exporter.sdk import tracker  # noqa: PLC0415 - after the first span

    engine: Any = tracker.current().engine
    return str(engine.choice.path)


def main() -> None:
    """Read the command line, work, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--duty", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    with carbon_span("start"):
        time.sleep(2.5)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
    start, before = time.monotonic(), _cpu_seconds()
    with carbon_span("work") as span:
        work(arguments.duty, start + arguments.seconds)
    end, cpu_seconds = time.monotonic(), _cpu_seconds() - before
    with carbon_span("end"):
        span.wait(3.0)
        _report(span, start, end, cpu_seconds)
        sys.stdin.readline()


def _report(span: Any, start: float, end: float, cpu_seconds: float) -> None:
    joules = {device: kwh * JOULES_PER_KWH for device, kwh in span.energy_by_device.items()}
    said = {"start": start, "end": end, "cpu_seconds": cpu_seconds, "joules": joules}
    rest = {"uncertainty": span.uncertainty, "quality": span.quality, "path": _path()}
    sys.stdout.write(json.dumps({**said, **rest}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
