"""Keras 3, on any backend: what each epoch of `model.fit` costs.

    from carbon_exporter.integrations.keras import CarbonCallback

    model.fit(x, y, epochs=90, callbacks=[CarbonCallback(budget="2 kWh")])

`history` and callbacks that come after it get `energy_kwh` and `co2e_grams`, of the run until now.
"""

from __future__ import annotations

from typing import Any

from carbon_exporter.integrations.missing import missing
from carbon_exporter.integrations.training import HasRunToEnd, Training

try:
    from keras.callbacks import Callback
except ImportError as error:
    raise missing(__name__, "keras", error) from error

__all__ = ["CarbonCallback"]


class CarbonCallback(Callback, HasRunToEnd):  # type: ignore[misc] # Keras has no types
    """Measures a fit as a `CarbonRun`, and hands it the metrics of each epoch.

    Keras tells callbacks nothing of an error in `fit`: the run then lasts until the next `fit` or the script's end,
    unless the callback stands in a `with`: `with CarbonCallback() as carbon: model.fit(…, callbacks=[carbon])`.

    Args:
        name: Of the run.
        options: Those of `CarbonRun`. Without it `model` is the model's name.

    Raises:
        ConfigError: an option that cannot be.
        BudgetExceeded: out of `fit`, if `on_exceed` is `stop`: the epoch ends as after `model.stop_training = True`, so
            that callbacks can save what there is.
    """

    def __init__(self, name: str = "", **options: Any) -> None:
        """Measures nothing before a fit."""
        super().__init__()
        self._training = Training(name, options)
        self._is_fresh = self._is_stopping = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - Keras' signature
        """A fit begins."""
        self._is_fresh, self._is_stopping = True, False
        self._training.begin(model=self.model.name)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - likewise
        """An epoch begins; the first says where the fit goes on."""
        if self._is_fresh:
            self._is_fresh = False
            self._training.plan(self._epochs - epoch)
        self._training.begin_epoch()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """It ends, validation included."""
        self._training.end_epoch(logs or {})
        if logs is not None:
            logs.update(self._training.until_now())
        if epoch + 1 < self._epochs and self._training.is_to_stop():
            self.model.stop_training = self._is_stopping = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - likewise
        """A fit has ended."""
        if self._is_stopping:
            self._training.begin_epoch()
        self._training.end()

    @property
    def _epochs(self) -> int:
        return int((self.params or {}).get("epochs") or 0)
