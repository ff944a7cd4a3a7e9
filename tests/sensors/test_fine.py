"""Fine readings: of workers and their crew, of RAPL's files and of NVIDIA's boards, while somebody watches."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.fakenvml import FakeNvml
from support.machine import Clock
from support.nvidia import fleet_on, tick
from support.powercap import PowercapTree

from carbon_exporter.energy.ledger import Ledger
from carbon_exporter.sensors import rapl
from carbon_exporter.sensors.base import Device, Host, Quality, Reading, Sample, Sensor
from carbon_exporter.sensors.crew import Crew
from carbon_exporter.units import Joules

PERIOD = 0.1


class Counter(Sensor):
    """A board of 100 W whose counter is renewed every 100 ms, on the grid of time.monotonic()."""

    name = "maker"
    devices: tuple[Device, ...] = ()
    members: tuple[Sensor, ...] = ()
    offers_fine = True
    sampling_period: float | None = None

    def __init__(self, device: str = "gpu0", kind: str = "gpu") -> None:
        self.devices = (Device(device, kind, "maker", uuid=f"uuid-{device}", period=PERIOD),)  # type: ignore[arg-type]
        self.free = threading.Event()
        self.free.set()
        self.fails = False
        self.reads = self.fines = self.samples = 0

    def read(self) -> Sample:
        self.reads += 1
        assert self.free.wait(20)
        return Sample((Reading(self.devices[0], time.monotonic(), Quality.MEASURED, energy=Joules(1.0)),))

    def sample(self) -> None:
        self.samples += 1

    def fine(self) -> tuple[Reading, ...]:
        self.fines += 1
        assert self.free.wait(20)
        if self.fails:
            raise ZeroDivisionError("vendor code")
        at = time.monotonic()
        return (Reading(self.devices[0], at, Quality.MEASURED, energy=Joules(at // PERIOD * PERIOD * 100.0)),)


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.01)


def test_nobody_watches_and_nothing_is_read() -> None:
    sensor = Counter()
    crew = Crew([sensor])
    crew.gather(2)
    assert crew.fine_devices == frozenset()
    assert crew.news is None
    crew.watch(True)
    until(lambda: sensor.fines > 3)
    assert crew.fine_devices == {"gpu0"}
    crew.watch(False)
    time.sleep(0.3)
    before = sensor.fines
    time.sleep(0.5)
    assert sensor.fines == before
    crew.close()


def test_readings_have_the_moments_at_which_the_counter_moved() -> None:
    sensor = Counter()
    crew = Crew([sensor])
    crew.watch(True)
    crew.watch(True)
    readings: list[Reading] = []
    end = time.monotonic() + 6
    while time.monotonic() < end:
        time.sleep(0.2)
        readings += crew.take_fine()
    learnt = [one for one in readings if one.at > readings[0].at + 2]
    assert len(learnt) >= 20
    assert [one.at for one in readings] == sorted({one.at for one in readings}), "in order, and each once"
    errors = [abs(one.at - (one.energy or 0.0) / 100) for one in learnt]
    assert sum(error <= one.slack for error, one in zip(errors, learnt, strict=True)) >= 0.9 * len(learnt)
    assert crew.news is not None
    assert crew.take_fine() == [] or crew.take_fine() == []
    crew.close()


def test_a_fine_reading_that_hangs_is_a_reading_that_hangs() -> None:
    good, bad = Counter("gpu0"), Counter("gpu1")
    crew = Crew([bad, good])
    crew.watch(True)
    until(lambda: bad.fines > 2)
    bad.free.clear()
    time.sleep(0.3)
    assert [one.device.name for one in crew.gather(0.3).readings] == ["gpu0"]
    assert crew.members[0].errors == {"deadline": 1}
    crew.take_fine()
    time.sleep(0.5)
    assert {one.device.name for one in crew.take_fine()} == {"gpu0"}
    bad.free.set()
    until(lambda: "gpu1" in {one.device.name for one in crew.gather(2).readings})
    until(lambda: "gpu1" in {one.device.name for one in crew.take_fine()})
    crew.close()


def test_one_that_raises_is_tried_less_and_less_often_and_comes_back() -> None:
    sensor = Counter()
    sensor.fails = True
    crew = Crew([sensor])
    crew.watch(True)
    time.sleep(1.5)
    assert 2 <= sensor.fines <= 5
    assert crew.take_fine() == []
    assert crew.members[0].trouble is None, "the next reading tells"
    sensor.fails = False
    until(lambda: bool(crew.take_fine()))
    crew.close()


def test_members_that_come_are_watched_and_those_that_go_are_not() -> None:
    fleet, board = Counter("none"), Counter("gpu1")
    fleet.offers_fine, fleet.devices = False, ()
    crew = Crew([fleet])
    crew.watch(True)
    fleet.members = (board,)
    crew.gather(2)
    until(lambda: {one.device.name for one in crew.take_fine()} == {"gpu1"})
    fleet.members = ()
    crew.gather(2)
    time.sleep(0.3)
    before = board.fines
    time.sleep(0.3)
    assert board.fines == before
    assert crew.fine_devices == frozenset()
    crew.close()


def test_only_boards_that_are_wanted_are_read_and_all_else() -> None:
    one, other, package = Counter("gpu0"), Counter("gpu1"), Counter("cpu0", "cpu")
    crew = Crew([one, other, package])
    crew.watch(True, {"uuid-gpu1"})
    until(lambda: other.fines > 2 and package.fines > 2)
    assert one.fines == 0
    crew.watch(True, {"gpu0"})
    until(lambda: one.fines > 2)
    assert crew.fine_devices == {"gpu0", "cpu0"}
    crew.close()


def test_a_crew_that_rests_does_not_sample_and_goes_on_when_told() -> None:
    sensor = Counter()
    sensor.sampling_period = 0.02
    crew = Crew([sensor])
    until(lambda: sensor.samples > 3)
    crew.rest(True)
    time.sleep(0.2)
    before = sensor.samples
    time.sleep(0.3)
    assert sensor.samples == before
    crew.rest(False)
    until(lambda: sensor.samples > before + 3)
    crew.close()


def test_sampling_goes_on_beside_fine_readings() -> None:
    sensor = Counter()
    sensor.sampling_period = 0.05
    crew = Crew([sensor])
    crew.watch(True)
    until(lambda: sensor.samples > 20 and sensor.fines > 10)
    crew.close()


def test_nobody_takes_and_only_the_newest_are_kept() -> None:
    sensor = Counter()
    crew = Crew([sensor])
    (member,) = crew.members
    (worker,) = member.workers
    worker.fine._kept.extend((reading, reading.at, 0.0) for reading in sensor.fine() * 5000)
    assert len(crew.take_fine()) <= 1024
    crew.close()


def test_a_forked_child_that_reads_is_watched_too() -> None:
    sensor = Counter()
    crew = Crew([sensor])
    crew.watch(True)
    until(lambda: sensor.fines > 2)
    child = os.fork()
    if child == 0:
        crew.gather(5)
        time.sleep(0.5)
        os._exit(0 if crew.take_fine() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    crew.close()


def test_rapl_gives_all_counters_and_leaves_out_those_that_fail(tmp_path: Path) -> None:
    tree = PowercapTree(tmp_path / "sys")
    tree.add_socket(0)
    tree.add_socket(1)
    tree.set_energy("intel-rapl:0", 1_500_000)
    sensor = rapl.probe(Host(procfs=tmp_path, sysfs=tree.sysfs, clock=lambda: 7.0), frozenset())
    assert sensor.offers_fine
    readings = {one.device.name: one for one in sensor.fine()}
    assert list(readings) == ["cpu0", "cpu1", "dram0", "dram1"]
    assert (readings["cpu0"].energy, readings["cpu0"].at, readings["cpu0"].quality) == (1.5, 7.0, Quality.MEASURED)
    tree.set_text("intel-rapl:0", "energy_uj", "nonsense\n")
    tree.remove("intel-rapl:1")
    assert [one.device.name for one in sensor.fine()] == ["dram0"]


@pytest.fixture
def fake(tmp_path: Path) -> FakeNvml:
    return FakeNvml(tmp_path / "nvml", boards=1)


def test_a_board_gives_its_counter_in_one_call_and_its_ticks_are_as_before(fake: FakeNvml) -> None:
    board = fleet_on(fake).members[0]
    fake.boards[0].counter(1234.5)
    before = fake.calls
    (reading,) = board.fine()
    assert fake.calls - before == 1
    assert (reading.energy, reading.quality, reading.power) == (1234.5, Quality.MEASURED, None)
    assert reading.slack >= 0
    calls = fake.calls
    board.read()
    slow = fake.calls - calls
    for _ in range(20):
        board.fine()
    calls = fake.calls
    board.read()
    assert fake.calls - calls < slow, "fine readings are no ticks"


def test_an_old_driver_has_a_function_for_it(fake: FakeNvml) -> None:
    fake.boards[0].without_fields(83, 191)
    board = fleet_on(fake).members[0]
    fake.boards[0].counter(77.0)
    assert [one.energy for one in board.fine()] == [77.0]


def test_a_board_that_fails_offers_nothing_until_it_is_well(fake: FakeNvml) -> None:
    fleet = fleet_on(fake)
    board = fleet.members[0]
    fake.boards[0].error(15)
    with pytest.raises(Exception, match="the GPU is lost"):
        board.fine()
    tick(fleet)
    assert not board.offers_fine
    assert board.fine() == ()
    fake.boards[0].clear()
    tick(fleet)
    tick(fleet)
    assert board.offers_fine
    assert board.fine()


def test_a_new_session_makes_old_handles_useless_until_the_next_tick(fake: FakeNvml) -> None:
    fleet = fleet_on(fake)
    board = fleet.members[0]
    fleet._session.renew()
    assert board.fine() == ()
    tick(fleet)
    assert board.fine()


def test_power_that_is_sampled_is_told_twice_and_counted_alike(fake: FakeNvml) -> None:
    fake.boards[0].without_counter()
    fake.boards[0].constant(250)
    fake.boards[0].refresh(0)
    clock = Clock()
    board = fleet_on(fake, Host(clock=clock)).members[0]
    assert board.offers_fine
    assert board.fine() == ()
    fine = Ledger()
    joules = 0.0
    for step in range(100):
        clock.now += 0.05
        board.sample()
        if step % 2:
            joules += sum(one.joules for one in fine.post(board.fine()))
    assert joules == pytest.approx(250 * 4.9, rel=0.03)
    (reading,) = board.read().readings
    assert reading.power == pytest.approx(250.0)
    assert reading.since is not None
    assert reading.at - reading.since == pytest.approx(4.95)
    clock.now += 10
    board.sample()
    assert board._fine_power is None, "nobody asks any more"
