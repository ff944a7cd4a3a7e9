"""A rank with a loop of its own whose budget only the first rank uses up: both stop, as docs/runs.md has it.

Started by torchrun.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import torch
from torch import distributed

from carbon_exporter import CarbonRun, carbon_span


def main() -> None:
    with carbon_span("start") as start:
        time.sleep(0.3)
    start.wait(15)
    rank = os.environ["RANK"]
    distributed.init_process_group("gloo")
    trained = []
    with CarbonRun(epochs=4, budget="0.000001 Wh" if rank == "0" else "1 kWh", summary="none") as run:
        for epoch in run.epochs(range(4)):
            over = torch.tensor(float(run.exceeded is not None))
            distributed.all_reduce(over, distributed.ReduceOp.MAX)
            if over:
                break
            until = time.process_time() + 1.0
            while time.process_time() < until:
                sum(range(500))
            trained.append(epoch)
    distributed.destroy_process_group()
    told = {"rank": run.rank, "run": run.name, "trained": trained, "exceeded": run.exceeded is not None}
    Path(f"rank{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
