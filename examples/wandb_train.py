"""A run whose energy, CO2e and cost stand in Weights & Biases beside its loss.

    WANDB_MODE=offline python examples/wandb_train.py --epochs 5

`log_to="wandb"` is all: the W&B run that is active gets `carbon/energy_kwh`, `carbon/co2e_grams`, `carbon/cost` and
more in its history, over `carbon/epoch`.
"""

from __future__ import annotations

import argparse
import random

import wandb

from carbon_exporter import CarbonRun


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=200_000)
    given = parser.parse_args()
    slope, rows = 0.0, [random.random() for _ in range(given.rows)]  # noqa: S311 - nothing secret
    with (
        wandb.init(project="carbon") as logged,
        CarbonRun(epochs=given.epochs, model="line", tariff="0.31 EUR", log_to="wandb") as run,
    ):
        for _ in run.epochs(range(given.epochs)):
            total = 0.0
            for x in rows:  # the line to be found is y = 3 x
                error = slope * x - 3 * x
                slope -= 0.00001 * error * x
                total += error * error
            logged.log({"loss": total / given.rows})
    print(f"W&B run {logged.id}: {run.energy_kwh:.3g} kWh")


if __name__ == "__main__":
    main()
