"""Blocks that say which board they use: they pay for that one, from edge to edge, and for no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.fakenvml import FakeNvml, environment

SCRIPT = """
import json, sys, time
from carbon_exporter import carbon_span
with carbon_span("warm", devices=["gpu1"]):
    time.sleep(2)
with carbon_span("warm", devices=["gpu0"]):
    time.sleep(1)
told = []
for board in ("gpu1", "gpu0", "gpu1", "gpu1"):
    start = time.monotonic()
    with carbon_span(board, devices=[board]) as span:
        time.sleep(0.7)
    end = time.monotonic()
    span.wait(5)
    time.sleep(0.3)
    told.append((board, start, end, {name: kwh * 3.6e6 for name, kwh in span.energy_by_device.items()}))
json.dump(told, sys.stdout)
"""


@pytest.mark.usefixtures("boards_turn")
def test_a_block_pays_for_the_board_that_it_names_to_its_end(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path / "nvml", boards=2)
    for number, board in enumerate(fake.boards):
        board.constant(200.0 + 100.0 * number)
    own = {key: value for key, value in os.environ.items() if not key.startswith(("CARBON_", "CUDA_"))}
    places = {"CARBON_SDK_SOCKET": str(tmp_path / "none"), "CARBON_EXPORTER_PATH_SYSFS": str(tmp_path)}
    told = json.loads(
        subprocess.check_output(
            [sys.executable, "-c", SCRIPT], env={**own, **environment(fake), **places}, text=True, timeout=60
        )
    )
    for board, start, end, joules in told:
        truth = fake.boards[int(board[3:])].true_joules(start, end)
        assert joules[board] == pytest.approx(truth, rel=0.05), told
        assert {name for name, used in joules.items() if name.startswith("gpu") and used > 0} == {board}
