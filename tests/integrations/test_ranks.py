"""Several processes: each measures itself, all are of one run, and a budget ends them together."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support.framework import HERE, run_script
from support.tools import need_package

TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node=2"]


@pytest.mark.soak
def test_a_loop_of_ones_own_stops_all_ranks_before_the_same_epoch(tmp_path: Path) -> None:
    need_package("torch")
    script = str(HERE / "ranks_loop.py")
    run_script([sys.executable, *TORCHRUN, "--rdzv-id=loop", "--master-port=29537", script], tmp_path, {})
    told = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["rank"] for one in told] == ["0", "1"]
    assert told[0]["run"] == told[1]["run"] == "loop"
    assert [one["trained"] for one in told] == [[0], [0]]
    assert [one["exceeded"] for one in told] == [True, False]


@pytest.mark.soak
@pytest.mark.parametrize("framework", ["accelerate", "lightning", "transformers"])
def test_processes_are_ranks_of_one_run_and_stop_together(framework: str, tmp_path: Path) -> None:
    need_package(framework, "torch")
    script = str(HERE / f"ranks_{framework}.py")
    launched = [*TORCHRUN, "--master-port=29533", script]
    command = [sys.executable, *([script] if framework == "lightning" else launched)]
    run_script(command, tmp_path, {})
    told = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["rank"] for one in told] == ["0", "1"]
    assert told[0]["run"] == told[1]["run"] != ""
    assert [one["epochs"] for one in told] == [1, 1]
    assert [one["raised"].split(":")[0] for one in told] == ["BudgetExceeded", "BudgetExceeded"]
    if framework == "transformers":
        both = sum(one["grams"] for one in told)
        assert told[0]["card"]["emissions"] == pytest.approx(both, rel=0.3), "the second's is as known at its end"
        assert told[0]["card"]["emissions"] > 1.2 * told[0]["grams"]
