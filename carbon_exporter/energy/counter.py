"""How much energy lies between two readings of a counter: wrap, reset, gap and first reading, as one pure function.

A meter's counter is a promise with small print. It starts anywhere, wraps at a range of its own, falls to zero when a
driver is loaded again, and now and then jumps to nonsense. Whatever cannot be believed counts as a gap: its time is
reported, its energy is never invented.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from carbon_exporter.units import Joules, Watts

__all__ = ["COUNTER_PERIOD_SECONDS", "Mark", "Outcome", "Step", "advance"]

Outcome = Literal["first", "same", "counted", "wrapped", "reset", "gap"]
"""first: nothing to compare with; same: no time has passed; reset: fell or jumped beyond what is physical;
gap: the counter may have wrapped more than once unseen."""

COUNTER_PERIOD_SECONDS = 0.2
"""Counters move in steps (RAPL about 1 ms, NVML about 100 ms), so that a delta may hold the energy of up to one period
more than the time between the readings; twice the slowest known period is allowed for."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The last believed reading of a counter: joules, at monotonic seconds."""

    raw: Joules
    at: float


@dataclass(frozen=True, slots=True)
class Step:
    """Joules used since the mark (>= 0; 0 unless counted or wrapped), and how they were found."""

    joules: Joules
    outcome: Outcome


def advance(
    mark: Mark | None, raw: Joules, at: float, *, counter_range: Joules | None = None, max_power: Watts | None = None
) -> Step:
    """Energy from `mark` to the reading `raw` at monotonic seconds `at`.

    Args:
        mark: the previous reading, None if there is none.
        raw: the counter now, in joules.
        at: when `raw` was read.
        counter_range: where the counter wraps to zero, None if it never does.
        max_power: what the device can draw at most; a delta above it is a reset, None believes every delta.
    """
    if mark is None:
        return Step(Joules(0.0), "first")
    elapsed = at - mark.at
    if elapsed <= 0:
        return Step(Joules(0.0), "same")
    if counter_range is not None and max_power is not None and max_power * elapsed >= counter_range:
        return Step(Joules(0.0), "gap")
    wrapped = raw < mark.raw
    if wrapped and counter_range is None:
        return Step(Joules(0.0), "reset")
    delta = raw - mark.raw + (counter_range or 0.0 if wrapped else 0.0)
    physical = max_power is None or delta <= max_power * (elapsed + COUNTER_PERIOD_SECONDS)
    if delta < 0 or not physical or not math.isfinite(delta):
        return Step(Joules(0.0), "reset")
    return Step(Joules(delta), "wrapped" if wrapped else "counted")
