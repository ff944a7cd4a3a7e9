"""A counter against power: how far a meter's two ways of telling the same energy are apart over ten minutes.

    divergence = counted joules / integral of power - 1

The power is the meter's own mean of the last second, joined by trapezoids. A disagreement is published, not hidden: one
of the two is wrong, and nobody but the operator can find out which.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from carbon_exporter.units import Joules, Watts

__all__ = ["WINDOW_SECONDS", "Divergence"]

WINDOW_SECONDS = 600.0
LONGEST_STEP_SECONDS = 60.0
"""Two powers further apart say nothing of the time between them: the window begins anew."""
_KEPT_EVERY_SECONDS = 5.0
"""The integral is a running sum, so that points in between need not be kept."""


@dataclass(frozen=True, slots=True)
class _Point:
    at: float
    counted: float
    integral: float


class Divergence:
    """Of one meter. Not for use from several threads."""

    def __init__(self) -> None:
        """An empty window."""
        self._points: deque[_Point] = deque()
        self._last: tuple[_Point, float] | None = None
        """The newest point, and the power there."""

    def add(self, at: float, counted: Joules, power: Watts, max_power: Watts | None = None) -> float | None:
        """Add both meters' word at monotonic seconds `at`; the divergence, or None before the window is full.

        A counter that falls, or jumps further than `max_power` allows, begins the window anew, and so does a pause.
        """
        if self._last is not None and at <= self._last[0].at:
            return self._value()
        integral = self._joined(at, counted, power, max_power)
        point = _Point(at, counted, integral)
        self._last = (point, power)
        if not self._points or at - self._points[-1].at >= _KEPT_EVERY_SECONDS:
            self._points.append(point)
        while len(self._points) > 1 and self._points[1].at <= at - WINDOW_SECONDS:
            self._points.popleft()
        return self._value()

    def _joined(self, at: float, counted: float, power: float, max_power: float | None) -> float:
        """The integral up to now; 0 and an empty window if now does not follow from before."""
        if self._last is not None:
            (before, power_before) = self._last
            elapsed, delta = at - before.at, counted - before.counted
            possible = max_power is None or delta <= max_power * (elapsed + 1.0)
            if elapsed <= LONGEST_STEP_SECONDS and delta >= 0 and possible:
                return before.integral + (power_before + power) / 2 * elapsed
        self._points.clear()
        return 0.0

    def _value(self) -> float | None:
        if self._last is None or not self._points:
            return None
        newest, oldest = self._last[0], self._points[0]
        integral = newest.integral - oldest.integral
        if newest.at - oldest.at < WINDOW_SECONDS or integral <= 0:
            return None
        return (newest.counted - oldest.counted) / integral - 1
