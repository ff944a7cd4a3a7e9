"""A simulated meter without a counter: what the exporter's integrator makes of a known trace, in no time."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from support.traces import Trace

from carbon_exporter.sensors.base import Device
from carbon_exporter.sensors.integrator import PowerIntegrator

__all__ = ["INSTANT", "Register", "Run", "sample"]

PERIOD = 0.05
JITTER = (0.5, 1.5)
INTERVAL = 5.0
LONGEST_STEP = 1.0
"""Seconds; as the exporter samples and reads by default."""
_DEVICE = Device("gpu0", "gpu", "simulated")
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Register:
    """Where the power is read: the mean of the last `window` seconds, as of the last of its refreshes."""

    window: float = 0.0
    """0: the power at that instant."""
    refresh: float = 0.0
    """Seconds between two refreshes; 0: always fresh."""

    def shows(self, trace: Trace, at: float, phase: float) -> float:
        """Watts at `at`; refreshes come `phase` seconds after whole multiples of `refresh`."""
        when = math.floor((at - phase) / self.refresh) * self.refresh + phase if self.refresh else at
        return trace.mean(when, self.window) if self.window else trace.power(when)


INSTANT = Register()


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run, against the truth of the same time."""

    error: float
    """Energy too much (or, negative, too little), relative."""
    bound: float
    """Relative, 95 of 100: the readings' uncertainties, which are independent, added as squares."""
    readings: int
    held: int
    """Readings that were no further off than their uncertainty."""

    @property
    def holds(self) -> bool:
        """Whether the bound of the whole run is kept."""
        return abs(self.error) <= self.bound + _ROUNDING


def sample(trace: Trace, register: Register, chance: random.Random, seconds: float = 60.0) -> Run:
    """One run of the trace, begun at a random moment of it."""
    trace = trace.starting(chance.uniform(0.0, trace.period))
    phase = chance.uniform(0.0, register.refresh)
    integrator = PowerIntegrator(LONGEST_STEP, register.window)
    at, due = 100.0, 100.0 + INTERVAL
    joules = truth = squares = 0.0
    readings = held = 0
    while at < 100.0 + seconds + INTERVAL / 2:
        integrator.add(at, register.shows(trace, at, phase))
        if at >= due:
            due += INTERVAL
            for reading in integrator.take(_DEVICE):
                assert reading.power is not None
                assert reading.since is not None
                elapsed = reading.at - reading.since
                true, found = trace.joules(reading.since, reading.at), reading.power * elapsed
                joules, truth = joules + found, truth + true
                squares += (reading.uncertainty * elapsed) ** 2
                readings += 1
                held += abs(found - true) <= reading.uncertainty * elapsed + _ROUNDING * true
        at += PERIOD * chance.uniform(*JITTER)
    return Run(joules / truth - 1, math.sqrt(squares) / truth, readings, held)
