"""Welch's test, held against scipy, and by what has to be true of any."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special, stats  # type: ignore[import-untyped]

from carbon_exporter.report.welch import Sample, sample, two_sided, welch

numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))
groups = st.lists(numbers, min_size=2, max_size=12)


def test_pairs_of_groups_are_tested_as_scipy_tests_them() -> None:
    chance = random.Random(1)  # noqa: S311
    for _ in range(150):
        scales = [10 ** chance.uniform(-3, 3) for _ in range(2)]
        centre = chance.uniform(-3, 3) * max(scales)
        one, other = (
            [chance.gauss(middle, scale) for _ in range(chance.randint(2, 40))]
            for middle, scale in zip((0.0, centre), scales, strict=True)
        )
        theirs = stats.ttest_ind(one, other, equal_var=False)
        ours = welch(sample(one), sample(other))
        assert ours is not None
        assert ours.t == pytest.approx(float(theirs.statistic), rel=1e-10)
        assert ours.degrees_of_freedom == pytest.approx(float(theirs.df), rel=1e-10)
        assert ours.p == pytest.approx(float(theirs.pvalue), rel=1e-10, abs=1e-300)


@pytest.mark.parametrize("degrees", [1.0, 1.5, 3.0, 7.3, 30.0, 1000.0, 1e6])
@pytest.mark.parametrize("t", [0.0, 1e-4, 0.5, 1.0, 2.0, 5.0, 40.0])
def test_the_distribution_of_t_is_scipys(t: float, degrees: float) -> None:
    theirs = 2 * float(special.stdtr(degrees, -t))
    assert two_sided(t, degrees) == pytest.approx(theirs, rel=1e-11 if degrees <= 1000 else 2e-9, abs=1e-290)


def test_without_a_spread_there_is_no_test() -> None:
    some = sample([1.0, 2.0])
    assert sample([5.0]) == Sample(1, 5.0, None)
    assert welch(sample([5.0]), some) is None
    assert welch(sample([2.0, 2.0]), sample([3.0, 3.0])) is None
    assert welch(sample([math.nan, 2.0]), some) is None
    assert welch(sample([math.inf, 2.0]), some) is None
    assert welch(sample([2.0, 2.0]), some) is not None


@given(groups, groups)
def test_the_other_way_round_only_the_sign_changes(one: list[float], other: list[float]) -> None:
    there, back = welch(sample(one), sample(other)), welch(sample(other), sample(one))
    assume(there is not None and back is not None)
    assert there is not None
    assert back is not None
    assert there.t == -back.t
    assert there.p == back.p
    assert 0 <= there.p <= 1
    assert min(len(one), len(other)) - 1 <= there.degrees_of_freedom * (1 + 1e-9)
    assert there.degrees_of_freedom <= (len(one) + len(other) - 2) * (1 + 1e-9)


@given(st.floats(0, 1e150), st.floats(0, 1e150), st.floats(1, 1e5))
def test_what_is_farther_out_is_not_more_likely(t: float, farther: float, degrees: float) -> None:
    t, farther = sorted((t, farther))
    assert two_sided(farther, degrees) <= two_sided(t, degrees) * (1 + 1e-9)
    assert two_sided(-t, degrees) == two_sided(t, degrees)
