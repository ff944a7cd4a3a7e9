"""A small training with PyTorch Lightning: what each epoch cost, and a budget that ends it after a checkpoint.

    python examples/lightning_train.py --epochs 5
    python examples/lightning_train.py --epochs 50 --budget "1 Wh"

Two lines are ours: the import, and the callback.
"""

from __future__ import annotations

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from carbon_exporter import BudgetExceeded
from carbon_exporter.integrations.lightning import CarbonCallback


class Disc(LightningModule):
    """Whether a point lies within a circle."""

    def __init__(self, learning_rate: float = 0.01, batch_size: int = 64) -> None:  # noqa: ARG002 - hyperparameters
        """The hyperparameters are found by the callback."""
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1))

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """One batch's loss."""
        loss = nn.functional.binary_cross_entropy_with_logits(self.layers(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        """How many are right."""
        self.log("accuracy", ((self.layers(batch[0]) > 0) == (batch[1] > 0)).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.hparams["learning_rate"])


def data(rows: int, seed: int) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Points in a plane and their labels."""
    points = torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(points, (points.norm(dim=1) < 1).float().unsqueeze(1)), batch_size=64)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--budget", metavar="AMOUNT", help='such as "1 Wh" or "5 g"')
    parser.add_argument("--directory", default="checkpoints", metavar="DIR")
    arguments = parser.parse_args()
    carbon = CarbonCallback(dataset="disc", budget=arguments.budget, on_exceed="stop")
    checkpoint = ModelCheckpoint(arguments.directory, save_last=True)
    trainer = Trainer(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        callbacks=[carbon, checkpoint],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        trainer.fit(Disc(), data(arguments.rows, 1), data(512, 2))
    except BudgetExceeded as exceeded:
        print(f"{exceeded.reason}; {checkpoint.last_model_path} has what was learnt")


if __name__ == "__main__":
    main()
