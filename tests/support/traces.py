"""Power traces whose energy is known exactly: what a device draws as a function of time, and its integral.

Times are seconds of one clock, usually CLOCK_MONOTONIC; power is in watts, energy in joules.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, replace

__all__ = ["History", "Trace", "burst", "constant", "square"]


@dataclass(frozen=True, slots=True)
class Trace:
    """`peak` watts for the first `width` seconds of each `period`, `base` for the rest; one starts at `epoch`."""

    base: float
    peak: float
    width: float
    period: float
    epoch: float = 0.0

    def power(self, at: float) -> float:
        """Watts at one moment."""
        return self.peak if (at - self.epoch) % self.period < self.width else self.base

    def joules(self, start: float, end: float) -> float:
        """Energy from `start` to `end`."""
        return self._since_epoch(end - self.epoch) - self._since_epoch(start - self.epoch)

    def mean(self, at: float, seconds: float) -> float:
        """Mean power of the `seconds` before `at`."""
        return self.joules(at - seconds, at) / seconds

    def starting(self, epoch: float) -> Trace:
        """The same with another start."""
        return replace(self, epoch=epoch)

    def _since_epoch(self, seconds: float) -> float:
        whole = math.floor(seconds / self.period)
        rest = seconds - whole * self.period
        high = whole * self.width + min(rest, self.width)
        return self.peak * high + self.base * (seconds - high)


def constant(watts: float) -> Trace:
    """Always the same."""
    return Trace(watts, watts, 0.5, 1.0)


def square(low: float, high: float, period: float) -> Trace:
    """Half a period high, half a period low."""
    return Trace(low, high, period / 2, period)


def burst(base: float, peak: float, seconds: float, period: float) -> Trace:
    """`seconds` of `peak` at the start of each period."""
    return Trace(base, peak, seconds, period)


class History:
    """One trace after the other: what a device drew while its work changed."""

    def __init__(self, trace: Trace) -> None:
        """`trace` holds from the beginning of time until another follows."""
        self._starts = [-math.inf]
        self._traces = [trace]

    @property
    def now(self) -> Trace:
        """The trace that came last."""
        return self._traces[-1]

    def change(self, at: float, trace: Trace) -> None:
        """From `at` on it is `trace`; `at` is after all earlier changes."""
        assert at > self._starts[-1]
        self._starts.append(at)
        self._traces.append(trace)

    def power(self, at: float) -> float:
        """Watts at one moment."""
        return self._traces[bisect.bisect_right(self._starts, at) - 1].power(at)

    def joules(self, start: float, end: float) -> float:
        """Energy from `start` to `end`."""
        ends = [*self._starts[1:], math.inf]
        pieces = zip(self._starts, ends, self._traces, strict=True)
        return sum(
            trace.joules(max(first, start), min(last, end))
            for first, last, trace in pieces
            if first < end and last > start
        )
