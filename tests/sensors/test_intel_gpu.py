"""Energy counters of Intel's discrete GPUs, on trees of the drivers xe and i915."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.drm import XE_FILES, DrmTree
from support.other_user import needs_root, public_directory, run_as_nobody
from support.played import Ticking, play
from support.traces import Trace, burst, constant, square

from carbon_exporter.energy.ledger import Ledger
from carbon_exporter.errors import SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Host, Kind, Quality
from carbon_exporter.sensors.crew import Crew
from carbon_exporter.sensors.intel_gpu import IntelGpu, probe
from carbon_exporter.units import Watts

NOTHING: frozenset[Kind] = frozenset()
FIRST, SECOND, INTEGRATED = "0000:03:00.0", "0000:83:00.0", "0000:00:02.0"
I915_FILES = {"energy1_input": 5_000_000, "power1_max": 150_000_000, "power1_rated_max": 225_000_000}


@pytest.fixture
def tree(tmp_path: Path) -> DrmTree:
    return DrmTree(tmp_path / "sys")


@pytest.fixture
def public_tree() -> Iterator[DrmTree]:
    with public_directory() as directory:
        yield DrmTree(directory / "sys")


def add_xe(tree: DrmTree, address: str = FIRST) -> Path:
    return tree.add(address, "xe", XE_FILES, device_id=0xE20B, vendor=0x8086)


def host_of(tree: DrmTree, clock: Ticking | None = None) -> Host:
    return Host(sysfs=tree.sysfs, clock=clock or Ticking())


def names(fleet: IntelGpu) -> list[str]:
    return [device.name for board in fleet.members for device in board.devices]


def joules(fleet: IntelGpu) -> list[float | None]:
    return [reading.energy for board in fleet.members for reading in board.read().readings]


def test_of_a_xe_card_the_counter_of_the_whole_board_is_read(tree: DrmTree) -> None:
    add_xe(tree)
    fleet = probe(host_of(tree), NOTHING)
    ((reading,), (vitals,)) = (fleet.members[0].read().readings, fleet.members[0].read().vitals)
    assert (reading.energy, reading.quality, reading.power) == (1.0, Quality.MEASURED, None)
    assert (reading.device.name, reading.device.kind, reading.device.vendor) == ("gpu0", "gpu", "Intel")
    assert reading.device.model == "PCI device 8086:e20b"
    assert "energy1_input" in reading.device.method
    assert "whole board" in reading.device.method
    assert reading.device.max_power == Watts(400)
    assert (vitals.power_limit, vitals.temperature, vitals.utilization) == (190.0, 48.0, None)


def test_the_label_tells_the_board_and_not_the_number(tree: DrmTree) -> None:
    files = {**XE_FILES, "energy1_label": "pkg", "energy2_label": "card"}
    tree.add(FIRST, "xe", files)
    assert joules(probe(host_of(tree), NOTHING)) == [0.7]


def test_without_a_counter_of_the_board_the_chips_is_read_and_says_so(tree: DrmTree) -> None:
    tree.add(FIRST, "xe", {"energy2_input": 2_000_000, "energy2_label": "pkg", "power2_max": 100_000_000})
    fleet = probe(host_of(tree), NOTHING)
    (device,) = fleet.members[0].devices
    assert joules(fleet) == [2.0]
    assert device.max_power == Watts(200)
    assert "without the board's memory" in device.method
    assert "memory is missing" in device.bound


def test_an_i915_card_has_one_counter_and_its_tiles_are_parts_of_it(tree: DrmTree) -> None:
    tree.add(FIRST, "i915", {"energy1_input": 1}, chip_name="i915_gt0")
    tree.add_chip(FIRST, "i915", I915_FILES)
    fleet = probe(host_of(tree), NOTHING)
    assert joules(fleet) == [5.0]
    assert fleet.members[0].devices[0].max_power == Watts(450)


def test_without_any_limit_only_nonsense_is_refused(tree: DrmTree) -> None:
    tree.add(FIRST, "i915", {"energy1_input": 5, "power1_max": 0})
    assert probe(host_of(tree), NOTHING).members[0].devices[0].max_power == Watts(3000)


def test_graphics_inside_a_processor_is_left_out_with_the_reason(tree: DrmTree) -> None:
    tree.add(INTEGRATED, "i915", I915_FILES)
    with pytest.raises(SensorUnavailable, match=r"0000:00:02\.0 is left out: it is a part of the processor"):
        probe(host_of(tree), NOTHING)
    add_xe(tree)
    fleet = probe(host_of(tree), NOTHING)
    assert names(fleet) == ["gpu1"]
    assert len(fleet.notes) == 1


@pytest.mark.parametrize(
    ("files", "name", "reason"), [({}, "xe", "no energy counter"), ({"energy1_input": 1}, "xe_gt0", "no meter")]
)
def test_a_card_without_a_counter_is_left_out(tree: DrmTree, files: dict[str, object], name: str, reason: str) -> None:
    tree.add(FIRST, "xe", files, chip_name=name)
    with pytest.raises(SensorUnavailable, match=reason) as caught:
        probe(host_of(tree), NOTHING)
    assert "modprobe xe" in caught.value.remedy


def test_no_intel_gpu_is_no_meter_and_quiet(tree: DrmTree) -> None:
    with pytest.raises(SensorUnavailable) as caught:
        probe(host_of(tree), NOTHING)
    assert (caught.value.reason, caught.value.remedy) == ("no Intel GPU", "")


@pytest.mark.parametrize(
    "trace",
    [constant(180.0), square(40.0, 190.0, 0.7), burst(30.0, 190.0, 0.2, 3.1)],
    ids=["constant", "square", "burst"],
)
def test_a_known_trace_is_counted_within_half_a_percent(tree: DrmTree, trace: Trace) -> None:
    add_xe(tree)
    clock = Ticking()
    (board,) = probe(host_of(tree, clock), NOTHING).members

    def write(now: float) -> None:
        tree.set(FIRST, "energy1_input", int(1e6 * trace.joules(0.0, now // 0.1 * 0.1)))

    played = play(board, clock, write)
    assert abs(played.error(trace)) < 0.005
    assert played.gap_seconds == 0.0


@pytest.mark.parametrize("glitch", [0, 17, 18_446_744_073_709_551_615])
def test_a_counter_that_jumps_to_nonsense_and_back_invents_nothing(tree: DrmTree, glitch: int) -> None:
    add_xe(tree)
    clock = Ticking()
    (board,) = probe(host_of(tree, clock), NOTHING).members
    ledger = Ledger()
    counted = []
    for energy in (9_000_000_000, 9_000_500_000, glitch, 9_001_500_000, 9_002_000_000):
        tree.set(FIRST, "energy1_input", energy)
        counted += [piece.joules for piece in ledger.post(board.read().readings)]
        clock.now += 5.0
    assert counted == pytest.approx([0.5, 0.5])
    assert ledger.gap_seconds["gpu0"] == pytest.approx(10.0, abs=0.01)


@pytest.mark.parametrize("text", ["", "garbage", "-1", "1e9", "9" * 40, "12 34"])
def test_a_counter_that_holds_no_whole_number_fails_alone(tree: DrmTree, text: str) -> None:
    add_xe(tree)
    add_xe(tree, SECOND)
    first, second = probe(host_of(tree), NOTHING).members
    tree.set(FIRST, "energy1_input", text)
    with pytest.raises(SensorReadError, match="does not hold a whole number") as caught:
        first.read()
    assert caught.value.device == "gpu0"
    assert second.read().readings[0].energy == 1.0


def test_a_driver_that_is_loaded_again_is_read_again_under_its_new_number(tree: DrmTree) -> None:
    add_xe(tree)
    fleet = probe(host_of(tree), NOTHING)
    (board,) = fleet.members
    tree.remove(FIRST)
    with pytest.raises(SensorReadError, match="cannot be read"):
        board.read()
    add_xe(tree)
    assert "hwmon3" in str(tree.chip(FIRST))
    assert board.read().readings[0].energy == 1.0
    assert "hwmon3" in board.devices[0].method


def test_boards_come_and_go_and_keep_their_names(tree: DrmTree) -> None:
    add_xe(tree)
    add_xe(tree, SECOND)
    fleet = probe(host_of(tree), NOTHING)
    assert names(fleet) == ["gpu0", "gpu1"]
    tree.remove(FIRST)
    with pytest.raises(SensorReadError):
        fleet.members[0].read()
    fleet.read()
    assert names(fleet) == ["gpu1"]
    add_xe(tree)
    for _ in range(12):
        fleet.read()
    assert names(fleet) == ["gpu0", "gpu1"]


def test_when_no_board_is_left_the_fleet_says_so_until_one_comes(tree: DrmTree) -> None:
    add_xe(tree)
    fleet = probe(host_of(tree), NOTHING)
    tree.remove(FIRST)
    with pytest.raises(SensorReadError, match="cannot be read"):
        fleet.members[0].read()
    with pytest.raises(SensorReadError, match="no Intel GPU"):
        fleet.read()
    add_xe(tree)
    fleet.read()
    assert joules(fleet) == [1.0]


def test_a_board_that_sleeps_is_not_woken_and_loses_nothing(tree: DrmTree) -> None:
    add_xe(tree)
    clock = Ticking()
    (board,) = probe(host_of(tree, clock), NOTHING).members
    ledger = Ledger()
    ledger.post(board.read().readings)
    status = tree.device(FIRST) / "power" / "runtime_status"
    status.parent.mkdir()
    status.write_text("suspended\n")
    tree.set(FIRST, "energy1_input", 3_000_000)
    clock.now += 5
    (reading,) = board.read().readings
    assert reading.energy is None
    ledger.post([reading])
    status.write_text("active\n")
    clock.now += 5
    assert [piece.joules for piece in ledger.post(board.read().readings)] == [2.0]
    assert ledger.gap_seconds == {"gpu0": 0.0}


def test_who_is_on_a_board_is_not_known_and_schedulers_know_it_by_its_address_and_card(tree: DrmTree) -> None:
    add_xe(tree)
    clock = Ticking()
    (board,) = probe(host_of(tree, clock), NOTHING).members
    sample = board.read()
    (card,) = (path.name for path in (tree.device(FIRST) / "drm").glob("card*"))
    (occupancy,) = sample.occupancies
    assert (occupancy.device, occupancy.occupants, occupancy.partitions) == ("gpu0", None, ())
    assert occupancy.aliases == (FIRST, card)
    assert occupancy.at == sample.readings[0].at


def test_through_the_crew_each_board_answers_for_itself(tree: DrmTree) -> None:
    add_xe(tree)
    add_xe(tree, SECOND)
    crew = Crew([probe(host_of(tree), NOTHING)])
    tree.set(SECOND, "energy1_input", "half")
    sample = crew.gather(10.0)
    assert [reading.device.name for reading in sample.readings] == ["gpu0"]
    assert crew.members[0].trouble is not None
    assert [occupancy.device for occupancy in sample.occupancies] == ["gpu0"]
    crew.close()


@needs_root
def test_a_counter_that_may_not_be_read_tells_the_file_and_the_remedy(public_tree: DrmTree) -> None:
    (add_xe(public_tree) / "energy1_input").chmod(0o400)

    def refused() -> None:
        with pytest.raises(SensorPermission, match="energy1_input may not be read") as caught:
            probe(host_of(public_tree), NOTHING)
        assert "mount the host's /sys" in caught.value.remedy

    run_as_nobody(refused)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_in_its_files_are_a_reading_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, energy: bytes, other: bytes
) -> None:
    tree = DrmTree(tmp_path_factory.mktemp("xe") / "sys")
    chip = add_xe(tree)
    (chip / "energy1_input").write_bytes(energy)
    for file in ("energy1_label", "energy2_label", "power1_max", "power1_rated_max", "temp2_input"):
        (chip / file).write_bytes(other)
    (board,) = probe(host_of(tree), NOTHING).members
    try:
        (reading,) = board.read().readings
    except SensorReadError as error:
        assert error.device == "gpu0"
    else:
        assert reading.energy is not None
        assert reading.energy >= 0
