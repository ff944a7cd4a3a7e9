"""Hugging Face Trainer: what each epoch of `trainer.train` costs, in its log and in the model card.

    from carbon_exporter.integrations.transformers import CarbonCallback

    trainer = CarbonCallback(training_type="fine-tuning").attach(Trainer(...))

`Trainer(callbacks=[CarbonCallback()])` measures as well, and leaves the card alone. Entries of the Trainer's
`state.log_history` get `energy_kwh` and `co2e_grams`, of the run until then.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from carbon_exporter.integrations import processes
from carbon_exporter.integrations.missing import missing
from carbon_exporter.integrations.model_card import Share, TrainingType, emissions, share_of, training_type_of
from carbon_exporter.integrations.training import HasRunToEnd, Training
from carbon_exporter.sdk.trouble import trouble

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise missing(__name__, "transformers accelerate", error) from error

__all__ = ["CarbonCallback"]

_Trainer = TypeVar("_Trainer")
SETTLE_SECONDS = 1.0
"""How long a card waits for the last readings, at the most."""
SHARE_PATIENCE = timedelta(seconds=10)
"""How long a rank waits for what the others have used."""


class CarbonCallback(TrainerCallback, HasRunToEnd):  # type: ignore[misc] # Transformers is not always there
    """Measures a training as a `CarbonRun`, and hands it what the Trainer has logged.

    A Trainer tells callbacks nothing of an error in `train`: the run then lasts until the next `train` or the script's
    end, unless the callback stands in a `with`, which ends it: `with CarbonCallback() as carbon: …`.

    Args:
        name: Of the run; all ranks get the one of the first.
        training_type: For the card: `pre-training` or `fine-tuning`.
        geographical_location: For the card; without it the region that is configured, if one is. It is never guessed.
        options: Those of `CarbonRun`. Without them `model` is the model's name on the Hub, or its class; `batch_size`
            that of a step of all devices; `learning_rate` that of the arguments.

    Raises:
        ConfigError: an option that cannot be.
        BudgetExceeded: out of `train`, if `on_exceed` is `stop`: the training ends after the epoch as if
            `should_training_stop` were set, with a checkpoint unless `save_strategy` is `no`.
    """

    def __init__(
        self, name: str = "", *, training_type: TrainingType = "", geographical_location: str = "", **options: Any
    ) -> None:
        """Measures nothing before a training."""
        self._training = Training(name, options)
        self._kind, self._place = training_type_of(training_type), geographical_location
        self._is_stopping = False
        self._others: list[Share] = []

    def attach(self, trainer: _Trainer) -> _Trainer:
        """The same trainer, with this callback; cards that it makes or pushes to the Hub get `co2_eq_emissions`."""
        anything: Any = trainer
        anything.add_callback(self)
        make = anything.create_model_card

        @functools.wraps(make)
        def create_model_card(*args: Any, **kwargs: Any) -> Any:
            made = make(*args, **kwargs)
            if anything.is_world_process_zero():
                self.fill_model_card(anything.args.output_dir)
            return made

        anything.create_model_card = create_model_card
        return trainer

    def fill_model_card(self, place: str | Path) -> None:
        """Put `co2_eq_emissions` into a card: its file, or a directory with its README.md. Never raises."""
        try:
            if self.run is None:
                return
            from huggingface_hub import repocard  # noqa: PLC0415 - who has Transformers has it

            card = Path(place) / "README.md" if Path(place).is_dir() else Path(place)
            self.run.wait(SETTLE_SECONDS)
            block = emissions(self.run, self._others, training_type=self._kind, geographical_location=self._place)
            repocard.metadata_save(card, {**(repocard.metadata_load(card) or {}), "co2_eq_emissions": block})
        except Exception as error:  # noqa: BLE001 - a guest does not break the house
            trouble("filling the model card", error)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002 - its signature
        """A training begins; a checkpoint that it goes on from is read already."""
        self._is_stopping, self._others = False, []
        step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        self._training.begin(model=_name_of(kwargs.get("model")), batch_size=step, learning_rate=args.learning_rate)
        self._training.plan(max(0, state.num_train_epochs - int(state.epoch or 0)))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - likewise
        """An epoch begins."""
        self._training.begin_epoch()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002 - likewise
        """Values were logged."""
        self._training.record({name: value for name, value in (logs or {}).items() if name.endswith(_KEPT)})
        if state.log_history:
            state.log_history[-1].update(self._training.until_now())

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """It ends; evaluation and checkpoint follow."""
        self._training.end_epoch({})
        if state.global_step < state.max_steps and self._training.is_to_stop():
            self._is_stopping = control.should_training_stop = True
            control.should_save = control.should_save or args.save_strategy != "no"

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - likewise
        """A training has ended."""
        try:
            if self._is_stopping:
                self._training.begin_epoch()
        finally:
            self._training.end()
            self._hear()

    def _hear(self) -> None:
        """What the other ranks have used, for the card that the first one makes."""
        try:
            if self.run is not None:
                _, *others = processes.gathered("share", share_of(self.run).told(), SHARE_PATIENCE)
                self._others = [Share.of(one) for one in others]
        except Exception as error:  # noqa: BLE001 - a guest does not break the house
            trouble("hearing of other ranks", error)


_KEPT = ("loss", "accuracy", "f1", "perplexity", "learning_rate", "grad_norm")
"""How those names of the log end that a run keeps: what the Trainer says of its speed is not among them."""


def _name_of(model: Any) -> str:
    """As the Hub has it; the class of one that was read from a directory or is new."""
    name = str(getattr(getattr(model, "config", None), "name_or_path", ""))
    return name if name and not Path(name).exists() else type(model).__name__
