"""Boards that a scheduler has given away: with and without processes, by whatever name, seen or not."""

from __future__ import annotations

import pytest
from support.looks import (
    BOARD,
    SLICE,
    A,
    B,
    Shares,
    charged,
    job_of,
    mig,
    on,
    seen,
    still,
    watched,
)

from carbon_exporter.jobs.base import IDLE, UNATTRIBUTED, Allocation
from carbon_exporter.jobs.boards import hold, look_at
from carbon_exporter.sensors.base import Occupancy


def test_an_allocation_holds_without_a_process() -> None:
    assert still(seen(), Allocation(BOARD, A)) == {A: 1.0}
    assert still(seen(), Allocation(BOARD, A), Allocation(BOARD, B)) == {A: 0.5, B: 0.5}
    assert still(seen(), Allocation("GPU-other", A)) == {IDLE: 1.0}


def test_processes_tell_the_use_of_allocations() -> None:
    both = (Allocation(BOARD, A), Allocation(BOARD, B))
    assert still(seen((1, 0.6)), *both) == {A: 0.8, B: 0.2}
    assert still(seen((1, None)), *both) == {A: 0.5, B: 0.5}


def test_a_process_of_a_job_that_was_given_nothing_holds_too() -> None:
    assert still(seen((3, 0.5)), Allocation(BOARD, A)) == {A: 0.25, B: 0.75}


def test_a_partition_may_be_allocated() -> None:
    partly = mig(("gi1", 4, None), ("gi2", 3, None))
    assert still(seen(partitions=partly), Allocation(SLICE, A)) == {A: round(4 / 7, 9), IDLE: round(3 / 7, 9)}


def test_who_was_given_a_divided_board_holds_what_nobody_else_does() -> None:
    partly = mig(("gi1", 3, None), ("gi2", 2, None))
    shares = still(seen((3, None, "gi1"), partitions=partly), Allocation(BOARD, A))
    assert shares == {A: round(4 / 7, 9), B: round(3 / 7, 9)}


def test_a_board_without_a_uuid_is_given_to_nobody() -> None:
    nameless = Occupancy("gpu0", 0.0, (), mig(("gi1", 7, None))[:0])
    assert still(nameless, Allocation("", A)) == {IDLE: 1.0}


def aliased(*occupants: tuple[int, float | None] | tuple[int, float | None, str], parts: int = 0) -> Occupancy:
    """A board that schedulers know as nvidia0 and by its address; divided, if so, in `gi5` and `gi6`."""
    partitions = mig(("gi5", parts, None), ("gi6", 7 - parts, None)) if parts else ()
    return Occupancy("gpu0", 0.0, on(*occupants), partitions, BOARD, ("nvidia0", "0000:01:00.0"))


@pytest.mark.parametrize("name", [BOARD, "nvidia0", "0000:01:00.0"])
def test_a_board_is_given_by_any_of_its_names(name: str) -> None:
    assert still(aliased(), Allocation(name, A)) == {A: 1.0}
    assert still(aliased(), Allocation(name, A), Allocation(BOARD, B)) == {A: 0.5, B: 0.5}
    assert still(aliased(), Allocation("nvidia1", A)) == {IDLE: 1.0}


@pytest.mark.parametrize("name", ["MIG-gi5", "nvidia0/gi5", "0000:01:00.0/gi5"])
def test_a_partition_is_given_by_its_uuid_or_by_a_name_of_its_board_and_its_own(name: str) -> None:
    assert still(aliased(parts=4), Allocation(name, A)) == {A: round(4 / 7, 9), IDLE: round(3 / 7, 9)}
    both = (Allocation(name, A), Allocation("nvidia0", B))
    assert still(aliased(parts=4), *both) == {A: round(4 / 7, 9), B: round(3 / 7, 9)}
    assert still(aliased(parts=4), Allocation("nvidia1/gi5", A)) == {IDLE: 1.0}


