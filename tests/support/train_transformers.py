"""Trainings with the Hugging Face Trainer: four steps an epoch, of a model with one weight."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.repocard import metadata_load
from support.framework import BOARD, error_of, tell
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from carbon_exporter.integrations.transformers import CarbonCallback

STEP, LONG = 0.03, 0.2
"""Seconds; long enough that the edges of a training are nothing beside it."""


class Probe(PreTrainedModel):  # type: ignore[misc] # Transformers is not always there
    """One weight; `fail` is the step that raises."""

    config_class = PretrainedConfig

    def __init__(self, fail: int = -1, step: float = STEP) -> None:
        super().__init__(PretrainedConfig())
        self.layer, self.fail, self.step, self.steps = torch.nn.Linear(1, 1), fail, step, 0
        self.post_init()

    def forward(self, x: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        self.steps += self.training
        if self.steps == self.fail:
            raise ZeroDivisionError("the user's own")
        time.sleep(self.step)
        return {"loss": self.layer(x).square().mean()}


class Heard(TrainerCallback):  # type: ignore[misc] # likewise
    """Whether others are told that the training has ended."""

    ended = False

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.ended = True


def trainer(name: str, *, fail: int = -1, step: float = STEP, **how: Any) -> Trainer:
    """With a checkpoint and a line in the log after each epoch."""
    quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True}
    given = {"num_train_epochs": 2, "save_strategy": "epoch", "logging_strategy": "epoch", "learning_rate": 1e-3, **how}
    arguments = TrainingArguments(name, per_device_train_batch_size=2, **quiet, **given)
    rows = [{"x": torch.ones(1)} for _ in range(8)]
    return Trainer(Probe(fail, step), arguments, train_dataset=rows, callbacks=[Heard()])


def whole() -> tuple[CarbonCallback, Mapping[str, Any]]:
    carbon = CarbonCallback(devices=BOARD, summary="none", training_type="pre-training")
    made = carbon.attach(trainer("whole", step=LONG))
    raised = error_of(made.train)
    made.create_model_card(tags=["probe"])
    card, text = metadata_load("whole/README.md"), Path("whole/README.md").read_text()
    return carbon, {"raised": raised, "history": made.state.log_history, "card": card, "text": text}


def by_steps() -> tuple[CarbonCallback, Mapping[str, Any]]:
    """An epoch and a half."""
    carbon = CarbonCallback(devices=BOARD, summary="none")
    made = carbon.attach(trainer("by_steps", max_steps=6))
    raised = error_of(made.train)
    ahead = carbon.run.prediction if carbon.run else None
    return carbon, {"raised": raised, "planned": ahead.epochs if ahead else None, "epoch": made.state.epoch}


def stopped() -> tuple[CarbonCallback, Mapping[str, Any]]:
    carbon = CarbonCallback(devices=BOARD, summary="none", budget="0.001 Wh", on_exceed="stop")
    made = carbon.attach(trainer("stopped", save_strategy="steps", save_steps=500))
    raised = error_of(made.train)
    ended = [one.ended for one in made.callback_handler.callbacks if isinstance(one, Heard)]
    return carbon, {"raised": raised, "saved": [path.name for path in Path("stopped").iterdir()], "ended": ended}


def failed() -> tuple[CarbonCallback, Mapping[str, Any]]:
    with CarbonCallback(devices=BOARD, summary="none") as carbon:
        raised = error_of(carbon.attach(trainer("failed", fail=6)).train)
    return carbon, {"raised": raised}


def resumed() -> tuple[CarbonCallback, Mapping[str, Any]]:
    """From the checkpoint after the first epoch."""
    carbon = CarbonCallback(devices=BOARD, summary="none")
    made = carbon.attach(trainer("failed"))
    raised = error_of(lambda: made.train(resume_from_checkpoint=True))
    ahead = carbon.run.prediction if carbon.run else None
    return carbon, {"raised": raised, "planned": ahead.epochs if ahead else None}


if __name__ == "__main__":
    tell(whole, by_steps, stopped, failed, resumed)
