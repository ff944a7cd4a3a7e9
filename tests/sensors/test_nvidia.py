"""NVIDIA's boards at the C ABI: what a board gives, by the real binding on a fake library."""

from __future__ import annotations

import itertools
import logging
import time
from pathlib import Path

import pytest
from support.fakenvml import FakeNvml, Process, Slice
from support.machine import Clock
from support.nvidia import fleet_on, tick

from carbon_exporter.energy.ledger import Ledger
from carbon_exporter.errors import SensorReadError
from carbon_exporter.sensors.base import Host, Quality, Reading
from carbon_exporter.sensors.nvidia.refusals import PERMISSION_REMEDY
from carbon_exporter.units import Watts


@pytest.fixture
def fake(tmp_path: Path) -> FakeNvml:
    return FakeNvml(tmp_path / "nvml", boards=2)


def test_a_board_is_a_device_with_its_identity_and_its_bound(fake: FakeNvml) -> None:
    fleet = fleet_on(fake)
    first, second = (board.devices[0] for board in fleet.members)
    assert (first.name, second.name) == ("gpu0", "gpu1")
    assert (first.kind, first.sensor, first.vendor, first.model) == ("gpu", "nvidia", "NVIDIA", "NVIDIA H100 80GB HBM3")
    assert first.uuid == fake.boards[0].uuid
    assert (first.max_power, first.period) == (Watts(1400), 0.1)
    assert "energy counter (field 191)" in first.method
    assert "±5 %" in first.bound
    assert fleet.devices == ()
    assert fleet.quality is Quality.MEASURED
    assert fleet.covers == frozenset()
    assert not [note for board in fleet.members for note in board.notes]


def test_a_reading_is_the_counter_in_joules_at_the_middle_of_the_call(fake: FakeNvml) -> None:
    times = itertools.count(10.0, 0.25)
    fleet = fleet_on(fake, Host(clock=lambda: next(times)))
    fake.boards[0].counter(1234.567)
    (reading,) = fleet.members[0].read().readings
    assert (reading.energy, reading.quality) == (1234.567, Quality.MEASURED)
    assert (reading.power, reading.at) == (None, 10.125)


def test_a_call_of_more_than_a_second_gives_no_reading_but_a_failure(fake: FakeNvml) -> None:
    times = itertools.count(10.0, 2.0)
    told = tick(fleet_on(fake, Host(clock=lambda: next(times))))
    assert told.readings == {}
    assert "the reading is left out" in str(told.failures["gpu0"])


def test_vitals_come_with_the_tick(fake: FakeNvml) -> None:
    board = fake.boards[0]
    board.busy(85)
    board.limit(400)
    board.raw.used, board.raw.temperature = 5 << 30, 71
    vitals = tick(fleet_on(fake)).vitals["gpu0"]
    assert (vitals.power_limit, vitals.utilization, vitals.memory_used) == (400.0, 0.85, 5 << 30)
    assert (vitals.temperature, vitals.divergence) == (71.0, None)