def test_who_was_given_a_board_by_two_names_is_one_holder() -> None:
    assert still(aliased((3, None)), Allocation(BOARD, A), Allocation("nvidia0", A)) == {A: 0.5, B: 0.5}


def test_an_unknown_process_on_a_board_that_was_given_away_is_of_those_who_have_it() -> None:
    """Where the host's processes cannot be seen, that is every process."""
    assert still(seen((9, 0.5)), Allocation(BOARD, A)) == {A: 1.0}
    assert still(seen((9, 0.5), (77, 0.2)), Allocation(BOARD, A), Allocation(BOARD, B)) == {A: 0.5, B: 0.5}
    assert still(seen((9, 0.5)), Allocation("GPU-other", A)) == {UNATTRIBUTED: 1.0}


def test_an_unknown_process_on_a_partition_is_of_those_who_were_given_that() -> None:
    on_both = aliased((9, None, "gi5"), (77, None, "gi6"), parts=4)
    assert still(on_both, Allocation("nvidia0/gi5", A)) == {A: round(4 / 7, 9), UNATTRIBUTED: round(3 / 7, 9)}
    assert still(on_both, Allocation("nvidia0", A)) == {A: 1.0}
    nowhere = aliased((9, None), parts=4)
    assert still(nowhere, Allocation("nvidia0/gi5", A)) == {A: round(4 / 7, 9), UNATTRIBUTED: round(3 / 7, 9)}


def test_a_process_of_a_pod_that_is_known_by_its_uid_only_counts_as_unknown() -> None:
    def held(*allocations: Allocation) -> Shares:
        look = look_at(seen((1, 0.5), (3, 0.5)), job_of, allocations, vague=[A])
        return dict(hold(look, look).shares)

    assert held(Allocation(BOARD, B)) == {B: 1.0}
    assert held() == {A: 0.5, B: 0.5}


def unlisted(at: float, uuid: str = BOARD) -> Occupancy:
    """A board whose users nobody can list."""
    return Occupancy("gpu0", at, None, uuid=uuid)


def test_a_board_whose_users_cannot_be_listed_is_that_of_whom_it_was_given_to() -> None:
    boards = watched(*(unlisted(5.0 * n) for n in range(3)), allocations=[Allocation(BOARD, A)])
    assert boards.holders() == {A}
    assert charged(boards, 100.0, 0.0, 10.0) == {A: 100.0}


def test_a_board_whose_users_cannot_be_listed_and_that_is_given_to_nobody_has_no_holding() -> None:
    boards = watched(*(unlisted(5.0 * n) for n in range(3)))
    assert boards.holders() == set()
    assert not boards.holdings("gpu0")
    assert charged(boards, 100.0, 0.0, 10.0) == {UNATTRIBUTED: 100.0}


def test_what_follows_the_end_of_a_grant_is_not_that_jobs_where_nobody_can_be_seen() -> None:
    boards = watched(unlisted(0.0), unlisted(5.0), allocations=[Allocation(BOARD, A)])
    for n in range(2, 20):
        boards.look([unlisted(5.0 * n)], job_of)
    boards.look([unlisted(100.0)], job_of, [Allocation(BOARD, B)])
    boards.look([unlisted(105.0)], job_of, [Allocation(BOARD, B)])
    assert charged(boards, 100.0, 0.0, 5.0) == {A: 100.0}
    assert charged(boards, 100.0, 5.0, 10.0) == {A: 50.0, UNATTRIBUTED: 50.0}
    assert charged(boards, 100.0, 10.0, 95.0) == {UNATTRIBUTED: 100.0}
    assert charged(boards, 100.0, 95.0, 100.0) == {B: 50.0, UNATTRIBUTED: 50.0}
    assert charged(boards, 100.0, 100.0, 105.0) == {B: 100.0}


def test_users_that_cannot_be_listed_for_a_moment_are_bridged() -> None:
    boards = watched(seen((1, None)), unlisted(5.0), seen((1, None), at=10.0))
    assert charged(boards, 100.0, 0.0, 10.0) == {A: 100.0}
