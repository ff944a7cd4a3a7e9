"""Spans at random moments of a known load, on a clock of their own, measured by the SDK's real odometer.

A board's counter is renewed every 100 ms and its renewals are known to within 5 ms; a processor's is read every 100 ms
and its readings are known to within 1 ms, while this process keeps one of eight processors busy. With `learns` as many
are left out as the SDK's real cadence leaves out once it knows how long spans usually last.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol

from support.sdk_meters import device, piece

from carbon_exporter.sdk.base import BoardUse, Edge, Machine, Tally
from carbon_exporter.sdk.cadence import Cadence
from carbon_exporter.sdk.laps import Lap
from carbon_exporter.sdk.odometer import Odometer, span_bound
from carbon_exporter.sdk.own_use import UsePoint
from carbon_exporter.sensors.base import Device

__all__ = ["BOARD", "PACKAGE", "Load", "Measured", "Span", "Stand", "coverage", "errors", "simulate", "width"]

PERIOD = 0.1
LATENCY = 0.002
"""From a renewal to the moment at which it is known."""
BOARD = device("gpu0", "gpu", PERIOD)
PACKAGE = device("cpu0", "cpu")
CPUS = 8
WARM_UP = 35.0
"""Seconds of work before the first span."""


class Load(Protocol):
    """Power with a known integral."""

    def joules(self, start: float, end: float) -> float:
        """Energy between two moments."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A value and how far off it is said to be, in joules."""

    joules: float
    bound: float


@dataclass(frozen=True, slots=True)
class Span:
    """The truth in joules, what was known at the exit, and what was known when the exit was settled."""

    truth: float
    left: Measured
    settled: Measured


class Stand:
    """The odometer, and what it asks meters for."""

    def __init__(self, load: Load, measured: Device, chance: random.Random, *, learns: bool = False) -> None:
        self.devices = (measured,)
        self.machine = Machine(CPUS, 16e9)
        self._load, self._device, self._chance = load, measured, chance
        self.odometer = Odometer(self)
        self.odometer.begin(_use(0.0))
        self._passed, self._renewals, self._told = 0, 0, 0.0
        self._cadence, self._lap, self._due = Cadence(), Lap("work", 1, None), 0.0
        self._learns = learns

    @property
    def share(self) -> float:
        """What is this process's own of the device."""
        return 1.0 if self._device.kind == "gpu" else 1.0 / CPUS

    def slack(self, device: str) -> float:
        """5 ms for a board, 1 ms for a processor."""
        return 0.005 if device == BOARD.name else 0.001

    def enter(self, now: float) -> None:
        """A span begins: what the counter shows is read at once."""
        self.pass_until(now)
        self._lap.began, self._due = (now, now), 0.0
        if self._passed > self._renewals:
            self._read()

    def leave(self, now: float) -> None:
        """It ends."""
        self._cadence.note("work", now - self._lap.began[0])

    def pass_until(self, now: float) -> None:
        """Everything that is known at `now` is added, tick by tick."""
        while (self._passed + 1) * PERIOD + LATENCY <= now:
            self.renew()

    def renew(self) -> None:
        """One more renewal; it becomes known if it is to be read."""
        self._passed += 1
        now, began = self._passed * PERIOD + LATENCY, self._lap.began[0]
        if not self._learns:
            self._read()
        elif now >= self._due:
            self._read()
            self._due = now + self._cadence.plan(now, began, [self._lap])[0] - PERIOD / 2

    def _read(self) -> None:
        """The newest renewal becomes known."""
        began, self._renewals = self._renewals * PERIOD, self._passed
        ended = self._renewals * PERIOD
        slack = self.slack(self._device.name)
        told = ended + self._chance.uniform(-slack, slack)
        joules = self._load.joules(began, ended)
        use = _use(max(told, ended) + LATENCY)
        self.odometer.add([piece(self._device, self._told, told, joules)], use, BoardUse({BOARD.name: 1.0}))
        self._told = told

    def measured(self, start: Tally, end: Tally) -> Measured:
        """What the odometer says of the time between two edges."""
        name = self._device.name
        return Measured(end.joules[name] - start.joules[name], span_bound(start, end)[name])


def simulate(
    load: Load, measured: Device, seconds: float | Sequence[float], count: int, seed: int, *, learns: bool = False
) -> list[Span]:
    """`count` spans of `seconds` each, or of these in turns, one after the other with random pauses."""
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets; the same ones each time
    stand = Stand(load, measured, chance, learns=learns)
    lengths = cycle([seconds] if isinstance(seconds, float) else seconds)
    now, spans = WARM_UP, []
    for _ in range(count):
        began = now + chance.uniform(0.0, 3.0)
        now = began + next(lengths)
        enter, leave = Edge(began, began), Edge(now, now)
        stand.enter(began)
        stand.pass_until(now)
        stand.leave(now)
        left = stand.measured(stand.odometer.tally(enter), stand.odometer.tally(leave))
        while stand.odometer.settled_until < now:
            stand.renew()
        settled = stand.measured(stand.odometer.tally(enter), stand.odometer.tally(leave))
        spans.append(Span(stand.share * load.joules(began, now), left, settled))
    return spans


def errors(spans: Iterable[Span], *, settled: bool) -> list[float]:
    """How far off each span is, in percent of its truth."""
    return [100 * abs(_of(span, settled).joules - span.truth) / span.truth for span in spans]


def coverage(spans: Sequence[Span], *, settled: bool) -> float:
    """Of how many spans the bound holds the truth, in percent."""
    held = sum(abs(_of(span, settled).joules - span.truth) <= _of(span, settled).bound for span in spans)
    return 100 * held / len(spans)


def width(spans: Sequence[Span], *, settled: bool) -> float:
    """The median bound, as a multiple of the error that 95 of 100 spans keep below; both in percent of the truth."""
    bounds = sorted(100 * _of(span, settled).bound / span.truth for span in spans)
    off = sorted(errors(spans, settled=settled))
    return bounds[len(bounds) // 2] / off[math.ceil(0.95 * len(off)) - 1]


def _of(span: Span, settled: bool) -> Measured:
    return span.settled if settled else span.left


def _use(at: float) -> UsePoint:
    return UsePoint(at, at, 0.0, 1e9, 0.0)
