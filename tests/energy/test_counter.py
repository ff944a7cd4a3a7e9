"""Counters: true increments come back exactly through a wrap, and what cannot be believed is never invented."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from carbon_exporter.energy.counter import COUNTER_PERIOD_SECONDS, Mark, Outcome, Step, advance
from carbon_exporter.units import Joules, Watts

RANGE = 65_712
"""A whole number of joules, so that sums in this file are exact."""
POWER = Watts(500.0)

seconds = st.floats(0.001, 1e6)
anything = st.floats(allow_nan=True, allow_infinity=True)


def advance_by(raw: float, elapsed: float, *, limit: float | None = 500.0, wraps: bool = True) -> Step:
    """From a mark of 1000 J at 10 s."""
    return advance(
        Mark(Joules(1000.0), 10.0),
        Joules(raw),
        10.0 + elapsed,
        counter_range=Joules(float(RANGE)) if wraps else None,
        max_power=None if limit is None else Watts(limit),
    )


@given(start=st.integers(0, RANGE - 1), increments=st.lists(st.integers(0, RANGE - 1), max_size=50))
@example(start=RANGE - 1, increments=[1, 0, RANGE - 1, 1])
def test_what_was_used_is_what_a_wrapping_counter_tells(start: int, increments: list[int]) -> None:
    readings = [Joules(float(total % RANGE)) for total in accumulate(increments, initial=start)]
    steps = [
        advance(Mark(before, float(at)), after, float(at + 1), counter_range=Joules(float(RANGE)))
        for at, (before, after) in enumerate(pairwise(readings))
    ]
    assert [int(step.joules) for step in steps] == increments
    assert all(step.joules.is_integer() for step in steps)
    assert {step.outcome for step in steps} <= {"counted", "wrapped"}


@given(
    start=st.integers(0, RANGE - 1),
    watts=st.lists(st.integers(0, 500), min_size=1, max_size=50),
    interval=st.sampled_from([1, 5, 15, 60]),
)
def test_a_known_limit_of_power_rejects_nothing_that_is_below_it(start: int, watts: list[int], interval: int) -> None:
    used = [power * interval for power in watts]
    readings = [Joules(float(total % RANGE)) for total in accumulate(used, initial=start)]
    counted = [
        advance(
            Mark(before, float(n * interval)),
            after,
            float((n + 1) * interval),
            counter_range=Joules(float(RANGE)),
            max_power=POWER,
        ).joules
        for n, (before, after) in enumerate(pairwise(readings))
    ]
    assert sum(float(joules) for joules in counted) == sum(used)


@given(mark=anything, raw=anything, at=anything, since=anything)
def test_no_reading_yields_negative_energy(mark: float, raw: float, at: float, since: float) -> None:
    for counter_range in (None, Joules(float(RANGE))):
        step = advance(Mark(Joules(mark), since), Joules(raw), at, counter_range=counter_range, max_power=POWER)
        assert step.joules >= 0
        assert math.isfinite(step.joules)


@given(raw=anything, at=anything)
def test_a_first_reading_is_only_a_mark(raw: float, at: float) -> None:
    assert advance(None, Joules(raw), at, counter_range=Joules(100.0), max_power=POWER) == Step(Joules(0.0), "first")


@given(fall=st.floats(0.001, 1000.0), elapsed=seconds)
def test_a_counter_that_never_wraps_and_falls_was_reset(fall: float, elapsed: float) -> None:
    assert advance_by(1000.0 - fall, elapsed, wraps=False) == Step(Joules(0.0), "reset")


@given(elapsed=st.floats(0.001, 100.0), excess=st.floats(1.001, 1000.0))
def test_a_delta_above_what_is_physical_is_a_reset(elapsed: float, excess: float) -> None:
    jump = 500.0 * (elapsed + COUNTER_PERIOD_SECONDS) * excess
    assert advance_by(1000.0 + jump, elapsed).outcome == "reset"
    assert advance_by(1000.0 + jump, elapsed, limit=None).outcome == "counted", "without a limit all is believed"


def test_a_fall_that_would_be_an_unphysical_wrap_is_a_reset() -> None:
    """A driver that is loaded again begins at zero, which a wrapping counter hides."""
    assert advance_by(0.0, 5.0) == Step(Joules(0.0), "reset")


def test_a_counters_own_steps_are_allowed_for() -> None:
    """500 W for 0.1 s are 50 J, and a counter that moves every 0.1 s may show twice that."""
    assert advance_by(1100.0, 0.1) == Step(Joules(100.0), "counted")


@given(elapsed=st.floats(RANGE / 500.0, 1e6), raw=st.floats(0.0, RANGE))
def test_a_counter_that_may_have_wrapped_twice_is_a_gap(elapsed: float, raw: float) -> None:
    assert advance_by(raw, elapsed + 0.001) == Step(Joules(0.0), "gap")


@given(back=st.floats(0.0, 1e6), raw=anything)
def test_no_time_means_no_energy(back: float, raw: float) -> None:
    expected: Outcome = "same"
    assert advance_by(raw, -back) == Step(Joules(0.0), expected)
