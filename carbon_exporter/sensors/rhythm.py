"""The rhythm of a counter's renewals: a period, a phase, and how well both are known."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

__all__ = ["Rhythm"]

HISTORY_SECONDS = 20.0
"""The period is that between two renewals within this time."""
KEPT = 64
FORGETS = 1.05
"""A period that was known better before may have drifted: its error grows so with each renewal that is caught."""
ROUGH = 0.004
"""What is not known of a period that held before a burst, as a part of it, at least."""
LEAST_JITTER, MOST_JITTER = 0.0007, 0.006
WILDER = 1.6
CALMER = 0.98
"""Jitter that was assumed after a wrong prediction is forgotten with each renewal that is caught."""


class _Renewal(NamedTuple):
    """One that was caught: which, when, and half of the time in which it must have been."""

    number: int
    centre: float
    width: float


class Rhythm:
    """Renewals by their numbers; times in seconds. A window is its centre and half of its width."""

    def __init__(self, jitter: float = LEAST_JITTER) -> None:
        """Nothing is known but how far renewals may be from where they should be."""
        self.jitter = jitter
        self.period = math.inf
        self.error = math.inf
        """How far off the period may be."""
        self._seen: deque[_Renewal] = deque(maxlen=KEPT)

    @property
    def caught(self) -> int:
        """How many renewals it is made of."""
        return len(self._seen)

    @property
    def newest(self) -> int:
        """Number of the renewal that was caught last."""
        return self._seen[-1].number

    def begin_anew(self) -> None:
        """The phase is lost; a period that was known is still likely."""
        self._seen.clear()
        self.error = max(self.error, ROUGH * self.period)

    def add(self, since: float, until: float) -> None:
        """The renewal after the one that was caught last was between these moments."""
        number = self._seen[-1].number + 1 if self._seen else 0
        self._seen.append(_Renewal(number, (since + until) / 2, (until - since) / 2))
        self._learn()

    def catch(self, number: int, since: float, until: float) -> None:
        """Renewal `number` was between these moments; what is no news is passed over."""
        centre, width = (since + until) / 2, max(0.0, until - since) / 2
        known, known_width = self.window(number)
        if number < self.newest or (width >= known_width and abs(centre - known) <= known_width):
            return
        if number == self.newest:
            self._seen.pop()
        self._seen.append(_Renewal(number, centre, width))
        while centre - self._seen[0].centre > HISTORY_SECONDS:
            self._seen.popleft()
        self.jitter = max(LEAST_JITTER, CALMER * self.jitter)
        self._learn()

    def was_wrong(self) -> None:
        """A renewal was not where it was said to be."""
        self.jitter = min(MOST_JITTER, WILDER * self.jitter)

    def window(self, number: int) -> tuple[float, float]:
        """Where a renewal lies."""
        last = self._seen[-1]
        if number == last.number:
            return last.centre, last.width
        apart = number - last.number
        return last.centre + apart * self.period, last.width + abs(apart) * self.error + self.jitter

    def last_begun(self, at: float) -> int:
        """The last renewal whose window has begun before `at`."""
        last = self._seen[-1]
        number = last.number + math.floor((at - last.centre) / self.period) + 1
        while self.begins(number) >= at:
            number -= 1
        return number

    def last_over(self, at: float) -> int:
        """The last renewal whose window has ended by `at`: it has been."""
        number = self.last_begun(at)
        return number if sum(self.window(number)) <= at else number - 1

    def begins(self, number: int) -> float:
        """When the window of a renewal begins."""
        centre, width = self.window(number)
        return centre - width

    def _learn(self) -> None:
        first, last = self._seen[0], self._seen[-1]
        apart = last.number - first.number
        error = (first.width + last.width) / apart if apart else math.inf
        if error <= self.error and apart:
            self.period, self.error = (last.centre - first.centre) / apart, error
        else:
            self.error *= FORGETS
