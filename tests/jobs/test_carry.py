"""The carry: whatever a tick cannot hold is counted later, and nothing is counted that was not there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.jobs.attribute import split
from carbon_exporter.jobs.base import Activity, Job, Usage
from carbon_exporter.jobs.carry import MOST_SECONDS, Carry, fit
from carbon_exporter.sensors.base import Device, Quality
from carbon_exporter.units import Joules

A, B, C = Job("a"), Job("b"), Job("c", "team")
CPUS = 4

usages = st.lists(
    st.builds(Usage, st.sampled_from([A, B, C]), st.floats(0.0, 30.0), st.floats(0.0, 1e9)),
    max_size=3,
    unique_by=lambda usage: usage.job,
).map(tuple)
ticks = st.lists(st.tuples(st.floats(0.1, 10.0), st.floats(0.0, 60.0), usages), min_size=1, max_size=8)


def tick(start: float, seconds: float, busy: float, *used: Usage) -> Activity:
    return Activity(start, start + seconds, CPUS, busy, 100.0, 0.0, used)


def of(activities: list[Activity], job: Job) -> float:
    """CPU seconds of a job in all of them."""
    return math.fsum(usage.cpu_seconds for one in activities for usage in one.usages if usage.job == job)


def fitted(seen: Iterable[Activity]) -> Iterator[tuple[Activity, Carry]]:
    """Each with what it leaves."""
    carry = Carry()
    for one in seen:
        activity, carry = fit(one, carry)
        yield activity, carry


def in_turn(many: Iterable[tuple[float, float, tuple[Usage, ...]]]) -> list[Activity]:
    """Ticks, one after the other."""
    found: list[Activity] = []
    for seconds, busy, used in many:
        found.append(tick(found[-1].end if found else 0.0, seconds, busy, *used))
    return found


@given(ticks.map(in_turn))
def test_each_tick_holds_what_it_says_and_nothing_is_counted_twice(seen: list[Activity]) -> None:
    found = list(fitted(seen))
    for given_one, (one, carry) in zip(seen, found, strict=True):
        used = given_one.usages
        sum_of_jobs = math.fsum(usage.cpu_seconds for usage in one.usages)
        assert sum_of_jobs <= one.busy_seconds * (1 + 1e-9) + 1e-12
        assert one.busy_seconds <= CPUS * (one.end - one.start) * (1 + 1e-9)
        assert math.fsum(carry.jobs.values()) <= CPUS * MOST_SECONDS * (1 + 1e-9)
        assert abs(carry.busy) <= CPUS * MOST_SECONDS
        assert [(u.job, u.memory_bytes) for u in one.usages[: len(used)]] == [(u.job, u.memory_bytes) for u in used]
    for job in (A, B, C):
        paid = of([one for one, _ in found], job) + found[-1][1].jobs.get(job, 0.0)
        assert paid <= of(seen, job) * (1 + 1e-9) + 1e-9


@given(ticks)
def test_what_is_cut_is_only_what_no_reading_explains(many: list[tuple[float, float, tuple[Usage, ...]]]) -> None:
    """While each tick is over by less than may be carried, every job gets all of its time, to what is still carried."""
    seen, found, carry = list[Activity](), list[Activity](), Carry()
    for one in in_turn(many):
        room = CPUS * (one.end - one.start + MOST_SECONDS) - math.fsum(carry.jobs.values())
        total = math.fsum(usage.cpu_seconds for usage in one.usages)
        part = min(1.0, room / total) if total else 1.0
        seen.append(replace(one, usages=tuple(Usage(usage.job, usage.cpu_seconds * part) for usage in one.usages)))
        activity, carry = fit(seen[-1], carry)
        found.append(activity)
    for job in (A, B, C):
        assert of(found, job) + carry.jobs.get(job, 0.0) == pytest.approx(of(seen, job), rel=1e-9, abs=1e-9)


def test_a_tick_with_room_is_left_as_it_is() -> None:
    one = tick(0.0, 5.0, 8.0, Usage(A, 3.0, 10.0, 2.0))
    assert fit(one, Carry()) == (one, Carry())


def test_a_job_that_has_gone_is_paid_what_it_was_owed() -> None:
    first, carry = fit(tick(0.0, 1.0, 4.0, Usage(A, 3.0), Usage(B, 2.0)), Carry())
    assert {usage.job: usage.cpu_seconds for usage in first.usages} == pytest.approx({A: 2.4, B: 1.6})
    second, carry = fit(tick(1.0, 1.0, 1.0, Usage(B, 0.5)), carry)
    assert {usage.job: usage.cpu_seconds for usage in second.usages} == pytest.approx({A: 0.6, B: 0.9})
    assert second.busy_seconds == pytest.approx(1.5)
    assert not carry.jobs


def test_what_was_not_yet_busy_when_a_job_had_used_it_is_not_unknown_at_the_next_tick() -> None:
    first, carry = fit(tick(0.0, 1.0, 1.0, Usage(A, 1.2)), Carry())
    second, carry = fit(tick(1.0, 1.0, 1.2, Usage(A, 1.0)), carry)
    assert first.busy_seconds == pytest.approx(1.2)
    assert second.busy_seconds == pytest.approx(1.0)
    assert carry.busy == pytest.approx(0.0)


def test_readings_at_other_moments_cost_a_job_on_a_busy_machine_nothing() -> None:
    """All CPUs are busy, nineteen twentieths by jobs, whose meters are read up to 0.1 s after the machine's."""
    carry, device, before = Carry(), Device("cpu0", "cpu", "rapl"), 0.0
    paid: list[float] = []
    cut: list[float] = []
    for end in range(1, 601):
        read = end + 0.1 * (end * 0.618 % 1)
        used = [Usage(job, CPUS * share * (read - before)) for job, share in ((A, 0.1), (B, 0.85))]
        seen, before = tick(end - 1.0, 1.0, CPUS, *used), read
        fitted, carry = fit(seen, carry)
        energy = EnergySlice(device, seen.start, seen.end, Joules(100.0), Quality.MEASURED)
        for activity, joules in ((fitted, paid), (seen, cut)):
            joules += [part.joules for part in split(energy, [activity], "separate") if part.job == A]
    owed = 100.0 * 0.1 * before
    assert math.fsum(paid) == pytest.approx(owed, rel=0.0005)
    assert math.fsum(cut) < 0.997 * owed
