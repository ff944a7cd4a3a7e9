"""A small training with Accelerate, on one process or several; each is a rank of one run.

    python examples/accelerate_train.py --epochs 5
    accelerate launch --cpu --num_processes 2 examples/accelerate_train.py

Three lines are ours: the import, the tracker, and the loop over `carbon.epochs`.
"""

from __future__ import annotations

import argparse

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from carbon_exporter import BudgetExceeded
from carbon_exporter.integrations.accelerate import CarbonTracker


def data(rows: int) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Points in a plane; whether they lie within a circle is the label."""
    points = torch.randn(rows, 2, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(points, (points.norm(dim=1) < 1).float().unsqueeze(1)), batch_size=64)


def train(accelerator: Accelerator, carbon: CarbonTracker, epochs: int, rows: int) -> None:
    """The loop that everybody knows."""
    model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1))
    model, optimizer, loader = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=0.01), data(rows))
    for _ in carbon.epochs(range(epochs)):
        for points, labels in loader:
            loss = nn.functional.binary_cross_entropy_with_logits(model(points), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
        accelerator.log({"loss": loss.item()})


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--budget", metavar="AMOUNT", help='such as "1 Wh" or "5 g"')
    arguments = parser.parse_args()
    carbon = CarbonTracker(model="mlp", dataset="disc", budget=arguments.budget, on_exceed="stop")
    accelerator = Accelerator(cpu=True, log_with=carbon)
    accelerator.init_trackers("disc", config={"batch_size": 64, "learning_rate": 0.01})
    try:
        train(accelerator, carbon, arguments.epochs, arguments.rows)
    except BudgetExceeded as exceeded:
        accelerator.print(f"{exceeded.reason}; the training ends")
    accelerator.end_training()


if __name__ == "__main__":
    main()
