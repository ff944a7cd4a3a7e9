"""Fine readings: the energy of one sensor between two readings, at the moments at which its counters move.

A crew has one `Watch`, which says whether anybody wants them; each worker has a `FineReader` and runs it on its own
thread. While nobody watches, nothing wakes up.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from carbon_exporter.sensors.base import Device, Reading, Sensor
from carbon_exporter.sensors.pace import STEADY_SECONDS, Pace

__all__ = ["FineReader", "Watch"]

MOST_KEPT = 1024
"""Readings that nobody took; older ones are dropped, and the counter's next difference contains them."""
_SHORTEST_REST, _LONGEST_REST = 0.125, 2.0
"""Seconds after a reading that gave nothing; twice as long after each one more."""
_BOARDS = frozenset({"gpu", "accelerator"})


@dataclass(slots=True)
class Watch:
    """What is wanted now. One object for a crew and its workers: one thread writes it, all read it."""

    on: bool = False
    rests: bool = False
    """Nothing at all is done between two readings: power is not sampled either."""
    boards: frozenset[str] | None = None
    """Names or uuids of the boards that are wanted; None for all. Other devices are wanted in any case."""
    grain: float = STEADY_SECONDS
    """Seconds from one reading of a counter to the next."""

    def wants(self, devices: Sequence[Device]) -> bool:
        """Whether any of these devices is to be read."""
        boards = self.boards
        return self.on and (
            boards is None
            or any(one.kind not in _BOARDS or one.name in boards or one.uuid in boards for one in devices)
        )


class FineReader:
    """Of one sensor. `due` and `read` are for its worker's thread, all else for any."""

    def __init__(self, sensor: Sensor, watch: Watch, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is that of the sensor's readings."""
        self._sensor = sensor
        self._watch = watch
        self._clock = clock
        self._paces: dict[tuple[str, bool], Pace] = {}
        """By device, and whether it is a counter."""
        self._told: dict[str, float] = {}
        """By device: `at` of the last reading that was kept."""
        self._kept: deque[tuple[Reading, float, float]] = deque(maxlen=MOST_KEPT)
        """Readings, each with the moment at which its counter came to stand so, and how far off that may be."""
        self._next: float | None = None
        self._news: float | None = None
        self._rest = _SHORTEST_REST
        self.precise = False
        """Whether the moment that is due next is to be kept; else a later reading tells as much, later."""

    @property
    def active(self) -> bool:
        """Whether its sensor is read so now."""
        return self._watch.on and self._sensor.offers_fine and self._watch.wants(self._sensor.devices)

    @property
    def devices(self) -> tuple[Device, ...]:
        """Those that are read so now."""
        return self._sensor.devices if self.active else ()

    @property
    def next(self) -> float:
        """When to read next, whether anybody watches or not."""
        return -math.inf if self._next is None else self._next

    @property
    def news(self) -> float | None:
        """When there will be something new to take; None if nothing is expected."""
        return self._news if self._watch.on else None

    def due(self, now: float) -> float | None:
        """When to read next; None while nobody wants it."""
        if not self.active:
            self._next = self._news = None
            return None
        if self._next is None:
            self._next = self._news = now
        return self._next

    def read(self) -> bool:
        """Read once, and note when the next time is; whether it gave something.

        Whatever fails is left to the next full reading to tell.
        """
        try:
            readings = self._sensor.fine()
        except Exception:  # noqa: BLE001 - whatever a driver raises
            readings = ()
        now = self._clock()
        if not readings:
            self._next = self._news = now + self._rest
            self._rest = min(2 * self._rest, _LONGEST_REST)
            return False
        self._rest = _SHORTEST_REST
        moment, news, precise = math.inf, math.inf, False
        for reading in readings:
            pace = self._keep(reading)
            moment, news = min(moment, pace.next(now)), min(news, pace.news(now))
            precise = precise or pace.precise
        self._next, self._news, self.precise = moment, news, precise
        return True

    def take(self) -> list[Reading]:
        """What was read since the last call."""
        taken: list[Reading] = []
        with suppress(IndexError):  # the worker adds and others may take at the same time
            while self._kept:
                taken.append(_at_its_moment(*self._kept.popleft()))
        return taken

    def _keep(self, reading: Reading) -> Pace:
        """Give it the moment at which the counter came to stand so, unless that has been told. Returns its pace."""
        name, counts = reading.device.name, reading.energy is not None
        pace = self._paces.get((name, counts))
        if pace is None:  # power is the mean of a time that is known: it has no pace
            pace = self._paces[name, counts] = Pace(reading.device.period if counts else None)
        pace.grain = self._watch.grain
        at, slack = pace.note(reading.at, reading.energy or 0.0, reading.slack)
        if at > self._told.get(name, -math.inf):
            self._told[name] = at
            self._kept.append((reading, at, slack))
        return pace


def _at_its_moment(reading: Reading, at: float, slack: float) -> Reading:
    if reading.energy is None:
        return reading
    return Reading(reading.device, at, reading.quality, reading.energy, slack=slack)
