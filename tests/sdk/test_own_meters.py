"""A process that measures by itself: at NVML's C ABI, on powercap trees, and by psutil's model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import fakenvml
from support.fakenvml import FakeNvml, Process, load_in_process
from support.nvidia import run_script
from support.powercap import PowercapTree

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.errors import SensorUnavailable
from carbon_exporter.sdk.own_meters import LINUX, PORTABLE, OwnMeters
from carbon_exporter.sdk.own_source import FEW_READINGS, MODEL_SECONDS, Source
from carbon_exporter.sensors.base import Device, Host, Quality, Reading, Sample, Sensor
from carbon_exporter.sensors.registry import Entry
from carbon_exporter.units import Watts

RAPL = tuple(entry for entry in LINUX if entry.name == "rapl")
NVIDIA = tuple(entry for entry in LINUX if entry.name == "nvidia")
MODEL = tuple(entry for entry in LINUX if entry.name == "model")


@pytest.fixture(autouse=True, scope="module")
def _no_boards_are_left() -> Iterator[None]:
    yield
    if fakenvml.LIBRARY in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace"):
        fakenvml.unload()


@pytest.fixture
def fake(tmp_path: Path) -> FakeNvml:
    fake = FakeNvml(tmp_path / "nvml", boards=2)
    load_in_process(fake)
    return fake


@pytest.fixture
def tree(tmp_path: Path) -> PowercapTree:
    tree = PowercapTree(tmp_path / "sys")
    tree.add_socket(0)
    return tree


class Estimate(Sensor):
    """An estimate that takes its time."""

    name = "model"
    devices: tuple[Device, ...] = (Device("cpu0", "cpu", "model"),)

    def __init__(self) -> None:
        self.seconds = 0.0

    def read(self) -> Sample:
        time.sleep(self.seconds)
        return Sample((Reading(self.devices[0], time.monotonic(), Quality.MODELLED, power=Watts(1.0)),))


def measured(meters: OwnMeters, seconds: float) -> list[EnergySlice]:
    """What is read as a sampler reads, in `seconds`."""
    slices: list[EnergySlice] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(0.25, meters.wait()))
        slices += meters.read()
    return slices


def of(slices: list[EnergySlice], device: str) -> list[EnergySlice]:
    return [one for one in slices if one.device.name == device]


def test_slices_of_a_board_end_where_its_counter_moved(fake: FakeNvml) -> None:
    fake.boards[0].square(60, 300, 1.9)
    meters = OwnMeters(table=NVIDIA)
    meters.open()
    assert [device.name for device in meters.devices] == ["gpu0", "gpu1"]
    measured(meters, 2)
    slices = of(measured(meters, 4), "gpu0")
    meters.close()
    assert len(slices) >= 20
    assert all(one.start < one.end for one in slices)
    assert [one.start for one in slices[1:]] == [one.end for one in slices[:-1]], "no gaps, nothing twice"
    slack = meters.slack("gpu0")
    assert 0 < slack <= 0.06
    within = [
        abs(one.joules - fake.boards[0].true_joules(one.start, one.end)) <= 2 * 300 * max(slack, 0.006)
        for one in slices
    ]
    assert sum(within) >= 0.9 * len(within)
    assert {one.quality for one in slices} == {Quality.MEASURED}


def test_boards_that_are_not_wanted_cost_nothing_between_full_readings(fake: FakeNvml) -> None:
    wanted = {"gpu0"}
    meters = OwnMeters(table=NVIDIA, wanted=lambda: wanted)
    meters.open()
    before = sum(fake.boards[1].calls.values())
    slices = measured(meters, 1)
    assert sum(fake.boards[1].calls.values()) == before
    assert {one.device.name for one in slices} == {"gpu0"}
    assert [device.name for device in meters.devices] == ["gpu0", "gpu1"], "there to be wanted"
    wanted.clear()
    wanted.add(fake.boards[1].uuid)
    assert {one.device.name for one in measured(meters, 1)} == {"gpu1"}
    meters.close()


def test_in_calm_counters_are_read_less_often_and_at_once_when_it_ends(fake: FakeNvml, tree: PowercapTree) -> None:
    def glanced(seconds: float) -> int:
        before, end = sum(fake.boards[0].calls.values()), time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(0.25, meters.wait()))
            meters.glance()
        return sum(fake.boards[0].calls.values()) - before

    meters = OwnMeters(Host(sysfs=tree.sysfs), table=(*NVIDIA, *RAPL), wanted=lambda: ("gpu0",))
    meters.open()
    measured(meters, 1.5)
    closely = glanced(2)
    meters.ease(0.3)
    glanced(0.3)
    assert glanced(2) <= 0.5 * closely
    meters.ease(0.1)
    assert meters.wait() == 0.0
    before = sum(fake.boards[0].calls.values())
    meters.glance()
    assert sum(fake.boards[0].calls.values()) == before + 1
    meters.close()


def test_an_estimate_that_is_held_up_now_and_then_is_not_taken_for_a_dear_one() -> None:
    estimate = Estimate()
    source = Source(estimate, time.monotonic)
    for number in range(8):
        estimate.seconds = 0.05 if number % 2 else 0.0
        source.read(5.0)
        assert source.due - time.monotonic() <= MODEL_SECONDS
    estimate.seconds = 0.05
    for _ in range(FEW_READINGS):
        source.read(5.0)
    assert source.due - time.monotonic() > 2 * MODEL_SECONDS
    source.close()


def test_a_pause_wakes_nobody_and_what_follows_begins_with_marks(fake: FakeNvml, tree: PowercapTree) -> None:
    meters = OwnMeters(Host(sysfs=tree.sysfs), table=(*NVIDIA, *RAPL))
    meters.open()
    measured(meters, 0.5)
    meters.pause()
    time.sleep(0.1)
    before = fake.calls
    time.sleep(0.6)
    assert fake.calls == before
    paused = time.monotonic()
    slices = measured(meters, 1)
    meters.close()
    assert {one.device.name for one in slices} == {"gpu0", "gpu1", "cpu0", "dram0"}
    assert min(one.start for one in slices) >= paused - 0.2


def test_rapl_is_read_on_the_thread_that_asks_and_only_so_often(tree: PowercapTree) -> None:
    meters = OwnMeters(Host(sysfs=tree.sysfs), table=RAPL)
    meters.open()
    threads = threading.active_count()
    assert meters.read() == []
    assert 0.05 < meters.wait() <= 0.1
    tree.set_energy("intel-rapl:0", 3_000_000)
    time.sleep(meters.wait())
    slices = meters.read()
    assert {(one.device.name, one.joules) for one in slices} == {("cpu0", 3.0), ("dram0", 0.0)}
    assert meters.read() == [], "too soon"
    assert threading.active_count() == threads
    assert meters.slack("cpu0") == 0.001
    meters.close()


def test_a_board_without_a_counter_is_sampled(fake: FakeNvml) -> None:
    fake.boards[0].without_counter()
    fake.boards[0].constant(200)
    meters = OwnMeters(table=NVIDIA, wanted=lambda: ("gpu0",))
    meters.open()
    slices = measured(meters, 3)
    meters.close()
    assert {one.quality for one in slices} == {Quality.INTEGRATED}
    assert len(slices) >= 8, "finer than the second of a full reading"
    known = sum(one.end - one.start for one in slices)
    assert known >= 1.5
    assert sum(one.joules for one in slices) == pytest.approx(200 * known, rel=0.05)
    assert meters.slack("gpu0") == 0.05


def test_a_driver_that_hangs_is_not_waited_for_again(fake: FakeNvml, tree: PowercapTree) -> None:
    meters = OwnMeters(Host(sysfs=tree.sysfs), table=(*NVIDIA, *RAPL))
    meters.open()
    measured(meters, 0.5)
    fake.boards[0].hang(1.5)
    slices = measured(meters, 5)
    meters.close()
    last = {name: of(slices, name)[-1].end for name in ("gpu0", "gpu1", "cpu0")}
    assert min(last.values()) > time.monotonic() - 2, "all goes on"


def test_a_board_that_falls_out_and_comes_back_goes_on(fake: FakeNvml) -> None:
    meters = OwnMeters(table=NVIDIA, wanted=lambda: ("gpu0",))
    meters.open()
    assert measured(meters, 0.8)
    fake.boards[0].error(15)
    measured(meters, 2)
    fake.boards[0].clear()
    end = time.monotonic() + 20
    while not of(measured(meters, 0.5), "gpu0"):
        assert time.monotonic() < end
    meters.close()


def test_the_share_of_boards_is_by_the_drivers_lists(fake: FakeNvml) -> None:
    me = os.getpid()
    fake.boards[0].processes([Process(me, sm=50), Process(1, sm=10)])
    fake.boards[1].processes([Process(1, sm=30)])
    meters = OwnMeters(table=NVIDIA, pids=lambda: {me})
    meters.open()
    measured(meters, 0.1)
    use = meters.boards()
    assert use is not None
    assert use.certain
    assert use.shares == {"gpu0": pytest.approx(0.7)}
    meters.close()
    assert OwnMeters(table=NVIDIA, pids=lambda: ()).boards() is None


def test_no_meter_is_an_error_and_what_is_denied_is_told(tmp_path: Path) -> None:
    meters = OwnMeters(Host(sysfs=tmp_path), table=RAPL)
    with pytest.raises(SensorUnavailable, match="nothing that can be measured"):
        meters.open()
    assert [(one.sensor, one.state) for one in meters.findings] == [("rapl", "missing")]


def test_without_counters_the_model_estimates_processors_and_memory() -> None:
    meters = OwnMeters(table=MODEL)
    meters.open()
    slices = measured(meters, 1.5)
    meters.close()
    assert {one.device.kind for one in slices} == {"cpu", "dram"}
    assert all(one.joules > 0 for one in slices)
    assert meters.machine.cpus == os.cpu_count()
    assert 3 <= len(of(slices, "dram0")) <= 8


def test_what_is_never_opened_by_a_guest() -> None:
    assert [entry.name for entry in LINUX] == ["nvidia", "amd", "intel_gpu", "rapl", "hwmon", "model"]


def test_a_meter_of_the_whole_node_is_none_of_a_guests(tmp_path: Path) -> None:
    chip = tmp_path / "sys" / "class" / "hwmon" / "hwmon0"
    chip.mkdir(parents=True)
    (chip / "name").write_text("ina3221\n")
    (chip / "power1_input").write_text("5000000\n")
    hwmon = Entry("hwmon", "carbon_exporter.sensors.hwmon")
    meters = OwnMeters(Host(sysfs=tmp_path / "sys"), table=(hwmon, *MODEL))
    meters.open()
    assert {device.kind for device in meters.devices} == {"cpu", "dram"}
    assert {one.sensor: one.state for one in meters.findings} == {"hwmon": "active", "model": "active"}
    meters.close()


def test_the_portable_model_measures_the_same_machine() -> None:
    meters = OwnMeters(table=PORTABLE)
    meters.open()
    slices = measured(meters, 1.5)
    meters.close()
    assert {one.device.name for one in slices} == {"cpu0", "dram0"}
    assert {one.quality for one in slices} <= {Quality.MODELLED, Quality.DEFAULT}
    assert meters.machine.cpus == os.cpu_count()
    assert meters.machine.memory_total > 1e8


def test_on_another_system_no_file_of_linux_is_opened() -> None:
    script = """
