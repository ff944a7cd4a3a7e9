"""Welch's test: whether two groups differ in their mean, without assuming that they spread alike.

"The generalization of Student's problem when several different population variances are involved", Biometrika 34
(1947), 28-35. The distribution of t comes from the regularised incomplete beta function, by the continued fraction of
NIST's Digital Library of Mathematical Functions, 8.17.22.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Sample", "Welch", "sample", "two_sided", "welch"]

FEWEST = 2
"""Values without which nothing is known of a spread."""
TINY, CLOSE, MOST_TERMS = 1e-300, 1e-16, 100_000


@dataclass(frozen=True, slots=True)
class Sample:
    """Values of one quantity, in whatever unit it has."""

    count: int
    mean: float
    spread: float | None
    """The standard deviation, by n - 1; None for a single value."""


@dataclass(frozen=True, slots=True)
class Welch:
    """What the test says."""

    t: float
    degrees_of_freedom: float
    p: float
    """How often groups of one mean would differ by as much or more, in either direction."""


def sample(values: Sequence[float]) -> Sample:
    """Mean and spread of at least one value."""
    mean = math.fsum(values) / len(values)
    if len(values) < FEWEST:
        return Sample(len(values), mean, None)
    return Sample(len(values), mean, math.sqrt(math.fsum((one - mean) ** 2 for one in values) / (len(values) - 1)))


def welch(one: Sample, other: Sample) -> Welch | None:
    """The test of `one` against `other`; None where a group has a single value, neither spreads, or one has no mean."""
    if one.spread is None or other.spread is None:
        return None
    errors = one.spread**2 / one.count, other.spread**2 / other.count
    both = math.fsum(errors)
    difference = one.mean - other.mean
    if not (both > 0 and math.isfinite(both) and math.isfinite(difference)):
        return None
    t = difference / math.sqrt(both)
    parts = zip((error / both for error in errors), (one.count - 1, other.count - 1), strict=True)
    degrees = 1 / math.fsum(part**2 / freedom for part, freedom in parts)
    return Welch(t, degrees, two_sided(t, degrees))


def two_sided(t: float, degrees_of_freedom: float) -> float:
    """The probability that Student's t is as far from 0 as this, or farther."""
    ratio = t * t / degrees_of_freedom
    return _beta(degrees_of_freedom / 2, 0.5, 1 / (1 + ratio), ratio / (1 + ratio) if math.isfinite(ratio) else 1.0)


def _beta(a: float, b: float, x: float, rest: float) -> float:
    """The regularised incomplete beta function I_x(a, b); `rest` is 1 - x, exact also where x is close to 1."""
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, rest, x)
    logarithm = a * _log(x, rest) + b * _log(rest, x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(logarithm) / a / _fraction(a, b, x)


def _log(x: float, rest: float) -> float:
    return math.log1p(-rest) if rest < x else math.log(x)


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d1 / (1 + d2 / (1 + …)), by Lentz's method, from the front to the back."""
    value = upper = 1.0
    lower = 0.0
    for term in range(1, MOST_TERMS):
        half = term // 2
        if term % 2:
            step = -(a + half) * (a + b + half) / ((a + term - 1) * (a + term)) * x
        else:
            step = half * (b - half) / ((a + term - 1) * (a + term)) * x
        lower = 1 / (1 + step * lower or TINY)
        upper = 1 + step / upper or TINY
        value *= upper * lower
        if abs(upper * lower - 1) < CLOSE:
            break
    return value
