"""Two ranks that Lightning itself starts; only the first uses up its budget, and both stop."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from support.framework import error_of
from support.train_lightning import Probe
from torch import ones
from torch.utils.data import DataLoader

from carbon_exporter.integrations.lightning import CarbonCallback


class Busy(Probe):
    """An epoch of two seconds of work."""

    def on_train_epoch_start(self) -> None:
        until = time.process_time() + 2.0
        while time.process_time() < until:
            sum(range(500))


def main() -> None:
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    budget = "0.000001 Wh" if trainer.global_rank == 0 else "1 kWh"
    carbon = CarbonCallback(summary="none", budget=budget, on_exceed="stop")
    trainer.callbacks.append(carbon)
    rows: Any = ones(5, 1)
    raised = error_of(lambda: trainer.fit(Busy(), DataLoader(rows), DataLoader(rows[:2])))
    assert carbon.run is not None
    told = {"raised": raised, "rank": carbon.run.rank, "run": carbon.run.name, "epochs": carbon.run.epochs_done}
    Path(f"rank{trainer.global_rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
