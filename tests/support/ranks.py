"""A rank of a training: works in epochs of a `CarbonRun`, and says what it used. Started as torchrun starts one.

    RANK=0 WORLD_SIZE=2 TORCHELASTIC_RUN_ID=7f3a python ranks.py EPOCHS SECONDS [FIRST]

It prints `working` once its meters are there, waits for a line, and in the end a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time

from carbon_exporter import CarbonRun, carbon_span


def main(epochs: int, seconds: float, first: int = 0) -> None:
    with carbon_span("start") as start:
        time.sleep(0.3)
    start.wait(15)
    sys.stdout.write("working\n")
    sys.stdout.flush()
    sys.stdin.readline()
    with CarbonRun(model="probe", dataset="noise", batch_size=32, epochs=epochs, summary="line") as run:
        begun = time.monotonic()
        for epoch in run.epochs(range(first, epochs)):
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(0.02)
            run.record(loss=1.0 / (epoch + 1))
    run.wait(10)
    told = {**run.to_dict(), "begun": begun, "ended": begun + run.duration_seconds}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), *map(int, sys.argv[3:]))
