"""Which channels of a chip are meters, by their file names and labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hwmon import HwmonTree

from carbon_exporter.sensors.hwmon_tree import channels, find_chips, is_foreign


@pytest.fixture
def tree(tmp_path: Path) -> HwmonTree:
    return HwmonTree(tmp_path / "sys")


def files_of(chip: str, files: list[str], labels: dict[str, str] | None = None) -> list[tuple[str, ...]]:
    return [channel.files for channel in channels(chip, set(files), labels or {})]


def test_energy_goes_before_power_and_power_before_a_product() -> None:
    files = ["in1_input", "curr1_input", "power1_input", "energy1_input"]
    assert files_of("ina228", files) == [("energy1_input",)]
    assert files_of("ina226", files[:3]) == [("power1_input",)]
    assert files_of("ina226", files[:2]) == [("in1_input", "curr1_input")]


def test_of_average_and_instant_power_of_one_number_the_average_is_taken() -> None:
    files = ["power1_average", "power1_input", "power2_input", "power10_average", "power1_average_interval"]
    assert files_of("fam15h_power", files) == [("power1_average",), ("power2_input",), ("power10_average",)]


def test_the_ina3221_has_three_rails_and_its_shunts_are_none() -> None:
    files = [f"in{n}_input" for n in range(1, 8)] + [f"curr{n}_input" for n in range(1, 5)]
    rails = channels("ina3221", set(files), {"in1": "VDD_GPU", "in2": "VDD_CPU", "in7": "sum of shunt voltages"})
    assert [rail.files for rail in rails] == [(f"in{n}_input", f"curr{n}_input") for n in (1, 2, 3)]
    assert [rail.label for rail in rails] == ["VDD_GPU", "VDD_CPU", ""]


def test_voltages_and_currents_belong_together_by_label_only() -> None:
    files = ["in1_input", "in2_input", "curr1_input", "curr2_input"]
    assert files_of("unknown", files) == []
    assert files_of("pmbus", files, {"in1": "vout1", "in2": "vin", "curr1": "iin", "curr2": "iout1"}) == [
        ("in1_input", "curr2_input"),
        ("in2_input", "curr1_input"),
    ]
    assert files_of("other", files, {"in1": "12V", "curr2": "12V"}) == [("in1_input", "curr2_input")]
    assert files_of("other", files, {"in1": "12V", "in2": "12V", "curr2": "12V"}) == []
    assert files_of("pmbus", files, {"in1": "iout1", "curr1": "vout1"}) == []


def test_a_chip_is_found_by_name_and_device_whatever_its_number(tree: HwmonTree) -> None:
    tree.add(11, "ina3221", "platform/i2c/1-0040", {"in1_input": 5000, "curr1_input": 10})
    tree.add(2, "ina3221", "platform/i2c/1-0041", {"in1_input": 5000, "curr1_input": 10})
    tree.add(0, "coretemp", "platform/coretemp.0", {"temp1_input": 40000})
    tree.add(5, "acpitz", "", {"power1_input": 40000})
    found = [(chip.name, chip.address) for chip in find_chips(tree.links)]
    assert found == [
        ("acpitz", ""),
        ("ina3221", "devices/platform/i2c/1-0040"),
        ("ina3221", "devices/platform/i2c/1-0041"),
    ]


def test_two_chips_that_nothing_tells_apart_are_two(tree: HwmonTree) -> None:
    tree.add(0, "virtual", "", {"power1_input": 1})
    tree.add(1, "virtual", "", {"power1_input": 2})
    assert [chip.address for chip in find_chips(tree.links)] == ["", "#2"]


def test_files_in_the_device_are_found_as_old_drivers_have_them(tree: HwmonTree) -> None:
    place = tree.add_grace(3, "Grace Power Socket 0", in_device=True)
    (chip,) = find_chips(tree.links)
    assert (chip.place, chip.channels[0].label) == (place, "Grace Power Socket 0")


def test_a_label_of_the_driver_goes_before_what_acpi_says(tree: HwmonTree) -> None:
    files = {"power1_input": 1, "power1_label": "pin", "power1_oem_info": "Dell"}
    tree.add(0, "power_meter", "ACPI000D:00", files)
    assert find_chips(tree.links)[0].channels[0].label == "pin"


def test_a_battery_is_no_meter(tree: HwmonTree) -> None:
    tree.add(0, "power_meter", "ACPI000D:00", {"power1_average": 1, "power1_is_battery": 1})
    assert find_chips(tree.links) == ()


@pytest.mark.parametrize(
    ("name", "device", "pci_class"),
    [
        ("amdgpu", "pci0000:00/0000:03:00.0", "0x038000"),
        ("unknown_gpu", "pci0000:00/0000:03:00.0", "0x030200"),
        ("i915", "pci0000:00/0000:03:00.0", None),
        ("mlx5", "pci0000:00/0000:04:00.0", "0x020000"),
        ("raid", "pci0000:00/0000:05:00.0", "0x010400"),
        ("nvme", "pci0000:00/0000:05:00.0/nvme/nvme0", None),
        ("sfp", "platform/sfp", None),
        ("BAT0", "LNXSYSTM:00/PNP0C0A:00/power_supply/BAT0", None),
        ("k10temp", "pci0000:00/0000:00:18.3", "0x060000"),
        ("drivetemp", "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0", None),
    ],
)
def test_chips_of_boards_batteries_disks_and_networks_are_foreign(
    tree: HwmonTree, name: str, device: str, pci_class: str | None
) -> None:
    tree.add(0, name, device, {"power1_input": 1})
    if pci_class is not None:
        (tree.sysfs / "devices" / device / "class").write_text(f"{pci_class}\n")
    assert [is_foreign(chip) for chip in find_chips(tree.links)] == [True]


def test_a_meter_on_a_host_bridge_is_not_foreign(tree: HwmonTree) -> None:
    tree.add(0, "fam15h_power", "pci0000:00/0000:00:18.4", {"power1_average": 1})
    (tree.sysfs / "devices/pci0000:00/0000:00:18.4/class").write_text("0x060000\n")
    assert [is_foreign(chip) for chip in find_chips(tree.links)] == [False]


def test_broken_directories_are_left_out(tree: HwmonTree) -> None:
    (tree.links / "hwmon0").symlink_to("nowhere")
    (tree.links / "hwmon1").mkdir()
    (tree.links / "hwmon2").write_text("a file")
    (tree.links / "hwmon3").symlink_to("hwmon3")
    circle = tree.add(4, "chip", "", {"power1_input": 1})
    (circle / "device").symlink_to("device")
    assert [chip.name for chip in find_chips(tree.links)] == ["chip"]


channel_files = st.builds(
    "{}{}{}".format,
    st.sampled_from(["energy", "power", "in", "curr", "temp", ""]),
    st.sampled_from(["", "0", "1", "2", "3", "01", "9999", "-1", "\u0663"]),
    st.sampled_from(["_input", "_average", "_label", "_enable", ""]),
)
keys = st.builds("{}{}".format, st.sampled_from(["energy", "power", "in", "curr"]), st.integers(0, 3))


@given(
    st.sampled_from(["ina3221", "ina226", "amd_energy", "pmbus", "\n"]),
    st.sets(channel_files, max_size=20),
    st.dictionaries(keys, st.one_of(st.text(max_size=8), st.sampled_from(["vin", "iin", "vout1", "iout1"]))),
)
def test_of_any_files_the_channels_are_of_one_source_and_each_only_once(
    chip: str, files: set[str], labels: dict[str, str]
) -> None:
    found = channels(chip, files, labels)
    assert len({channel.source for channel in found}) <= 1
    assert len({channel.files for channel in found}) == len(found)
    assert {file for channel in found for file in channel.files} <= files


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_in_name_and_label_are_read(
    tmp_path_factory: pytest.TempPathFactory, name: bytes, label: bytes
) -> None:
    tree = HwmonTree(tmp_path_factory.mktemp("any"))
    place = tree.add(0, "", "ACPI000D:00", {"power1_input": 1})
    (place / "name").write_bytes(name)
    (place / "power1_label").write_bytes(label)
    for chip in find_chips(tree.links):
        assert chip.name.isprintable()
        assert chip.channels[0].label.isprintable()
