"""Power into energy: unbroken time, gaps, nonsense, and a bound that holds."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampled import INSTANT, Register, sample
from support.traces import Trace, burst, constant, square

from carbon_exporter.sensors.base import Device, Quality
from carbon_exporter.sensors.integrator import BOUND_FACTOR, PowerIntegrator

DEVICE = Device("gpu0", "gpu", "nvidia")
TRACES = {
    "constant": constant(300),
    "square of 0.7 s": square(100, 500, 0.7),
    "short bursts": burst(80, 600, 0.1, 1.5),
    "bursts": burst(80, 600, 0.5, 2.0),
    "short pauses": burst(80, 600, 2.0, 2.5),
    "long bursts": burst(80, 600, 2.0, 10.0),
}
AVERAGE = Register(window=1.0, refresh=0.1)


def test_before_two_samples_there_is_a_mark_or_nothing() -> None:
    integrator = PowerIntegrator(longest_step=1.0)
    assert integrator.take(DEVICE) == ()
    integrator.add(10.0, 200.0)
    (mark,) = integrator.take(DEVICE)
    assert (mark.at, mark.power, mark.energy, mark.quality) == (10.0, None, None, Quality.INTEGRATED)


def test_the_trapezoid_over_unbroken_time_is_one_mean() -> None:
    integrator = PowerIntegrator(longest_step=1.0)
    for at, watts in ((10.0, 100.0), (10.5, 300.0), (11.5, 300.0), (12.0, 0.0)):
        integrator.add(at, watts)
    (reading,) = integrator.take(DEVICE)
    assert (reading.since, reading.at) == (10.0, 12.0)
    assert reading.power == pytest.approx((100 + 300 + 75) / 2)
    assert reading.uncertainty == pytest.approx(BOUND_FACTOR * math.hypot(200 * 0.5, 300 * 0.5) / 2)


def test_readings_adjoin_and_nothing_counts_twice() -> None:
    integrator = PowerIntegrator(longest_step=1.0)
    for step in range(11):
        integrator.add(step * 0.5, 100.0 + step)
        if step == 5:
            first = integrator.take(DEVICE)
    (before,), (after,) = first, integrator.take(DEVICE)
    assert (before.since, before.at, after.since, after.at) == (0.0, 2.5, 2.5, 5.0)
    joules = [r.power * (r.at - r.since) for r in (before, after) if r.power is not None and r.since is not None]
    assert sum(joules) == pytest.approx(105.0 * 5.0)


def test_a_gap_divides_and_is_not_bridged() -> None:
    integrator = PowerIntegrator(longest_step=1.0)
    for at in (0.0, 0.5, 1.0, 9.0, 9.5):
        integrator.add(at, 100.0)
    assert [(r.since, r.at, r.power) for r in integrator.take(DEVICE)] == [(0.0, 1.0, 100.0), (9.0, 9.5, 100.0)]
    integrator.add(20.0, 100.0)
    (mark,) = integrator.take(DEVICE)
    assert (mark.at, mark.power) == (20.0, None)


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf, -1.0])
def test_nonsense_is_silence(nonsense: float) -> None:
    integrator = PowerIntegrator(longest_step=1.0)
    for at, watts in ((0.0, 100.0), (0.4, nonsense), (0.8, 200.0)):
        integrator.add(at, watts)
    (reading,) = integrator.take(DEVICE)
    assert (reading.since, reading.at, reading.power) == (0.0, 0.8, 150.0)


def test_the_past_and_the_same_moment_are_passed_over() -> None:
    integrator = PowerIntegrator(longest_step=1.0)
    for at, watts in ((5.0, 100.0), (5.0, 900.0), (4.0, 900.0), (6.0, 100.0)):
        integrator.add(at, watts)
    (reading,) = integrator.take(DEVICE)
    assert (reading.since, reading.at, reading.power, reading.uncertainty) == (5.0, 6.0, 100.0, 0.0)


def test_a_mean_is_of_the_middle_of_its_window_and_uncertain_at_the_ends() -> None:
    integrator = PowerIntegrator(longest_step=1.0, window=2.0)
    for at in (10.0, 11.0, 12.0):
        integrator.add(at, 400.0)
    (reading,) = integrator.take(DEVICE)
    assert (reading.since, reading.at, reading.power) == (9.0, 11.0, 400.0)
    assert reading.uncertainty == pytest.approx(BOUND_FACTOR * math.sqrt(2) * 400 * 2 / 8 / 2)


@given(
    st.lists(st.tuples(st.floats(), st.floats()), max_size=30),
    st.floats(0.01, 100.0),
    st.sampled_from([0.0, 1.0]),
)
def test_whatever_is_sampled_no_reading_is_nonsense(
    samples: list[tuple[float, float]], longest: float, window: float
) -> None:
    integrator = PowerIntegrator(longest, window)
    for at, watts in samples:
        integrator.add(at % 1e6 if math.isfinite(at) else 0.0, watts if abs(watts) < 1e9 else math.nan)
    end = -math.inf
    for reading in integrator.take(DEVICE):
        if reading.power is not None:
            assert reading.since is not None
            assert end <= reading.since < reading.at
            assert 0.0 <= reading.power < 1e9 * (1 + 1e-9)
            assert 0.0 <= reading.uncertainty < math.inf
            end = reading.at


@pytest.mark.parametrize("register", [INSTANT, AVERAGE], ids=["instant", "mean of 1 s"])
@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_sampling_is_within_3_percent_and_its_bound_holds(trace: Trace, register: Register) -> None:
    chance = random.Random(7)  # noqa: S311 - moments, not secrets
    runs = [sample(trace, register, chance) for _ in range(40)]
    assert sorted(abs(run.error) for run in runs)[37] < 0.03, "38 of 40 runs"
    assert sum(run.holds for run in runs) >= 38
    assert sum(run.held for run in runs) >= 0.95 * sum(run.readings for run in runs)
    bias = sum(run.error for run in runs) / len(runs)
    assert abs(bias) < 0.01, "it errs to both sides alike"
