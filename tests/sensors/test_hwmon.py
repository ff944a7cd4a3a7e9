"""Meters of hwmon chips: AMD's sockets, NVIDIA's Grace, and whatever else a board has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hwmon import HwmonTree
from support.other_user import needs_root, public_directory, run_as_nobody

from carbon_exporter.errors import SensorError, SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Host, Kind, Quality, Sensor
from carbon_exporter.sensors.hwmon import READ_REMEDY, probe
from carbon_exporter.units import Watts

NOTHING: frozenset[Kind] = frozenset()
RAILS = {"in1_input": 12_000, "curr1_input": 1_500, "in1_label": "VDD_IN", "update_interval": 100}


class Clock:
    """Monotonic seconds that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tree(tmp_path: Path) -> HwmonTree:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("vendor_id : AuthenticAMD\nmodel name : AMD EPYC 7742\n")
    return HwmonTree(tmp_path / "sys")


@pytest.fixture
def public_tree() -> Iterator[HwmonTree]:
    with public_directory() as directory:
        yield HwmonTree(directory / "sys")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def host_of(tree: HwmonTree, clock: Clock | None = None) -> Host:
    return Host(procfs=tree.sysfs.parent / "proc", sysfs=tree.sysfs, clock=clock or Clock())


def names(sensor: Sensor) -> list[str]:
    return [device.name for device in sensor.devices]


ALL_PARTS = ("Module", "Grace", "CPU", "SysIO")


def add_grace_hopper(tree: HwmonTree, socket: int, *, parts: tuple[str, ...] = ALL_PARTS) -> None:
    for offset, part in enumerate(parts):
        tree.add_grace(10 * socket + offset, f"{part} Power Socket {socket}", 100.0 + offset)


def test_amd_sockets_are_processors_with_a_counter_and_cores_are_parts_of_them(tree: HwmonTree) -> None:
    tree.add_amd_energy(1, sockets=2, cores=3)
    sensor = probe(host_of(tree), NOTHING)
    assert names(sensor) == ["cpu0", "cpu1"]
    assert (sensor.covers, sensor.quality, sensor.sampling_period) == (frozenset({"cpu"}), Quality.MEASURED, None)
    device = sensor.devices[0]
    assert (device.kind, device.vendor, device.model, device.max_power) == ("cpu", "AMD", "AMD EPYC 7742", Watts(2000))
    assert device.method.endswith("hwmon1/energy4_input (Esocket0)")
    readings = sensor.read().readings
    assert [(reading.energy, reading.power, reading.quality) for reading in readings] == [
        (0.004, None, Quality.MEASURED),
        (0.005, None, Quality.MEASURED),
    ]


def test_grace_is_one_device_a_socket_that_covers_memory_and_module_stands_beside(tree: HwmonTree) -> None:
    add_grace_hopper(tree, 0)
    add_grace_hopper(tree, 1)
    sensor = probe(host_of(tree), NOTHING)
    assert names(sensor) == ["cpu0", "cpu1", "hwmon/module0", "hwmon/module1"]
    assert [device.kind for device in sensor.devices] == ["cpu", "cpu", "node", "node"]
    assert sensor.covers == {"cpu", "dram"}
    assert sensor.quality is Quality.INTEGRATED
    assert sensor.sampling_period == 0.05
    grace = sensor.devices[0]
    assert (grace.vendor, grace.model, grace.period) == ("NVIDIA", "Grace", 0.05)
    assert "power1_average (Grace Power Socket 0: processor and memory in one number)" in grace.method
    assert "claims 100.0% accuracy" in grace.bound


def test_without_grace_power_the_rail_of_the_cores_is_taken_and_memory_left_to_others(tree: HwmonTree) -> None:
    add_grace_hopper(tree, 0, parts=("CPU", "SysIO"))
    sensor = probe(host_of(tree), NOTHING)
    assert names(sensor) == ["cpu0"]
    assert sensor.covers == {"cpu"}
    assert "without memory" in sensor.devices[0].method


def test_where_memory_is_covered_grace_gives_only_the_rail_of_the_cores(tree: HwmonTree) -> None:
    add_grace_hopper(tree, 0)
    sensor = probe(host_of(tree), frozenset({"dram"}))
    assert names(sensor) == ["cpu0", "hwmon/module0"]
    assert "CPU Power Socket 0" in sensor.devices[0].method
    assert sensor.covers == {"cpu"}


