"""When a counter moves, learnt from readings of it: simulated counters, drivers and threads that wake up late."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.renewals import Counter, Reader, Told

from carbon_exporter.sensors.pace import Pace

LEARNT = 2.0
SECONDS = 32.0


def fresh(told: Sequence[Told]) -> list[Told]:
    """What somebody who drops what was told before makes of it, after the time of learning."""
    first: dict[float, Told] = {}
    for one in told:
        first.setdefault(one.moved, one)
    return [one for one in first.values() if one.at > LEARNT]


def covered(told: Sequence[Told]) -> float:
    return sum(one.error <= one.slack + 1e-9 for one in told) / len(told)


def follow(counter: Counter, *, period: float | None = 0.1, often: float = 0.0, seed: int = 0) -> list[Told]:
    return Reader(Pace(period), often=often, seed=seed).follow(counter.run(SECONDS + 1), SECONDS)


@settings(max_examples=40, deadline=None)
@given(
    phase=st.floats(0.0, 0.1),
    period=st.floats(0.099, 0.101),
    jitter=st.sampled_from([0.0, 0.0005, 0.001]),
    often=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 10_000),
)
def test_moments_of_a_counter_of_100_ms_are_known_to_milliseconds(
    phase: float, period: float, jitter: float, often: float, seed: int
) -> None:
    told = follow(Counter(period, phase, jitter, seed=seed), often=often, seed=seed)
    known = fresh(told)
    assert covered(known) >= 0.95
    assert statistics.median(one.slack for one in known) <= 0.006
    assert len(known) >= 0.9 * (SECONDS - LEARNT) / period, "nearly each renewal is seen"
    assert sum(one.at > LEARNT for one in told) <= 12 * (SECONDS - LEARNT)


@pytest.mark.parametrize(("often", "very_late"), [(0.3, 0.15), (0.6, 0.15), (0.3, 0.3)])
def test_a_thread_that_is_held_up_for_longer_than_a_period_learns_no_wrong_one(often: float, very_late: float) -> None:
    known = []
    for seed in range(4):
        counter = Counter(0.1, 0.013 * seed, seed=seed).run(SECONDS + 1)
        reader = Reader(Pace(0.1), often=often, very_late=very_late, seed=seed)
        known += fresh(reader.follow(counter, SECONDS))
    assert covered(known) >= 0.95


@pytest.mark.parametrize("grain", [0.1, 0.2, 0.3])
@pytest.mark.parametrize(
    ("slow", "very_slow", "slack"), [(0.5, 0.02, 0.015), (0.1, 0.3, 0.01), (0.1, 0.8, 0.06), (0.5, 0.3, 0.09)]
)
def test_what_a_slow_driver_says_is_not_taken_for_more_precise_than_it_is(
    slow: float, very_slow: float, slack: float, grain: float
) -> None:
    known = []
    for seed in range(6):
        pace = Pace(0.1)
        pace.grain = grain
        counter = Counter(0.1, 0.013 * seed, jitter=0.001, seed=seed).run(SECONDS + 1)
        known += fresh(Reader(pace, slow=slow, very_slow=very_slow, seed=seed).follow(counter, SECONDS))
    assert covered(known) >= 0.98
    assert statistics.median(one.slack for one in known) <= slack


@pytest.mark.parametrize("period", [0.02, 0.033, 0.05, 0.07, 0.091, 0.137, 0.2])
def test_a_period_that_the_maker_does_not_tell_is_learnt(period: float) -> None:
    known, readings = [], 0
    for seed in range(4):
        told = follow(Counter(period, 0.013 * seed, seed=seed), seed=seed)
        known += fresh(told)
        readings += sum(one.at > LEARNT for one in told)
    assert covered(known) >= 0.95
    assert statistics.median(one.slack for one in known) <= 0.008
    assert readings <= 4 * 14 * (SECONDS - LEARNT)


@pytest.mark.parametrize(
    "counter",
    [
        Counter(0.1, 0.01, drift=0.005),
        Counter(0.1, 0.02, missed=0.02),
        Counter(0.1, 0.03, jitter=0.001, missed=0.02),
        Counter(0.1, 0.04, resets=(8.0, 16.0, 24.03)),
    ],
    ids=["drift", "left out", "jitter and left out", "resets"],
)
def test_what_a_driver_does_to_its_period_costs_no_truth(counter: Counter) -> None:
    told = follow(counter, often=0.1)
    known = fresh(told)
    assert covered(known) >= 0.95
    assert statistics.median(one.slack for one in known) <= 0.006
    assert sum(one.at > LEARNT for one in told) <= 13.5 * (SECONDS - LEARNT)


def test_a_counter_that_stands_still_is_read_ten_times_a_second_and_what_it_shows_stays_new() -> None:
    told = follow(Counter(0.1, 0.01, stands=(5.0, 25.0)))
    still = [one for one in told if 8 < one.at < 25]
    assert len(still) <= 10.5 * 17
    assert all(one.at - one.moved < 0.5 for one in still)
    again = fresh([one for one in told if one.at > 27])
    assert covered(again) >= 0.95
    assert statistics.median(one.slack for one in again) <= 0.006


@pytest.mark.parametrize("period", [0.02, 0.07, 0.1, 0.137])
def test_half_as_many_readings_tell_moments_as_well_and_all_are_made_again_when_wanted(period: float) -> None:
    pace, counter = Pace(period), Counter(period, 0.013, 0.0005).run(3 * SECONDS + 1)
    reader = Reader(pace)
    first = fresh(reader.follow(counter, SECONDS))
    pace.grain = 0.2
    eased = [one for one in reader.follow(counter, 2 * SECONDS, since=SECONDS) if one.at > SECONDS + LEARNT]
    assert len(eased) <= 6.1 * (SECONDS - LEARNT) * max(1.0, 0.2 / (2 * period))
    assert covered(fresh(eased)) >= 0.95
    assert statistics.median(one.slack for one in fresh(eased)) <= 0.006
    pace.grain = 0.1
    fine = fresh(reader.follow(counter, 3 * SECONDS, since=2 * SECONDS))
    assert len(fine) >= 0.95 * len(first)
    assert covered(fine) >= 0.95


def test_a_counter_that_moves_all_the_time_is_read_every_100_ms() -> None:
    pace = Pace(None)
    assert pace.next(5.0) == 5.0
    assert pace.note(5.0, 1.0) == (5.0, 0.001)
    assert pace.note(5.1, 1.0, 0.002) == (5.1, 0.003)
    assert pace.next(5.11) == pytest.approx(5.2)
    assert pace.news(5.11) == pytest.approx(5.2)
    assert not pace.precise


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([None, 0.01, 0.1, 0.5]),
    st.lists(st.tuples(st.floats(-0.05, 3.0), st.floats(0, 50) | st.just(7.0), st.floats(0, 0.1)), max_size=60),
)
def test_no_sequence_of_readings_leads_into_the_past_or_back(
    period: float | None, steps: list[tuple[float, float, float]]
) -> None:
    pace, now, before = Pace(period), 0.0, -1e9
    for elapsed, raw, blur in steps:
        moved, slack = pace.note(now + elapsed, raw, blur)
        now = max(now, now + elapsed)
        assert moved >= before or elapsed <= 0
        assert moved - slack <= now + 0.1 + blur
        assert slack >= 0
        before = max(before, moved)
        assert now <= pace.next(now) <= now + 30
        assert pace.news(now) >= now
