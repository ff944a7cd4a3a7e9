"""Energy of AMD boards by the real amdsmi over a fake libamd_smi.so: the counter, its trial, and what follows a lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.amd_machine import FIRST, NOT_SUPPORTED, TRACE_NAMES, TRACES
from support.amd_machine import AmdMachine as Machine
from support.fakeamdsmi import binding
from support.played import play
from support.traces import Trace, constant, square

from carbon_exporter.energy.ledger import Ledger, SavedMark
from carbon_exporter.errors import SensorReadError
from carbon_exporter.sensors.base import Quality

BUSY, UNKNOWN = 30, 0xFFFF


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    binding()
    made = Machine(tmp_path)
    with made.fake:
        yield made


@pytest.mark.parametrize("trace", TRACES, ids=TRACE_NAMES)
def test_a_counter_is_exact_to_half_a_percent_once_it_is_believed(machine: Machine, trace: Trace) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    machine.believe(board)
    played = play(board, machine.clock, machine.writer(0, trace))
    assert {reading.quality for reading in played.readings} == {Quality.MEASURED}
    assert abs(played.error(trace)) < 0.005
    assert played.gap_seconds == 0.0


@pytest.mark.parametrize("trace", TRACES, ids=TRACE_NAMES)
def test_the_first_minute_with_the_trial_in_it_is_exact_too(machine: Machine, trace: Trace) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    played = play(board, machine.clock, machine.writer(0, trace))
    assert abs(played.error(trace)) < 0.03
    assert played.gap_seconds < 0.001
    assert [reading.quality for reading in played.readings[:4]] == [
        *(Quality.MEASURED, Quality.INTEGRATED, Quality.INTEGRATED, Quality.MEASURED)
    ]
    assert board.sampling_period is None


@pytest.mark.parametrize("scale", [0.5, 1.6, 4.0])
def test_a_counter_that_lies_is_dropped_and_power_is_integrated_instead(
    machine: Machine, scale: float, caplog: pytest.LogCaptureFixture
) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    trace = square(120.0, 700.0, 0.7)
    played = play(board, machine.clock, machine.writer(0, trace, scale=scale))
    assert board.quality is Quality.INTEGRATED
    assert abs(played.error(trace)) < 0.03
    assert played.gap_seconds < 0.001
    (note,) = board.notes
    assert "gpu0: its energy counter is not used, power is sampled instead: it counted" in note
    assert caplog.text.count(note) == 1
    assert "amdsmi_get_power_info" in board.devices[0].method


def test_a_counter_that_stands_still_on_trial_is_dropped(machine: Machine) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    play(board, machine.clock, machine.writer(0, constant(300.0), scale=0.0), seconds=15.0)
    assert "stands still while power is drawn" in board.notes[0]


def test_a_counter_that_goes_backwards_on_trial_is_dropped(machine: Machine) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    play(board, machine.clock, machine.writer(0, constant(300.0)), seconds=0.0)
    machine.fake.boards[0].accumulator //= 2
    machine.clock.now += 5
    board.read()
    assert "it went backwards" in board.notes[0]


def test_a_counter_that_stops_later_is_withheld_at_once_and_dropped_after_ten_seconds(machine: Machine) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    machine.believe(board)
    machine.fake.boards[0].current_power = 400
    for _ in range(2):
        machine.clock.now += 5.0
        assert not [reading for reading in board.read().readings if reading.energy is not None]
    assert board.quality is Quality.INTEGRATED
    played = play(board, machine.clock, lambda _: None, seconds=20.0)
    assert played.joules == pytest.approx(400 * 20, rel=0.001)


def test_one_reset_is_a_gap_and_two_within_the_hour_are_a_lie(machine: Machine) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    machine.believe(board)
    ledger = Ledger()
    counted = []
    for joules in (200_000.0, 200_500.0, 3.0, 503.0):
        machine.fake.count(0, joules)
        counted += [piece.joules for piece in ledger.post(board.read().readings)]
        machine.clock.now += 5.0
    assert counted == pytest.approx([500.0, 500.0], rel=1e-6)
    assert ledger.gap_seconds["gpu0"] == pytest.approx(5.0, abs=0.01)
    machine.fake.count(0, 1.0)
    assert board.read().readings == ()
    assert "twice within the hour" in board.notes[0]


def test_an_impossible_jump_is_a_gap(machine: Machine) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    machine.believe(board)
    ledger = Ledger()
    machine.fake.count(0, 1000.0)
    ledger.post(board.read().readings)
    machine.clock.now += 5.0
    machine.fake.count(0, 1e9)
    assert ledger.post(board.read().readings) == []
    assert ledger.gap_seconds["gpu0"] > 4.9


def test_what_the_counter_kept_while_the_exporter_was_down_is_caught_up(machine: Machine) -> None:
    machine.add(FIRST)
    machine.fake.count(0, 5000.0)
    (board,) = machine.fleet().members
    ledger = Ledger()
    meter = f"amd/{board.devices[0].uuid}"
    ledger.restore({"gpu0": SavedMark(machine.clock.now - 30.0, 2000.0, meter)}, {})
    (caught_up,) = ledger.post(board.read().readings)
    assert caught_up.joules == pytest.approx(3000.0, rel=1e-6)
    assert caught_up.caught_up


def test_a_counter_of_nonsense_is_a_failure_and_never_energy(machine: Machine) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    machine.believe(board)
    for resolution in (0.0, -1.0, float("nan"), float("inf")):
        machine.fake.boards[0].resolution = resolution
        with pytest.raises(SensorReadError, match="holds no number") as caught:
            board.read()
        assert caught.value.device == "gpu0"


def test_a_board_without_a_counter_is_sampled(machine: Machine) -> None:
    machine.add(FIRST)
    machine.fake.fail(0, "energy", NOT_SUPPORTED)
    (board,) = machine.fleet().members
    trace = square(120.0, 700.0, 0.7)
    played = play(board, machine.clock, machine.writer(0, trace))
    assert abs(played.error(trace)) < 0.03
    assert "the board does not give it (AMDSMI_STATUS_NOT_SUPPORTED" in board.notes[0]
    calls = machine.fake.calls(0)["energy"]
    board.read()
    assert machine.fake.calls(0)["energy"] == calls


@pytest.mark.parametrize("field", ["average_power", "socket_power"])
def test_power_comes_from_the_first_field_that_has_one(machine: Machine, field: str) -> None:
    machine.add(FIRST)
    machine.fake.fail(0, "energy", NOT_SUPPORTED)
    machine.fake.boards[0].current_power = UNKNOWN
    setattr(machine.fake.boards[0], field, 77)
    if field == "average_power":
        machine.fake.boards[0].current_power = 500
    (board,) = machine.fleet().members
    assert play(board, machine.clock, lambda _: None, seconds=10.0).joules == pytest.approx(770, rel=0.001)


def test_a_counter_without_a_power_meter_is_believed_and_says_it_was_not_compared(machine: Machine) -> None:
    machine.add(FIRST)
    machine.fake.fail(0, "power", NOT_SUPPORTED)
    (board,) = machine.fleet().members
    trace = constant(200.0)
    played = play(board, machine.clock, machine.writer(0, trace), seconds=40.0)
    assert played.error(trace) == pytest.approx(0.0, abs=1e-4)
    assert played.gap_seconds == 0.0
    assert any("was not compared" in note for note in board.notes)


@pytest.mark.parametrize("code", [1, 7, 8, 9, 12, 15, BUSY, 43, 4294967295])
def test_an_error_costs_one_reading_and_no_energy(machine: Machine, code: int) -> None:
    machine.add(FIRST)
    (board,) = machine.fleet().members
    machine.believe(board)
    ledger = Ledger()
    ledger.post(board.read().readings)
    machine.draw(0, 100.0, 5.0)
    machine.clock.now += 5.0
    machine.fake.fail(0, "energy", code)
    with pytest.raises(SensorReadError, match="AMDSMI_STATUS") as caught:
        board.read()
    assert caught.value.device == "gpu0"
    machine.fake.fail(0, "energy", 0)
    machine.draw(0, 100.0, 5.0)
    machine.clock.now += 5.0
    assert [piece.joules for piece in ledger.post(board.read().readings)] == pytest.approx([1000.0], rel=1e-4)
