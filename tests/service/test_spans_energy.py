"""The devices' energy as scripts are told it: fine where meters allow, never twice, and only while somebody watches."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.driven import driven_tree, two_sockets
from support.fakenvml import Board, FakeNvml, Process, environment
from support.machine import Clock
from support.raw_script import RawScript
from support.scripts import Room, process, room
from support.waiting import until

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.publish import handoff_wire as wire
from carbon_exporter.sensors.base import Device, Occupancy, Occupant, Quality, Reading, Sample, Sensor
from carbon_exporter.sensors.crew import Crew
from carbon_exporter.service.feed import Feed, device_rows
from carbon_exporter.service.peer_boards import boards_of
from carbon_exporter.units import Joules, Watts

__all__ = ["room"]
GPU = Device("gpu0", "gpu", "nvidia", "NVIDIA", "H100", "GPU-1", max_power=Watts(700.0), period=0.1)
NODE = Device("redfish", "node", "redfish")


class FineCrew(Crew):
    """A crew whose fine readings the test makes."""

    def __init__(self) -> None:
        super().__init__(())
        self.fine: list[Reading] = []
        self.watched: list[bool] = []

    def watch(self, on: bool, boards: Collection[str] | None = None) -> None:  # noqa: ARG002 - all are wanted
        self.watched.append(on)

    def take_fine(self) -> list[Reading]:
        taken, self.fine = self.fine, []
        return taken


def slices(lines: list[bytes]) -> list[wire.SliceRow]:
    found = [wire.decode_exporter(line) for line in lines]
    return [one for message in found if isinstance(message, wire.Energy) for one in message.slices]


def fine(at: float, joules: float, slack: float = 0.003) -> Reading:
    return Reading(GPU, at, Quality.MEASURED, Joules(joules), slack=slack)


def tick(start: float, end: float, joules: float, device: Device = GPU) -> EnergySlice:
    return EnergySlice(device, start, end, Joules(joules), Quality.MEASURED)


def test_fine_readings_become_slices_with_the_worse_slack_of_their_ends() -> None:
    crew, clock = FineCrew(), Clock(10.0)
    feed = Feed(crew, clock)
    feed.watch(True)
    crew.fine = [fine(10.0, 100.0, 0.005), fine(10.1, 130.0), fine(10.2, 160.0)]
    assert slices(feed.lines()) == [
        wire.SliceRow("gpu0", 10.0, 10.1, 30.0, 0.005),
        wire.SliceRow("gpu0", 10.1, 10.2, 30.0, 0.003),
    ]
    assert feed.lines() == []
    assert crew.watched == [True]


CPU = Device("cpu0", "cpu", "model")


class Estimate(Sensor):
    """10 W since it was last read, a quarter of a second before."""

    name = "model"
    devices = (CPU,)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def read(self) -> Sample:
        now = self._clock()
        return Sample((Reading(CPU, now, Quality.MODELLED, power=Watts(10.0), since=now - 0.25),))


def test_estimates_are_told_four_times_a_second_for_ticks_are_too_rare() -> None:
    clock = Clock(10.0)
    feed = Feed(FineCrew(), clock, lambda: Estimate(clock))
    feed.know(device_rows([CPU], {}))
    feed.watch(True)
    told = []
    for _ in range(20):
        told += slices(feed.lines())
        clock.now += 0.125
    assert {(one.device, one.end - one.start, one.joules) for one in told} == {("cpu0", 0.25, 2.5)}
    assert len(told) == 9, "the first of ten is a mark"


def test_a_longer_period_makes_slices_as_coarse_as_messages() -> None:
    crew, clock = FineCrew(), Clock(10.0)
    feed = Feed(crew, clock, coarse=True)
    feed.watch(True)
    crew.fine = [fine(10.0 + n / 8, 100.0 + 30.0 * n) for n in range(9)]
    assert slices(feed.lines()) == [wire.SliceRow("gpu0", 10.0, 11.0, 240.0, 0.003)]


def test_what_has_no_fine_readings_is_told_as_ticks_find_it_and_whole_node_meters_never() -> None:
    feed = Feed(FineCrew(), Clock(10.0))
    feed.offer([tick(0.0, 5.0, 100.0)])
    feed.watch(True)
    feed.offer([tick(5.0, 10.0, 100.0), tick(5.0, 10.0, 900.0, NODE)])
    assert slices(feed.lines()) == [wire.SliceRow("gpu0", 5.0, 10.0, 100.0, 0.1)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0.02, 3.0), st.floats(0.0, 500.0)), min_size=2, max_size=40))
def test_however_ticks_and_fine_readings_alternate_nothing_is_told_twice(
    steps: list[tuple[bool, float, float]],
) -> None:
    crew, clock = FineCrew(), Clock(0.0)
    feed = Feed(crew, clock)
    feed.watch(True)
    told: list[wire.SliceRow] = []
    joules, last = 0.0, (0.0, 0.0)
    for is_tick, seconds, watts in steps:
        clock.now += seconds
        joules += watts * seconds
        crew.fine.append(fine(clock.now, joules))
        if is_tick:
            feed.offer([tick(last[0], clock.now, joules - last[1])])
            last = clock.now, joules
        told += slices(feed.lines())
    assert all(one.end <= two.start + 1e-9 for one, two in itertools.pairwise(told))
    assert math.fsum(one.joules for one in told) <= joules * (1 + 1e-9) + 1e-6


def test_devices_are_told_when_they_change() -> None:
    crew = FineCrew()
    feed = Feed(crew, Clock(10.0))
    feed.watch(True)
    feed.know(device_rows([GPU, NODE], {"gpu0": Quality.MEASURED}))
    (line,) = feed.lines()
    message = wire.decode_exporter(line)
    assert isinstance(message, wire.Energy)
    expected = wire.DeviceRow("gpu0", "gpu", "nvidia", "NVIDIA", "H100", "GPU-1", "measured", 700.0, 0.1)
    assert message.devices == (expected,)
    feed.know(device_rows([GPU, NODE], {"gpu0": Quality.MEASURED}))
    assert feed.lines() == []


def test_a_line_stays_short_however_many_slices_there_are() -> None:
    feed = Feed(FineCrew(), Clock(10.0))
    feed.watch(True)
    many = [Device(f"accelerator-of-a-long-name-{number}", "accelerator", "amd") for number in range(3000)]
    feed.offer([tick(5.0, 10.0, 1.0, device) for device in many])
    lines = feed.lines()
    assert max(map(len, lines)) < wire.LONGEST_LINE
    assert len(slices(lines)) == 3000


def test_a_script_pays_its_share_of_the_boards_its_processes_are_on() -> None:
    parents = {11: 10, 12: 11, 20: 1, 30: 1}
    on = (
        Occupancy("gpu0", 1.0, (Occupant(12, 0.6), Occupant(20, 0.2))),
        Occupancy("gpu1", 1.0, (Occupant(11), Occupant(30))),
        Occupancy("gpu2", 1.0, (Occupant(30, 0.9),)),
        Occupancy("gpu3", 1.0, ()),
    )
    told = boards_of({10, 20}, on, lambda pid: parents.get(pid, 0))
    assert {row.device: row.share for row in told[10].shares} == pytest.approx({"gpu0": 0.7, "gpu1": 0.5})
    assert {row.device: row.share for row in told[20].shares} == pytest.approx({"gpu0": 0.3})
    assert (told[10].known, told[10].certain, told[20].certain) == (True, False, True)


def test_a_process_of_two_scripts_is_the_nearer_ones() -> None:
    parents = {12: 11, 11: 10}
    told = boards_of({10, 11}, (Occupancy("gpu0", 1.0, (Occupant(12),)),), lambda pid: parents.get(pid, 0))
    assert told[10].shares == ()
    assert told[11].shares == (wire.BoardShare("gpu0", 1.0),)


def test_where_nobody_can_list_processes_that_is_said() -> None:
    told = boards_of({10}, (Occupancy("gpu0", 1.0, None),), lambda _: 0)
    assert told == {10: wire.Boards(known=False, shares=())}


def energy(script: RawScript, prefix: str) -> list[wire.SliceRow]:
    """All that it was told of some devices."""
    messages = [one for one in script.heard if isinstance(one, wire.Energy)]
    return [row for message in messages for row in message.slices if row.device.startswith(prefix)]


def test_rapl_is_told_ten_times_a_second_and_adds_up_to_the_truth(room: Room, in_memory: Path) -> None:
    sysfs = in_memory / "sys"
    two_sockets(sysfs, range_uj=2_000_000_000, limit_watts=60)
    with driven_tree(sysfs, "40:100:3") as truth, room.exporter(f"--path.sysfs={sysfs}", interval="5s"):
        with RawScript(room.path) as script:
            script.wait_for(wire.Welcome)
            script.send(wire.Watch(on=True))
            script.listen(4.0)
        rows = [row for row in energy(script, "cpu0") if row.end - row.start < 1.0]
        assert len(rows) >= 15
        assert all(one.end == two.start for one, two in itertools.pairwise(rows))
        drawn = truth.package_joules(rows[-1].end) - truth.package_joules(rows[0].start)
        assert math.fsum(row.joules for row in rows) == pytest.approx(drawn, rel=0.03)


@pytest.mark.usefixtures("boards_turn")
def test_a_board_is_told_finely_and_whose_it_is(room: Room) -> None:
    fake = FakeNvml(room.folder / "nvml", boards=2)
    for board in fake.boards:
        board.constant(300)
    with RawProcess(fake, room) as (script, board):
        assert script.wait_for(wire.Boards, lambda boards: bool(boards.shares)).shares == (
            wire.BoardShare("gpu0", 1.0),
        )
        script.send(wire.Watch(on=True))
        script.listen(4.0)
        rows = [row for row in energy(script, "gpu0") if row.end - row.start < 1.0]
        assert len(rows) >= 15
        watts = math.fsum(row.joules for row in rows) / (rows[-1].end - rows[0].start)
        assert watts == pytest.approx(300, rel=0.03)
        assert sorted(row.slack for row in rows)[len(rows) // 2] < 0.05
        board.processes([])
        script.wait_for(wire.Boards, lambda boards: boards.known and not boards.shares)


@pytest.mark.usefixtures("boards_turn")
def test_a_script_reads_of_its_own_boards_only(room: Room) -> None:
    fake = FakeNvml(room.folder / "nvml", boards=1)
    with RawProcess(fake, room) as (script, _):
        script.wait_for(wire.Boards, lambda boards: bool(boards.shares))
        with process(room.path) as answer:
            assert answer.endswith("True []")


class RawProcess:
    """An exporter with boards, on the first of which this very process is, as a script."""

    def __init__(self, fake: FakeNvml, room: Room) -> None:
        self._fake, self._exporter = (
            fake,
            room.exporter(f"--path.sysfs={room.folder}", environ=environment(fake), interval="500ms"),
        )
        self._path: Path = room.path

    def __enter__(self) -> tuple[RawScript, Board]:
        board = self._fake.boards[0]
        board.processes([Process(os.getpid(), sm=50)])
        self._exporter.__enter__()
        self.script = RawScript(self._path)
        return self.script, board

    def __exit__(self, *_: object) -> None:
        self.script.close()
        self._exporter.__exit__()


def test_nobody_reads_finely_while_nobody_watches(room: Room) -> None:
    fake = FakeNvml(room.folder / "nvml", boards=1)
    with RawProcess(fake, room) as (script, _):
        script.wait_for(wire.Welcome)

        def calls(seconds: float) -> int:
            before = fake.calls
            time.sleep(seconds)
            return fake.calls - before

        quiet = calls(2.0)
        script.send(wire.Watch(on=True))
        script.wait_for(wire.Energy)
        watched = calls(2.0)
        assert watched > quiet + 10
        script.send(wire.Watch(on=False))
        until(lambda: calls(1.0) <= quiet)
