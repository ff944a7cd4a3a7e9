"""Power of AMD boards by the hwmon files of their driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.amd_machine import FIRST, NOT_SUPPORTED, NOTHING, SECOND, TRACE_NAMES, TRACES, kinds, names
from support.amd_machine import AmdMachine as Machine
from support.drm import AMD_FILES, DrmTree
from support.fakeamdsmi import binding
from support.other_user import needs_root, public_directory, run_as_nobody
from support.played import Ticking, play
from support.traces import Trace

from carbon_exporter.errors import SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.amd import Amd, probe
from carbon_exporter.sensors.amd_board import SmiBoard
from carbon_exporter.sensors.amdgpu import HwmonBoard
from carbon_exporter.sensors.base import Host, Quality
from carbon_exporter.units import Watts

NO_PERMISSION, NO_DRIVER, MI250X = 10, 34, 0x7408


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    binding()
    made = Machine(tmp_path)
    with made.fake:
        yield made


def hwmon_fleet(machine: Machine, *addresses: str, files: Mapping[str, object] | None = None) -> Amd:
    """Boards that AMD's library does not see."""
    machine.add(*addresses, files=files)
    machine.fake.show([])
    return machine.fleet()


def hwmon_writer(tree: DrmTree, trace: Trace, file: str, mean: float = 0.0) -> Callable[[float], None]:
    def write(now: float) -> None:
        watts = trace.mean(now, mean) if mean else trace.power(now)
        tree.chip(FIRST).joinpath(file).write_text(f"{round(watts * 1e6)}\n")

    return write


@pytest.mark.parametrize("mean", [0.0, 1.0], ids=["instantaneous", "mean of a second"])
@pytest.mark.parametrize("trace", TRACES, ids=TRACE_NAMES)
def test_power_of_the_driver_is_exact_to_three_percent(machine: Machine, trace: Trace, mean: float) -> None:
    file = "power1_average" if mean else "power1_input"
    files = {**AMD_FILES, "power1_cap": 750_000_000, file: 1}
    if not mean:
        del files["power1_average"]
    (board,) = hwmon_fleet(machine, FIRST, files=files).members
    played = play(board, machine.clock, hwmon_writer(machine.tree, trace, file, mean))
    assert board.quality is Quality.INTEGRATED
    assert abs(played.error(trace)) < 0.03
    assert played.gap_seconds < 0.001


def test_a_board_of_the_driver_tells_who_it_is_and_why_it_is_only_sampled(machine: Machine) -> None:
    fleet = hwmon_fleet(machine, FIRST, files={**AMD_FILES, "power1_input": 90_000_000})
    device = machine.tree.device(FIRST)
    (device / "gpu_busy_percent").write_text("42\n")
    (device / "mem_info_vram_used").write_text("123456\n")
    board = fleet.members[0]
    assert kinds(fleet) == [HwmonBoard]
    assert "power1_average at about 20 Hz" in board.devices[0].method
    assert (board.devices[0].model, board.devices[0].uuid) == ("PCI device 1002:74a1", FIRST)
    assert board.devices[0].max_power == Watts(660)
    (vitals,) = board.read().vitals
    assert (vitals.power_limit, vitals.utilization) == (300.0, 0.42)
    assert (vitals.memory_used, vitals.temperature) == (123456, 52.0)


def test_a_board_that_the_library_does_not_measure_is_read_from_its_driver_and_stays_so(machine: Machine) -> None:
    machine.add(FIRST)
    machine.fake.fail(0, "energy", NOT_SUPPORTED)
    machine.fake.fail(0, "power", NOT_SUPPORTED)
    fleet = machine.fleet()
    with pytest.raises(SensorReadError):
        fleet.members[0].read()
    for _ in range(30):
        fleet.read()
        assert kinds(fleet) == [HwmonBoard]
    assert names(fleet) == ["gpu0"]


def test_a_board_that_the_library_sees_later_gets_its_counter(machine: Machine) -> None:
    fleet = hwmon_fleet(machine, FIRST)
    machine.fake.show([FIRST])
    for _ in range(12):
        fleet.read()
    assert kinds(fleet) == [SmiBoard]
    assert names(fleet) == ["gpu0"]


def test_two_dies_of_one_board_are_one_device_of_the_driver_too(machine: Machine) -> None:
    machine.add(FIRST, SECOND, device_id=MI250X)
    machine.fake.show([])
    machine.tree.set(SECOND, "power1_average", 0)
    fleet = machine.fleet()
    assert names(fleet) == ["gpu0"]
    assert "second die" in fleet.notes[0]


def test_graphics_inside_a_processor_is_left_out_with_the_reason(machine: Machine) -> None:
    apu = {"power1_input": 25_000_000, "in1_input": 900, "in1_label": "vddnb"}
    machine.add(SECOND, files=apu)
    with pytest.raises(SensorUnavailable, match="its power contains the processor's"):
        machine.fleet()
    machine.add(FIRST)
    fleet = machine.fleet()
    assert names(fleet) == ["gpu0"]
    assert "0000:43:00.0 is left out: it is a part of a processor" in fleet.notes[0]