def test_where_processors_are_covered_only_other_meters_remain(tree: HwmonTree) -> None:
    add_grace_hopper(tree, 0)
    tree.add_amd_energy(9)
    sensor = probe(host_of(tree), frozenset({"cpu", "node"}))
    assert names(sensor) == ["hwmon/module0"]
    assert sensor.covers == NOTHING


def test_new_drivers_have_grace_s_files_in_the_class_directory(tree: HwmonTree) -> None:
    tree.add_grace(0, "Grace Power Socket 0", in_device=False)
    assert names(probe(host_of(tree), NOTHING)) == ["cpu0"]


def test_other_meters_are_of_kind_node_and_named_by_chip_and_label(tree: HwmonTree) -> None:
    tree.add(0, "ina3221", "i2c/1-0040", RAILS)
    tree.add(1, "power_meter", "ACPI000D:00", {"power1_average": 300_000_000, "power1_average_interval": 1000})
    tree.add(2, "pmbus", "i2c/2-0058", {"power1_input": 1, "power1_label": "pin", "power2_input": 1})
    tree.add(3, "aem", "platform/aem.0", {"energy1_input": 5_000_000, "power1_average": 7})
    sensor = probe(host_of(tree), NOTHING)
    assert names(sensor) == [
        *("hwmon/aem/energy1", "hwmon/ina3221/VDD_IN", "hwmon/pmbus/pin", "hwmon/pmbus/power2"),
        "hwmon/power_meter/power1",
    ]
    assert {device.kind for device in sensor.devices} == {"node"}
    assert sensor.covers == NOTHING
    assert sensor.sampling_period == 0.1
    methods = {device.name: device.method for device in sensor.devices}
    assert "in1_input x " in methods["hwmon/ina3221/VDD_IN"]
    assert methods["hwmon/aem/energy1"].startswith("energy counter ")


def test_chips_of_one_name_and_label_are_told_by_their_address(tree: HwmonTree) -> None:
    tree.add(4, "ina3221", "i2c/1-0041", RAILS)
    tree.add(3, "ina3221", "i2c/1-0040", RAILS)
    tree.add(5, "odd", "odd", {"power1_input": 1, "power2_input": 1, "power1_label": "a b", "power2_label": "a/b"})
    assert names(probe(host_of(tree), NOTHING)) == [
        *("hwmon/ina3221@1-0040/VDD_IN", "hwmon/ina3221@1-0041/VDD_IN", "hwmon/odd@odd/a_b", "hwmon/odd@odd/a_b-2")
    ]


def test_an_unknown_period_means_one_sample_a_second_and_a_fast_meter_20_a_second(tree: HwmonTree) -> None:
    tree.add(0, "meter", "x/0", {"power1_input": 1})
    assert probe(host_of(tree), NOTHING).sampling_period == 1.0
    tree.add(1, "slow", "x/1", {"power1_average": 1, "power1_average_interval": 300_000})
    assert probe(host_of(tree), NOTHING).sampling_period == 1.0
    tree.add(2, "fast", "x/2", {"power1_input": 1, "update_interval": 1})
    assert probe(host_of(tree), NOTHING).sampling_period == 0.05


@pytest.mark.parametrize("name", ["amdgpu", "k10temp"])
def test_chips_of_other_sensors_and_without_meters_are_nothing_here(tree: HwmonTree, name: str) -> None:
    tree.add(0, name, "pci/0000:03:00.0", {"power1_average": 1, "in0_input": 1, "curr1_input": 1})
    with pytest.raises(SensorUnavailable, match="no hwmon chip has a meter"):
        probe(host_of(tree), NOTHING)


def test_without_the_class_there_is_no_meter(tmp_path: Path) -> None:
    with pytest.raises(SensorUnavailable, match="No such file"):
        probe(Host(procfs=tmp_path, sysfs=tmp_path), NOTHING)


def test_a_slow_meter_beside_a_fast_one_is_not_asked_as_often(tree: HwmonTree, clock: Clock) -> None:
    tree.add_grace(0, "Grace Power Socket 0")
    tree.add(1, "slow", "x/1", {"power1_average": 1, "power1_average_interval": 1000})
    sensor = probe(host_of(tree, clock), NOTHING)
    sensor.read()
    for _ in range(20):
        clock.now += 0.05
        tree.set(1, "power1_average", round(clock.now * 1e6))
        sensor.sample()
    clock.now += 0.05
    slow = [reading for reading in sensor.read().readings if reading.device.kind == "node"]
    assert [reading.since for reading in slow] == [1000.0]
    assert slow[0].power == pytest.approx((1e-6 + clock.now) / 2, rel=0.5)


