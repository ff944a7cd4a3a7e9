"""The split: whatever ran, the parts are the whole, and each policy charges whom it says it charges."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.jobs.attribute import divide, split
from carbon_exporter.jobs.base import IDLE, OVERFLOW, UNATTRIBUTED, Activity, Holding, IdlePolicy, Job, Usage
from carbon_exporter.sensors.base import Device, Kind, Quality
from carbon_exporter.units import Joules

A, B, C = Job("a"), Job("b"), Job("c", "team")
POLICIES: tuple[IdlePolicy, ...] = ("separate", "shared", "reserved")
KINDS: tuple[Kind, ...] = ("cpu", "dram", "gpu", "accelerator", "other")

amounts = st.floats(0.0, 1e12)
usages = st.lists(
    st.builds(Usage, st.sampled_from([A, B, C, OVERFLOW]), amounts, amounts, st.floats(0.0, 512.0)),
    max_size=4,
    unique_by=lambda usage: usage.job,
).map(tuple)
activities = st.lists(
    st.builds(
        lambda start, length, cpus, busy, total, used, usages: Activity(
            start, start + length, cpus, busy, total, used, usages
        ),
        st.floats(-100.0, 100.0),
        st.floats(0.001, 100.0),
        st.integers(1, 1024),
        amounts,
        amounts,
        amounts,
        usages,
    ),
    max_size=4,
)
holdings = st.lists(
    st.builds(
        lambda start, length, part: Holding("gpu0", start, start + length, {A: part, IDLE: 1 - part}),
        st.floats(-100.0, 100.0) | st.just(-math.inf),
        st.floats(0.001, 100.0),
        st.floats(0.0, 1.0),
    ),
    max_size=4,
)
slices = st.builds(
    lambda kind, start, length, joules, caught_up: energy(joules, kind, start, start + length, caught_up=caught_up),
    st.sampled_from(KINDS),
    st.floats(-100.0, 100.0),
    st.floats(0.0, 100.0),
    st.floats(0.0, 1e9),
    st.booleans(),
)


def energy(
    joules: float, kind: Kind = "cpu", start: float = 0.0, end: float = 10.0, *, caught_up: bool = False
) -> EnergySlice:
    return EnergySlice(Device(f"{kind}0", kind, "rapl"), start, end, Joules(joules), Quality.MEASURED, caught_up)


def ran(*used: Usage, busy: float = 0.0, start: float = 0.0, end: float = 10.0, memory_used: float = 0.0) -> Activity:
    """Ten seconds of a machine with four CPUs and 100 bytes."""
    return Activity(start, end, 4, busy, 100.0, memory_used, used)


def held(start: float, end: float, **shares: float) -> Holding:
    """A board's time by job."""
    return Holding("gpu0", start, end, {Job(name): share for name, share in shares.items()})


def charged(
    one: EnergySlice, *during: Activity, policy: IdlePolicy = "separate", holders: tuple[Holding, ...] = ()
) -> dict[Job, float]:
    """Joules by job, to the nanojoule, of those who pay anything."""
    parts = split(one, during, policy, holders)
    assert len({part.job for part in parts}) == len(parts)
    assert all((part.start, part.end, part.device) == (one.start, one.end, one.device) for part in parts)
    return {part.job: round(part.joules, 9) for part in parts if part.joules > 1e-9}


@given(one=slices, during=activities, policy=st.sampled_from(POLICIES), holders=holdings)
def test_the_parts_of_any_slice_add_up_to_the_whole(
    one: EnergySlice, during: list[Activity], policy: IdlePolicy, holders: list[Holding]
) -> None:
    parts = split(one, during, policy, holders)
    assert math.isclose(math.fsum(part.joules for part in parts), one.joules, rel_tol=1e-12)
    assert all(part.joules >= 0 for part in parts)


@given(
    joules=st.floats(0.0, 1e15),
    weights=st.dictionaries(st.sampled_from([A, B, C, IDLE, UNATTRIBUTED]), st.floats(0.0, 1e15), min_size=1),
)
def test_a_division_is_exact_and_in_proportion(joules: float, weights: dict[Job, float]) -> None:
    total = math.fsum(weights.values())
    if total == 0:
        return
    parts = divide(Joules(joules), weights)
    assert math.isclose(math.fsum(parts.values()), joules, rel_tol=1e-12)
    for job, weight in weights.items():
        assert math.isclose(parts[job], joules * (weight / total), rel_tol=1e-9, abs_tol=joules * 1e-14 + 1e-300)


