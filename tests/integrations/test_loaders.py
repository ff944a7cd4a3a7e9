"""Workers of torch's DataLoader are of the run that they load for, forked or started anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.example_node import alone
from support.tools import need_package

SCRIPT = Path(__file__).parents[1] / "support/loaders.py"


@pytest.mark.soak
@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_workers_that_load_data_are_of_the_run_and_job_that_they_load_for(tmp_path: Path, way: str) -> None:
    need_package("torch")
    command = [sys.executable, str(SCRIPT), way]
    done = subprocess.run(command, env=alone(tmp_path), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"run-{way} load True False\n"
