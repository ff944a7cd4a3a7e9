"""Recordings: what is written is what is played, and what cannot be played is said with file and line."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.machine import Clock, Machine

from carbon_exporter.errors import ConfigError, SensorReadError
from carbon_exporter.sensors.base import Device, Kind, Quality, Reading, Sample, Vitals
from carbon_exporter.sensors.model import probe
from carbon_exporter.sensors.recorder import recording_lines, write_recording
from carbon_exporter.sensors.replay import Replay
from carbon_exporter.units import Joules, Watts

HEADER = (
    '{"carbon_exporter_recording": 1, "devices": [{"name": "cpu0", "kind": "cpu"}, {"name": "gpu0", "kind": "gpu"}]}'
)
RECORD = '{"t": 0.0, "readings": [{"device": "cpu0", "quality": "measured", "energy": 5}]}'
NOTHING: frozenset[Kind] = frozenset()


def recording(directory: Path, *lines: str) -> Path:
    path = directory / "recording.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def record(t: float, **readings: float) -> str:
    rows = [{"device": device, "quality": "measured", "energy": energy} for device, energy in readings.items()]
    return json.dumps({"t": t, "readings": rows})


def energies(sample: Sample) -> dict[str, tuple[float, float | None]]:
    return {reading.device.name: (reading.at, reading.energy) for reading in sample.readings}


def test_the_newest_record_up_to_now_is_read_with_its_own_time(tmp_path: Path) -> None:
    clock = Clock(1000.0)
    replay = Replay(recording(tmp_path, HEADER, record(0, cpu0=5), record(2, cpu0=9), record(4, cpu0=1)), clock)
    seen = []
    for now in (1000.0, 1001.9, 1002.0, 1003.0, 1004.5):
        clock.now = now
        seen.append(energies(replay.read())["cpu0"])
    assert seen == [(1000, 5), (1000, 5), (1002, 9), (1002, 9), (1004, 1)]


def test_a_recording_that_says_its_interval_is_played_record_by_record(tmp_path: Path) -> None:
    clock = Clock(1000.0)
    header = HEADER.replace('"devices"', '"interval": 2.0, "devices"')
    replay = Replay(recording(tmp_path, header, *(record(t, cpu0=t) for t in (0, 2, 4, 6))), clock)
    seen = []
    for now in (1000.0, 1001.0, 1005.0, 1005.5, 1060.0):
        clock.now = now
        seen.append([reading.at for reading in replay.read().readings])
    assert seen == [[1000], [1000], [1002, 1004], [1004], [1006]]
    with pytest.raises(SensorReadError, match="the recording has ended"):
        replay.read()


def test_a_reading_may_have_a_time_of_its_own_and_a_device_several(tmp_path: Path) -> None:
    rows = [
        {"device": "gpu0", "quality": "integrated", "power": 100, "since": 1.0, "t": 2.0, "uncertainty": 3.5},
        {"device": "gpu0", "quality": "integrated", "power": 200, "since": 3.0, "t": 4.5},
        {"device": "gpu0", "quality": "integrated"},
    ]
    line = json.dumps({"t": 5.0, "readings": rows})
    clock = Clock(100.0)
    replay = Replay(recording(tmp_path, HEADER, RECORD, line), clock)
    replay.read()
    clock.now = 105.0
    assert [(r.at, r.since, r.power, r.uncertainty) for r in replay.read().readings] == [
        *((102.0, 101.0, 100.0, 3.5), (104.5, 103.0, 200.0, 0.0), (105.0, None, None, 0.0)),
    ]


def test_vitals_and_failures_are_played_and_the_newest_vitals_count(tmp_path: Path) -> None:
    header = HEADER.replace('"devices"', '"interval": 2.0, "devices"')
    first = {"t": 1.0, "vitals": [{"device": "gpu0", "temperature": 60}, {"device": "cpu0", "utilization": 0.5}]}
    second = {
        "t": 2.0,
        "vitals": [{"device": "gpu0", "temperature": -1.5, "power_limit": 700, "memory_used": 5, "divergence": -0.1}],
        "failures": [{"device": "cpu0", "reason": "lost"}, {"reason": "all lost"}],
    }
    clock = Clock(100.0)
    replay = Replay(recording(tmp_path, header, RECORD, json.dumps(first), json.dumps(second)), clock)
    replay.read()
    clock.now = 102.0
    sample = replay.read()
    assert sample.readings == ()
    assert sample.vitals == (Vitals("gpu0", Watts(700.0), None, 5, -1.5, -0.1), Vitals("cpu0", utilization=0.5))
    assert [(failure.device, failure.reason) for failure in sample.failures] == [("cpu0", "lost"), ("", "all lost")]


def test_devices_are_those_of_the_newest_record(tmp_path: Path) -> None:
    device = {"name": "redfish", "kind": "node", "sensor": "redfish", "bound": "±2 %", "period": 1.5}
    line = json.dumps({"t": 5, "devices": [device]})
    clock = Clock()
    replay = Replay(recording(tmp_path, HEADER, RECORD, line), clock)
    replay.read()
    assert [device.name for device in replay.devices] == ["cpu0", "gpu0"]
    clock.now += 5
    replay.read()
    assert replay.devices == (
        Device("redfish", "node", "replay", method="recorded by redfish", bound="±2 %", period=1.5),
    )


def test_before_the_first_record_there_is_nothing(tmp_path: Path) -> None:
    clock = Clock()
    replay = Replay(recording(tmp_path, HEADER, record(1.5, cpu0=5)), clock)
    assert replay.read() == Sample(())
    clock.now += 1.5
    assert energies(replay.read()) == {"cpu0": (101.5, 5)}


def test_it_ends_one_step_after_its_last_record(tmp_path: Path) -> None:
    clock = Clock()
    path = recording(tmp_path, HEADER, record(0, cpu0=1), record(1, cpu0=2), record(3, cpu0=3))
    replay = Replay(path, clock)
    replay.read()
    clock.now += 5
    assert energies(replay.read()) == {"cpu0": (103.0, 3)}
    clock.now += 0.01
    with pytest.raises(SensorReadError, match=f"the recording has ended: {path} is 3 s long"):
        replay.read()


def test_devices_are_as_recorded_and_their_sensor_is_replay(tmp_path: Path) -> None:
    device = {
        "name": "cpu0",
        "kind": "cpu",
        "vendor": "Intel",
        "model": "X",
        "counter_range": 262143.3,
        "method": "RAPL",
    }
    header = json.dumps({"carbon_exporter_recording": 1, "devices": [device]})
    assert Replay(recording(tmp_path, header, RECORD), Clock()).devices == (
        Device("cpu0", "cpu", "replay", "Intel", "X", counter_range=Joules(262143.3), method="recorded: RAPL"),
    )


KINDS: tuple[Kind, ...] = ("cpu", "dram", "gpu")
DEVICES = tuple(Device(f"{kind}0", kind, "rapl", "V", "M", "U", Joules(1e5), Watts(400.0), "a file") for kind in KINDS)
amounts = st.floats(0, 1e12)
values = st.one_of(
    st.none(),
    st.tuples(st.just("energy"), amounts),
    st.tuples(st.just("power"), amounts),
    st.tuples(st.just("mean"), amounts),
)


def sample_of(at: float, chosen: dict[Device, tuple[str, float] | None]) -> Sample:
    readings = []
    for device, value in chosen.items():
        form, amount = value or ("mark", 0.0)
        energy = Joules(amount) if form == "energy" else None
        power = Watts(amount) if form in {"power", "mean"} else None
        since = at - 1 if form == "mean" else None
        readings.append(Reading(device, at, Quality.INTEGRATED, energy, power, since))
    return Sample(tuple(readings))


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.dictionaries(st.sampled_from(DEVICES), values, min_size=1)), min_size=1)
)
def test_what_was_recorded_is_what_is_played(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, dict[Device, tuple[str, float] | None]]]
) -> None:
    path = tmp_path_factory.mktemp("round_trip") / "recording.jsonl"
    at, samples = 0, []
    for step, chosen in steps:
        at += step
        samples.append(sample_of(at, chosen))
    write_recording(path, DEVICES, samples)
    clock = Clock(float(steps[0][0]))
    replay = Replay(path, clock)
    for sample in samples:
        clock.now = sample.readings[0].at
        played = replay.read().readings
        assert [plain(reading) for reading in played] == [plain(reading) for reading in sample.readings]
        assert {reading.device for reading in played} <= set(replay.devices)


def plain(reading: Reading) -> tuple[object, ...]:
    return (reading.device.name, reading.at, reading.quality, reading.energy, reading.power, reading.since)


def test_a_replay_that_is_recorded_is_the_same_recording(tmp_path: Path) -> None:
    samples = [sample_of(100.0 + step, {DEVICES[0]: ("energy", step * 7.5)}) for step in range(3)]
    first = b"".join(recording_lines(DEVICES, samples))
    path = tmp_path / "first.jsonl"
    path.write_bytes(first)
    clock = Clock()
    replay = Replay(path, clock)
    played = []
    for step in range(3):
        clock.now = 100.0 + step
        played.append(replay.read())
    assert b"".join(recording_lines(replay.devices, played)) == first


def test_a_model_can_be_recorded_as_it_runs(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m")
    model = probe(machine.host, NOTHING)
    samples = [model.read()]
    machine.run(5, 0.5)
    samples.append(model.read())
    write_recording(tmp_path / "recording.jsonl", model.devices, [*samples, Sample(())])
    clock = Clock(0.0)
    replay = Replay(tmp_path / "recording.jsonl", clock)
    replay.read()
    clock.now = 5.0
    processor, memory = replay.read().readings
    assert processor.power == pytest.approx(205 * 0.75)
    assert (processor.since, processor.quality) == (0.0, Quality.MODELLED)
    assert (memory.power, memory.quality) == (Watts(6.0), Quality.DEFAULT)


@pytest.mark.parametrize(
    ("lines", "number", "told"),
    [
        (["not json"], 1, "malformed"),
        (["[]"], 1, "Expected `object`"),
        (['{"devices": []}'], 1, "carbon_exporter_recording"),
        (['{"carbon_exporter_recording": 2, "devices": []}'], 1, "Invalid enum value 2"),
        (['{"carbon_exporter_recording": 1, "devices": [], "more": 1}'], 1, "unknown field `more`"),
        (['{"carbon_exporter_recording": 1, "devices": [{"name": "a", "kind": "toaster"}]}'], 1, "toaster"),
        (['{"carbon_exporter_recording": 1, "devices": [{"name": "", "kind": "cpu"}]}'], 1, "name: ''"),
        ([HEADER.replace("gpu0", "cpu0")], 1, "name: 'cpu0'"),
        ([HEADER.replace('"cpu"', '"cpu", "counter_range": 0')], 1, "counter_range: 0"),
        ([HEADER.replace('"cpu"', '"cpu", "max_power": -1.0')], 1, "max_power: -1.0"),
        ([HEADER, RECORD, RECORD], 3, "t: 0.0"),
        ([HEADER, "", RECORD, record(-1, cpu0=1)], 4, "t: -1"),
        ([HEADER, record(-1, cpu0=1)], 2, "t: -1"),
        ([HEADER, record(0, cpu1=1)], 2, "device: 'cpu1' is not accepted; accepted: each at most once of: cpu0, gpu0"),
        ([HEADER, RECORD.replace("}]", '}, {"device": "cpu0", "quality": "measured"}]')], 2, "device: 'cpu0'"),
        ([HEADER, RECORD.replace('"energy": 5', '"energy": -5')], 2, "energy: -5"),
        ([HEADER, RECORD.replace('"energy": 5', '"energy": "5"')], 2, "Expected `float"),
        ([HEADER, RECORD.replace('"energy": 5', '"energy": 1e999')], 2, "out of range"),
        ([HEADER, RECORD.replace('"energy": 5', '"energy": 5, "power": 5')], 2, "either energy or power"),
        ([HEADER, RECORD.replace('"energy": 5', '"energy": 5, "since": -1')], 2, "since: -1"),
        ([HEADER, RECORD.replace('"energy": 5', '"power": 5, "since": 0')], 2, "since: 0"),
        ([HEADER, RECORD.replace("measured", "guessed")], 2, "guessed"),
        ([HEADER.replace('"devices"', '"interval": 0, "devices"'), RECORD], 1, "interval: 0"),
        ([HEADER.replace('"cpu"', '"cpu", "period": 0'), RECORD], 1, "period: 0"),
        ([HEADER, RECORD.replace('"energy": 5', '"energy": 5, "t": 0.5')], 2, "a time not after its record's"),
        ([HEADER, RECORD.replace('"energy": 5', '"power": 5, "t": -2, "since": -1')], 2, "since: -1"),
        ([HEADER, RECORD.replace('"energy": 5', '"power": 5, "uncertainty": -1')], 2, "uncertainty: -1"),
        (
            [HEADER, '{"t": 0, "vitals": [{"device": "gpu7"}]}'],
            2,
            "device: 'gpu7' is not accepted; accepted: one of: cpu0",
        ),
        ([HEADER, '{"t": 0, "vitals": [{"device": "gpu0", "utilization": -1}]}'], 2, "utilization: -1"),
        ([HEADER, '{"t": 0, "vitals": [{"device": "gpu0", "memory_used": 1e3}]}'], 2, "Expected `int"),
        ([HEADER, '{"t": 0, "vitals": [{"device": "gpu0", "temperature": 1e999}]}'], 2, "out of range"),
        ([HEADER, '{"t": 0, "failures": [{"device": "gpu7", "reason": "lost"}]}'], 2, "device: 'gpu7'"),
        ([HEADER, '{"t": 0, "failures": [{"device": "gpu0"}]}'], 2, "reason"),
        ([HEADER, '{"t": 0, "devices": [{"name": "a", "kind": "cpu"}, {"name": "a", "kind": "cpu"}]}'], 2, "name: 'a'"),
        (
            [HEADER, RECORD, '{"t": 1, "devices": [], "readings": [{"device": "cpu0", "quality": "measured"}]}'],
            3,
            "cpu0",
        ),
        ([HEADER, RECORD.replace("measured", "me\udcffasured")], 2, "accepted"),
    ],
)
def test_a_faulty_line_is_told_with_file_and_number(tmp_path: Path, lines: list[str], number: int, told: str) -> None:
    path = tmp_path / "recording.jsonl"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        Replay(path, Clock())
    assert caught.value.where == f"{path}:{number}"
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", HEADER])
def test_a_recording_without_records_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="line"):
        Replay(recording(tmp_path, text), Clock())


def test_a_file_that_is_not_there_is_a_setting_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Replay(tmp_path / "none", Clock())
    with pytest.raises(ConfigError, match="Is a directory"):
        Replay(tmp_path, Clock())


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just("gpu0"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["t", "readings", "device"]), inner),
)
odd = st.none() | st.floats() | st.integers() | st.sampled_from([0, 1, 10**30, "gpu0", "cpu0", "measured", "node", ""])


def rows_of(*keys: str) -> st.SearchStrategy[list[dict[str, object]]]:
    """Lists of objects that have some of the right keys, and right or wrong values."""
    return st.lists(st.dictionaries(st.sampled_from(keys), odd, max_size=5), max_size=3)


records = st.fixed_dictionaries(
    {"t": odd},
    optional={
        "devices": rows_of("name", "kind", "sensor", "uuid", "counter_range", "max_power", "period", "bound"),
        "readings": rows_of("device", "quality", "energy", "power", "since", "t", "uncertainty"),
        "vitals": rows_of("device", "power_limit", "utilization", "memory_used", "temperature", "divergence"),
        "failures": rows_of("device", "reason"),
    },
)


@given(
    st.one_of(
        st.binary(max_size=80),
        json_values.map(lambda value: json.dumps(value).encode()),
        records.map(lambda value: json.dumps(value).encode()),
    ),
    st.booleans(),
)
def test_any_line_is_played_or_refused(tmp_path_factory: pytest.TempPathFactory, line: bytes, every: bool) -> None:
    path = tmp_path_factory.mktemp("any") / "recording.jsonl"
    header = HEADER.replace('"devices"', '"interval": 1, "devices"') if every else HEADER
    path.write_bytes(b"\n".join([header.encode(), RECORD.encode(), line]))
    clock = Clock()
    played = replay_or_error(path, clock)
    if isinstance(played, ConfigError):
        assert played.where.startswith(f"{path}:")
        return
    assert energies(played.read()) == {"cpu0": (100.0, 5)}
    clock.now += 1e6
    with contextlib.suppress(SensorReadError):
        played.read()


def replay_or_error(path: Path, clock: Clock) -> Replay | ConfigError:
    try:
        return Replay(path, clock)
    except ConfigError as error:
        return error


@given(st.binary(max_size=80))
def test_any_file_is_played_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "recording.jsonl"
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        Replay(path, Clock())


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Replay(recording(tmp_path, HEADER, "[" * 100_000), Clock())
