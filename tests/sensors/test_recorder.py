"""What a machine said, recorded and replayed: the same slices, gaps, vitals and failures at the same ticks."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.machine import Clock

from carbon_exporter.energy.ledger import EnergySlice, Ledger
from carbon_exporter.errors import SensorError, SensorReadError
from carbon_exporter.sensors.base import Device, Quality, Reading, Sample, Vitals
from carbon_exporter.sensors.integrator import PowerIntegrator
from carbon_exporter.sensors.recorder import Recorder
from carbon_exporter.sensors.redaction import Redaction
from carbon_exporter.sensors.replay import Replay
from carbon_exporter.units import Joules, Watts

BOARD = Device("gpu0", "gpu", "nvidia", "NVIDIA", "H100", "GPU-1", max_power=Watts(1400.0), bound="±5 %", period=0.1)
DEVICES = (
    BOARD,
    Device("gpu1", "gpu", "nvidia", "NVIDIA", "H100", "GPU-2"),
    replace(BOARD, uuid="GPU-3"),
    Device("cpu0", "cpu", "rapl", counter_range=Joules(5000.0), max_power=Watts(400.0), method="energy_uj"),
    Device("cpu0", "cpu", "model"),
    Device("redfish", "node", "redfish", method="PowerConsumedWatts"),
)
"""Two names have more than one meter: a board that was changed, and a processor whose counter came later."""
SECOND = 1024
"""Times are whole 1024ths of a second, so that floating point adds and subtracts them exactly."""


@dataclass(frozen=True)
class Look:
    """One look of a live run, at `at` seconds."""

    at: float
    devices: tuple[Device, ...]
    sample: Sample
    troubles: tuple[SensorError, ...] = ()


def write(path: Path, looks: Iterable[Look], redact: Redaction | None = None) -> None:
    recorder = Recorder(5.0, redact)
    lines: list[bytes] = []
    for look in looks:
        if not lines:
            lines.append(recorder.header(look.devices))
        lines.append(recorder.record(look.at, look.devices, look.sample, look.troubles))
    path.write_bytes(b"".join(lines))


numbers = st.floats(0, 1e5) | st.just(math.nan) | st.just(-1.0)


@st.composite
def readings_of(draw: st.DrawFn, device: Device, now: float) -> tuple[Reading, ...]:
    """A counter, an instant of power, means over parts of the time since the last look, a mark, or nothing."""
    form = draw(st.sampled_from(["counter", "instant", "means", "mark", "nothing"]))
    at = now - draw(st.integers(0, 100)) / SECOND
    if form == "means":
        steps = draw(st.lists(st.integers(1, 2 * SECOND), min_size=2, max_size=6).map(sorted))
        ends = [now - step / SECOND for step in reversed(steps)]
        return tuple(
            Reading(device, end, Quality.INTEGRATED, power=Watts(draw(numbers)), since=start, uncertainty=Watts(1.5))
            for start, end in itertools.pairwise(ends)
            if end > start
        )
    energy = Joules(draw(st.floats(0, 1e5) | st.just(math.nan))) if form == "counter" else None
    power = Watts(draw(numbers)) if form == "instant" else None
    return () if form == "nothing" else (Reading(device, at, Quality.MEASURED, energy, power),)


@st.composite
def live_runs(draw: st.DrawFn) -> list[Look]:
    """A machine whose devices come and go and say anything that meters say."""
    at, looks = float(draw(st.integers(0, 10**6))), []
    for _ in range(draw(st.integers(1, 8))):
        chosen = {device.name: device for device in draw(st.lists(st.sampled_from(DEVICES), max_size=4))}
        devices = tuple(chosen.values())
        parts = [draw(readings_of(device, at)) for device in devices]
        vitals = tuple(Vitals(name, Watts(700.0), 0.5, 2**33, -3.5, -0.01) for name in chosen if draw(st.booleans()))
        failures = tuple(SensorReadError("lost", device=name) for name in chosen if draw(st.booleans()))
        sample = Sample(tuple(reading for part in parts for reading in part), failures, vitals)
        looks.append(Look(at, devices, sample, (SensorError("late"),) if draw(st.booleans()) else ()))
        at += draw(st.integers(1, 40 * SECOND)) / SECOND
    return looks


def shown(device: Device) -> tuple[object, ...]:
    return (device.name, device.kind, device.vendor, device.model, device.bound, device.period, device.counter_range)


def shown_slices(slices: Iterable[EnergySlice], start: float) -> list[tuple[object, ...]]:
    return [(*shown(one.device), one.start - start, one.end - start, one.joules, one.quality) for one in slices]


@given(live_runs(), st.integers(0, 10**6), st.booleans())
def test_a_replay_at_the_same_ticks_gives_what_the_live_run_gave(
    tmp_path_factory: pytest.TempPathFactory, looks: list[Look], later: int, redacted: bool
) -> None:
    path = tmp_path_factory.mktemp("run") / "recording.jsonl"
    write(path, looks, Redaction() if redacted else None)
    clock = Clock(float(later))
    replay, live, again = Replay(path, clock), Ledger(), Ledger()
    began = looks[0].at
    for look in looks:
        clock.now = later + (look.at - began)
        played = replay.read()
        assert {shown(device) for device in replay.devices} == {shown(device) for device in look.devices}
        assert {device.sensor for device in replay.devices} <= {"replay"}
        assert shown_slices(again.post(played.readings), later) == shown_slices(live.post(look.sample.readings), began)
        assert [one.uncertainty for one in played.readings] == [one.uncertainty for one in look.sample.readings]
        assert played.vitals == look.sample.vitals
        assert [(one.device, one.reason) for one in played.failures] == [
            *((one.device, one.reason) for one in look.sample.failures),
            *(("", one.reason) for one in look.troubles),
        ]
    assert again.gap_seconds == live.gap_seconds


@given(live_runs(), st.integers(2 * SECOND, 200 * SECOND))
def test_a_replay_that_is_looked_at_seldom_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, looks: list[Look], step: int
) -> None:
    path = tmp_path_factory.mktemp("run") / "recording.jsonl"
    write(path, looks)
    clock = Clock(0.0)
    replay, live, again = Replay(path, clock), Ledger(), Ledger()
    began, ended = looks[0].at, looks[-1].at - looks[0].at
    expected = [one for look in looks for one in shown_slices(live.post(look.sample.readings), began)]
    slices = list(shown_slices(again.post(replay.read().readings), 0.0))
    while clock.now < ended:
        clock.now += step / SECOND
        slices += shown_slices(again.post(replay.read().readings), 0.0)
    assert slices == expected
    assert again.gap_seconds == live.gap_seconds


def look(at: float, *readings: Reading, devices: tuple[Device, ...] = (BOARD,), **more: Any) -> Look:
    return Look(at, devices, Sample(readings, **more))


def counter(device: Device, at: float, joules: float) -> Reading:
    return Reading(device, at, Quality.MEASURED, energy=Joules(joules))


def play(path: Path, seconds: float) -> tuple[Replay, Sample]:
    """Begin to play, and look again after so many seconds."""
    clock = Clock(0.0)
    replay = Replay(path, clock)
    replay.read()
    clock.now = seconds
    return replay, replay.read()


def test_every_segment_of_a_sampled_meter_is_played_with_its_uncertainty(tmp_path: Path) -> None:
    integrator = PowerIntegrator(longest_step=0.5)
    looks = []
    for tick in range(1, 4):
        for step in range(20):
            if step != 10:  # a hole in the sampling: two segments
                integrator.add(5 * tick + step / 16, 300.0 + 100 * (step % 2))
            if step == 10:
                integrator.add(5 * tick + 0.7, -1.0)
        integrator.add(5 * tick + 2.5, 300.0)
        looks.append(look(5 * tick + 2.5, *integrator.take(BOARD)))
    write(tmp_path / "r.jsonl", looks)
    _, sample = play(tmp_path / "r.jsonl", 5.0)
    live = looks[1].sample.readings
    assert [(r.power, r.uncertainty, r.at - r.since) for r in sample.readings if r.since is not None] == [
        (r.power, r.uncertainty, r.at - r.since) for r in live if r.since is not None
    ]
    assert live
    assert all(reading.uncertainty > 0 for reading in live)


def test_a_board_that_comes_later_and_one_that_goes_are_told_by_new_lists_of_devices(tmp_path: Path) -> None:
    other = DEVICES[1]
    write(
        tmp_path / "r.jsonl",
        [
            look(10.0, counter(BOARD, 10.0, 5.0)),
            look(15.0, counter(other, 15.0, 1.0), devices=(BOARD, other)),
            look(20.0, counter(other, 20.0, 2.0), devices=(other,)),
        ],
    )
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_bytes().splitlines()]
    assert [[row["name"] for row in line.get("devices", [])] for line in lines] == [
        *(["gpu0"], [], ["gpu0", "gpu1"], ["gpu1"]),
    ]
    replay, sample = play(tmp_path / "r.jsonl", 6.0)
    assert [device.name for device in replay.devices] == ["gpu0", "gpu1"]
    assert [reading.device.name for reading in sample.readings] == ["gpu1"]


def test_a_reading_of_a_device_that_is_not_listed_any_more_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", [look(10.0, counter(BOARD, 10.0, 5.0), devices=())])
    replay, sample = play(tmp_path / "r.jsonl", 0.0)
    assert [reading.energy for reading in sample.readings] == [5.0]
    assert [device.name for device in replay.devices] == ["gpu0"]


def test_of_two_meters_of_one_name_the_first_is_recorded(tmp_path: Path) -> None:
    both = (counter(DEVICES[3], 10.0, 7.0), counter(DEVICES[4], 10.0, 1.0))
    write(tmp_path / "r.jsonl", [look(10.0, *both, devices=DEVICES[3:5])])
    _, sample = play(tmp_path / "r.jsonl", 0.0)
    assert [reading.energy for reading in sample.readings] == [7.0]


def test_counters_of_two_boards_of_one_name_are_never_subtracted(tmp_path: Path) -> None:
    new = DEVICES[2]
    looks = [look(0.0, counter(BOARD, 0.0, 5.0)), look(5.0, counter(new, 5.0, 900.0), devices=(new,))]
    write(tmp_path / "r.jsonl", looks, Redaction())
    clock, ledger = Clock(0.0), Ledger()
    replay = Replay(tmp_path / "r.jsonl", clock)
    ledger.post(replay.read().readings)
    clock.now = 5.0
    assert ledger.post(replay.read().readings) == []
    assert ledger.gap_seconds == {"gpu0": 5.0}
    assert [device.uuid for device in replay.devices] == ["meter 2"]


def test_a_recording_for_others_holds_nothing_personal(tmp_path: Path) -> None:
    board = replace(
        BOARD,
        name="redfish/FCH2310V0B8",
        uuid="GPU-12345678-1234-1234-1234-123456789abc",
        method="https://admin@bmc17.example.org/redfish/v1/Chassis/FCH2310V0B8/Power",
        bound="±2 % (said by node17)",
    )
    failure = SensorReadError("host='bmc17': /home/alice/ca.pem is no certificate", device=board.name)
    trouble = SensorError("10.0.0.7:443 has not answered node17", remedy="ask alice")
    said = Look(3.0, (board,), Sample((counter(board, 3.0, 1.0),), (failure,), (Vitals(board.name),)), (trouble,))
    write(tmp_path / "r.jsonl", [said], Redaction(["node17", "alice", "bmc17"]))
    text = (tmp_path / "r.jsonl").read_text()
    for word in ("FCH", "12345678", "alice", "node17", "bmc17", "example", "admin", "10.0.0.7", "https", "home"):
        assert word not in text
    replay, sample = play(tmp_path / "r.jsonl", 0.0)
    (device,) = replay.devices
    assert (device.name, device.bound, device.uuid) == ("redfish/<serial>", "±2 % (said by <name>)", "")
    assert sample.vitals == (Vitals("redfish/<serial>"),)
    assert [(one.device, one.reason) for one in sample.failures] == [
        ("redfish/<serial>", "host=<address>: <path> is no certificate"),
        ("", "<address> has not answered <name>"),
    ]


def test_two_names_that_are_alike_without_their_serials_stay_two(tmp_path: Path) -> None:
    first, second = (replace(BOARD, name=f"redfish/FCH2310V0B{n}") for n in (8, 9))
    write(
        tmp_path / "r.jsonl",
        [look(0.0, counter(first, 0.0, 1.0), counter(second, 0.0, 2.0), devices=(first, second))],
        Redaction(),
    )
    _, sample = play(tmp_path / "r.jsonl", 0.0)
    assert {reading.device.name: reading.energy for reading in sample.readings} == {
        "redfish/<serial>": 1.0,
        "redfish/<serial> 2": 2.0,
    }


def test_a_replay_that_is_recorded_again_says_who_measured_first(tmp_path: Path) -> None:
    write(tmp_path / "first.jsonl", [look(0.0, counter(DEVICES[3], 0.0, 1.0), devices=DEVICES[3:4])])
    replay, sample = play(tmp_path / "first.jsonl", 0.0)
    assert replay.devices[0].method == "recorded by rapl: energy_uj"
    write(tmp_path / "second.jsonl", [Look(0.0, replay.devices, sample)])
    assert (tmp_path / "second.jsonl").read_bytes() == (tmp_path / "first.jsonl").read_bytes()


def test_looks_at_one_moment_keep_their_order(tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", [look(7.0, counter(BOARD, 7.0, 1.0)), look(7.0), look(7.0)])
    times = [json.loads(line)["t"] for line in (tmp_path / "r.jsonl").read_bytes().splitlines()[1:]]
    assert times == sorted(set(times))
    assert times[-1] == pytest.approx(0.0)


@pytest.mark.parametrize(
    "device",
    [
        replace(BOARD, max_power=Watts(0.0), counter_range=Joules(-1.0), period=math.nan),
        replace(BOARD, method="file \udcff", model="\ud800", name="gpu\udcff"),
    ],
)
def test_what_json_cannot_hold_is_still_recorded(tmp_path: Path, device: Device) -> None:
    odd = Reading(device, 1.0, Quality.INTEGRATED, power=Watts(5.0), since=1.0, uncertainty=Watts(math.inf))
    vitals = Vitals(device.name, Watts(math.nan), -1.0, -1, math.inf, math.nan)
    write(tmp_path / "r.jsonl", [look(1.0, odd, devices=(device,), vitals=(vitals,))], Redaction())
    replay, sample = play(tmp_path / "r.jsonl", 0.0)
    assert [(reading.power, reading.uncertainty) for reading in sample.readings] == [(None, 0.0)]
    assert sample.vitals == (Vitals(replay.devices[0].name),)
