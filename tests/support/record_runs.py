"""Records what epochs of real trainings took, for the test of predictions: a small network that learns on this machine.

    PYTHONPATH=tests python -m support.record_runs [--seed 8] [--runs 10] [--batches 24] [--kinds steady ...]

Each epoch is a block of the SDK, whose energy is measured where there is a meter and estimated from load where there is
none; the file says which. `steady` epochs are all alike, `warming` ones make their data in the first, `alternating`
ones are followed by a validation at every second to fifth. Needs torch, and minutes. `sdk/recorded/runs.json` is of
two such recordings: seed 8, ten runs of each kind, epochs of 24 batches; and seed 9, eight of each, of 24 or 48: some
tenths of a second. `sdk/recorded/long_runs.json` has epochs of seconds: seed 10, twelve steady runs, 384 batches.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from carbon_exporter import carbon_span
from carbon_exporter.sdk.span import CarbonSpan
from carbon_exporter.units import JOULES_PER_KWH

KINDS = ("steady", "warming", "alternating")
LEAST_EPOCHS, MOST_EPOCHS = 20, 50
WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Task:
    """What a run does, batch by batch."""

    learn: Callable[[], None]
    validate: Callable[[], None]
    make_data: Callable[[], None]


def task(chance: random.Random) -> Task:
    """A small convolutional network on random pictures."""
    width, size = chance.choice([16, 24, 32]), chance.choice([24, 28, 32])
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, width, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten()
    ).append(torch.nn.Linear(16 * width, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    pictures, labels = torch.randn(32, 1, size, size), torch.randint(0, 10, (32,))

    def learn() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(pictures), labels).backward()  # type: ignore[no-untyped-call] # torch's own
        optimizer.step()

    def validate() -> None:
        with torch.no_grad():
            network(pictures)

    def make_data() -> None:
        for _ in range(4):
            torch.nn.functional.interpolate(torch.randn(32, 1, size, size), scale_factor=4.0, mode="bicubic")

    return Task(learn, validate, make_data)


def run(kind: str, chance: random.Random, choices: Sequence[int]) -> dict[str, object]:
    """One run: joules and seconds of each of its epochs."""
    work, epochs = task(chance), chance.randint(LEAST_EPOCHS, MOST_EPOCHS)
    batches, period = chance.choice(choices), chance.randint(2, 5)
    spans: list[CarbonSpan] = []
    for number in range(epochs):
        with carbon_span(f"epoch of a {kind} run") as span:
            for _ in range(batches):
                if kind == "warming" and number == 0:
                    work.make_data()
                work.learn()
            if kind == "alternating" and number % period == period - 1:
                for _ in range(batches):
                    work.validate()
        spans.append(span)
    return {"kind": kind, **told(spans)}


def told(spans: Sequence[CarbonSpan]) -> dict[str, object]:
    """Joules and seconds of each, when they are final, and how the last was measured."""
    for span in spans:
        span.wait(WAIT_SECONDS)
    return {
        "quality": spans[-1].quality,
        "joules": [round(span.energy_kwh * JOULES_PER_KWH, 4) for span in spans],
        "seconds": [round(span.duration_seconds, 5) for span in spans],
    }


def main() -> None:
    """Print the recording."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--runs", type=int, default=10, help="of each kind")
    parser.add_argument("--batches", type=int, nargs="+", default=[24], help="of an epoch")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(asked.seed)  # noqa: S311 - sizes, not secrets
    with carbon_span("warm") as warm:
        while warm.quality == "none":
            time.sleep(0.05)
    runs = [run(kind, chance, asked.batches) for _ in range(asked.runs) for kind in asked.kinds]
    sys.stdout.write("[\n " + ",\n ".join(map(json.dumps, runs)) + "\n]\n")


if __name__ == "__main__":
    main()