def test_the_first_reading_of_a_power_meter_is_only_a_mark(tree: HwmonTree, clock: Clock) -> None:
    tree.add_grace(0, "Grace Power Socket 0", 100.0)
    sensor = probe(host_of(tree, clock), NOTHING)
    (mark,) = sensor.read().readings
    assert (mark.power, mark.energy) == (None, None)
    clock.now += 1.0
    (reading,) = sensor.read().readings
    assert (reading.power, reading.since, reading.at) == (100.0, 1000.0, 1001.0)


def test_a_meter_that_was_silent_for_long_leaves_a_gap(tree: HwmonTree, clock: Clock) -> None:
    tree.add_grace(0, "Grace Power Socket 0", 100.0)
    sensor = probe(host_of(tree, clock), NOTHING)
    sensor.read()
    clock.now += 11.0
    (mark,) = sensor.read().readings
    assert mark.power is None


@pytest.mark.parametrize("text", ["", "nan", "-5", "1e9", "9" * 40, "12 34", "\u0663"])
def test_nonsense_fails_that_meter_alone(tree: HwmonTree, text: str) -> None:
    add_grace_hopper(tree, 0, parts=("Grace",))
    tree.add(5, "ina3221", "i2c/1-0040", RAILS)
    sensor = probe(host_of(tree), NOTHING)
    tree.set(0, "power1_average", text)
    sensor.sample()
    sample = sensor.read()
    assert [failure.device for failure in sample.failures] == ["cpu0"]
    assert "whole number" in sample.failures[0].reason
    assert [reading.device.name for reading in sample.readings] == ["hwmon/ina3221/VDD_IN"]


def test_power_that_cannot_be_is_a_failure_and_never_energy(tree: HwmonTree, clock: Clock) -> None:
    tree.add_grace(0, "Grace Power Socket 0", 100.0)
    sensor = probe(host_of(tree, clock), NOTHING)
    sensor.read()
    clock.now += 1.0
    tree.set(0, "power1_average", 3_690_000_000_000_000_000)
    with pytest.raises(SensorReadError, match="3690000000000 W, which cannot be"):
        sensor.read()


def test_what_was_sampled_before_a_failure_is_told_beside_it(tree: HwmonTree, clock: Clock) -> None:
    tree.add_grace(0, "Grace Power Socket 0", 100.0)
    sensor = probe(host_of(tree, clock), NOTHING)
    sensor.read()
    clock.now += 1.0
    sensor.sample()
    tree.set(0, "power1_average", "half")
    sample = sensor.read()
    assert [reading.power for reading in sample.readings] == [100.0]
    assert [failure.device for failure in sample.failures] == ["cpu0"]


def test_chips_that_got_other_numbers_are_found_again(tree: HwmonTree, clock: Clock) -> None:
    tree.add_grace(0, "Grace Power Socket 0", 100.0, in_device=False)
    tree.add_grace(1, "Grace Power Socket 1", 200.0, in_device=False)
    tree.add(2, "ina3221", "i2c/1-0040", RAILS)
    sensor = probe(host_of(tree, clock), NOTHING)
    for numbers in ({0: 1, 1: 0}, {0: 2, 1: 3, 2: 0}):
        tree.renumber(numbers)
        sensor.read()
        clock.now += 1.0
        powers = {reading.device.name: reading.power for reading in sensor.read().readings}
        assert powers == {"cpu0": 100.0, "cpu1": 200.0, "hwmon/ina3221/VDD_IN": 18.0}


def test_a_chip_that_vanishes_fails_alone_and_comes_back(tree: HwmonTree, clock: Clock) -> None:
    tree.add_amd_energy(0, sockets=1, cores=0)
    tree.add(1, "ina3221", "i2c/1-0040", RAILS)
    sensor = probe(host_of(tree, clock), NOTHING)
    tree.remove(1)
    sensor.sample()
    sample = sensor.read()
    assert [reading.device.name for reading in sample.readings] == ["cpu0"]
    assert [(failure.device, "cannot be read" in failure.reason) for failure in sample.failures] == [
        ("hwmon/ina3221/VDD_IN", True)
    ]
    tree.add(4, "ina3221", "i2c/1-0040", RAILS)
    assert sensor.read().failures == ()
    tree.remove(0)
    tree.remove(4)
    with pytest.raises(SensorReadError, match="cannot be read"):
        sensor.read()


