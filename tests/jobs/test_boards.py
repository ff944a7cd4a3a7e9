"""Boards: whoever holds one and however it is divided, the shares are the whole, and each pays what the rule says."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.looks import (
    BOARD,
    GPU,
    PIDS,
    SLICE,
    A,
    B,
    C,
    job_of,
    mig,
    paid,
    seen,
    still,
    watched,
)

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.jobs.attribute import split
from carbon_exporter.jobs.base import IDLE, OVERFLOW, UNATTRIBUTED, Allocation, Holding, Job
from carbon_exporter.jobs.boards import Boards, Look, Part, hold
from carbon_exporter.sensors.base import Occupancy, Occupant, Partition, Quality
from carbon_exporter.units import Joules

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
    st.none() | st.lists(st.builds(Occupant, st.sampled_from([*PIDS, 77]), numbers, names), max_size=6).map(tuple),
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
    st.lists(st.sampled_from(["", "nvidia0", "0000:01:00.0"]), max_size=2).map(tuple),
)
given_names = st.sampled_from(["", BOARD, SLICE, "nvidia0", "nvidia0/gi1", "/", "0000:01:00.0"])
allocated = st.lists(st.builds(Allocation, given_names, st.sampled_from([A, B, C, UNATTRIBUTED])), max_size=3)


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
        boards.look([look], job_of, allocations, vague=folded - {A})
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
