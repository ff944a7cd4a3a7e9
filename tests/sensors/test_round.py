"""The round: prompt boards are read by one thread, and one that hangs or is slow delays no other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from carbon_exporter.sensors.base import Device, Quality, Reading, Sample, Sensor
from carbon_exporter.sensors.crew import Crew
from carbon_exporter.units import Joules


class Board(Sensor):
    """A board that tells who uses it, and whether two threads ever did at once."""

    name = "maker"
    devices: tuple[Device, ...] = ()
    sampling_period: float | None = None
    has_counter = offers_fine = True

    def __init__(self, device: str) -> None:
        self.devices = (Device(device, "gpu", self.name, period=0.1),)
        self.free = threading.Event()
        self.free.set()
        self.takes = 0.0
        self.reads = 0
        self.reader = self.sampler = 0
        self.fines = 0
        self.closed = threading.Event()
        self.shared = False
        self._used = threading.Lock()

    def read(self) -> Sample:
        self.reads += 1
        self.reader = threading.get_ident()
        self.sampling_period = None if self.has_counter else 0.02
        return Sample((self._use(),))

    def sample(self) -> None:
        self.sampler = threading.get_ident()
        self._use()

    def fine(self) -> tuple[Reading, ...]:
        self.fines += 1
        return (self._use(),)

    def close(self) -> None:
        self._use()
        self.closed.set()

    def _use(self) -> Reading:
        self.shared = self.shared or not self._used.acquire(blocking=False)
        assert self.free.wait(20)
        time.sleep(self.takes)
        if self._used.locked():
            self._used.release()
        return Reading(self.devices[0], time.monotonic(), Quality.MEASURED, energy=Joules(1.0))


class Fleet(Sensor):
    """Only has members."""

    name = "maker"
    devices: tuple[Device, ...] = ()
    members: tuple[Sensor, ...] = ()

    def __init__(self, *boards: Board) -> None:
        self.members = boards

    def read(self) -> Sample:
        return Sample()


@pytest.fixture
def boards() -> list[Board]:
    return [Board(f"gpu{number}") for number in range(5)]


@pytest.fixture
def crew(boards: list[Board]) -> Iterator[Crew]:
    crew = Crew([Fleet(*boards)])
    crew.gather(5)
    yield crew
    for board in boards:
        board.free.set()
    crew.close()
    assert all(board.closed.wait(5) for board in boards)
    assert not any(board.shared for board in boards), "two threads used one board at once"


def names(sample: Sample) -> list[str]:
    return [reading.device.name for reading in sample.readings]


def gather_until(crew: Crew, true: Callable[[], bool]) -> None:
    """A busy machine may make any board seem slow for once."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "in vain"
        crew.gather(5)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.01)


def read_by_one(boards: list[Board]) -> bool:
    return len({board.reader for board in boards}) == 1


def test_boards_that_answer_at_once_are_read_by_one_thread(crew: Crew, boards: list[Board]) -> None:
    assert len({board.reader for board in boards}) == 5, "nobody knows yet whether they do"
    gather_until(crew, lambda: read_by_one(boards))
    assert names(crew.gather(5)) == ["gpu0", "gpu1", "gpu2", "gpu3", "gpu4"]


@pytest.mark.parametrize("hanging", [[0], [2], [4], [1, 3], [0, 1, 2, 3]])
def test_boards_that_hang_in_a_round_cost_their_own_freshness_only(
    crew: Crew, boards: list[Board], hanging: list[int]
) -> None:
    gather_until(crew, lambda: read_by_one(boards))
    threads = threading.active_count()
    bad = [boards[number] for number in hanging]
    good = [board for board in boards if board not in bad]
    asked = [board.reads for board in boards]
    for board in bad:
        board.free.clear()
    assert names(crew.gather(0.5)) == [board.devices[0].name for board in good], "in the same tick"
    for _ in range(5):
        began = time.perf_counter()
        assert names(crew.gather(5)) == [board.devices[0].name for board in good]
        assert time.perf_counter() - began < 1
    assert [board.reads - before for board, before in zip(boards, asked, strict=True)] == [
        1 if board in bad else 6 for board in boards
    ], "each once a tick, and none beside a reading that hangs"
    assert threading.active_count() == threads
    assert crew.members[0].errors == {"deadline": 6 * len(bad)}
    assert f"maker {bad[0].devices[0].name} has not answered in time" in str(crew.members[0].trouble)
    for board in bad:
        board.free.set()
    gather_until(crew, lambda: crew.members[0].trouble is None)
    gather_until(crew, lambda: read_by_one(boards))
    assert threading.active_count() == threads


