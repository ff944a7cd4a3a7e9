"""Trainings with Keras 3: four steps an epoch, then two of validation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from support.framework import BOARD, error_of, tell

from carbon_exporter import CarbonRun
from carbon_exporter.integrations.keras import CarbonCallback

STEP, LONG = 0.03, 0.1
"""Seconds; long enough that the edges of a training are nothing beside it."""
ROWS = np.ones((4, 1), "float32")


class Slow(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Steps that take their time; `fail` is the epoch in which one raises `error`. Notes what it hears of."""

    def __init__(self, fail: int = -1, error: type[BaseException] = KeyboardInterrupt, step: float = STEP) -> None:
        super().__init__()
        self.fail, self.error, self.step, self.epoch = fail, error, step, -1
        self.heard: list[str] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002 - Keras' signature
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002 - likewise
        if self.epoch == self.fail:
            raise self.error("the user's own")
        time.sleep(self.step)

    def on_test_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002 - likewise
        time.sleep(self.step)

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.heard.append(f"{epoch}: {sorted(dict(logs or {}))}")  # type: ignore[call-overload]


def fit(carbon: CarbonCallback, slow: Slow | None = None, **how: Any) -> tuple[str, dict[str, list[float]]]:
    """What it raised, and its history."""
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)], name="probe")
    model.compile("sgd", "mse")
    arguments: dict[str, Any] = {"epochs": 3, "batch_size": 1, "verbose": 0, "validation_data": (ROWS[:2], ROWS[:2])}
    callbacks = [carbon, slow or Slow()]
    raised = error_of(lambda: model.fit(ROWS, ROWS, callbacks=callbacks, **{**arguments, **how}))
    return raised, model.history.history


def whole() -> tuple[CarbonCallback, Mapping[str, Any]]:
    carbon = CarbonCallback(devices=BOARD, summary="none")
    raised, history = fit(carbon, Slow(step=LONG))
    return carbon, {"raised": raised, "history": history, "planned": _planned(carbon)}


def stopped() -> tuple[CarbonCallback, Mapping[str, Any]]:
    carbon = CarbonCallback(devices=BOARD, summary="none", budget="0.001 Wh", on_exceed="stop")
    slow = Slow()
    raised, history = fit(carbon, slow)
    return carbon, {"raised": raised, "history": history, "heard": slow.heard}


def last_epoch() -> tuple[CarbonCallback, Mapping[str, Any]]:
    carbon = CarbonCallback(devices=BOARD, summary="none", budget="0.001 Wh", on_exceed="stop")
    return carbon, {"raised": fit(carbon, epochs=1)[0]}


def interrupted() -> tuple[CarbonCallback, Mapping[str, Any]]:
    with CarbonCallback(devices=BOARD, summary="none") as carbon:
        raised, _ = fit(carbon, Slow(fail=1))
    return carbon, {"raised": raised}


def resumed() -> tuple[CarbonCallback, Mapping[str, Any]]:
    """After an error that no `with` saw: that run is ended when the next begins."""
    carbon = CarbonCallback(devices=BOARD, summary="none")
    raised, _ = fit(carbon, Slow(fail=1, error=ZeroDivisionError))
    first = carbon.run
    again, _ = fit(carbon, epochs=5, initial_epoch=3)
    assert first is not carbon.run
    assert CarbonRun.current() is None
    return carbon, {"raised": raised, "again": again, "planned": _planned(carbon)}


def _planned(carbon: CarbonCallback) -> int | None:
    ahead = carbon.run.prediction if carbon.run else None
    return ahead.epochs if ahead else None


if __name__ == "__main__":
    tell(whole, stopped, last_epoch, interrupted, resumed)