def test_separate_leaves_idle_to_nobody() -> None:
    """Job a runs one of four CPUs, b a half, and 10 CPU seconds have no known owner: 40 were there."""
    activity = ran(Usage(A, 10.0), Usage(B, 5.0), busy=25.0)
    assert charged(energy(400.0), activity) == {A: 100.0, B: 50.0, UNATTRIBUTED: 100.0, IDLE: 150.0}


def test_shared_spreads_idle_over_those_who_ran() -> None:
    activity = ran(Usage(A, 10.0), Usage(B, 5.0), busy=25.0)
    assert charged(energy(400.0), activity, policy="shared") == {A: 160.0, B: 80.0, UNATTRIBUTED: 160.0}


def test_reserved_charges_for_what_was_kept_or_used_whichever_is_more() -> None:
    """Two CPUs are kept for a, which uses one; half of one for b, which uses a whole one."""
    activity = ran(Usage(A, 10.0, cpus_reserved=2.0), Usage(B, 10.0, cpus_reserved=0.5), busy=20.0)
    assert charged(energy(400.0), activity, policy="reserved") == {A: 200.0, B: 100.0, IDLE: 100.0}


def test_an_idle_machine_is_idle_under_every_policy() -> None:
    for policy in POLICIES:
        assert charged(energy(400.0), ran(Usage(A)), policy=policy) == {IDLE: 400.0}


def test_use_beyond_the_capacity_is_shared_in_proportion() -> None:
    activity = ran(Usage(A, 60.0), Usage(B, 20.0), busy=80.0)
    for policy in POLICIES:
        assert charged(energy(400.0), activity, policy=policy) == {A: 300.0, B: 100.0}


def test_more_busy_time_than_there_was_is_cut_to_the_capacity() -> None:
    assert charged(energy(400.0), ran(Usage(A, 10.0), busy=1e9)) == {A: 100.0, UNATTRIBUTED: 300.0}


def test_memory_is_paid_by_the_byte_and_the_free_rest_is_idle() -> None:
    activity = ran(Usage(A, memory_bytes=20.0), Usage(B, memory_bytes=30.0), memory_used=60.0)
    dram = energy(100.0, "dram")
    assert charged(dram, activity) == {A: 20.0, B: 30.0, UNATTRIBUTED: 10.0, IDLE: 40.0}
    assert charged(dram, activity, policy="reserved") == charged(dram, activity)
    assert {job: round(part, 6) for job, part in charged(dram, activity, policy="shared").items()} == {
        A: 33.333333,
        B: 50.0,
        UNATTRIBUTED: 16.666667,
    }


@pytest.mark.parametrize("kind", ["gpu", "accelerator"])
def test_a_board_whose_users_are_not_known_was_used_by_nobody_knows_whom(kind: Kind) -> None:
    assert charged(energy(100.0, kind), ran(Usage(A, 10.0), busy=10.0)) == {UNATTRIBUTED: 100.0}


def test_another_device_is_idle() -> None:
    assert charged(energy(100.0, "other"), ran(Usage(A, 10.0), busy=10.0)) == {IDLE: 100.0}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_holders_of_a_board_pay_for_all_of_it_under_every_policy(policy: IdlePolicy) -> None:
    holders = (held(0.0, 10.0, a=0.75, b=0.25),)
    assert charged(energy(100.0, "gpu"), ran(Usage(C, 40.0)), policy=policy, holders=holders) == {A: 75.0, B: 25.0}


def test_a_board_is_split_by_who_held_it_in_each_part_of_the_time() -> None:
    holders = (held(-5.0, 2.0, a=1.0), held(2.0, 6.0, a=0.5, b=0.5), held(6.0, 20.0, b=1.0), held(20.0, 30.0, a=1.0))
    assert charged(energy(100.0, "gpu"), holders=holders) == {A: 40.0, B: 60.0}


def test_time_of_a_board_in_which_nobody_looked_has_no_owner() -> None:
    holders = (held(4.0, 8.0, a=1.0),)
    assert charged(energy(100.0, "gpu"), holders=holders) == {A: 40.0, UNATTRIBUTED: 60.0}
    assert charged(energy(100.0, "gpu", 8.0, 9.0), holders=holders) == {UNATTRIBUTED: 100.0}


