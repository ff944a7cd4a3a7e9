"""Boards: whoever holds one and however it is divided, the shares are the whole, and each pays what the rule says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.jobs.attribute import split
from carbon_exporter.jobs.base import IDLE, OVERFLOW, UNATTRIBUTED, Allocation, Holding, Job, PartitionHolder
from carbon_exporter.jobs.boards import HISTORY_TICKS, Boards, Look, Part, fold, hold, look_at
from carbon_exporter.sensors.base import Device, Occupancy, Occupant, Partition, Quality
from carbon_exporter.units import Joules

A, B, C = Job("a"), Job("b"), Job("c", "team")
PIDS: dict[int, Job] = {1: A, 2: A, 3: B, 4: B, 5: C, 9: UNATTRIBUTED}
"""Two processes of job a, two of b, one of c, and one that nobody knows."""
GPU = Device("gpu0", "gpu", "nvidia")

Shares = dict[Job, float]


def job_of(pid: int) -> Job:
    return PIDS.get(pid, UNATTRIBUTED)


def on(*occupants: tuple[int, float | None] | tuple[int, float | None, str]) -> tuple[Occupant, ...]:
    """Processes by pid and utilisation, and on a divided board by partition."""
    return tuple(Occupant(*one) for one in occupants)


def mig(*partitions: tuple[str, float, float | None]) -> tuple[Partition, ...]:
    """Partitions by name, sevenths of the compute units, and utilisation."""
    return tuple(Partition(name, sevenths / 7, f"{sevenths}g", f"MIG-{name}", u) for name, sevenths, u in partitions)


def seen(
    *occupants: tuple[int, float | None] | tuple[int, float | None, str],
    at: float = 0.0,
    partitions: tuple[Partition, ...] = (),
    device: str = "gpu0",
) -> Occupancy:
    return Occupancy(device, at, on(*occupants), partitions, f"GPU-{device}")


def watched(*looks: Occupancy, allocations: Sequence[Allocation] = ()) -> Boards:
    """Boards that were looked at one after the other."""
    boards = Boards()
    for look in looks:
        boards.look([look], job_of, allocations)
    return boards


def paid(before: Occupancy, now: Occupancy, *allocations: Allocation) -> Shares:
    """Who pays for the time between two looks, to the nanoshare, of those who pay anything."""
    shares = hold(look_at(before, job_of, allocations), look_at(now, job_of, allocations)).shares
    return {job: round(share, 9) for job, share in shares.items() if share > 1e-12}


def still(now: Occupancy, *allocations: Allocation) -> Shares:
    """The same where nothing has changed."""
    return paid(now, now, *allocations)


def charged(boards: Boards, joules: float, start: float, end: float, *, caught_up: bool = False) -> Shares:
    """Joules by job, to the nanojoule."""
    energy = EnergySlice(GPU, start, end, Joules(joules), Quality.MEASURED, caught_up)
    parts = split(energy, (), "separate", boards.holdings("gpu0"))
    return {part.job: round(part.joules, 9) for part in parts if part.joules > 1e-9}


# Worked examples: one board, what each holder pays


def test_the_only_holder_pays_for_all_busy_or_not() -> None:
    assert still(seen((1, 0.6))) == {A: 1.0}
    assert still(seen((1, 0.0))) == {A: 1.0}
    assert still(seen((1, None))) == {A: 1.0}


def test_a_board_that_nobody_is_on_is_idle() -> None:
    assert still(seen()) == {IDLE: 1.0}


def test_a_process_whose_job_is_not_known_holds_like_any_other() -> None:
    assert still(seen((9, 0.5))) == {UNATTRIBUTED: 1.0}
    assert still(seen((1, 0.5), (9, 0.1))) == {A: 0.7, UNATTRIBUTED: 0.3}


def test_time_sliced_jobs_pay_their_use_and_the_rest_equally() -> None:
    assert still(seen((1, 0.6), (3, 0.2))) == {A: 0.7, B: 0.3}
    assert still(seen((1, 0.9), (3, 0.0))) == {A: 0.95, B: 0.05}


def test_two_processes_of_one_job_are_one_holder() -> None:
    assert still(seen((1, 0.3), (2, 0.3), (3, 0.2))) == {A: 0.7, B: 0.3}
    assert still(seen((1, None), (2, None), (3, None))) == {A: 0.5, B: 0.5}


def test_clients_of_one_mps_server_share_alike_where_the_driver_tells_no_use() -> None:
    assert still(seen((1, None), (3, None), (5, None))) == {A: 0.333333333, B: 0.333333333, C: 0.333333333}


def test_one_utilisation_that_is_not_known_makes_all_equal() -> None:
    assert still(seen((1, 0.9), (3, None))) == {A: 0.5, B: 0.5}
    assert still(seen((1, 0.9), (2, None), (3, 0.1))) == {A: 0.5, B: 0.5}


@pytest.mark.parametrize("nonsense", [math.nan, -0.1, math.inf, -math.inf])
def test_a_utilisation_that_cannot_be_is_not_known(nonsense: float) -> None:
    assert still(seen((1, 0.9), (3, nonsense))) == {A: 0.5, B: 0.5}


def test_more_than_all_of_the_compute_time_is_scaled_down() -> None:
    assert still(seen((1, 0.9), (3, 0.6))) == {A: 0.6, B: 0.4}
    assert still(seen((1, 0.9), (2, 0.9), (3, 0.6))) == {A: 0.75, B: 0.25}
    assert still(seen((1, 5.0))) == {A: 1.0}


# Worked examples: who comes and goes


def test_a_job_that_was_seen_once_held_half_of_the_time() -> None:
    assert paid(seen(), seen((1, None))) == {A: 0.5, IDLE: 0.5}
    assert paid(seen((1, None)), seen()) == {A: 0.5, IDLE: 0.5}
    assert paid(seen((1, None)), seen((3, None))) == {A: 0.5, B: 0.5}
    assert paid(seen((1, None)), seen((1, None), (3, None))) == {A: 0.75, B: 0.25}


def test_a_job_that_came_pays_all_of_its_use_and_half_a_holders_rest() -> None:
    assert paid(seen(), seen((1, 0.4))) == {A: 0.7, IDLE: 0.3}
    assert paid(seen((1, 0.5)), seen((1, 0.5), (3, 0.3))) == {A: 0.65, B: 0.35}


def test_a_job_that_left_without_a_word_pays_of_the_rest_only() -> None:
    assert paid(seen((1, 0.5), (3, 0.5)), seen((1, 0.6))) == {A: 0.9, B: 0.1}


def test_a_process_that_is_replaced_by_another_of_its_job_is_the_same_holder() -> None:
    assert paid(seen((1, 0.5)), seen((2, 0.5))) == {A: 1.0}


def test_a_process_that_moves_to_another_board_pays_half_of_each() -> None:
    boards = Boards()
    boards.look([seen((1, 0.5)), seen(device="gpu1")], job_of)
    boards.look([seen(at=5.0), seen((1, None), at=5.0, device="gpu1")], job_of)
    for device in ("gpu0", "gpu1"):
        (holding,) = boards.holdings(device)
        assert holding == Holding(device, 0.0, 5.0, {A: 0.5, IDLE: 0.5})


def test_a_process_that_only_left_a_sample_counts_with_it_for_as_long_as_it_may_have_been_there() -> None:
    """Job b came and went between two looks; the driver tells its use at the second and nothing at the third."""
    first, second, third = seen((1, 0.5)), seen((1, 0.5), (3, 0.3), at=5.0), seen((1, 0.5), at=10.0)
    assert paid(first, second) == {A: 0.65, B: 0.35}
    assert paid(second, third) == {A: 0.875, B: 0.125}


def test_who_is_known_to_have_left_pays_what_it_used_and_half_a_holders_rest() -> None:
    first = Look("gpu0", 0.0, (Part(1.0, frozenset({A, B}), {A: 0.2, B: 0.5}),))
    second = Look("gpu0", 5.0, (Part(1.0, frozenset({A}), {A: 0.2, B: 0.4}),))
    third = Look("gpu0", 10.0, (Part(1.0, frozenset({A}), {A: 0.2, C: 0.1}),))
    assert hold(first, second).shares == pytest.approx({A: 0.5, B: 0.5})
    assert hold(second, third).shares == pytest.approx({A: 0.9, C: 0.1})


# Worked examples: boards that are divided in hardware


FULL = mig(("gi1", 4, 1.0), ("gi2", 3, 0.5))


def test_partitions_pay_their_units_use_and_the_idle_rest_by_their_size() -> None:
    """4/7 and 3/14 of the board are busy, 3/14 are not: of those the bigger pays 4/7."""
    shares = still(seen((1, None, "gi1"), (3, None, "gi2"), partitions=FULL))
    assert shares == {A: round(4 / 7 + 3 / 14 * 4 / 7, 9), B: round(3 / 14 + 3 / 14 * 3 / 7, 9)}
    assert shares == {A: 0.693877551, B: 0.306122449}


def test_partitions_of_unknown_use_pay_by_their_size() -> None:
    unknown = mig(("gi1", 4, None), ("gi2", 3, 0.5))
    shares = still(seen((1, None, "gi1"), (3, None, "gi2"), partitions=unknown))
    assert shares == {A: round(4 / 7, 9), B: round(3 / 7, 9)}


def test_free_units_and_partitions_without_a_holder_are_idle() -> None:
    """Units in use: 2/7 x 0.5. The idle 6/7 are a's by 2/7; gi2 (3/7) and the free 2/7 are nobody's."""
    partly = mig(("gi1", 2, 0.5), ("gi2", 3, 0.0))
    assert still(seen((1, None, "gi1"), partitions=partly)) == {
        A: round(1 / 7 + 6 / 7 * 2 / 7, 9),
        IDLE: round(6 / 7 * 5 / 7, 9),
    }
    assert still(seen(partitions=partly)) == {IDLE: 1.0}


def test_holders_of_one_partition_share_it_like_a_board() -> None:
    used = mig(("gi1", 4, None), ("gi2", 3, None))
    shares = still(seen((1, 0.6, "gi1"), (3, 0.2, "gi1"), (5, None, "gi2"), partitions=used))
    assert shares == {A: round(0.7 * 4 / 7, 9), B: round(0.3 * 4 / 7, 9), C: round(3 / 7, 9)}


def test_a_job_that_moves_to_another_partition_pays_half_of_each() -> None:
    halves = mig(("gi1", 4, None), ("gi2", 3, None))
    before = seen((1, None, "gi1"), partitions=halves)
    after = seen((1, None, "gi2"), partitions=halves)
    assert paid(before, after) == {A: 0.5, IDLE: 0.5}


def test_a_process_that_names_no_partition_holds_those_of_nobody_else() -> None:
    shares = still(seen((1, None, "gi1"), (3, None), (5, None, "gone"), partitions=FULL[:1] + mig(("gi2", 2, None))))
    assert shares == {A: round(4 / 7, 9), B: round(1 / 7, 9), C: round(1 / 7, 9), IDLE: round(1 / 7, 9)}


def test_a_board_that_is_divided_anew_is_half_the_old_and_half_the_new() -> None:
    whole = seen((1, 0.5))
    divided = seen((3, None, "gi1"), partitions=mig(("gi1", 7, 1.0)))
    smaller = seen((3, None, "gi1"), partitions=mig(("gi1", 3, None)))
    assert paid(whole, divided) == {A: 0.5, B: 0.5}
    assert paid(divided, smaller) == {B: round(0.5 + 1.5 / 7, 9), IDLE: round(2 / 7, 9)}


def test_shares_of_units_beyond_the_board_are_scaled_down() -> None:
    odd = mig(("gi1", 7, None), ("gi2", 7, None))
    assert still(seen((1, None, "gi1"), (3, None, "gi2"), partitions=odd)) == {A: 0.5, B: 0.5}
    sevenths = mig(*((f"gi{n}", 1, None) for n in range(7)))
    occupants = [(1, None, f"gi{n}") for n in range(7)]
    assert still(seen(*occupants, partitions=sevenths)) == {A: 1.0}, "seven sevenths leave nothing over"


# Worked examples: what a scheduler has given


BOARD, SLICE = "GPU-gpu0", "MIG-gi1"


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


# What is remembered


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


# Whatever a driver says


def three(make: Callable[[float], Occupancy]) -> tuple[Occupancy, ...]:
    return tuple(make(at) for at in (0.0, 5.0, 10.0))


PARTLY = mig(("gi1", 2, 0.3), ("gi2", 3, 0.9))
MODES: dict[str, tuple[Occupancy, ...]] = {
    "exclusive": three(lambda at: seen((1, 0.97), at=at)),
    "held idle": three(lambda at: seen((1, 0.0), at=at)),
    "two processes": three(lambda at: seen((1, 0.31), (2, 0.17), at=at)),
    "time-sliced": three(lambda at: seen((1, 0.31), (3, 0.17), (5, 0.07), at=at)),
    "MPS": three(lambda at: seen((1, 0.61), (3, 0.53), (5, None), at=at)),
    "MIG full": three(lambda at: seen((1, None, "gi1"), (3, None, "gi2"), at=at, partitions=FULL)),
    "MIG partly allocated": three(lambda at: seen((1, None, "gi1"), at=at, partitions=PARTLY)),
    "moves away": (seen((1, 0.9), (3, 0.1)), seen((3, 0.1), at=5.0), seen((3, 0.3), at=10.0)),
    "dies between samples": (seen((1, 0.9)), seen((1, 0.9), at=5.0), seen(at=10.0)),
    "appears between samples": (seen(), seen((1, 0.4), at=5.0), seen((1, 0.7), (5, 0.2), at=10.0)),
    "unknown": three(lambda at: seen((1, None), (3, None), at=at)),
    "beyond 100 %": three(lambda at: seen((1, 0.9), (3, 0.8), (9, 0.7), at=at)),
    "allocated without processes": three(lambda at: seen(at=at, partitions=PARTLY)),
    "divided anew": (seen((1, 0.9)), seen((1, 0.9), at=5.0), seen((3, None, "gi1"), at=10.0, partitions=PARTLY)),
}


@pytest.mark.parametrize("mode", MODES)
@given(joules=st.floats(0.0, 1e9), start=st.floats(-5.0, 14.0), length=st.floats(0.0, 20.0), caught_up=st.booleans())
def test_in_every_mode_the_jobs_add_up_to_the_board(
    mode: str, joules: float, start: float, length: float, caught_up: bool
) -> None:
    allocations = [Allocation(SLICE, A), Allocation(BOARD, B)] if mode.startswith("allocated") else []
    boards = watched(*MODES[mode], allocations=allocations)
    energy = EnergySlice(GPU, start, start + length, Joules(joules), Quality.MEASURED, caught_up)
    parts = split(energy, (), "separate", boards.holdings("gpu0"))
    assert math.isclose(math.fsum(part.joules for part in parts), joules, rel_tol=1e-9)
    assert all(0.0 <= part.joules <= joules for part in parts)
    for holding in boards.holdings("gpu0"):
        assert math.isclose(math.fsum(holding.shares.values()), 1.0, rel_tol=1e-12)
        assert all(0.0 <= share <= 1.0 for share in holding.shares.values())


numbers = st.none() | st.floats(0.0, 1.0) | st.floats()
names = st.sampled_from(["", "gi1", "gi2", "gi3"])
occupancies = st.builds(
    Occupancy,
    st.just("gpu0"),
    st.floats(0.0, 1e6) | st.floats(),
    st.lists(st.builds(Occupant, st.sampled_from([*PIDS, 77]), numbers, names), max_size=6).map(tuple),
    st.lists(
        st.builds(
            Partition,
            names,
            st.floats(0.0, 1.0) | st.floats() | st.integers(0, 7).map(lambda n: n / 7),
            st.just("1g"),
            names.map(lambda name: f"MIG-{name}" if name else ""),
            numbers,
        ),
        max_size=4,
    ).map(tuple),
    st.sampled_from(["", BOARD]),
)
allocated = st.lists(st.builds(Allocation, st.sampled_from(["", BOARD, SLICE]), st.sampled_from([A, B, C])), max_size=3)


slices = st.builds(
    lambda start, length, joules, caught_up: EnergySlice(
        GPU, start, start + length, Joules(joules), Quality.MEASURED, caught_up
    ),
    st.floats(-10.0, 1e6),
    st.floats(0.0, 1e6),
    st.floats(0.0, 1e9),
    st.booleans(),
)


@given(
    looks=st.lists(occupancies, max_size=5),
    allocations=allocated,
    restored=st.dictionaries(st.just("gpu0"), st.sampled_from([A, B])),
    folded=st.sets(st.sampled_from([A, B, C])),
    energy=slices,
)
def test_whatever_a_driver_says_no_joule_is_lost_or_made(
    looks: list[Occupancy],
    allocations: list[Allocation],
    restored: dict[str, Job],
    folded: set[Job],
    energy: EnergySlice,
) -> None:
    boards = Boards()
    boards.restore_sole_holders(restored)
    for look in looks:
        boards.look([look], job_of, allocations)
        boards.fold(folded)
        for holding in boards.holdings("gpu0"):
            assert math.isclose(math.fsum(holding.shares.values()), 1.0, rel_tol=1e-12)
            assert all(0.0 <= share <= 1.0 for share in holding.shares.values())
            assert not folded & holding.shares.keys()
        assert not boards.holders() & {IDLE, UNATTRIBUTED, OVERFLOW}
        assert len(set(boards.partition_jobs())) == len(boards.partition_jobs())
    parts = split(energy, (), "separate", boards.holdings("gpu0"))
    assert math.isclose(math.fsum(part.joules for part in parts), energy.joules, rel_tol=1e-9)
    assert all(0.0 <= part.joules <= energy.joules for part in parts)