import json, sys
sys.platform = "darwin"
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
from carbon_exporter.sdk.own_meters import OwnMeters
import time
meters = OwnMeters(table=None)
ours = len(opened)
from carbon_exporter.sdk import portable_meters
of_linux = [path for path in opened[:ours] if path.startswith(("/proc", "/sys"))]
print(json.dumps([[entry.name for entry in meters._table], of_linux]))
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(out.stdout) == [["model"], []]


def test_a_session_of_the_program_outlives_ours(fake: FakeNvml) -> None:
    script = """
import json, time, pynvml
from carbon_exporter.sdk.own_meters import OwnMeters
pynvml.nvmlInit()
meters = OwnMeters()
meters.open()
meters.read()
meters.close()
time.sleep(0.2)
print(json.dumps(pynvml.nvmlDeviceGetCount()))
"""
    assert run_script(script, fake) == 2


def test_a_child_makes_meters_of_its_own(fake: FakeNvml) -> None:
    fake.boards[0].constant(100)
    meters = OwnMeters(table=NVIDIA)
    meters.open()
    measured(meters, 0.5)
    child = os.fork()
    if child == 0:
        own = OwnMeters(table=NVIDIA)
        own.open()
        os._exit(0 if of(measured(own, 2), "gpu0") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert of(measured(meters, 1), "gpu0")
    meters.close()
