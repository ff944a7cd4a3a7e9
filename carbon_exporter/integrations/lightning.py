"""PyTorch Lightning: what each epoch of `trainer.fit` costs.

    from carbon_exporter.integrations.lightning import CarbonCallback

    trainer = Trainer(max_epochs=90, callbacks=[CarbonCallback(budget="2 kWh")])

The run lasts from `setup` to `teardown` of a fit; validation within an epoch belongs to that epoch. Works with
`lightning` and with `pytorch_lightning`: where both are installed, the one that the script has loaded is taken.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from carbon_exporter.integrations.missing import missing
from carbon_exporter.integrations.training import HasRun, Training, left_of

__all__ = ["CarbonCallback"]


def _callback() -> Any:
    """The base class of callbacks, of the Lightning that is in use."""
    installed = [name for name in ("lightning", "pytorch_lightning") if name in sys.modules or find_spec(name)]
    loaded = [name for name in installed if name in sys.modules]
    home = (*loaded, *installed, "lightning")[0]
    try:
        return import_module("lightning.pytorch" if home == "lightning" else home).Callback
    except ImportError as error:
        raise missing(__name__, "lightning", error) from error


class CarbonCallback(_callback(), HasRun):  # type: ignore[misc] # known when it is loaded
    """Measures a fit as a `CarbonRun`, and hands it what the module has logged when an epoch ends.

    Args:
        name: Of the run; all ranks get the one of the first.
        options: Those of `CarbonRun`. Without them `model` is the module's class, `batch_size` and `learning_rate` are
            its hyperparameters of these names.

    Raises:
        ConfigError: an option that cannot be.
        BudgetExceeded: out of `fit`, before the next epoch begins, if `on_exceed` asks for that: what checkpoint
            callbacks save at the end of an epoch is saved then. All ranks stop with the first.
    """

    def __init__(self, name: str = "", **options: Any) -> None:
        """Measures nothing before a fit."""
        super().__init__()
        self._training = Training(name, options)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """A fit begins."""
        if stage == "fit":
            known = dict(getattr(pl_module, "hparams", {}) or {})
            self._training.begin(
                rank=trainer.global_rank if trainer.world_size > 1 else None,
                model=type(pl_module).__name__,
                batch_size=known.get("batch_size"),
                learning_rate=known.get("learning_rate", known.get("lr")),
            )

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002 - Lightning's signature
        """Loaders and checkpoint are there: so many epochs are ahead."""
        batches = trainer.num_training_batches
        steps = trainer.max_steps * trainer.accumulate_grad_batches
        by_steps = steps / batches if trainer.max_steps >= 0 and 0 < batches < float("inf") else None
        by_epochs = trainer.max_epochs if (trainer.max_epochs or -1) >= 0 else None
        self._training.plan(left_of(trainer.current_epoch, by_epochs, by_steps))

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002 - likewise
        """An epoch begins, or the budget forbids it."""
        self._training.begin_epoch()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002 - likewise
        """It ends with what was logged; checkpoint callbacks follow."""
        self._training.end_epoch(trainer.callback_metrics)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002 - likewise
        """An error ends the fit, and stays what it is."""
        self._training.end(exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002 - likewise
        """A fit has ended."""
        if stage == "fit":
            self._training.end()
