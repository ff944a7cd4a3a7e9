"""All AMD boards of a machine: dies and partitions, sessions, hangs, forks, boards that come and go."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.amd_machine import FIRST, FOURTH, SECOND, THIRD, kinds, names
from support.amd_machine import AmdMachine as Machine
from support.drm import AMD_FILES, DrmTree
from support.fakeamdsmi import binding

from carbon_exporter.errors import SensorReadError, SensorUnavailable
from carbon_exporter.sensors.amd_board import SmiBoard
from carbon_exporter.sensors.amdgpu import HwmonBoard
from carbon_exporter.sensors.crew import Crew

MI250X, MI300A = 0x7408, 0x74A0


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    binding()
    made = Machine(tmp_path)
    with made.fake:
        yield made


def test_two_dies_of_one_board_are_one_device(machine: Machine) -> None:
    machine.add(FIRST, SECOND, THIRD, FOURTH, device_id=MI250X)
    for odd in (1, 3):
        machine.fake.boards[odd].current_power = 0
        machine.fake.boards[odd].processes = 1
        machine.fake.boards[odd].pids[0] = 5000 + odd
    machine.fake.boards[1].activity = 93
    fleet = machine.fleet()
    assert names(fleet) == ["gpu0", "gpu2"]
    assert [note for note in fleet.notes if "second die" in note] == [
        f"{SECOND} is the second die of gpu0, which reports for both",
        f"{FOURTH} is the second die of gpu2, which reports for both",
    ]
    sample = fleet.members[0].read()
    assert "both dies in one number" in fleet.members[0].devices[0].method
    assert sample.vitals[0].utilization == pytest.approx(0.5)
    assert sample.vitals[0].memory_used == 2 << 30
    assert [occupant.pid for occupant in sample.occupancies[0].occupants or ()] == [5001]
    assert machine.fake.calls(1)["energy"] == machine.fake.calls(1)["power"] == 0


def test_partitions_of_a_board_share_its_meters_and_their_processes_are_its_own(machine: Machine) -> None:
    machine.add(FIRST)
    machine.fake.show([FIRST, "0000:03:00.1", "0000:03:00.2"])
    machine.fake.boards[2].processes = 1
    machine.fake.boards[2].pids[0] = 77
    fleet = machine.fleet()
    assert names(fleet) == ["gpu0"]
    (occupancy,) = fleet.members[0].read().occupancies
    assert [occupant.pid for occupant in occupancy.occupants or ()] == [77]


def test_an_accelerator_with_processors_in_it_covers_them(machine: Machine) -> None:
    machine.add(FIRST, device_id=MI300A)
    fleet = machine.fleet()
    assert fleet.covers == {"cpu", "dram"}
    assert "accelerator, processors and memory" in fleet.members[0].devices[0].method
    with pytest.raises(SensorUnavailable, match="which another sensor measures"):
        machine.fleet(frozenset({"cpu"}))


def test_a_session_that_the_library_forgot_is_begun_anew(machine: Machine) -> None:
    machine.add(FIRST)
    fleet = machine.fleet()
    (board,) = fleet.members
    machine.believe(board)
    machine.fake.state.forgotten = 1
    with pytest.raises(SensorReadError):
        board.read()
    fleet.read()
    assert fleet.members == (board,)
    assert board.read().readings[0].energy is not None
    assert machine.fake.state.inits == 2


def test_boards_come_and_go_and_keep_their_names(machine: Machine) -> None:
    machine.add(FIRST, SECOND)
    fleet = machine.fleet()
    second = fleet.members[1]
    machine.remove(FIRST)
    for _ in range(12):
        fleet.read()
    assert names(fleet) == ["gpu1"]
    assert fleet.members == (second,)
    assert second.read().readings[0].energy is not None
    machine.add(FIRST)
    for _ in range(12):
        fleet.read()
    assert names(fleet) == ["gpu0", "gpu1"]
    assert all(board.read().readings for board in fleet.members)


def test_a_driver_that_is_unloaded_is_a_failure_until_it_is_back(machine: Machine) -> None:
    machine.add(FIRST)
    fleet = machine.fleet()
    machine.remove(FIRST)
    for _ in range(11):
        fleet.read()
    with pytest.raises(SensorReadError, match="no AMD board is there now") as caught:
        fleet.read()
    assert "modprobe amdgpu" in caught.value.remedy
    machine.add(FIRST)
    fleet.read()
    assert names(fleet) == ["gpu0"]
    assert fleet.members[0].read().readings


def test_a_board_that_hangs_costs_only_itself(machine: Machine) -> None:
    machine.add(FIRST, SECOND)
    machine.host = replace(machine.host, clock=time.monotonic)
    crew = Crew([machine.fleet()])
    crew.gather(10.0)
    machine.fake.boards[0].hangs = 1
    for _ in range(3):
        sample = crew.gather(3.0)
        assert [reading.device.name for reading in sample.readings] == ["gpu1"]
    machine.fake.boards[0].hangs = 0
    deadline = time.monotonic() + 20
    seen: set[str] = set()
    while seen < {"gpu0", "gpu1"} and time.monotonic() < deadline:
        seen |= {reading.device.name for reading in crew.gather(1.0).readings}
    assert seen == {"gpu0", "gpu1"}
    crew.close()


def test_a_library_that_hangs_at_its_start_is_not_waited_for(machine: Machine) -> None:
    machine.add(FIRST)
    machine.fake.state.init_hangs = 1
    began = time.monotonic()
    fleet = machine.fleet()
    assert time.monotonic() - began < 20
    assert kinds(fleet) == [HwmonBoard]
    assert "has not answered yet" in fleet.notes[0]
    machine.fake.state.init_hangs = 0
    deadline = time.monotonic() + 20
    while kinds(fleet) != [SmiBoard] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert kinds(fleet) == [SmiBoard]
    assert fleet.notes == ()


def test_a_hanging_call_is_never_cut_short_by_a_new_session(machine: Machine) -> None:
    machine.add(FIRST, SECOND)
    fleet = machine.fleet()
    machine.fake.boards[0].hangs = 1
    hanging = threading.Thread(target=fleet.members[0].sample, daemon=True)
    hanging.start()
    deadline = time.monotonic() + 20
    while machine.fake.calls(0)["power"] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    machine.tree.remove(SECOND)
    for _ in range(12):
        fleet.read()
    assert (machine.fake.state.inits, machine.fake.state.shut_downs) == (1, 0)
    fleet.close()
    assert machine.fake.state.shut_downs == 0
    machine.fake.boards[0].hangs = 0
    hanging.join(20)
    fleet.close()
    assert machine.fake.state.shut_downs == 1


def test_a_forked_child_begins_a_session_of_its_own_and_leaves_the_parents_alone(machine: Machine) -> None:
    machine.add(FIRST)
    fleet = machine.fleet()
    fleet.members[0].read()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            fleet.read()
            code = 0 if fleet.members[0].read().readings else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (machine.fake.state.inits, machine.fake.state.shut_downs) == (2, 0)
    machine.clock.now += 5
    assert fleet.members[0].read().readings


# Without the library, in a process that has never loaded it


def notes_of_another_process(tree: DrmTree, prepare: str) -> Sequence[str]:
    script = (
        f"import sys, pathlib\n{prepare}\n"
        "from carbon_exporter.sensors.amd import probe\nfrom carbon_exporter.sensors.base import Host\n"
        f"fleet = probe(Host(sysfs=pathlib.Path({str(tree.sysfs)!r})), frozenset())\n"
        "assert [type(board).__name__ for board in fleet.members] == ['HwmonBoard']\n"
        "for note in fleet.notes: print('NOTE', note)\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ROCM")}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    lines = done.stdout.splitlines()
    assert all(line.startswith("NOTE ") for line in lines), "what the binding prints does not get out"
    return lines


def test_without_the_library_the_files_serve_and_the_remedy_is_told(machine: Machine) -> None:
    machine.tree.add(FIRST, "amdgpu", AMD_FILES)
    (note,) = notes_of_another_process(machine.tree, "")
    assert "the package amdsmi cannot be loaded" in note
    assert "amd-smi-lib" in note


def test_without_the_binding_the_files_serve_and_the_remedy_is_told(machine: Machine) -> None:
    machine.tree.add(FIRST, "amdgpu", AMD_FILES)
    (note,) = notes_of_another_process(machine.tree, "sys.modules['amdsmi'] = None")
    assert "amdsmi" in note
    assert "pip install 'carbon-exporter[amd]'" in note


def test_a_binding_that_is_newer_than_its_library_is_told_apart(machine: Machine, tmp_path: Path) -> None:
    machine.tree.add(FIRST, "amdgpu", AMD_FILES)
    library = tmp_path / "lib" / "libamd_smi.so"
    library.parent.mkdir()
    (tmp_path / "old.c").write_text("int amdsmi_init(unsigned long flags) { return (int)flags * 0; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "old.c"], check=True)
    (note,) = notes_of_another_process(machine.tree, f"import os; os.environ['ROCM_PATH'] = {str(tmp_path)!r}")
    assert "AttributeError" in note
    assert "not newer" in note