def test_a_rail_that_is_switched_off_is_left_out_and_told(tree: HwmonTree) -> None:
    place = tree.add(0, "ina3221", "i2c/1-0040", {**RAILS, "in2_input": 5, "curr2_input": 5})
    (place / "curr2_input").unlink()
    (place / "curr2_input").mkdir()
    sensor = probe(host_of(tree), NOTHING)
    assert names(sensor) == ["hwmon/ina3221/VDD_IN"]
    (note,) = sensor.notes
    assert "curr2_input cannot be read" in note


def test_a_socket_that_is_broken_at_first_stays_where_another_works(tree: HwmonTree) -> None:
    tree.add_amd_energy(0, sockets=2, cores=0)
    tree.set(0, "energy2_input", "")
    sensor = probe(host_of(tree), NOTHING)
    assert names(sensor) == ["cpu0", "cpu1"]
    assert [failure.device for failure in sensor.read().failures] == ["cpu1"]
    tree.set(0, "energy2_input", 5)
    assert sensor.read().failures == ()


def test_when_no_meter_works_there_is_none(tree: HwmonTree) -> None:
    tree.add_amd_energy(0, sockets=1, cores=0)
    tree.set(0, "energy1_input", "")
    with pytest.raises(SensorUnavailable, match="whole number"):
        probe(host_of(tree), NOTHING)


@needs_root
def test_a_counter_for_root_only_tells_the_file_and_the_remedy(public_tree: HwmonTree) -> None:
    place = public_tree.add_amd_energy(0, sockets=1, cores=0)
    (place / "energy1_input").chmod(0o400)

    def refused() -> None:
        with pytest.raises(SensorPermission, match="energy1_input may not be read") as caught:
            probe(host_of(public_tree), NOTHING)
        assert caught.value.remedy == READ_REMEDY

    run_as_nobody(refused)


@needs_root
def test_a_denied_processor_beside_other_meters_is_left_to_estimates_and_told(public_tree: HwmonTree) -> None:
    place = public_tree.add_amd_energy(0, sockets=1, cores=0)
    (place / "energy1_input").chmod(0o400)
    public_tree.add(1, "ina3221", "i2c/1-0040", RAILS)

    def refused() -> None:
        sensor = probe(host_of(public_tree), NOTHING)
        assert names(sensor) == ["hwmon/ina3221/VDD_IN"]
        assert sensor.covers == NOTHING
        assert READ_REMEDY in sensor.notes[0]

    run_as_nobody(refused)


@needs_root
def test_a_hidden_class_directory_is_denied(public_tree: HwmonTree) -> None:
    public_tree.links.chmod(0o700)

    def refused() -> None:
        with pytest.raises(SensorPermission, match="may not be read"):
            probe(host_of(public_tree), NOTHING)

    run_as_nobody(refused)


values = st.one_of(st.binary(max_size=30), st.integers(-10, 10**21).map(lambda number: b"%d\n" % number))


chip_names = st.sampled_from(["amd_energy", "power_meter", "ina3221", "\u00e9/ ", "x"])


@given(chip_names, values, values, st.binary(max_size=20))
def test_whatever_the_files_hold_only_our_errors_leave(
    tmp_path_factory: pytest.TempPathFactory, chip: str, first: bytes, second: bytes, label: bytes
) -> None:
    tree = HwmonTree(tmp_path_factory.mktemp("any"))
    for number, prefix in enumerate(("energy", "power", "in")):
        place = tree.add(number, chip, f"dev/{number}", {})
        (place / f"{prefix}1_input").write_bytes(first)
        (place / f"{prefix}1_label").write_bytes(label)
        (place / "curr1_input").write_bytes(second)
        (place / "update_interval").write_bytes(second)
    try:
        sensor = probe(host_of(tree), NOTHING)
        sensor.sample()
        sample = sensor.read()
    except SensorError:
        return
    assert len(set(names(sensor))) == len(sensor.devices)
    assert all((reading.energy or 0) >= 0 for reading in sample.readings)
