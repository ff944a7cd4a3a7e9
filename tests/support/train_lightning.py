"""Trainings with PyTorch Lightning: five steps an epoch, then two of validation."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from support.framework import BOARD, error_of, tell
from torch.utils.data import DataLoader

from carbon_exporter.integrations.lightning import CarbonCallback

STEP, LONG = 0.03, 0.1
"""Seconds; long enough that the edges of a training are nothing beside it."""


class Probe(LightningModule):  # type: ignore[misc] # it has no types here
    """One weight; `fail` is the epoch in which a step raises."""

    def __init__(self, learning_rate: float = 0.1, fail: int = -1, step: float = STEP) -> None:  # noqa: ARG002
        super().__init__()
        self.save_hyperparameters()
        self.layer, self.fail, self.step = torch.nn.Linear(1, 1), fail, step

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        if self.current_epoch == self.fail:
            raise ZeroDivisionError("the user's own")
        time.sleep(self.step)
        loss: torch.Tensor = self.layer(batch).square().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        time.sleep(self.step)
        self.log("val_loss", self.layer(batch).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(carbon: CarbonCallback, *others: Any, fail: int = -1, step: float = STEP, **how: Any) -> str:
    """What it raised."""
    rows: Any = torch.ones(5, 1)
    trainer = Trainer(
        **{"max_epochs": 3, **how},
        callbacks=[carbon, *others],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=bool(others),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return error_of(lambda: trainer.fit(Probe(fail=fail, step=step), DataLoader(rows), DataLoader(rows[:2])))


def whole() -> tuple[CarbonCallback, Mapping[str, Any]]:
    carbon = CarbonCallback(devices=BOARD, summary="none", dataset="ones")
    return carbon, {"raised": fit(carbon, step=LONG), "planned": _planned(carbon)}


def stopped() -> tuple[CarbonCallback, Mapping[str, Any]]:
    saved: list[bool] = []
    carbon = CarbonCallback(
        devices=BOARD,
        summary="none",
        budget="0.001 Wh",
        on_exceed="stop",
        checkpoint=lambda _: saved.append(Path("stopped/last.ckpt").exists()),
    )
    raised = fit(carbon, ModelCheckpoint("stopped", save_last=True))
    return carbon, {"raised": raised, "saved": saved}


def warned() -> tuple[CarbonCallback, Mapping[str, Any]]:
    carbon = CarbonCallback(devices=BOARD, summary="none", budget="0.001 Wh")
    return carbon, {"raised": fit(carbon, max_epochs=2)}


def failed() -> tuple[CarbonCallback, Mapping[str, Any]]:
    carbon = CarbonCallback(devices=BOARD, summary="none")
    return carbon, {"raised": fit(carbon, fail=1)}


def by_steps() -> tuple[CarbonCallback, Mapping[str, Any]]:
    """Two epochs and a half."""
    carbon = CarbonCallback(devices=BOARD, summary="none")
    raised = fit(carbon, max_steps=12, max_epochs=-1)
    return carbon, {"raised": raised, "planned": _planned(carbon)}


def _planned(carbon: CarbonCallback) -> int | None:
    ahead = carbon.run.prediction if carbon.run else None
    return ahead.epochs if ahead else None


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    tell(whole, stopped, warned, failed, by_steps)
