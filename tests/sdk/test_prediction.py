"""Prediction: laws that hold for all runs, and how often the truth lies within the interval of made-up runs."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.sdk.prediction import Range, around, mean_intensity, product, rest_of, spread_of

AMOUNTS = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=40)
RUNS = 400
"""Of each kind: a coverage of 0.95 is then known to about 0.02."""


@given(AMOUNTS, st.integers(0, 1000))
def test_the_value_lies_within_its_interval_and_nothing_is_below_nothing(amounts: list[float], left: int) -> None:
    value, low, high = rest_of(amounts, left)
    assert 0 <= low <= value <= high < math.inf


@given(AMOUNTS, st.integers(0, 100), st.floats(1e-3, 1e3))
def test_another_unit_changes_nothing_but_the_unit(amounts: list[float], left: int, factor: float) -> None:
    scaled = rest_of([amount * factor for amount in amounts], left)
    assert scaled == pytest.approx(rest_of(amounts, left).times(factor), rel=1e-6, abs=1e-6)


@given(st.floats(0.1, 1e6), st.integers(2, 60))
def test_of_equal_epochs_the_sum_is_right_and_its_interval_narrows(each: float, epochs: int) -> None:
    widths = []
    for done in range(1, epochs + 1):
        told = rest_of([each] * done, epochs - done)
        assert told.value == pytest.approx(each * (epochs - done))
        widths.append(told.high - told.low)
    assert all(after <= before * (1 + 1e-9) for before, after in itertools.pairwise(widths))
    assert widths[-1] == 0


@given(st.floats(1.0, 100.0), st.floats(1.5, 50.0), st.integers(2, 5), st.integers(0, 30))
def test_epochs_that_alternate_are_told_by_their_phase(each: float, longer: float, period: int, left: int) -> None:
    pattern = [each] * (period - 1) + [each * longer]
    epochs = [pattern[number % period] for number in range(3 * period + left)]
    done, ahead = epochs[: 3 * period], epochs[3 * period :]
    assert rest_of(done, len(ahead)).value == pytest.approx(sum(ahead))


@given(st.floats(1.0, 100.0), st.floats(1.0, 30.0), st.integers(3, 30))
def test_a_first_epoch_that_compiles_says_nothing_of_the_others(each: float, longer: float, done: int) -> None:
    assert rest_of([each * longer] + [each] * (done - 1), 10).value == pytest.approx(10 * each)


def steady(chance: random.Random, epochs: int) -> list[float]:
    """Epochs that differ by 0.5 to 5 %, half of the runs with company that comes and goes (autocorrelated)."""
    each, spread, memory = chance.uniform(10, 1e5), chance.choice([0.005, 0.02, 0.05]), chance.choice([0, 0, 0.5, 0.8])
    drift, found = 0.0, []
    for _ in range(epochs):
        drift = memory * drift + math.sqrt(1 - memory * memory) * chance.gauss(0, 1)
        found.append(each * (1 + spread * drift))
    return found


def warming(chance: random.Random, epochs: int) -> list[float]:
    """A first epoch up to three times as long, that wears off."""
    more, last = chance.uniform(0.2, 2), chance.uniform(0.1, 0.6)
    return [amount * (1 + more * math.exp(-number / last)) for number, amount in enumerate(steady(chance, epochs))]


def alternating(chance: random.Random, epochs: int) -> list[float]:
    """A validation at every second to fifth epoch, which takes up to as long again."""
    period, more = chance.choice([2, 3, 4, 5]), chance.uniform(1.2, 2)
    return [
        amount * (more if number % period == period - 1 else 1) for number, amount in enumerate(steady(chance, epochs))
    ]


Kind = Callable[[random.Random, int], list[float]]


def told_of(kind: Kind, share: float, lengths: Sequence[int]) -> list[tuple[Range, float]]:
    """What is predicted of whole runs after this share of their epochs, and what they took."""
    chance, found = random.Random(8), []  # noqa: S311 - made-up runs
    for _ in range(RUNS):
        epochs = kind(chance, chance.choice(lengths))
        done = epochs[: max(1, round(share * len(epochs)))]
        found.append((rest_of(done, len(epochs) - len(done)).plus(sum(done)), sum(epochs)))
    return found


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("kind", [steady, warming, alternating])
def test_the_interval_contains_the_truth_in_more_than_90_of_100(kind: Kind, share: float) -> None:
    told = told_of(kind, share, [10, 20, 30, 50, 100, 300])
    assert sum(low <= truth <= high for (_, low, high), truth in told) > 0.9 * RUNS


def test_after_a_fifth_of_a_steady_run_the_prediction_is_within_a_tenth_and_mostly_knows_so() -> None:
    told = told_of(steady, 0.2, [10, 20, 30, 50, 100, 300])
    assert sum(abs(one.value - truth) <= 0.1 * truth for one, truth in told) > 0.99 * RUNS
    told = told_of(steady, 0.2, [50, 100, 300])
    assert sum((one.high - one.low) / 2 <= 0.1 * truth for one, truth in told) > 0.97 * RUNS


def day(chance: random.Random) -> Callable[[float], float]:
    """A synthetic grid: two humps a day, the sun in between, and weather that changes by the hour."""
    mean, sun, phase = chance.uniform(30, 600), chance.uniform(0.05, 0.4), chance.uniform(0, 86400)
    weather = [chance.gauss(0, 0.05) for _ in range(24 * 8)]

    def intensity(at: float) -> float:
        angle = 2 * math.pi * (at + phase) / 86400
        hour = weather[int(at / 3600) % len(weather)]
        return mean * (1 + sun * math.sin(angle) + 0.3 * sun * math.sin(2 * angle) + hour)

    return intensity


@pytest.mark.parametrize("foreseen", [True, False], ids=["forecast", "no forecast"])
def test_grams_are_within_their_interval_on_a_grid_that_varies(foreseen: bool) -> None:
    chance, held = random.Random(9), 0  # noqa: S311 - likewise
    for _ in range(RUNS):
        grid, error = day(chance), 1 + chance.gauss(0, 0.05)
        epochs, seconds = steady(chance, chance.choice([20, 50, 100])), chance.uniform(60, 3600)
        done = epochs[: len(epochs) // 5]
        now, left = len(done) * seconds, len(epochs) - len(done)
        prices = [grid((number + 0.5) * seconds) for number in range(len(epochs))]
        truth = math.fsum(joules * price for joules, price in zip(epochs, prices, strict=True))
        used = math.fsum(joules * price for joules, price in zip(done, prices, strict=False))
        rate = around(grid(now), spread_of(prices[: len(done)], seconds * left))
        if foreseen:
            rate = mean_intensity(lambda at: error * grid(at), now, seconds * left)  # noqa: B023
        _, low, high = product(rest_of(done, left), rate).plus(used)
        held += low <= truth <= high
    assert held > 0.9 * RUNS


def test_bounds_of_a_forecast_are_taken_as_they_are() -> None:
    assert mean_intensity(lambda _: (100.0, 90.0, 130.0), 0.0, 3600.0) == pytest.approx((100.0, 90.0, 130.0))
    assert mean_intensity(lambda _: 100.0, 0.0, 3600.0) == pytest.approx((100.0, 70.0, 130.0))


@given(st.lists(st.floats(0.1, 100.0), max_size=20), st.floats(0.0, 1e7))
def test_a_price_that_stays_makes_the_interval_no_wider(ratios: list[float], ahead: float) -> None:
    assert spread_of([5.0] * len(ratios), ahead) == 0
    assert 0 <= spread_of(ratios, ahead) <= spread_of(ratios, 2 * ahead)


def test_one_that_varies_may_go_on_to_do_so_the_more_the_longer_it_is() -> None:
    assert spread_of([50.0, 51.0], 3600.0) == pytest.approx(0.2)
    assert spread_of([50.0, 51.0], 4 * 3600.0) == pytest.approx(0.4)
    assert spread_of([50.0, 51.0], 1e9) == 1.0
