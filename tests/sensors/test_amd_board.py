"""What AMD boards say of themselves by the real amdsmi over a fake libamd_smi.so: identity, vitals, processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.amd_machine import FIRST, NOT_SUPPORTED, SECOND, kinds, names
from support.amd_machine import AmdMachine as Machine
from support.fakeamdsmi import binding
from support.played import play
from support.traces import constant

from carbon_exporter.sensors.amd_board import SmiBoard
from carbon_exporter.sensors.amd_counter import CounterCheck
from carbon_exporter.sensors.amd_smi import joules_counted, own_pids, share_active, watts_drawn, watts_of_limit
from carbon_exporter.sensors.base import Quality, Sample
from carbon_exporter.units import Joules, Watts

BUSY, NO_PERMISSION = 30, 10


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    binding()
    made = Machine(tmp_path)
    with made.fake:
        yield made


def users(sample: Sample) -> list[tuple[int, float | None]] | None:
    """Pid and utilisation of those who are on the board; None where they cannot be seen, which is not nobody."""
    (occupancy,) = sample.occupancies
    if occupancy.occupants is None:
        return None
    return [(occupant.pid, occupant.utilization) for occupant in occupancy.occupants]


def test_a_board_tells_who_it_is(machine: Machine) -> None:
    machine.add(FIRST, SECOND)
    fleet = machine.fleet()
    assert kinds(fleet) == [SmiBoard, SmiBoard]
    assert names(fleet) == ["gpu0", "gpu1"]
    (device,) = fleet.members[1].devices
    assert (device.kind, device.sensor, device.vendor, device.model) == ("gpu", "amd", "AMD", "AMD Instinct MI300X")
    assert device.uuid == "01ff74a1-0000-1000-80e0-000000000000"
    assert device.max_power == Watts(1500)
    assert (fleet.devices, fleet.covers, fleet.notes) == ((), frozenset(), ())


def test_vitals_are_what_the_board_says(machine: Machine) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    (vitals,) = board.read().vitals
    assert (vitals.device, vitals.power_limit, vitals.utilization) == ("gpu0", 750.0, 0.07)
    assert (vitals.memory_used, vitals.temperature, vitals.divergence) == (1 << 30, 45.0, None)


def test_vitals_that_fail_cost_nothing_else_and_those_that_never_come_are_not_asked_for_again(machine: Machine) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    machine.fake.fail(0, "activity", BUSY)
    machine.fake.fail(0, "temperature", NOT_SUPPORTED)
    machine.fake.fail(0, "processes", NO_PERMISSION)
    for _ in range(3):
        sample = board.read()
        assert (sample.vitals[0].utilization, sample.vitals[0].temperature) == (None, None)
        assert users(sample) is None
        machine.clock.now += 5
    calls = machine.fake.calls(0)
    assert (calls["activity"], calls["temperature"], calls["processes"]) == (3, 1, 1)
    assert any("no temperature: AMDSMI_STATUS_NOT_SUPPORTED" in note for note in board.notes)
    assert any("/dev/kfd" in note for note in board.notes)


def test_limits_are_asked_for_at_every_twelfth_reading(machine: Machine) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    machine.believe(board)
    before = machine.fake.calls(0)
    for _ in range(12):
        machine.draw(0, 100.0, 5.0)
        machine.clock.now += 5
        board.read()
    each = {family: count - before[family] for family, count in machine.fake.calls(0).items()}
    assert each == {
        **dict.fromkeys(("energy", "power", "activity", "memory", "temperature", "processes"), 12),
        "limit": 1,
        "identity": 0,
    }


def test_the_divergence_of_counter_and_power_is_told_after_ten_minutes(machine: Machine) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    played = play(board, machine.clock, machine.writer(0, constant(200.0), scale=1.1), seconds=630.0)
    assert board.quality is Quality.MEASURED
    assert played.samples[60].vitals[0].divergence is None
    assert played.samples[-1].vitals[0].divergence == pytest.approx(0.1, abs=0.001)


def test_processes_are_listed_once_and_the_exporter_is_none_of_them(machine: Machine) -> None:
    machine.add(FIRST)
    machine.fake.boards[0].processes = 4
    for number, pid in enumerate((41, 7, 41, os.getpid())):
        machine.fake.boards[0].pids[number] = pid
    (board,) = machine.fleet().members
    sample = board.read()
    (occupancy,) = sample.occupancies
    assert users(sample) == [(41, None), (7, None)]
    assert (occupancy.device, occupancy.uuid) == ("gpu0", board.devices[0].uuid)
    assert FIRST in occupancy.aliases


def test_who_cannot_see_everybody_says_so_and_names_nobody(machine: Machine) -> None:
    machine.add(FIRST)
    machine.fake.boards[0].processes = 1
    machine.fake.boards[0].pids[0] = 41
    (board,) = machine.fleet().members
    fdinfo = machine.host.procfs / "1" / "fdinfo"
    fdinfo.rmdir()
    assert users(board.read()) is None
    assert "SYS_PTRACE" in board.notes[0]
    fdinfo.mkdir()
    assert users(board.read()) == [(41, None)]
    assert board.notes == ()


# Parsers

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.integers()),
    st.just("N/A"),
)
ANSWERS = st.dictionaries(
    st.sampled_from(
        [
            *("energy_accumulator", "power", "counter_resolution", "current_socket_power", "average_socket_power"),
            *("socket_power", "power_cap", "max_power_cap", "gfx_activity"),
        ]
    ),
    ANYTHING,
)


@given(ANSWERS)
def test_any_answer_is_a_number_that_can_be_or_none(answer: dict[str, object]) -> None:
    joules, watts, share = joules_counted(answer), watts_drawn(answer, Watts(1500)), share_active(answer)
    assert joules is None or joules >= 0
    assert watts is None or 0 < watts <= 1500
    assert share is None or 0 <= share <= 1
    assert all(limit is None or limit > 0 for limit in watts_of_limit(answer))


@given(st.one_of(ANYTHING, st.lists(st.one_of(ANYTHING, st.dictionaries(st.just("pid"), ANYTHING)))))
def test_any_process_list_is_pids_each_once(answer: object) -> None:
    pids = own_pids(answer)
    assert len(set(pids)) == len(pids)
    assert all(pid > 0 for pid in pids)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-1e12, 1e12), st.one_of(st.none(), st.floats(0, 3000)))))
def test_any_counter_is_believed_refused_or_on_trial(course: list[tuple[float, float, float | None]]) -> None:
    check, at = CounterCheck(), 0.0
    for elapsed, joules, power in course:
        at += elapsed
        if check.verdict == "trial":
            check.compare(at, Joules(joules), ())
        else:
            check.watch(at, Joules(joules), None if power is None else Watts(power))
    assert (check.verdict == "refused") <= bool(check.reason)


def test_older_versions_call_the_ticks_power() -> None:
    assert joules_counted({"power": 2_000_000, "counter_resolution": 15.3}) == pytest.approx(30.6)
    assert joules_counted({"energy_accumulator": 2**64 - 1, "counter_resolution": 15.3}) is None
    assert joules_counted({"energy_accumulator": 0xFFFF, "counter_resolution": 15.3}) == pytest.approx(1.0027, abs=1e-4)
    assert joules_counted({"energy_accumulator": "N/A", "counter_resolution": 15.3}) is None


def test_limits_come_in_watts_or_in_microwatts() -> None:
    assert watts_of_limit({"power_cap": 560, "max_power_cap": 560_000_000}) == (560.0, 560.0)
    assert watts_of_limit({"power_cap": "N/A", "max_power_cap": 0}) == (None, None)
