"""A whole training as a run: what it cost, what it will cost, and a budget that ends it after a checkpoint.

    python examples/train_run.py --epochs 5
    python examples/train_run.py --epochs 50 --budget "1 Wh" --checkpoint last.pt

Four lines are ours: the import, the `with`, the loop over `run.epochs`, and `run.record`. A line on stderr says what it
cost; with an exporter on the node, Prometheus has `carbon_run_energy_kwh_total` and what is predicted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from carbon_exporter import BudgetExceeded, CarbonRun


def data(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points in a plane; whether they lie within a circle is the label."""
    points = torch.randn(rows, 2, generator=torch.Generator().manual_seed(1))
    return points, (points.norm(dim=1) < 1).float().unsqueeze(1)


def train(run: CarbonRun, model: nn.Module, rows: int, epochs: int, learning_rate: float) -> None:
    """The loop that everybody knows."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    points, labels = data(rows)
    for _ in run.epochs(range(epochs)):
        total = 0.0
        for start in range(0, rows, 64):
            loss = nn.functional.binary_cross_entropy_with_logits(
                model(points[start : start + 64]), labels[start : start + 64]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * 64
        run.record(loss=total / rows)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--budget", metavar="AMOUNT", help='such as "1 Wh" or "5 g"')
    parser.add_argument("--checkpoint", type=Path, default=Path("last.pt"), metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    run = CarbonRun(
        epochs=arguments.epochs,
        model="mlp",
        dataset="disc",
        batch_size=64,
        learning_rate=arguments.learning_rate,
        budget=arguments.budget,
        on_exceed="stop",
        checkpoint=lambda _: torch.save(model.state_dict(), arguments.checkpoint),
    )
    try:
        with run:
            train(run, model, arguments.rows, arguments.epochs, arguments.learning_rate)
    except BudgetExceeded as exceeded:
        print(f"{exceeded.reason}; {arguments.checkpoint} has what was learnt")


if __name__ == "__main__":
    main()
