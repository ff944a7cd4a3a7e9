"""The shell script of the examples, under `carbon-exporter run`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from support.example_node import EXAMPLES, example_node

from carbon_exporter.units import JOULES_PER_KWH

RUN = ("-m", "carbon_exporter", "run", "--job", "fit", "--")
SCRIPT = ("sh", str(EXAMPLES / "shell_train.sh"), "6", "200000")


def test_a_shell_script_is_measured_with_all_that_it_starts_and_is_what_it_is_alone(tmp_path: Path) -> None:
    alone = subprocess.run(SCRIPT, capture_output=True, text=True, check=True, timeout=60)
    with example_node(tmp_path) as node:
        done = node.run(*RUN, *SCRIPT)
        (joules,) = node.joules("fit").values()
    assert done.stdout == alone.stdout
    assert done.stdout.startswith("epoch 1: slope and height ")
    told = re.search(r"carbon-exporter: fit: ([0-9.]+) s, (\S+) kWh, .* g CO2e \(FR\)\n", done.stderr)
    assert told is not None, done.stderr
    assert "quality: measured" in done.stderr
    assert joules > 0
    assert abs(float(told[2]) * JOULES_PER_KWH - joules) < 0.01 * joules + 0.02, "three digits are shown"
