"""What `sensors` and `metrics` print, for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.machine import Machine
from support.other_user import as_nobody, needs_root, public_directory
from support.powercap import PowercapTree

from carbon_exporter.publish.catalogue import CATALOGUE


def cli(*arguments: str, prefix: tuple[str, ...] = ()) -> str:
    """What the command prints; it must succeed."""
    command = [*prefix, sys.executable, "-m", "carbon_exporter", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=20, check=True, env={**os.environ, "COLUMNS": "120"}
    ).stdout


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One socket with RAPL, and no DRAM counter."""
    machine = Machine(tmp_path / "machine", sockets=(0, 0))
    PowercapTree(machine.root / "sys").add("intel-rapl:0", "package-0")
    return machine


def findings(machine: Machine, *, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    paths = (f"--path.procfs={machine.root / 'proc'}", f"--path.sysfs={machine.root / 'sys'}")
    return {row["sensor"]: row for row in json.loads(cli("sensors", "--json", *paths, prefix=prefix))}


def test_sensors_tells_each_device_with_its_quality_and_watts(machine: Machine) -> None:
    found = findings(machine)
    assert [(d["device"], d["quality"], d["power_watts"]) for d in found["rapl"]["devices"]] == [
        ("cpu0", "measured", 0.0)
    ]
    (dram,) = found["model"]["devices"]
    assert (dram["device"], dram["quality"]) == ("dram0", "default")
    assert dram["power_watts"] == pytest.approx(16 * 0.375)


@needs_root
def test_sensors_names_the_file_and_the_command_where_permission_is_missing() -> None:
    with public_directory() as place:
        machine = Machine(place / "machine")
        tree = PowercapTree(machine.root / "sys")
        tree.add("intel-rapl:0", "package-0")
        tree.deny("intel-rapl:0")
        found = findings(machine, prefix=as_nobody())
        assert found["rapl"]["state"] == "denied"
        assert "intel-rapl:0/energy_uj" in found["rapl"]["reason"]
        assert "sudo setpriv --bounding-set=-all" in found["rapl"]["remedy"]
        assert {d["device"] for d in found["model"]["devices"]} == {"cpu0", "dram0"}
        shown = cli("sensors", f"--path.sysfs={tree.sysfs}", prefix=as_nobody())
    assert "not allowed" in shown
    assert "→ " in shown


def test_the_table_fits_the_terminal() -> None:
    shown = cli("sensors")
    assert shown.startswith("SENSOR")
    assert max(len(line) for line in shown.splitlines()) <= 120


def test_metrics_lists_the_whole_catalogue_in_every_form() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert [row["name"] for row in json.loads(cli("metrics", "--format=json"))] == names
    for form in ("text", "markdown"):
        shown = cli("metrics", f"--format={form}")
        assert all(name in shown for name in names)
