"""A rank with Accelerate whose budget only the first rank uses up: both stop. Started by torchrun."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from accelerate import Accelerator
from support.framework import error_of

from carbon_exporter import carbon_span
from carbon_exporter.integrations.accelerate import CarbonTracker


def main() -> None:
    with carbon_span("start") as start:
        time.sleep(0.3)
    start.wait(15)
    rank = os.environ["RANK"]
    carbon = CarbonTracker(summary="none", budget="0.000001 Wh" if rank == "0" else "1 kWh", on_exceed="stop")
    accelerator = Accelerator(cpu=True, log_with=carbon)
    accelerator.init_trackers("probe")

    def loop() -> None:
        for _ in carbon.epochs(range(3)):
            until = time.process_time() + 1.0
            while time.process_time() < until:
                sum(range(500))
            accelerator.wait_for_everyone()

    raised, run = error_of(loop), carbon.run
    assert run is not None
    told = {"raised": raised, "rank": run.rank, "run": run.name, "epochs": run.epochs_done}
    Path(f"rank{rank}.json").write_text(json.dumps(told))
    accelerator.end_training()


if __name__ == "__main__":
    main()
