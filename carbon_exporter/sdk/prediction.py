"""Prediction: from the epochs that have ended to what those ahead are likely to take. Pure.

What is predicted is the sum of the epochs that are left, each as the typical one: what has been used is known. The
interval is that of a sum of new observations of a normal distribution whose mean and spread are themselves estimated
from n of them: `t(n - p) * s * sqrt(m + m * m / n)` for m epochs ahead (for p = 1 the usual prediction interval of a
mean, times m), at 95 %, and on top a share for what drifts, which n epochs cannot know. The first epoch, which loads
data and compiles, is left out once there is another, and so are those after it that are still unlike the rest. Epochs
that alternate (a validation at every fifth) are told by their phase.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import NamedTuple, TypeAlias

__all__ = ["Forecast", "Range", "around", "mean_intensity", "product", "rest_of", "spread_of"]

LONGEST_PERIOD = 8
MOST_EPOCHS = 256
"""The newest ones that count: those of long ago say less."""
FIRST_SHARE = 0.5
"""Of a first epoch nothing but its order of magnitude is known."""
DRIFT_SHARE = 0.08
"""By which the mean of the epochs ahead may differ from that of the epochs so far: clocks, temperature, company.

On a machine that is shared, by a third: of 54 recorded trainings (tests/support/record_runs.py) 80 of 100 intervals
held with 3 %, and 93 do with 8 %.
"""
FORECAST_SHARE = 0.3
"""By which the mean of a forecast without bounds may be off.

Of 39 recorded ones of Great Britain (tests/sdk/recorded/grid_gb.json) the mean over 1 to 48 hours was within 10 % of
the truth in half, and within 30 % in 97 of 100.
"""
VARYING_SHARE = 0.2
"""By which the mean of the hour ahead may differ from now where the grid is seen to vary and there is no forecast.

It grows with the root of the time, as what changes at random does: in the same recording the mean of the next 1, 6 and
24 hours was within 18, 49 and 91 % of now in 95 of 100.
"""
_HOUR = 3600.0
_STEADY = 0.001
"""Of a yearly price, which does not vary, by rounding."""
_POINTS = 48
"""At which a forecast is asked between now and the end."""
_PERIODIC = 0.25
"""A period counts if it leaves less than this of the variance."""
_UNLIKE = 6.0
"""In robust standard deviations."""
_ROBUST = 1.4826
"""From a median absolute deviation to a standard deviation, for a normal distribution."""
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t, two-sided 95 %, for 1 to 10 degrees of freedom."""
_Z = 1.959964


class Range(NamedTuple):
    """A number, and where the truth lies in 95 of 100 cases."""

    value: float
    low: float
    high: float

    def plus(self, known: float) -> Range:
        """With something that is known already."""
        return Range(self.value + known, self.low + known, self.high + known)

    def times(self, factor: float) -> Range:
        """In another unit."""
        return Range(self.value * factor, self.low * factor, self.high * factor)


Forecast: TypeAlias = Callable[[float], "float | tuple[float, float, float]"]
"""Grams per kWh (or a price per kWh) at a moment in Unix seconds; value, low and high where it knows its bounds."""


def rest_of(amounts: Sequence[float], left: int) -> Range:
    """What `left` more epochs are likely to take, from those that have ended, in their unit; never below nothing."""
    if left <= 0 or not amounts:
        return Range(0.0, 0.0, 0.0)
    steady = _steady(amounts[-MOST_EPOCHS:])
    period = _period(steady)
    means = [fmean(steady[phase::period]) for phase in range(period)]
    value = math.fsum(means[(len(steady) + ahead) % period] for ahead in range(left % period))
    value += (left // period) * math.fsum(means)
    half = FIRST_SHARE * value
    free = len(steady) - period
    if free > 0:
        spread = math.sqrt(_residue(steady, period) / free)
        half = min(value, _t(free) * spread * math.sqrt(left + left * left / len(steady)))
        half += DRIFT_SHARE * value
    return Range(value, max(0.0, value - half), value + half)


def spread_of(ratios: Sequence[float], seconds: float) -> float:
    """By which share the grid's intensity may differ from now, in the mean of so many seconds ahead.

    `ratios`: grams for a joule so far, in any unit. While they do not vary, nor will the intensity.
    """
    known = [ratio for ratio in ratios if ratio > 0]
    if len(known) < 2:  # noqa: PLR2004 - one does not vary
        return 0.0
    share = (max(known) - min(known)) / known[-1]
    if share <= _STEADY:
        return 0.0
    return max(share, min(1.0, VARYING_SHARE * math.sqrt(seconds / _HOUR)))


def around(value: float, share: float) -> Range:
    """A number that may be off by a share of it."""
    return Range(value, value * max(0.0, 1 - share), value * (1 + share))


def mean_intensity(forecast: Forecast, start: float, seconds: float) -> Range:
    """The mean of a forecast from `start` (Unix seconds) on, for so long."""
    told = [_ranged(forecast(start + seconds * (point + 0.5) / _POINTS)) for point in range(_POINTS)]
    return Range(*(fmean(column) for column in zip(*told, strict=True)))


def product(amount: Range, rate: Range) -> Range:
    """One times the other, whose errors are independent: relative half-widths add up as squares."""
    value = amount.value * rate.value
    if value <= 0:
        return Range(0.0, 0.0, max(0.0, amount.high * rate.high))
    below = math.hypot(1 - amount.low / amount.value, 1 - rate.low / rate.value)
    above = math.hypot(amount.high / amount.value - 1, rate.high / rate.value - 1)
    return Range(value, max(0.0, value * (1 - below)), value * (1 + above))


def _ranged(told: float | tuple[float, float, float]) -> Range:
    if isinstance(told, tuple):
        return Range(*told)
    return around(told, FORECAST_SHARE)


def _steady(amounts: Sequence[float]) -> Sequence[float]:
    """Without the first one, and without what warms up after it: a third at the most."""
    if len(amounts) == 1:
        return amounts
    steady, most = amounts[1:], len(amounts) // 3
    while most > 1 and _is_unlike(steady[0], steady[1:]):
        steady, most = steady[1:], most - 1
    return steady


def _is_unlike(one: float, rest: Sequence[float]) -> bool:
    middle = median(rest)
    deviation = _ROBUST * median(abs(amount - middle) for amount in rest)
    return abs(one - middle) > _UNLIKE * deviation + 0.02 * middle


def _period(amounts: Sequence[float]) -> int:
    """How many epochs make a pattern; 1 without one."""
    alone = _residue(amounts, 1) / max(1, len(amounts) - 1)
    for period in range(2, LONGEST_PERIOD + 1):
        free = len(amounts) - period
        if free > period and _residue(amounts, period) / free < _PERIODIC * alone:
            return period
    return 1


def _residue(amounts: Sequence[float], period: int) -> float:
    """The sum of squares that a pattern leaves."""
    total = 0.0
    for phase in range(period):
        members = amounts[phase::period]
        mean = fmean(members)
        total += math.fsum((amount - mean) ** 2 for amount in members)
    return total


def _t(free: int) -> float:
    """Student's t, two-sided 95 %; beyond the table by Cornish and Fisher (Abramowitz and Stegun, 26.7.5)."""
    if free <= len(_T):
        return _T[free - 1]
    z = _Z
    return z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
