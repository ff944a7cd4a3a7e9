"""Predictions of real runs, while they last: steps of 50 ms on a board of the fake NVML that always draws the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest
from support import predicted_script
from support.fakenvml import FakeNvml, environment
from support.predicted_script import KINDS

RUNS = 3
"""Of each kind, all at once."""


def started(kind: str, folder: Path, board_watts: float) -> subprocess.Popen[str]:
    fake = FakeNvml(folder / "nvml", boards=1)
    fake.boards[0].constant(board_watts)
    own = {key: value for key, value in os.environ.items() if not key.startswith(("CARBON_", "OTEL_"))}
    places = {"CARBON_EXPORTER_PATH_SYSFS": str(folder / "sys"), "CARBON_SDK_SOCKET": str(folder / "nobody")}
    environ = {**own, **environment(fake), **places, "CUDA_VISIBLE_DEVICES": "0", "HOME": str(folder)}
    command, pipe = [sys.executable, predicted_script.__file__, kind], subprocess.PIPE
    return subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, text=True)


def within(number: float, told: list[float]) -> bool:
    _, low, high = told
    return low <= number <= high


@pytest.mark.timeout(120)
def test_after_a_fifth_of_its_epochs_a_run_knows_what_it_will_take_to_a_tenth(tmp_path: Path) -> None:
    with ExitStack() as stack:
        scripts = []
        for kind in KINDS:
            for number in range(RUNS):
                folder = tmp_path / f"{kind}-{number}"
                (folder / "sys").mkdir(parents=True)
                scripts.append((kind, stack.enter_context(started(kind, folder, 150 + 100 * number))))
        for _, script in scripts:
            assert script.stdout is not None
            assert script.stdout.readline() == "ready\n"
        for _, script in scripts:
            assert script.stdin is not None
            script.stdin.write("begin\n")
            script.stdin.flush()
        found = [(kind, json.loads(script.communicate(timeout=100)[0])) for kind, script in scripts]
    held, wide = 0, list[float]()
    for kind, told in found:
        energy, end = told["expected"]["kwh"], told["expected"]["end"]
        held += within(told["kwh"], energy) + within(told["end"], end)
        if kind == "steady":
            value, low, high = energy
            assert value == pytest.approx(told["kwh"], rel=0.1)
            wide.append((high - low) / 2 / told["kwh"])
    assert held >= 0.9 * 2 * len(found)
    assert median(wide) <= 0.1, "what a busy machine does to sleeping epochs is in it, too"