def test_a_meter_that_is_read_a_moment_before_its_users_are_listed_is_theirs() -> None:
    holders = (held(0.02, 10.02, a=1.0),)
    assert charged(energy(100.0, "gpu"), holders=holders) == {A: 100.0}
    assert charged(energy(100.0, "gpu", 0.0, 10.04), holders=holders) == {A: 100.0}
    assert charged(energy(100.0, "gpu", -1.0, 10.0), holders=holders) == {A: 90.727272727, UNATTRIBUTED: 9.272727273}


def test_a_board_that_is_sampled_often_is_split_by_who_held_it_around_each_sample() -> None:
    for n in range(200):
        one = energy(1.0, "gpu", n / 20, (n + 1) / 20)
        assert charged(one, holders=(held(0.0, 10.0, a=0.5, b=0.5),)) == {A: 0.5, B: 0.5}


def test_what_a_board_used_while_the_exporter_was_away_is_the_jobs_that_held_it_all_the_while() -> None:
    away = energy(100.0, "gpu", caught_up=True)
    assert charged(away, holders=(held(-math.inf, 10.0, a=1.0),)) == {A: 100.0}
    assert charged(away, holders=(held(-math.inf, 4.0, a=1.0), held(4.0, 10.0, a=1.0))) == {A: 100.0}
    assert charged(away, holders=(held(-math.inf, 4.0, a=1.0), held(4.0, 10.0, a=0.9, b=0.1))) == {UNATTRIBUTED: 100.0}
    assert charged(away, holders=(held(4.0, 10.0, a=1.0),)) == {UNATTRIBUTED: 100.0}
    assert charged(away) == {UNATTRIBUTED: 100.0}


@pytest.mark.parametrize("kind", KINDS)
def test_energy_of_a_time_when_the_exporter_was_away_has_no_owner(kind: Kind) -> None:
    assert charged(energy(100.0, kind, caught_up=True), ran(Usage(A, 40.0, 100.0), busy=40.0)) == {UNATTRIBUTED: 100.0}


@pytest.mark.parametrize("kind", ["cpu", "dram"])
def test_energy_of_a_time_when_nobody_watched_has_no_owner(kind: Kind) -> None:
    elsewhere = ran(Usage(A, 40.0, 100.0), busy=40.0, start=10.0, end=20.0)
    assert charged(energy(100.0, kind)) == {UNATTRIBUTED: 100.0}
    assert charged(energy(100.0, kind), elsewhere) == {UNATTRIBUTED: 100.0}


@pytest.mark.parametrize("kind", ["cpu", "dram"])
def test_a_slice_that_was_watched_in_part_has_owners_for_that_part(kind: Kind) -> None:
    """A meter that was silent for 40 s, of which only the last 10 were watched."""
    last = ran(Usage(A, 40.0, 100.0), busy=40.0, start=30.0, end=40.0)
    assert charged(energy(100.0, kind, 0.0, 40.0), last) == {A: 25.0, UNATTRIBUTED: 75.0}


def test_several_activities_count_by_what_ran_in_each() -> None:
    first = ran(Usage(A, 40.0), busy=40.0)
    second = ran(Usage(B, 20.0), busy=20.0, start=10.0, end=20.0)
    assert charged(energy(80.0, end=20.0), first, second) == {A: 40.0, B: 20.0, IDLE: 20.0}


def test_memory_over_several_activities_counts_by_how_long_it_was_held() -> None:
    first = ran(Usage(A, memory_bytes=100.0), memory_used=100.0)
    second = ran(memory_used=0.0, start=10.0, end=40.0)
    assert charged(energy(80.0, "dram", end=40.0), first, second) == {A: 20.0, IDLE: 60.0}


@pytest.mark.parametrize("kind", ["cpu", "dram"])
def test_a_meter_that_is_read_often_is_split_by_what_ran_around_each_reading(kind: Kind) -> None:
    activity = ran(Usage(A, 20.0, 50.0), busy=20.0, memory_used=50.0)
    for n in range(200):
        assert charged(energy(1.0, kind, n / 20, (n + 1) / 20), activity) == {A: 0.5, IDLE: 0.5}


def test_readings_a_little_before_the_processes_belong_to_both_intervals() -> None:
    """The meter is read 0.1 s before the processes: a ran until then, b from then on."""
    first = ran(Usage(A, 40.0), busy=40.0)
    second = ran(Usage(B, 40.0), busy=40.0, start=10.0, end=20.0)
    assert charged(energy(100.0, start=9.9, end=19.9), first, second) == {A: 1.0, B: 99.0}
