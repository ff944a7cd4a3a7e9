"""Records what epochs of steady trainings took whose pace the board sets, for the test of predictions.

    PYTHONPATH=tests python -m support.record_paced_runs [--seed 11] [--runs 12]

A processor that others share is never steady (record_runs.py records such trainings); a board that one job holds is.
Each run is a small network that learns on this machine, a batch every 30 ms as if it waited for the board; the board is
emulated (fakenvml.py) and draws a constant power, or swings between two within each few batches. All else is as it
happens: the clock, what else runs on this machine, its estimated processor, and the SDK, which measures each epoch as a
block. `sdk/recorded/paced_runs.json` is of one such recording. Needs torch, gcc and minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from support.fakenvml import Board, FakeNvml, load_in_process
from support.record_runs import LEAST_EPOCHS, MOST_EPOCHS, task, told

from carbon_exporter import carbon_span

BATCH_SECONDS = 0.03
BATCHES = (20, 40, 60)
WATTS = (150.0, 250.0, 400.0, 650.0)
SWING_BATCHES = 8


def load(board: Board, chance: random.Random) -> str:
    """Let the board draw as one of these trainings would; what that is in words."""
    watts = chance.choice(WATTS)
    if chance.random() < 0.5:
        board.constant(watts)
        return f"{watts:g} W"
    board.square(0.4 * watts, watts, SWING_BATCHES * BATCH_SECONDS)
    return f"{0.4 * watts:g} and {watts:g} W in turn, {SWING_BATCHES * BATCH_SECONDS:g} s"


def epoch(learn: Callable[[], None], batches: int) -> None:
    """One after the other, each when the board is ready for it."""
    due = time.monotonic()
    for _ in range(batches):
        learn()
        due += BATCH_SECONDS
        time.sleep(max(0.0, due - time.monotonic()))


def run(board: Board, chance: random.Random) -> dict[str, object]:
    """One run: joules and seconds of each of its epochs."""
    draws, learn = load(board, chance), task(chance).learn
    epochs, batches = chance.randint(LEAST_EPOCHS, MOST_EPOCHS), chance.choice(BATCHES)
    spans = []
    for _ in range(epochs):
        with carbon_span("epoch of a paced run") as span:
            epoch(learn, batches)
        spans.append(span)
    return {"kind": "steady", "board": draws, **told(spans)}


def main() -> None:
    """Print the recording."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--runs", type=int, default=12)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(asked.seed)  # noqa: S311 - sizes, not secrets
    with tempfile.TemporaryDirectory() as folder:
        fake = FakeNvml(Path(folder) / "nvml", boards=1)
        os.environ["FAKENVML_STATE"], os.environ["CUDA_VISIBLE_DEVICES"] = str(fake.path), "0"
        load_in_process(fake)
        with carbon_span("warm") as warm:
            while "gpu0" not in warm.energy_by_device:
                time.sleep(0.05)
        runs = [run(fake.boards[0], chance) for _ in range(asked.runs)]
    sys.stdout.write("[\n " + ",\n ".join(map(json.dumps, runs)) + "\n]\n")


if __name__ == "__main__":
    main()
