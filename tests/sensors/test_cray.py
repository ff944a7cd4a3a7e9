"""Counters of Cray nodes, on trees as /sys/cray/pm_counters has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.other_user import needs_root, public_directory, run_as_nobody
from support.powercap import replace_text
from support.traces import Trace, burst, constant, square

from carbon_exporter.energy.ledger import Ledger
from carbon_exporter.errors import SensorError, SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Host, Kind, Quality, Sensor
from carbon_exporter.sensors.cray import Line, parse_line, probe

NOTHING: frozenset[Kind] = frozenset()
EVERYTHING: frozenset[Kind] = frozenset({"gpu", "cpu", "dram", "node"})


@dataclass
class Node:
    """A node's counters; `now` is monotonic seconds, and the stamp of what is written."""

    sysfs: Path
    now: float = 1000.0

    @property
    def directory(self) -> Path:
        return self.sysfs / "cray" / "pm_counters"

    def host(self) -> Host:
        return Host(sysfs=self.sysfs, clock=lambda: self.now)

    def write(self, **values: int) -> None:
        """Renew counters of energy (joules), and files without a unit."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for file, value in values.items():
            unit = " J" if file.endswith("energy") else ""
            stamp = round((self.now + 1.7e9) * 1e6)
            replace_text(self.directory / file, f"{value}{unit} {stamp} us\n")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "sys")


@pytest.fixture
def public_node() -> Iterator[Node]:
    with public_directory() as directory:
        yield Node(directory / "sys")


def names(sensor: Sensor) -> list[str]:
    return [device.name for device in sensor.devices]


def joules(sensor: Sensor) -> dict[str, float | None]:
    return {reading.device.name: reading.energy for reading in sensor.read().readings}


def counted(ledger: Ledger, sensor: Sensor) -> list[float]:
    return [part.joules for part in ledger.post(sensor.read().readings)]


def test_a_node_its_processors_memory_and_accelerators_each_have_a_counter(node: Node) -> None:
    node.write(energy=900, cpu_energy=300, memory_energy=100, accel1_energy=201, accel0_energy=200, accel10_energy=210)
    node.write(generation=3, startup=1, freshness=77, power=500, accel_energy=611)
    sensor = probe(node.host(), NOTHING)
    assert joules(sensor) == {"cray": 900, "cpu0": 300, "dram0": 100, "gpu0": 200, "gpu1": 201, "gpu10": 210}
    assert [device.kind for device in sensor.devices] == ["node", "cpu", "dram", "gpu", "gpu", "gpu"]
    assert sensor.covers == NOTHING
    for reading in sensor.read().readings:
        assert (reading.quality, reading.at, reading.power) == (Quality.MEASURED, 1000.0, None)
    assert "all processors in one number" in sensor.devices[1].method


def test_counters_of_single_processors_go_before_their_sum(node: Node) -> None:
    node.write(energy=900, cpu_energy=300, cpu0_energy=150, cpu1_energy=151)
    assert joules(probe(node.host(), NOTHING)) == {"cray": 900, "cpu0": 150, "cpu1": 151}


def test_one_accelerator_without_a_number_is_gpu0(node: Node) -> None:
    node.write(energy=900, accel_energy=300)
    assert names(probe(node.host(), NOTHING)) == ["cray", "gpu0"]


def test_kinds_that_are_covered_are_left_alone_and_take_no_name(node: Node) -> None:
    node.write(energy=900, cpu_energy=300, memory_energy=100, accel0_energy=200)
    host = node.host()
    assert names(probe(host, EVERYTHING)) == ["cray"]
    assert host.names.name("gpu", "another", 0) == "gpu0"
    node.write(energy=0)
    with pytest.raises(SensorUnavailable, match="no energy counter"):
        probe(host, EVERYTHING)


def test_a_counter_that_stays_at_zero_or_is_broken_is_no_meter_and_told(node: Node) -> None:
    node.write(energy=900, cpu_energy=300, accel0_energy=0)
    (node.directory / "memory_energy").write_text("\n")
    sensor = probe(node.host(), NOTHING)
    assert names(sensor) == ["cray", "cpu0"]
    assert [note.split("/")[-1].split(" ")[0] for note in sensor.notes] == ["accel0_energy", "memory_energy"]


def test_a_start_of_the_controller_is_a_gap_even_where_the_counter_is_higher(node: Node) -> None:
    node.write(energy=900, startup=1)
    sensor = probe(node.host(), NOTHING)
    ledger = Ledger()
    ledger.post(sensor.read().readings)
    node.now += 5
    node.write(energy=1400)
    assert counted(ledger, sensor) == [500]
    node.now += 5
    node.write(energy=1500, startup=2)
    assert ledger.post(sensor.read().readings) == []
    assert ledger.gap_seconds == {"cray": 5}
    node.now += 5
    node.write(energy=1600)
    assert counted(ledger, sensor) == [100]


def test_a_new_power_cap_is_no_reset(node: Node) -> None:
    node.write(energy=900, startup=1, generation=1)
    sensor = probe(node.host(), NOTHING)
    ledger = Ledger()
    ledger.post(sensor.read().readings)
    node.now += 5
    node.write(energy=1400, generation=2)
    assert counted(ledger, sensor) == [500]


def test_without_a_count_of_starts_a_counter_that_falls_is_a_gap(node: Node) -> None:
    node.write(energy=900)
    sensor = probe(node.host(), NOTHING)
    ledger = Ledger()
    ledger.post(sensor.read().readings)
    node.now += 5
    node.write(energy=10)
    assert ledger.post(sensor.read().readings) == []
    assert ledger.gap_seconds == {"cray": 5}


def test_a_counter_that_is_not_renewed_fails_and_is_caught_up_later(node: Node) -> None:
    node.write(energy=900)
    sensor = probe(node.host(), NOTHING)
    ledger = Ledger()
    ledger.post(sensor.read().readings)
    node.now += 4
    with pytest.raises(SensorReadError, match="has not been renewed for 4 s"):
        sensor.read()
    node.now += 4
    node.write(energy=1700)
    (part,) = ledger.post(sensor.read().readings)
    assert [part.joules, part.start, part.end] == [800, 1000, 1008]


@pytest.mark.parametrize("text", ["", "\n", "J", "-5 J 1 us", "1.5 J 1 us", "12 W 1 us", "12", "9" * 40, "12 J 1 us x"])
def test_half_a_line_or_nonsense_fails_that_counter_alone(node: Node, text: str) -> None:
    node.write(energy=900, cpu_energy=300)
    sensor = probe(node.host(), NOTHING)
    (node.directory / "cpu_energy").write_text(text)
    sample = sensor.read()
    assert [reading.device.name for reading in sample.readings] == ["cray"]
    assert [failure.device for failure in sample.failures] == ["cpu0"]
    assert "does not hold a number of joules" in sample.failures[0].reason


def test_files_that_vanish_fail_and_come_back(node: Node) -> None:
    node.write(energy=900, cpu_energy=300, startup=1)
    sensor = probe(node.host(), NOTHING)
    for file in node.directory.iterdir():
        file.unlink()
    with pytest.raises(SensorReadError, match="cannot be read"):
        sensor.read()
    node.write(energy=901, cpu_energy=301, startup=1)
    assert joules(sensor) == {"cray": 901, "cpu0": 301}


def test_no_directory_is_no_meter(node: Node) -> None:
    with pytest.raises(SensorUnavailable, match="does not exist"):
        probe(node.host(), NOTHING)
    node.directory.parent.mkdir(parents=True)
    node.directory.write_text("")
    with pytest.raises(SensorUnavailable, match="Not a directory"):
        probe(node.host(), NOTHING)


@needs_root
@pytest.mark.parametrize("hidden", ["energy", "."])
def test_counters_that_may_not_be_read_are_denied(public_node: Node, hidden: str) -> None:
    public_node.write(energy=900)
    (public_node.directory / hidden).chmod(0)

    def refused() -> None:
        with pytest.raises(SensorPermission, match="may not be read") as caught:
            probe(public_node.host(), NOTHING)
        assert caught.value.remedy

    run_as_nobody(refused)


@needs_root
def test_a_counter_that_is_closed_later_fails_with_the_remedy(public_node: Node) -> None:
    public_node.write(energy=900, cpu_energy=5)
    sensor = probe(public_node.host(), NOTHING)
    (public_node.directory / "cpu_energy").chmod(0)

    def refused() -> None:
        (failure,) = sensor.read().failures
        assert failure.device == "cpu0"
        assert failure.remedy

    run_as_nobody(refused)


@pytest.mark.parametrize("trace", [constant(700.0), square(300.0, 1500.0, 0.7), burst(300.0, 2500.0, 0.3, 2.0)])
def test_a_known_trace_is_counted_within_half_a_percent(node: Node, trace: Trace) -> None:
    def move(at: float) -> None:
        node.now = at
        seen = at - at % 0.1  # renewed ten times a second, in whole joules
        node.write(energy=int(trace.joules(0.0, seen)), accel0_energy=int(trace.joules(0.0, seen) / 4))

    move(1000.0)
    sensor = probe(node.host(), NOTHING)
    ledger = Ledger()
    total = {"cray": 0.0, "gpu0": 0.0}
    for tick in range(13):
        move(1000.03 + 5 * tick)
        for part in ledger.post(sensor.read().readings):
            total[part.device.name] += part.joules
    truth = trace.joules(1000.03, 1060.03)
    assert total == pytest.approx({"cray": truth, "gpu0": truth / 4}, rel=0.005)


def test_a_line_with_and_without_unit_and_stamp_is_read() -> None:
    assert parse_line(b"12345 J 1700000000000000 us\n") == Line(12345, "J", 1_700_000_000_000_000)
    assert parse_line(b"12345 J\n") == Line(12345, "J")
    assert parse_line(b"77 1700000000000000 us\n") == Line(77, "", 1_700_000_000_000_000)
    assert parse_line(b"77\n") == Line(77)
    assert parse_line(b"") is None


@given(st.one_of(st.binary(max_size=60), st.from_regex(rb"\d{1,3} ?[JW]? ?\d{0,20} ?(us)?\n?")))
def test_any_bytes_are_a_line_or_none(data: bytes) -> None:
    line = parse_line(data)
    assert line is None or (line.value >= 0 and line.renewed >= 0)


@given(
    st.dictionaries(st.sampled_from(["energy", "cpu_energy", "cpu0_energy", "accel0_energy", "startup"]), st.binary())
)
def test_whatever_the_files_hold_only_our_errors_leave(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    node = Node(tmp_path_factory.mktemp("any"))
    node.write(memory_energy=5)
    for file, data in files.items():
        (node.directory / file).write_bytes(data)
    try:
        sensor = probe(node.host(), NOTHING)
        assert "dram0" in joules(sensor)
    except SensorError:
        pytest.fail("one good counter is enough")
