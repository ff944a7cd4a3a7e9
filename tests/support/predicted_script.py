"""A run of steps of 50 ms on a board, which prints what it expected after a fifth of its epochs, and what it took.

    python predicted_script.py KIND

It says `ready` once it measures, and begins when it is told to: nine that load their modules at once are no company for
a first epoch. `steady` epochs are all alike, of `warming` ones the first is three times as long, of `alternating` ones
every third is half as long again.
"""

from __future__ import annotations

import json
import sys
import time

from carbon_exporter import CarbonRun, carbon_span
from carbon_exporter.sdk.prediction import Range

__all__ = ["KINDS"]

KINDS = ("steady", "warming", "alternating")
EPOCHS, STEPS, STEP_SECONDS = 30, 12, 0.05


def steps_of(kind: str, epoch: int) -> int:
    """How many steps an epoch has."""
    if kind == "warming" and epoch == 0:
        return 3 * STEPS
    return STEPS + STEPS // 2 if kind == "alternating" and epoch % 3 == 2 else STEPS


def main() -> None:
    """Run, and print a line of JSON."""
    with carbon_span("ready") as ready:
        while ready.quality == "none":
            time.sleep(STEP_SECONDS)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    expected: dict[str, Range] = {}
    with CarbonRun(sys.argv[1], epochs=EPOCHS, summary="none") as run:
        for epoch in run.epochs(range(EPOCHS)):
            for _ in range(steps_of(sys.argv[1], epoch)):
                time.sleep(STEP_SECONDS)
            told = run.prediction
            if told is not None and told.done >= EPOCHS // 5 and not expected:
                expected = {"kwh": told.energy_kwh, "end": told.end}
        ended = time.time()
    run.wait(10.0)
    sys.stdout.write(json.dumps({"end": ended, "kwh": run.energy_kwh, "expected": expected}))


if __name__ == "__main__":
    main()