def test_boards_that_take_their_time_are_read_side_by_side_from_the_first_tick_on(
    crew: Crew, boards: list[Board]
) -> None:
    gather_until(crew, lambda: read_by_one(boards))
    for board in boards:
        board.takes = 0.4
    for _ in range(2):
        began = time.perf_counter()
        assert len(names(crew.gather(5))) == 5
        assert time.perf_counter() - began < 1.2
    assert len({board.reader for board in boards}) == 5


def test_a_board_that_loses_its_counter_in_a_round_is_sampled_from_then_on(crew: Crew, boards: list[Board]) -> None:
    gather_until(crew, lambda: read_by_one(boards))
    sampled, *others = boards
    sampled.has_counter = False
    crew.gather(5)
    wait_until(lambda: sampled.sampler != 0)
    gather_until(crew, lambda: sampled.sampler == sampled.reader)
    gather_until(crew, lambda: read_by_one(others) and others[0].reader != sampled.reader)


def test_a_board_is_read_and_looked_at_finely_by_one_thread_at_a_time(crew: Crew, boards: list[Board]) -> None:
    gather_until(crew, lambda: read_by_one(boards))
    late, *others = boards
    late.offers_fine = False
    for board in boards:
        board.takes = 0.001
    for number in range(20):
        crew.watch(number % 2 == 0)
        assert len(names(crew.gather(5))) == 5
    crew.watch(True)
    wait_until(lambda: min(board.fines for board in others) > 10)
    assert late.fines == 0
    late.offers_fine = True
    crew.gather(5)
    wait_until(lambda: late.fines > 10)
    crew.watch(False)
    gather_until(crew, lambda: read_by_one(boards))


def test_a_board_that_leaves_while_it_hangs_is_closed_when_it_returns(boards: list[Board]) -> None:
    fleet, gone = Fleet(*boards), boards[2]
    crew = Crew([fleet])
    crew.gather(5)
    gather_until(crew, lambda: read_by_one(boards))
    gone.free.clear()
    crew.gather(0.3)
    fleet.members = tuple(board for board in boards if board is not gone)
    assert names(crew.gather(5)) == ["gpu0", "gpu1", "gpu3", "gpu4"]
    assert not gone.closed.is_set()
    gone.free.set()
    assert gone.closed.wait(5)
    gather_until(crew, lambda: read_by_one([board for board in boards if board is not gone]))
    crew.close()


def test_threads_end_with_the_crew_and_one_that_hangs_with_its_call(boards: list[Board]) -> None:
    before = threading.active_count()
    crew = Crew([Fleet(*boards)])
    crew.gather(5)
    gather_until(crew, lambda: read_by_one(boards))
    boards[1].free.clear()
    crew.gather(0.3)
    crew.close()
    assert not boards[1].closed.is_set()
    boards[1].free.set()
    wait_until(lambda: threading.active_count() <= before)


def test_a_forked_child_has_a_round_of_its_own_also_while_a_board_hangs(crew: Crew, boards: list[Board]) -> None:
    gather_until(crew, lambda: read_by_one(boards))
    boards[3].free.clear()
    crew.gather(0.3)
    child = os.fork()
    if child == 0:
        others = [board for board in boards if board is not boards[3]]
        end, is_one = time.monotonic() + 20, False
        while not is_one and time.monotonic() < end:
            is_one = names(crew.gather(5)) == ["gpu0", "gpu1", "gpu2", "gpu4"] and read_by_one(others)
        os._exit(0 if is_one else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
