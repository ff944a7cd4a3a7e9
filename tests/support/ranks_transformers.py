"""A rank with the Hugging Face Trainer: a training whose card is of both, then one whose budget the first uses up."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from huggingface_hub.repocard import metadata_load
from support.framework import error_of
from support.train_transformers import trainer

from carbon_exporter import carbon_span
from carbon_exporter.integrations.transformers import CarbonCallback


def main() -> None:
    with carbon_span("start") as start:
        time.sleep(0.3)
    start.wait(15)
    rank = os.environ["RANK"]
    carbon = CarbonCallback(summary="none")
    made = carbon.attach(trainer("both", step=0.1, num_train_epochs=4))
    made.train()
    made.create_model_card()
    assert carbon.run is not None
    grams = carbon.run.co2e_grams
    budget = "0.000001 Wh" if rank == "0" else "1 kWh"
    carbon = CarbonCallback(summary="none", budget=budget, on_exceed="stop")
    raised, run = error_of(carbon.attach(trainer("stopped", step=0.5)).train), carbon.run
    assert run is not None
    told = {"raised": raised, "rank": run.rank, "run": run.name, "epochs": run.epochs_done, "grams": grams}
    card = metadata_load("both/README.md")["co2_eq_emissions"] if rank == "0" else {}
    Path(f"rank{rank}.json").write_text(json.dumps({**told, "card": card}))


if __name__ == "__main__":
    main()
