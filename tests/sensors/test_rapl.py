"""RAPL zones on powercap trees as Linux lays them out, and on broken ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.other_user import needs_root, public_directory, run_as_nobody
from support.powercap import INTEL_RANGE_UJ, PowercapTree

from carbon_exporter.errors import SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Host, Kind, Quality
from carbon_exporter.sensors.rapl import COUNTER_REMEDY, MASKED_REMEDY, Rapl, probe
from carbon_exporter.units import Watts

NOTHING: frozenset[Kind] = frozenset()
HYPERVISOR = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: fpu hypervisor\n"


@pytest.fixture
def public_tree() -> Iterator[PowercapTree]:
    with public_directory() as directory:
        yield PowercapTree(directory / "sys")


@pytest.fixture
def tree(tmp_path: Path) -> PowercapTree:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(
        "vendor_id : AuthenticAMD\nmodel name : AMD EPYC 7742 64-Core Processor\n"
    )
    return PowercapTree(tmp_path / "sys")


def host_of(tree: PowercapTree) -> Host:
    return Host(procfs=tree.sysfs.parent / "proc", sysfs=tree.sysfs, clock=lambda: 7.0)


def names(sensor: Rapl) -> list[str]:
    return [device.name for device in sensor.devices]


def joules(sensor: Rapl) -> dict[str, float | None]:
    return {reading.device.name: reading.energy for reading in sensor.read().readings}


def test_two_sockets_are_packages_and_dram_without_core_uncore_psys_and_mmio(tree: PowercapTree) -> None:
    for index in range(2):
        tree.add_socket(index)
        tree.add_mmio_mirror(index)
    tree.add_psys()
    sensor = probe(host_of(tree), NOTHING)
    assert names(sensor) == ["cpu0", "cpu1", "dram0", "dram1"]
    assert [device.kind for device in sensor.devices] == ["cpu", "cpu", "dram", "dram"]
    assert sensor.covers == {"cpu", "dram"}


def test_a_reading_is_the_raw_counter_in_joules_and_measured(tree: PowercapTree) -> None:
    tree.add_socket(0)
    tree.set_energy("intel-rapl:0", 1_234_567)
    tree.set_energy("intel-rapl:0:2", 500)
    sensor = probe(host_of(tree), NOTHING)
    assert joules(sensor) == {"cpu0": 1.234567, "dram0": 0.0005}
    for reading in sensor.read().readings:
        assert (reading.quality, reading.at, reading.power, reading.since) == (Quality.MEASURED, 7.0, None, None)
    tree.set_energy("intel-rapl:0", 3)
    assert joules(sensor)["cpu0"] == 3e-6


def test_each_device_has_its_own_range_and_twice_its_largest_limit(tree: PowercapTree) -> None:
    tree.add_socket(0)
    package, dram = probe(host_of(tree), NOTHING).devices
    assert package.counter_range == pytest.approx(INTEL_RANGE_UJ / 1e6)
    assert package.max_power == Watts(2 * 246)
    assert dram.counter_range == pytest.approx(65_712.999613)
    assert dram.max_power == Watts(400)
    assert package.vendor == "AMD"
    assert package.model == "AMD EPYC 7742 64-Core Processor"


def test_without_limits_a_package_is_bounded_by_2000_watts(tree: PowercapTree) -> None:
    tree.add_amd_socket(0)
    (device,) = probe(host_of(tree), NOTHING).devices
    assert device.max_power == Watts(2000)


@pytest.mark.parametrize("text", ["0\n", "", "many\n", "-5\n"])
def test_a_range_that_is_zero_or_nonsense_is_no_range(tree: PowercapTree, text: str) -> None:
    tree.add_socket(0)
    tree.set_text("intel-rapl:0", "max_energy_range_uj", text)
    assert probe(host_of(tree), NOTHING).devices[0].counter_range is None


def test_dies_of_one_package_are_devices_of_their_own(tree: PowercapTree) -> None:
    for zone, (package, die) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        tree.add_socket(package, die=die, zone=f"intel-rapl:{zone}")
    assert names(probe(host_of(tree), NOTHING)) == [
        *("cpu0-die0", "cpu0-die1", "cpu1-die0", "cpu1-die1"),
        *("dram0-die0", "dram0-die1", "dram1-die0", "dram1-die1"),
    ]


def test_zones_of_two_digits_and_of_letters_are_seen(tree: PowercapTree) -> None:
    for index in range(12):
        tree.add_socket(index)
    tree.add_socket(12, zone="intel-rapl:a")
    expected = [f"{kind}{number}" for kind in ("cpu", "dram") for number in range(13)]
    assert sorted(names(probe(host_of(tree), NOTHING))) == sorted(expected)


def test_the_name_tells_a_zone_and_not_its_place(tree: PowercapTree) -> None:
    tree.add("intel-rapl:0", "psys")
    tree.add_socket(0, zone="intel-rapl:1")
    tree.set_energy("intel-rapl:0", 9_000_000)
    tree.set_energy("intel-rapl:1", 4_000_000)
    assert joules(probe(host_of(tree), NOTHING)) == {"cpu0": 4.0, "dram0": 0.0}


def test_amd_has_packages_only_and_leaves_memory_to_others(tree: PowercapTree) -> None:
    tree.add_amd_socket(0)
    tree.add_amd_socket(1)
    sensor = probe(host_of(tree), NOTHING)
    assert names(sensor) == ["cpu0", "cpu1"]
    assert sensor.covers == {"cpu"}


def test_dram_at_the_top_counts_where_no_package_has_its_own(tree: PowercapTree) -> None:
    tree.add_socket(0, dram=False)
    tree.add("intel-rapl:1", "dram")
    assert names(probe(host_of(tree), NOTHING)) == ["cpu0", "dram0"]
    tree.add("intel-rapl:0:2", "dram", energy_uj=5_000_000)
    assert joules(probe(host_of(tree), NOTHING)) == {"cpu0": 0.0, "dram0": 5.0}


def test_psys_alone_is_one_device_that_covers_memory_too(tree: PowercapTree) -> None:
    tree.add_psys()
    sensor = probe(host_of(tree), NOTHING)
    assert names(sensor) == ["psys0"]
    assert sensor.devices[0].kind == "cpu"
    assert "memory" in sensor.devices[0].method
    assert sensor.covers == {"cpu", "dram"}
    with pytest.raises(SensorUnavailable):
        probe(host_of(tree), frozenset({"dram"}))


def test_the_mmio_mirror_serves_where_nothing_else_does(tree: PowercapTree) -> None:
    tree.add_mmio_mirror(0)
    tree.add_psys()
    assert names(probe(host_of(tree), NOTHING)) == ["cpu0"]


def test_beside_packages_of_its_own_nothing_of_the_mmio_mirror_is_taken(tree: PowercapTree) -> None:
    tree.add_socket(0, dram=False)
    tree.add_mmio_mirror(1)
    tree.add("intel-rapl-mmio:1:0", "dram")
    assert names(probe(host_of(tree), NOTHING)) == ["cpu0"]


def test_two_zones_of_one_name_are_one_device(tree: PowercapTree) -> None:
    tree.add_socket(0)
    tree.add_socket(0, zone="intel-rapl:1")
    assert names(probe(host_of(tree), NOTHING)) == ["cpu0", "dram0"]


def test_a_tree_without_links_is_read_as_well(tree: PowercapTree) -> None:
    tree.add_socket(0)
    for link in tree.links.iterdir():
        link.unlink()
    (tree.hardware / "intel-rapl" / "intel-rapl:0").rename(tree.links / "intel-rapl:0")
    assert names(probe(host_of(tree), NOTHING)) == ["cpu0", "dram0"]


def test_kinds_that_are_covered_are_left_alone(tree: PowercapTree) -> None:
    tree.add_socket(0)
    assert names(probe(host_of(tree), frozenset({"dram"}))) == ["cpu0"]
    assert names(probe(host_of(tree), frozenset({"cpu"}))) == ["dram0"]
    with pytest.raises(SensorUnavailable, match="not yet covered"):
        probe(host_of(tree), frozenset({"cpu", "dram"}))


def test_a_zone_that_vanishes_fails_alone_and_comes_back(tree: PowercapTree) -> None:
    tree.add_socket(0)
    tree.add_socket(1)
    sensor = probe(host_of(tree), NOTHING)
    tree.remove("intel-rapl:1:2")
    sample = sensor.read()
    assert [reading.device.name for reading in sample.readings] == ["cpu0", "cpu1", "dram0"]
    assert [(failure.device, "cannot be read" in failure.reason) for failure in sample.failures] == [("dram1", True)]
    tree.add("intel-rapl:1:2", "dram", energy_uj=7_000_000)
    assert joules(sensor)["dram1"] == 7.0


@pytest.mark.parametrize("text", ["", "\n", "garbage", "-1", "1e9", "0x10", "12 34", "9" * 40, "1_000", "\u0663"])
def test_a_counter_that_holds_no_whole_number_fails_alone(tree: PowercapTree, text: str) -> None:
    tree.add_socket(0)
    sensor = probe(host_of(tree), NOTHING)
    tree.set_text("intel-rapl:0", "energy_uj", text)
    sample = sensor.read()
    assert [failure.device for failure in sample.failures] == ["cpu0"]
    assert "energy_uj does not hold a whole number" in str(sample.failures[0])
    assert [reading.device.name for reading in sample.readings] == ["dram0"]


def test_when_nothing_can_be_read_the_whole_read_fails(tree: PowercapTree) -> None:
    tree.add_amd_socket(0)
    sensor = probe(host_of(tree), NOTHING)
    tree.remove("intel-rapl:0")
    with pytest.raises(SensorReadError, match="energy_uj cannot be read") as caught:
        sensor.read()
    assert caught.value.device == "cpu0"


def test_no_powercap_directory_is_no_meter_and_tells_how_to_load_the_driver(tmp_path: Path) -> None:
    with pytest.raises(SensorUnavailable, match="does not exist") as caught:
        probe(Host(procfs=tmp_path, sysfs=tmp_path), NOTHING)
    assert "modprobe intel_rapl_msr" in caught.value.remedy


def test_a_powercap_directory_without_rapl_is_no_meter(tree: PowercapTree) -> None:
    (tree.links / "dtpm").mkdir()
    (tree.links / "intel-rapl").mkdir()
    with pytest.raises(SensorUnavailable, match="has no intel-rapl zone"):
        probe(host_of(tree), NOTHING)


def test_in_a_virtual_machine_the_reason_is_the_virtual_machine(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(HYPERVISOR)
    with pytest.raises(SensorUnavailable, match="virtual machines do not expose") as caught:
        probe(Host(procfs=tmp_path, sysfs=tmp_path / "sys"), NOTHING)
    assert caught.value.remedy == ""


def test_masked_hardware_tells_to_mount_the_hosts_sys(tree: PowercapTree) -> None:
    tree.add_socket(0)
    tree.mask()
    with pytest.raises(SensorPermission, match="link to nothing") as caught:
        probe(host_of(tree), NOTHING)
    assert "/host/sys" in caught.value.remedy
    assert "--path.sysfs=/host/sys" in caught.value.remedy


def test_a_zone_without_a_name_is_left_out(tree: PowercapTree) -> None:
    tree.add_socket(0)
    (tree.add("intel-rapl:1", "package-1") / "name").unlink()
    assert names(probe(host_of(tree), NOTHING)) == ["cpu0", "dram0"]


def test_counters_that_are_all_broken_are_no_meter(tree: PowercapTree) -> None:
    place = tree.add("intel-rapl:0", "package-0")
    (place / "energy_uj").unlink()
    (place / "energy_uj").mkdir()
    with pytest.raises(SensorUnavailable, match="Is a directory"):
        probe(host_of(tree), NOTHING)


def test_a_powercap_that_is_a_file_is_no_meter(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "powercap").write_text("")
    with pytest.raises(SensorUnavailable, match="does not exist"):
        probe(Host(procfs=tmp_path, sysfs=tmp_path), NOTHING)


@needs_root
def test_a_counter_for_root_only_tells_the_file_and_the_remedy(public_tree: PowercapTree) -> None:
    public_tree.add_socket(0)
    public_tree.deny("intel-rapl:0")

    def refused() -> None:
        with pytest.raises(SensorPermission) as caught:
            probe(host_of(public_tree), NOTHING)
        assert f"{public_tree.links}/intel-rapl:0/energy_uj may not be read" in caught.value.reason
        assert caught.value.remedy == COUNTER_REMEDY

    run_as_nobody(refused)


@needs_root
def test_a_counter_that_is_closed_later_fails_with_the_remedy(public_tree: PowercapTree) -> None:
    public_tree.add_socket(0)
    sensor = probe(host_of(public_tree), NOTHING)
    public_tree.deny("intel-rapl:0")

    def refused() -> None:
        (failure,) = sensor.read().failures
        assert (failure.device, failure.remedy) == ("cpu0", COUNTER_REMEDY)

    run_as_nobody(refused)


@needs_root
def test_a_hidden_class_directory_tells_to_mount_the_hosts_sys(public_tree: PowercapTree) -> None:
    public_tree.add_socket(0)
    (public_tree.sysfs / "class").chmod(0o700)

    def refused() -> None:
        with pytest.raises(SensorPermission) as caught:
            probe(host_of(public_tree), NOTHING)
        assert caught.value.remedy == MASKED_REMEDY

    run_as_nobody(refused)


@needs_root
def test_root_without_any_capability_may_read_the_counter(tree: PowercapTree) -> None:
    tree.add_socket(0)
    tree.deny("intel-rapl:0")
    counter = tree.links / "intel-rapl:0" / "energy_uj"
    drop = "--bounding-set=-all --inh-caps=-all"
    assert drop in COUNTER_REMEDY
    read = "import sys; print(open(sys.argv[1]).read(), open('/proc/self/status').read())"
    done = subprocess.run(
        ["setpriv", *drop.split(), sys.executable, "-c", read, counter], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("0\n")
    assert "CapEff:\t0000000000000000" in done.stdout


def test_it_reads_from_any_thread(tree: PowercapTree) -> None:
    tree.add_socket(0)
    sensor = probe(host_of(tree), NOTHING)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(joules, sensor).result() == {"cpu0": 0.0, "dram0": 0.0}
    sensor.close()
