"""Trainings with Accelerate: epochs in a loop of the script's own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from support.framework import BOARD, error_of, tell

from carbon_exporter.integrations.accelerate import CarbonTracker


def train(carbon: CarbonTracker, fail: int = -1, seconds: float = 0.15) -> str:
    """What it raised."""
    accelerator = Accelerator(cpu=True, log_with=carbon)
    accelerator.init_trackers("probe", config={"batch_size": 4, "learning_rate": 0.1, "layers": None})

    def loop() -> None:
        for epoch in carbon.epochs(range(3)):
            if epoch == fail:
                raise ZeroDivisionError("the user's own")
            time.sleep(seconds)
            accelerator.log({"loss": 1 / (epoch + 1), "note": "text"}, step=epoch)

    raised = error_of(loop)
    time.sleep(0.1)
    assert accelerator.get_tracker("carbon", unwrap=True) is carbon.run
    accelerator.end_training()
    return raised


def whole() -> tuple[CarbonTracker, Mapping[str, Any]]:
    carbon = CarbonTracker(devices=BOARD, summary="none", model="probe")
    return carbon, {"raised": train(carbon, seconds=0.6)}


def stopped() -> tuple[CarbonTracker, Mapping[str, Any]]:
    carbon = CarbonTracker(devices=BOARD, summary="none", budget="0.001 Wh", on_exceed="stop")
    return carbon, {"raised": train(carbon)}


def failed() -> tuple[CarbonTracker, Mapping[str, Any]]:
    carbon = CarbonTracker(devices=BOARD, summary="none")
    return carbon, {"raised": train(carbon, fail=1)}


if __name__ == "__main__":
    tell(whole, stopped, failed)