def test_a_card_without_a_limit_gives_no_power_of_its_own(machine: Machine) -> None:
    machine.add(FIRST, files={"power1_average": 20_000_000})
    machine.fake.show([])
    with pytest.raises(SensorUnavailable, match="its driver shows no power of its own"):
        machine.fleet()


def test_no_amd_card_is_no_meter_and_quiet(machine: Machine) -> None:
    with pytest.raises(SensorUnavailable) as caught:
        machine.fleet()
    assert (caught.value.reason, caught.value.remedy) == ("no card of the driver amdgpu", "")
    assert machine.fake.state.inits == 0


def test_without_the_kernel_driver_in_the_library_the_files_serve(machine: Machine) -> None:
    machine.add(FIRST)
    machine.fake.state.init_error = NO_DRIVER
    fleet = machine.fleet()
    assert kinds(fleet) == [HwmonBoard]
    assert "AMDSMI_STATUS_DRIVER_NOT_LOADED" in fleet.notes[0]
    machine.fake.state.init_error = NO_PERMISSION
    assert "/dev/kfd" in machine.fleet().notes[0]


@pytest.mark.parametrize("text", ["", "garbage", "-1", "1e9", "9" * 15, "12 34"])
def test_a_file_that_holds_no_power_fails_alone(machine: Machine, text: str) -> None:
    first, second = hwmon_fleet(machine, FIRST, SECOND).members
    machine.tree.set(FIRST, "power1_average", text)
    with pytest.raises(SensorReadError, match="does not hold a power that can be") as caught:
        first.read()
    assert caught.value.device == "gpu0"
    assert second.read().readings


def test_a_driver_that_is_loaded_again_is_read_again_under_its_new_number(machine: Machine) -> None:
    (board,) = hwmon_fleet(machine, FIRST).members
    play(board, machine.clock, lambda _: None, seconds=5.0)
    machine.tree.remove(FIRST)
    machine.clock.now += 5.0
    with pytest.raises(SensorReadError, match="cannot be read"):
        board.read()
    machine.tree.add(FIRST, "amdgpu", AMD_FILES)
    played = play(board, machine.clock, lambda _: None, seconds=5.0)
    assert played.joules == pytest.approx(500.0, rel=0.01)
    assert "hwmon3" in board.devices[0].method


def test_what_was_sampled_before_a_failure_is_not_lost(machine: Machine) -> None:
    (board,) = hwmon_fleet(machine, FIRST).members
    for _ in range(41):
        machine.clock.now += 0.05
        board.sample()
    machine.tree.set(FIRST, "power1_average", "")
    sample = board.read()
    assert [reading.power for reading in sample.readings] == [pytest.approx(100.0)]
    assert [failure.device for failure in sample.failures] == ["gpu0"]


def test_a_board_that_sleeps_is_not_woken_and_its_time_is_a_gap(machine: Machine) -> None:
    (board,) = hwmon_fleet(machine, FIRST).members
    status = machine.tree.device(FIRST) / "power" / "runtime_status"
    status.parent.mkdir()
    status.write_text("suspended\n")
    machine.tree.set(FIRST, "power1_average", "must not be read")
    played = play(board, machine.clock, lambda _: None, seconds=20.0)
    assert (played.joules, played.gap_seconds) == (0.0, 0.0)
    assert all(reading.power is None for reading in played.readings)


@needs_root
def test_files_that_may_not_be_read_tell_the_remedy(tmp_path: Path) -> None:
    del tmp_path
    with public_directory() as directory:
        tree = DrmTree(directory / "sys")
        (tree.add(FIRST, "amdgpu", AMD_FILES) / "power1_average").chmod(0o400)

        def refused() -> None:
            with pytest.raises(SensorPermission, match="power1_average may not be read") as caught:
                probe(Host(sysfs=tree.sysfs), NOTHING)
            assert "mount the host's /sys" in caught.value.remedy

        run_as_nobody(refused)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_in_the_drivers_files_are_a_reading_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, power: bytes, other: bytes
) -> None:
    tree = DrmTree(tmp_path_factory.mktemp("amd") / "sys")
    chip = tree.add(FIRST, "amdgpu", {**AMD_FILES, "power1_input": 1})
    for name in AMD_FILES:
        (chip / name).write_bytes(other)
    (chip / "power1_input").write_bytes(power)
    (tree.device(FIRST) / "unique_id").write_bytes(other)
    fleet = Amd(Host(sysfs=tree.sysfs, clock=Ticking()))
    fleet._cards = fleet._find()
    fleet._muster()
    for board in fleet.members:
        try:
            board.read()
            board.sample()
            board.read()
        except SensorReadError as error:
            assert error.device == "gpu0"
