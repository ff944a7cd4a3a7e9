"""Boards over time: who held one when, who is forgotten, and energy that was used while nobody counted."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from support.looks import A, B, C, charged, job_of, mig, on, seen, watched

from carbon_exporter.jobs.base import OVERFLOW, UNATTRIBUTED, Holding, Job, PartitionHolder
from carbon_exporter.jobs.boards import HISTORY_TICKS, Boards, fold
from carbon_exporter.sensors.base import Occupancy, Partition

FULL = mig(("gi1", 4, 1.0), ("gi2", 3, 0.5))


def test_a_first_look_is_only_a_mark() -> None:
    boards = watched(seen((1, 0.5)))
    assert not boards.holdings("gpu0")
    assert boards.holders() == {A}
    assert charged(boards, 100.0, 0.0, 5.0) == {UNATTRIBUTED: 100.0}


def test_a_slice_goes_to_those_who_held_the_board_in_its_time() -> None:
    boards = watched(seen((1, 1.0)), seen((1, 1.0), at=5.0), seen((3, 1.0), at=15.0), seen((3, 1.0), at=25.0))
    assert charged(boards, 100.0, 0.0, 5.0) == {A: 100.0}
    assert charged(boards, 100.0, 0.0, 25.0) == {A: 20.0, B: 80.0}
    assert charged(boards, 100.0, 20.0, 30.0) == {B: 50.0, UNATTRIBUTED: 50.0}, "nobody has looked yet"


def test_a_look_at_a_moment_that_is_past_tells_nothing_new() -> None:
    boards = watched(seen((1, None), at=5.0), seen((3, None), at=5.0), seen((3, None), at=4.0))
    assert not boards.holdings("gpu0")
    assert boards.holders() == {A}
    boards = watched(seen((1, None), at=5.0), seen(at=math.nan), seen(at=math.inf))
    assert not boards.holdings("gpu0")
    assert boards.holders() == {A}


def test_a_board_whose_users_could_not_be_listed_for_a_while_is_bridged_once_they_are() -> None:
    boards = watched(seen((1, None)), seen((1, None), at=5.0))
    boards.look([], job_of)
    assert charged(boards, 100.0, 5.0, 10.0) == {UNATTRIBUTED: 100.0}
    boards.look([seen((1, None), at=15.0)], job_of)
    assert charged(boards, 100.0, 5.0, 15.0) == {A: 100.0}


def test_a_board_that_is_not_seen_has_no_holders_soon_and_is_forgotten_later() -> None:
    boards = watched(seen((1, None)), seen((1, None), at=5.0))
    for missed in range(1, HISTORY_TICKS + 1):
        boards.look([], job_of)
        assert boards.holders() == ({A} if missed < 3 else set())
        assert bool(boards.holdings("gpu0")) == (missed < HISTORY_TICKS)
    boards.look([seen((1, None), at=1000.0)], job_of)
    assert not boards.holdings("gpu0"), "a first look again"


def test_holdings_are_kept_for_a_number_of_ticks() -> None:
    boards = watched(*(seen((1, None), at=5.0 * n) for n in range(200)))
    holdings = boards.holdings("gpu0")
    assert len(holdings) == HISTORY_TICKS
    assert (holdings[0].start, holdings[-1].end) == (5.0 * (199 - HISTORY_TICKS), 995.0)


def test_who_has_just_left_is_still_a_holder_of_the_time_before() -> None:
    boards = watched(seen((1, None), (9, None)), seen(at=5.0))
    assert boards.holders() == {A}
    boards.look([seen(at=10.0)], job_of)
    assert boards.holders() == set()


def test_jobs_beyond_the_limit_pay_as_overflow_and_come_back_as_themselves() -> None:
    boards = watched(seen((1, 0.5), (3, 0.3)), seen((1, 0.5), (3, 0.3), at=5.0))
    boards.fold({B, C})
    boards.look([seen((1, 0.5), (3, 0.3), at=10.0)], job_of)
    boards.fold({A, B})
    boards.look([seen((1, 0.5), (3, 0.3), at=15.0)], job_of)
    boards.fold(())
    assert charged(boards, 100.0, 0.0, 5.0) == {A: 60.0, OVERFLOW: 40.0}
    assert charged(boards, 100.0, 5.0, 10.0) == {OVERFLOW: 100.0}
    assert charged(boards, 100.0, 10.0, 15.0) == {A: 60.0, B: 40.0}
    assert boards.holders() == {A, B}


def test_a_holding_without_folded_jobs_stays_as_it_is() -> None:
    one = Holding("gpu0", 0.0, 5.0, {A: 1.0})
    assert fold(one, {B}) is one


def test_partitions_tell_their_holders_without_reserved_and_folded_names() -> None:
    occupants = ((1, None, "gi1"), (3, None, "gi1"), (9, None, "gi2"), (5, None, "gi2"))
    boards = watched(seen(*occupants, partitions=FULL))
    boards.look([seen((1, None), device="gpu1")], job_of)
    first, second = PartitionHolder(A, "gpu0", "gi1", "4g"), PartitionHolder(B, "gpu0", "gi1", "4g")
    third = PartitionHolder(C, "gpu0", "gi2", "3g")
    assert boards.partition_jobs() == (first, second, third)
    boards.fold({B})
    assert boards.partition_jobs() == (first, third)


# Energy that was used while nobody counted


def test_what_was_used_while_nobody_counted_is_the_one_holders_of_before_and_after() -> None:
    earlier = watched(seen((1, 0.5), at=90.0))
    assert earlier.sole_holders() == {"gpu0": A}
    later = Boards()
    later.restore_sole_holders(earlier.sole_holders())
    assert later.sole_holders() == {"gpu0": A}, "also if it ends again before it has looked"
    later.look([seen((2, 0.1), at=200.0)], job_of)
    for end in (199.99, 200.0, 200.02):
        assert charged(later, 100.0, 90.0, end, caught_up=True) == {A: 100.0}


@pytest.mark.parametrize("after", [seen(at=200.0), seen((3, 0.1), at=200.0), seen((1, 0.9), (3, 0.0), at=200.0)])
def test_what_was_used_while_holders_changed_is_nobodys(after: Occupancy) -> None:
    boards = Boards()
    boards.restore_sole_holders({"gpu0": A})
    boards.look([after], job_of)
    assert charged(boards, 100.0, 90.0, 200.0, caught_up=True) == {UNATTRIBUTED: 100.0}
    assert boards.sole_holders() == ({"gpu0": B} if after.occupants == on((3, 0.1)) else {})


def test_a_late_first_reading_is_caught_up_only_if_the_holder_has_stayed() -> None:
    boards = Boards()
    boards.restore_sole_holders({"gpu0": A})
    boards.look([seen((1, 0.5), at=200.0)], job_of)
    boards.look([seen((1, 0.5), at=205.0)], job_of)
    assert charged(boards, 100.0, 90.0, 205.0, caught_up=True) == {A: 100.0}
    boards.look([seen((1, 0.5), (3, 0.5), at=210.0)], job_of)
    assert charged(boards, 100.0, 90.0, 210.0, caught_up=True) == {UNATTRIBUTED: 100.0}
    assert charged(boards, 100.0, 90.0, 250.0, caught_up=True) == {UNATTRIBUTED: 100.0}


def test_only_one_job_on_all_of_a_board_is_its_sole_holder() -> None:
    def sole(*occupants: tuple[int, float | None, str], partitions: tuple[Partition, ...]) -> Mapping[str, Job]:
        return watched(seen(*occupants, partitions=partitions)).sole_holders()

    assert sole((1, None, "gi1"), (2, None, "gi2"), partitions=FULL) == {"gpu0": A}
    assert sole((1, None, "gi1"), partitions=FULL) == {}
    assert sole((1, None, "gi1"), (3, None, "gi2"), partitions=FULL) == {}
    assert sole((1, None, "gi1"), partitions=FULL[:1]) == {}, "3/7 are free"
    assert watched(seen((9, 0.5))).sole_holders() == {}
    folded = watched(seen((1, 0.5)))
    folded.fold({A})
    assert folded.sole_holders() == {}