@pytest.mark.parametrize(("rate", "temperature"), [(101, 201), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_vitals_that_cannot_be_are_left_out(fake: FakeNvml, rate: int, temperature: int) -> None:
    fake.boards[0].raw.gpu_rate = rate
    fake.boards[0].raw.temperature = temperature
    fake.boards[0].raw.used = (1 << 64) - 1
    vitals = tick(fleet_on(fake)).vitals["gpu0"]
    assert vitals.utilization is None
    assert vitals.memory_used is None
    assert vitals.temperature in (None, -1.0)


def test_one_call_tells_power_and_energy_and_a_tick_keeps_its_budget(fake: FakeNvml) -> None:
    fake.boards[0].processes([Process(100 + n, sm=5 * n, kind=("compute", "graphics", "mps")[n % 3]) for n in range(8)])
    fleet = fleet_on(fake)
    slow, calls = [], []
    for _ in range(24):
        before, all_before = dict(fake.boards[0].calls), fake.calls
        tick(fleet)
        now = fake.boards[0].calls
        assert now["fields"] - before["fields"] == 1
        assert (now["energy"], now["power"]) == (before["energy"], before["power"])
        calls.append(sum(now.values()) - sum(before.values()))
        slow.append(sum(now[name] - before[name] for name in ("identity", "mig", "limit")))
        assert fake.calls - all_before <= 25
    assert max(calls) <= 12
    assert calls[1] == 8
    assert [number for number, count in enumerate(slow) if count] == [0, 12]


def test_without_a_counter_power_is_sampled_and_integrated(fake: FakeNvml) -> None:
    fake.boards[0].without_counter()
    fake.boards[0].constant(250)
    fake.boards[0].refresh(0)
    clock = Clock()
    fleet = fleet_on(fake, Host(clock=clock))
    board = fleet.members[0]
    assert board.sampling_period == 0.05
    assert fleet.members[1].sampling_period is None
    assert (board.quality, fleet.quality) == (Quality.INTEGRATED, Quality.INTEGRATED)
    assert "field 186" in board.devices[0].method
    assert "sampling may miss" in board.devices[0].bound
    assert "no energy counter (not supported)" in board.notes[0]
    assert [(one.power, one.energy) for one in board.read().readings] == [(None, None)]
    for _ in range(100):
        clock.now += 0.05
        board.sample()
    (reading,) = board.read().readings
    assert [reading.power, reading.since, reading.at] == pytest.approx([250.0, 100.0, 105.0])
    assert (reading.quality, reading.uncertainty) == (Quality.INTEGRATED, Watts(0))


def test_one_sample_is_one_call(fake: FakeNvml) -> None:
    fake.boards[0].without_counter()
    fake.boards[1].without_counter()
    fake.boards[1].averaging()
    fleet = fleet_on(fake)
    tick(fleet)
    for board, family in zip(fake.boards, ("fields", "power"), strict=True):
        before = dict(board.calls)
        fleet.members[board.slot].sample()
        assert {name: count - before[name] for name, count in board.calls.items() if count != before[name]} == {
            family: 1
        }
    assert "nvmlDeviceGetPowerUsage" in fleet.members[1].devices[0].method


def test_impossible_power_is_silence_and_never_energy(fake: FakeNvml) -> None:
    fake.boards[0].without_counter()
    clock = Clock()
    board = fleet_on(fake, Host(clock=clock)).members[0]
    board.read()
    fake.boards[0].power_reads(1_000_000)
    for _ in range(10):
        clock.now += 0.05
        board.sample()
    assert [reading.power for reading in board.read().readings if reading.power] == []


@pytest.mark.parametrize("code", [3, 4, 13])
def test_a_counter_that_is_refused_for_good_gives_way_to_sampling(fake: FakeNvml, code: int) -> None:
    fleet = fleet_on(fake)
    board = fleet.members[0]
    assert board.read().readings[0].energy is not None
    fake.boards[0].error(code, "energy")
    assert tick(fleet).failures == {}
    assert (board.quality, board.sampling_period) == (Quality.INTEGRATED, 0.05)
    assert "gpu0: no energy counter" in board.notes[0]
    assert board.notes[0].endswith(PERMISSION_REMEDY if code == 4 else "integrated")
    fake.boards[0].clear()
    tick(fleet)
    assert board.quality is Quality.INTEGRATED
    assert fleet.members[1].quality is Quality.MEASURED


def test_a_counter_that_fails_for_a_while_is_a_failure_and_comes_back(fake: FakeNvml) -> None:
    fleet = fleet_on(fake)
    tick(fleet)
    fake.boards[0].error(999, "energy")
    told = tick(fleet)
    assert set(told.readings) == {"gpu1"}
    assert "NVML 999" in str(told.failures["gpu0"])
    fake.boards[0].clear()
    assert set(tick(fleet).readings) == {"gpu0", "gpu1"}
    assert fleet.members[0].quality is Quality.MEASURED


def test_a_board_without_energy_and_power_says_so_and_gives_the_rest(fake: FakeNvml) -> None:
    fake.boards[0].without_counter()
    fake.boards[0].without_fields(185, 186)
    fake.boards[0].error(3, "power")
    fleet = fleet_on(fake)
    told = tick(fleet)
    assert set(told.readings) == {"gpu1"}
    assert "gpu0" in told.vitals
    assert "neither energy nor power" in fleet.members[0].notes[0]


def test_the_gpu_alone_is_preferred_on_a_module(fake: FakeNvml) -> None:
    fake.boards[0].module(100, gpu_scope=True)
    fleet = fleet_on(fake)
    assert fleet.covers == frozenset()
    assert "module" not in fleet.members[0].devices[0].method
    assert fleet.members[0].notes == ()


@pytest.mark.parametrize("left_out", [(), (191,)])
def test_a_counter_of_a_module_covers_processor_and_memory(fake: FakeNvml, left_out: tuple[int, ...]) -> None:
    fake.boards[0].module(100)
    fake.boards[0].without_fields(*left_out)
    fleet = fleet_on(fake)
    assert fleet.covers == {"cpu", "dram"}
    assert "the whole module" in fleet.members[0].devices[0].method
    assert "whole module" in fleet.members[0].notes[0]
    assert fleet.members[0].read().readings[0].energy is not None


def test_the_plain_counter_of_a_gh200_is_known_to_be_the_modules(fake: FakeNvml) -> None:
    fake.boards[0].describe(name="NVIDIA GH200 480GB")
    fake.boards[0].without_fields(191)
    assert fleet_on(fake).covers == {"cpu", "dram"}


def test_the_bound_is_twice_the_largest_limit_that_is_known(fake: FakeNvml) -> None:
    fake.boards[0].limit(300)
    fake.boards[1].without_fields(188)
    fake.boards[1].error(3, "limit")
    fleet = fleet_on(fake)
    assert [board.devices[0].max_power for board in fleet.members] == [Watts(1400), Watts(3000)]


def test_a_limit_without_a_field_is_slow_data(fake: FakeNvml) -> None:
    fake.boards[0].without_fields(188, 190)
    fleet = fleet_on(fake)
    assert fleet.members[0].devices[0].max_power == Watts(1400)
    tick(fleet)
    before = fake.boards[0].calls["limit"]
    fake.boards[0].limit(350)
    limits = [tick(fleet).vitals["gpu0"].power_limit for _ in range(12)]
    assert limits == [*[700.0] * 11, 350.0]
    assert fake.boards[0].calls["limit"] == before + 1


def test_a_counter_that_falls_or_jumps_is_a_gap(fake: FakeNvml) -> None:
    clock = Clock()
    board = fleet_on(fake, Host(clock=clock)).members[0]
    ledger = Ledger()
    joules = []
    for raw in (1000.0, 2000.0, 50.0, 100.0, 10_000_000.0, 10_000_500.0):
        fake.boards[0].counter(raw)
        joules.append(sum(piece.joules for piece in ledger.post(board.read().readings)))
        clock.now += 5
    assert joules == [0, 1000, 0, 50, 0, 500]
    assert ledger.gap_seconds == {"gpu0": 10.0}


def test_a_mark_of_no_value_is_a_failure_and_no_energy(fake: FakeNvml) -> None:
    fleet = fleet_on(fake)
    fake.boards[0].raw.counter_is_fixed, fake.boards[0].raw.fixed_counter_mj = 1, (1 << 64) - 1
    told = tick(fleet)
    assert set(told.readings) == {"gpu1"}
    assert "no value that can be" in str(told.failures["gpu0"])


def test_a_counter_that_disagrees_with_power_is_told_after_ten_minutes(fake: FakeNvml) -> None:
    clock = Clock()
    board = fleet_on(fake, Host(clock=clock)).members[0]
    fake.boards[0].power_reads(200)
    told = []
    for number in range(125):
        fake.boards[0].counter(number * 5 * 220.0)
        told.append(board.read().vitals[0].divergence)
        clock.now += 5
    assert told[:120] == [None] * 120
    assert told[120:] == [pytest.approx(0.1)] * 5


@pytest.mark.parametrize("family", ["memory", "temperature", "rates", "procs", "samples"])
def test_trouble_beside_the_meter_costs_no_reading(fake: FakeNvml, family: str) -> None:
    fleet = fleet_on(fake)
    tick(fleet)
    fake.boards[0].error(999, family)
    for _ in range(4):
        told = tick(fleet)
        assert set(told.readings) == {"gpu0", "gpu1"}
        assert "NVML 999" in str(told.failures["gpu0"])
        assert ("gpu0" in told.occupancies) == (family not in ("procs", "samples"))
    fake.boards[0].clear()
    assert tick(fleet).failures == {}


@pytest.mark.parametrize(("code", "remedy"), [(3, ""), (4, PERMISSION_REMEDY)])
def test_what_is_refused_is_asked_and_said_once(
    fake: FakeNvml, code: int, remedy: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("carbon_exporter"), "propagate", True)
    caplog.set_level(logging.INFO, logger="carbon_exporter")
    fleet = fleet_on(fake)
    fake.boards[0].error(code, "temperature")
    assert [tick(fleet).vitals["gpu0"].temperature for _ in range(3)] == [None] * 3
    assert fake.boards[0].calls["temperature"] == 1
    (note,) = fleet.members[0].notes
    assert note.startswith("gpu0: no temperature")
    assert note.endswith(remedy)
    assert [record.message for record in caplog.records] == [note]
    assert tick(fleet).vitals["gpu1"].temperature == 40.0


def test_a_tick_of_a_board_with_eight_processes_costs_little(fake: FakeNvml) -> None:
    fake.boards[0].samples(0)
    fake.boards[0].processes([Process(100 + n, sm=10) for n in range(8)])
    board = fleet_on(fake).members[0]

    def seconds_a_tick() -> float:
        began = time.thread_time()
        for _ in range(60):
            board.read()
        return (time.thread_time() - began) / 60

    assert min(seconds_a_tick() for _ in range(8)) < 0.0004


def test_a_divided_board_keeps_its_reading(fake: FakeNvml) -> None:
    fake.boards[0].mig([Slice(gi=7)])
    told = tick(fleet_on(fake))
    assert isinstance(told.readings["gpu0"], Reading)
    assert told.vitals["gpu0"].utilization is None
    assert fake.boards[0].calls["rates"] == 0


def test_a_failure_names_the_board_and_its_cause(fake: FakeNvml) -> None:
    fleet = fleet_on(fake)
    fake.boards[1].error(15)
    failure = tick(fleet).failures["gpu1"]
    assert isinstance(failure, SensorReadError)
    assert str(failure).startswith("the GPU is lost (NVML 15 from nvmlDeviceGetFieldValues); see dmesg")
