"""Plays a power trace to a sensor in simulated time: no thread, no waiting, the same each time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from support.traces import Trace

from carbon_exporter.energy.ledger import Ledger
from carbon_exporter.sensors.base import Reading, Sample, Sensor

__all__ = ["Played", "Ticking", "play"]


@dataclass
class Ticking:
    """A clock to turn, on which each look takes a microsecond: no two are at the same moment."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        self.now += 1e-6
        return self.now


@dataclass(frozen=True)
class Played:
    """What came of it."""

    joules: float
    """All that the ledger counted."""
    start: float
    end: float
    """From the first reading to the last."""
    gap_seconds: float
    samples: tuple[Sample, ...]

    @property
    def readings(self) -> tuple[Reading, ...]:
        """All of them, in order."""
        return tuple(reading for sample in self.samples for reading in sample.readings)

    def error(self, trace: Trace) -> float:
        """Counted over true energy, minus 1."""
        return self.joules / trace.joules(self.start, self.end) - 1


def play(
    sensor: Sensor, clock: Ticking, write: Callable[[float], None], seconds: float = 60.0, interval: float = 5.0
) -> Played:
    """Run a board as its worker does; `write` sets its registers to what they are at a moment."""
    ledger, random_ = Ledger(), random.Random(7)  # noqa: S311 - jitter, the same each time
    start, samples, slices = clock.now, [], []
    for tick in range(round(seconds / interval) + 1):
        due = start + tick * interval
        while clock.now < due:
            period = sensor.sampling_period
            pause = due if period is None else clock.now + period * random_.uniform(0.5, 1.5)
            clock.now = min(due, pause)
            write(clock.now)
            if clock.now < due:
                sensor.sample()
        write(clock.now)
        samples.append(sensor.read())
        slices += ledger.post(samples[-1].readings)
    times = [reading.at for sample in samples for reading in sample.readings]
    return Played(
        sum(piece.joules for piece in slices), times[0], times[-1], sum(ledger.gap_seconds.values()), tuple(samples)
    )
