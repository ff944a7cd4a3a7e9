"""A counter against the integral of power: ten minutes of both."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.sensors.divergence import Divergence
from carbon_exporter.units import Joules, Watts


def run(
    divergence: Divergence, ticks: int, *, start: float = 0.0, step: float = 5.0, factor: float = 1.0
) -> list[float | None]:
    """Constant 200 W, counted `factor` times."""
    times = [start + number * step for number in range(ticks)]
    return [divergence.add(at, Joules(at * 200 * factor), Watts(200)) for at in times]


def test_before_ten_minutes_there_is_none() -> None:
    told = run(Divergence(), 125)
    assert told[:120] == [None] * 120
    assert told[120:] == [pytest.approx(0)] * 5


@pytest.mark.parametrize("factor", [0.5, 0.95, 1.0, 1.2])
@pytest.mark.parametrize("step", [0.1, 0.833, 5.0, 60.0])
def test_it_is_the_counters_excess(factor: float, step: float) -> None:
    (*_, last) = run(Divergence(), int(650 / step) + 2, step=step, factor=factor)
    assert last == pytest.approx(factor - 1)


def test_power_that_moves_is_integrated_by_trapezoids() -> None:
    divergence = Divergence()
    told = None
    for number in range(1000):
        at = number * 1.0
        power = 300 + 100 * math.sin(at / 20)
        counted = 300 * at - 2000 * math.cos(at / 20)
        told = divergence.add(at, Joules(counted + 1e6), Watts(power))
    assert told == pytest.approx(0, abs=1e-3)


def test_only_the_last_ten_minutes_count() -> None:
    divergence = Divergence()
    run(divergence, 200, factor=1.0)
    told = []
    for number in range(1, 140):
        at = 995 + number * 5
        told.append(divergence.add(at, Joules(995 * 200 + number * 5 * 300), Watts(200)))
    assert told[130] == pytest.approx(0.5)


@pytest.mark.parametrize("spoil", ["fall", "jump", "pause"])
def test_what_does_not_follow_begins_the_window_anew(spoil: str) -> None:
    divergence = Divergence()
    run(divergence, 130)
    at, counted = 650.0, 650 * 200.0
    if spoil == "fall":
        counted = 0.0
    elif spoil == "jump":
        counted += 1e9
    else:
        at += 100
    assert divergence.add(at, Joules(counted), Watts(200), Watts(1400)) is None
    told = [divergence.add(at + 5 * n, Joules(counted + 1000 * n), Watts(200), Watts(1400)) for n in range(1, 122)]
    assert told[:119] == [None] * 119
    assert told[119:] == [pytest.approx(0)] * 2


def test_without_power_there_is_no_share_of_it() -> None:
    divergence = Divergence()
    assert [divergence.add(5.0 * n, Joules(0), Watts(0)) for n in range(130)] == [None] * 130


def test_the_same_moment_adds_nothing() -> None:
    divergence = Divergence()
    run(divergence, 125)
    before = divergence.add(620.0, Joules(620 * 200), Watts(200))
    assert divergence.add(620.0, Joules(0), Watts(9)) == before


def test_it_keeps_few_points_at_any_interval() -> None:
    divergence = Divergence()
    run(divergence, 20_000, step=0.1)
    assert len(divergence._points) <= 122


finite = st.floats(min_value=0, max_value=1e12)


@given(st.lists(st.tuples(finite, finite, finite), max_size=40))
def test_whatever_is_added_it_is_a_number_or_none(steps: list[tuple[float, float, float]]) -> None:
    divergence = Divergence()
    for at, counted, power in steps:
        told = divergence.add(at, Joules(counted), Watts(power), Watts(1400))
        assert told is None or told >= -1
