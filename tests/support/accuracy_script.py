"""A script that measures itself and says what it was told of each span, beside its own notes of when that was.

    python accuracy_script.py --length 0.3 --spans 25 --seed 7 --duty 0.2

It warms up, then opens one span at a time, at random phases. At the exit it takes the span's numbers at once, and
again when they are settled. Each span is a line of JSON (`Told`). With a duty it computes for that part of each 10 ms,
all the time, and notes its CPU time along the way; without, it sleeps and leaves the work to the board.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from carbon_exporter import carbon_span
from carbon_exporter.sdk.span import CarbonSpan
from carbon_exporter.units import JOULES_PER_KWH

__all__ = ["Numbers", "Told"]

WARM_UP_SECONDS = 6.0
"""For imports, the counter's rhythm, and as many intervals as the bounds want to have seen."""
PAUSE_SECONDS = 1.9
"""At the most, between two spans: a period of the load."""
TURN_SECONDS = 0.01
PATIENCE_SECONDS = 30.0
"""For the start, and for each span besides its length: then it ends, and says where each of its threads stands."""
_WORK = b"\0" * 65536


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a span said."""

    joules: Mapping[str, float]
    """By device."""
    uncertainty: float


@dataclass(frozen=True, slots=True)
class Told:
    """One span. Moments are of CLOCK_MONOTONIC, taken right before and right after the edge."""

    start: tuple[float, float]
    end: tuple[float, float]
    steps: list[tuple[float, float]]
    """Moments and this process's CPU seconds then, from before the start to after the end."""
    left: Numbers
    settled: Numbers


def measure(seconds: float, duty: float) -> Told:
    """One span of so many seconds."""
    steps = [(time.monotonic(), time.process_time())]
    span = carbon_span("work")
    begun = time.monotonic()
    with span:
        start = (begun, time.monotonic())
        work(begun + seconds, duty, steps)
        ended = time.monotonic()
    end = (ended, time.monotonic())
    left = numbers(span)
    steps.append((time.monotonic(), time.process_time()))
    while not span.settled:
        work(time.monotonic() + TURN_SECONDS, duty, [])
    return Told(start, end, steps, left, numbers(span))


def work(until: float, duty: float, steps: list[tuple[float, float]]) -> None:
    """Compute for `duty` of the time; without any, sleep. The GIL is free meanwhile, as it is in a framework."""
    if not duty:
        time.sleep(max(0.0, until - time.monotonic()))
    while time.monotonic() < until:
        turn = time.monotonic() + TURN_SECONDS
        enough = time.process_time() + TURN_SECONDS * duty
        while time.process_time() < enough and time.monotonic() < until:
            hashlib.sha256(_WORK).digest()
        time.sleep(max(0.0, min(turn, until) - time.monotonic()))
        steps.append((time.monotonic(), time.process_time()))


def numbers(span: CarbonSpan) -> Numbers:
    """What it says now."""
    uncertainty = span.uncertainty
    return Numbers({name: kwh * JOULES_PER_KWH for name, kwh in span.energy_by_device.items()}, uncertainty)


def main() -> None:
    """Read the command line, measure, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--length", type=float, required=True)
    parser.add_argument("--spans", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--duty", type=float, default=0.0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)  # noqa: S311 - moments, not secrets
    longest = arguments.length + PAUSE_SECONDS + PATIENCE_SECONDS
    faulthandler.dump_traceback_later(WARM_UP_SECONDS + 2 * PATIENCE_SECONDS, exit=True)
    if arguments.duty:
        with contextlib.suppress(OSError):
            os.nice(-15)  # its work is to be steady, whatever else the machine does
    with carbon_span("start") as start:
        while start.quality == "none":
            work(time.monotonic() + TURN_SECONDS, arguments.duty, [])
        work(time.monotonic() + WARM_UP_SECONDS, arguments.duty, [])
    for _ in range(arguments.spans):
        faulthandler.dump_traceback_later(longest, exit=True)
        work(time.monotonic() + chance.uniform(0.0, PAUSE_SECONDS), arguments.duty, [])
        sys.stdout.write(json.dumps(asdict(measure(arguments.length, arguments.duty))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
