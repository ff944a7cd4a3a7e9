"""Uses a known part of one CPU until stopped, and writes down what it really used.

    python burner.py FILE --duty 0.6 [--children]

FILE gets a line `monotonic cpu_seconds` (rusage of itself and of its waited-for children) every quarter of a second.
With --children the work is done by short-lived children, one after the other.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

__all__ = ["cpu_seconds_between"]


def cpu_seconds_between(file: Path, start: float, end: float) -> float:
    """What a burner used from `start` to `end` on CLOCK_MONOTONIC, interpolated between its lines."""
    lines = [tuple(map(float, line.split())) for line in file.read_text().splitlines() if line.count(" ") == 1]
    return _at(lines, end) - _at(lines, start)


def _at(lines: list[tuple[float, ...]], moment: float) -> float:
    after = next(index for index, (at, _) in enumerate(lines) if at >= moment)
    (t0, c0), (t1, c1) = lines[after - 1], lines[after]
    return c0 + (c1 - c0) * (moment - t0) / (t1 - t0)


def burn(seconds: float) -> None:
    """Use this much CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(500))


def burn_in_child(seconds: float) -> None:
    """The same in a child that is waited for."""
    child = os.fork()
    if child == 0:
        burn(seconds)
        os._exit(0)
    os.waitpid(child, 0)


def main() -> None:
    """Work and rest in turns of a twentieth of a second."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--duty", type=float, required=True)
    parser.add_argument("--children", action="store_true")
    arguments = parser.parse_args()
    turn = 0.05
    work = burn_in_child if arguments.children else burn
    begun = time.monotonic()
    noted = 0.0
    with arguments.file.open("w") as file:
        while True:
            mine, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
            used = mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime
            now = time.monotonic()
            if now - noted >= 0.25:
                file.write(f"{now} {used}\n")
                file.flush()
                noted = now
            owed = arguments.duty * (now - begun) - used
            if owed > 0:
                work(min(owed, turn))
            else:
                time.sleep(turn / 4)


if __name__ == "__main__":
    main()
