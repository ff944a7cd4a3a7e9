"""A run whose energy, CO2e and cost stand in MLflow beside its loss.

    MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python examples/mlflow_train.py --epochs 5

`log_to="mlflow"` is all: the MLflow run that is active gets `carbon/energy_kwh`, `carbon/co2e_grams`, `carbon/cost` and
more as metrics, with epochs as steps.
"""

from __future__ import annotations

import argparse
import random

import mlflow

from carbon_exporter import CarbonRun


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=200_000)
    given = parser.parse_args()
    slope, rows = 0.0, [random.random() for _ in range(given.rows)]  # noqa: S311 - nothing secret
    with (
        mlflow.start_run() as logged,
        CarbonRun(epochs=given.epochs, model="line", tariff="0.31 EUR", log_to="mlflow") as run,
    ):
        for epoch in run.epochs(range(given.epochs)):
            total = 0.0
            for x in rows:  # the line to be found is y = 3 x
                error = slope * x - 3 * x
                slope -= 0.00001 * error * x
                total += error * error
            mlflow.log_metric("loss", total / given.rows, step=epoch)
    print(f"MLflow run {logged.info.run_id}: {run.energy_kwh:.3g} kWh")


if __name__ == "__main__":
    main()
