"""A counter that is renewed now and then, and a thread that reads it as its pace says: a simulation without a clock."""

from __future__ import annotations

import bisect
import random
from dataclasses import dataclass, field

from carbon_exporter.sensors.pace import Pace

__all__ = ["Counter", "Reader", "Told"]


@dataclass(frozen=True)
class Told:
    """One reading: when it was taken, when its value was set in truth, and what the pace made of it."""

    at: float
    truth: float
    moved: float
    slack: float

    @property
    def error(self) -> float:
        return abs(self.moved - self.truth)


@dataclass
class Counter:
    """Renewed each `period` s ± `jitter`, at a rate that wanders by `drift` (s/s per period); some are left out."""

    period: float
    phase: float = 0.0
    jitter: float = 0.0
    drift: float = 0.0
    missed: float = 0.0
    resets: tuple[float, ...] = ()
    """When it begins anew at 0, with another phase."""
    stands: tuple[float, float] = (0.0, 0.0)
    """From when to when it does not move."""
    seed: int = 0
    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> Counter:
        chance = random.Random(self.seed)  # noqa: S311 - a simulation
        resets, period = list(self.resets), self.period
        at, value = self.phase - self.period, 1000.0
        while at < seconds:
            at += period
            period = self.period * (1 + self.drift * chance.uniform(-1, 1)) if self.drift else period
            value += chance.uniform(1, 30)
            if resets and at > resets[0]:
                resets.pop(0)
                at, value = at + chance.uniform(0, self.period), chance.uniform(0, 5)
            if chance.random() < self.missed or self.stands[0] <= at < self.stands[1]:
                continue
            when = at + chance.uniform(-1, 1) * self.jitter
            if not self.times or when > self.times[-1]:
                self.times.append(when)
                self.values.append(value)
        return self

    def shown(self, at: float) -> tuple[float, float]:
        """When the value that it shows was set, and the value."""
        place = bisect.bisect_right(self.times, at) - 1
        return (self.times[place], self.values[place]) if place >= 0 else (self.phase - self.period, 1000.0)


@dataclass
class Reader:
    """Wakes `late` s after it wanted as a rule, and now and then (`often`) up to `very_late` s.

    A call takes `call` s, and now and then (`slow`) up to `very_slow`; it looks at any moment within that.
    """

    pace: Pace
    late: float = 0.0003
    often: float = 0.0
    very_late: float = 0.02
    call: float = 0.00005
    slow: float = 0.0
    very_slow: float = 0.3
    seed: int = 0

    def follow(self, counter: Counter, seconds: float, since: float = 0.0) -> list[Told]:
        """Until so many seconds; `since` where it stopped before."""
        chance = random.Random(self.seed)  # noqa: S311 - a simulation
        now, told = since + 0.05, []
        while now < seconds:
            due = self.pace.next(now)
            assert due >= now, "the past is over"
            now = due + chance.expovariate(1 / self.late)
            if chance.random() < self.often:
                now += chance.uniform(0.001, self.very_late)
            call = chance.uniform(0, self.very_slow) if self.slow and chance.random() < self.slow else self.call
            truth, value = counter.shown(now + chance.uniform(0, call))
            at = now + call / 2
            moved, slack = self.pace.note(at, value, call / 2)
            told.append(Told(at, truth, moved, slack))
            now += call
        return told
