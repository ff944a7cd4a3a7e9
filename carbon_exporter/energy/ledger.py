"""The ledger: readings in, slices of energy out, with the marks that survive a restart.

Three kinds of meter meet here and leave as the same slice: counters (the difference), power that is a mean over a known
time (the product), and power at an instant (the trapezoid between two of them).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from carbon_exporter.energy.counter import Mark, advance
from carbon_exporter.sensors.base import Device, Quality, Reading
from carbon_exporter.units import Joules, Watts

__all__ = ["LONGEST_BRIDGE_SECONDS", "EnergySlice", "Ledger", "SavedMark"]

LONGEST_BRIDGE_SECONDS = 30.0
"""Two instants of power further apart than this say nothing of the time between them: it becomes a gap."""


@dataclass(frozen=True, slots=True)
class EnergySlice:
    """Joules that one device used from `start` to `end` (monotonic seconds). It never spans a gap."""

    device: Device
    start: float
    end: float
    joules: Joules
    quality: Quality
    caught_up: bool = False
    """Used while no exporter was running, told by the counter afterwards."""


@dataclass(frozen=True, slots=True)
class SavedMark:
    """What the state file keeps of a device's last reading: `energy` is None for meters that only give power."""

    at: float
    energy: float | None = None
    meter: str = ""
    """Sensor and serial: a counter is compared with its own past only."""


@dataclass(frozen=True, slots=True)
class _Last:
    """The last reading of a device: its counter or its power, and whether it came from the state file."""

    at: float
    meter: str
    energy: Joules | None = None
    power: Watts | None = None
    restored: bool = False


class Ledger:
    """Turns readings into slices. One writer; not for use from several threads."""

    def __init__(self) -> None:
        """Start empty: every device's first reading is then only a mark."""
        self._last: dict[str, _Last] = {}
        self.gap_seconds: dict[str, float] = {}
        """Per device name: time whose energy is not known."""

    def restore(self, marks: Mapping[str, SavedMark], gap_seconds: Mapping[str, float]) -> None:
        """Go on from an earlier life of the same boot: what counters kept meanwhile is caught up."""
        self._last = {
            name: _Last(mark.at, mark.meter, _joules(mark.energy), restored=True) for name, mark in marks.items()
        }
        self.gap_seconds = dict(gap_seconds)

    def restore_after_reboot(self, marks: Iterable[str], gap_seconds: Mapping[str, float], away: float) -> None:
        """Go on after a reboot: counters began anew, so the `away` seconds are a gap of every known device."""
        self.gap_seconds = dict(gap_seconds)
        for name in marks:
            self._add_gap(name, away)

    def marks(self) -> dict[str, SavedMark]:
        """The last readings, for the state file."""
        return {name: SavedMark(last.at, last.energy, last.meter) for name, last in self._last.items()}

    def post(self, readings: Iterable[Reading]) -> list[EnergySlice]:
        """The slices that these readings close; a device without news or without a mark gives none."""
        slices = []
        for reading in readings:
            name, meter, told = reading.device.name, _meter(reading.device), _tells(reading)
            last = self._last.get(name)
            self.gap_seconds.setdefault(name, 0.0)
            if last is None:
                self._last[name] = _last_of(reading, meter) if told else _Last(reading.at, meter)
                continue
            if not told or reading.at <= last.at:
                continue
            if last.meter != meter:
                last = _Last(last.at, meter)  # another meter's past tells nothing of this one's
            closed = self._close(last, reading)
            if closed is not None:
                slices.append(closed)
            self._last[name] = _last_of(reading, meter)
        return slices

    def _close(self, last: _Last, reading: Reading) -> EnergySlice | None:
        """The slice between two readings of a device, or None and a gap where its energy cannot be known."""
        if reading.energy is not None:
            return self._from_counter(last, reading, reading.energy)
        if reading.power is not None and reading.since is not None:
            return self._from_mean(last, reading, reading.power, reading.since)
        if reading.power is not None and last.power is not None and reading.at - last.at <= LONGEST_BRIDGE_SECONDS:
            mean = (last.power + reading.power) / 2
            return _slice(reading, last.at, Joules(mean * (reading.at - last.at)))
        self._add_gap(reading.device.name, reading.at - last.at)
        return None

    def _from_counter(self, last: _Last, reading: Reading, energy: Joules) -> EnergySlice | None:
        device = reading.device
        mark = None if last.energy is None else Mark(last.energy, last.at)
        step = advance(mark, energy, reading.at, counter_range=device.counter_range, max_power=device.max_power)
        if step.outcome in {"counted", "wrapped"}:
            return _slice(reading, last.at, step.joules, caught_up=last.restored)
        self._add_gap(device.name, reading.at - last.at)
        return None

    def _from_mean(self, last: _Last, reading: Reading, power: Watts, since: float) -> EnergySlice:
        start = min(max(since, last.at), reading.at)
        self._add_gap(reading.device.name, start - last.at)
        return _slice(reading, start, Joules(power * (reading.at - start)))

    def _add_gap(self, device: str, seconds: float) -> None:
        self.gap_seconds[device] = self.gap_seconds.get(device, 0.0) + max(0.0, seconds)


def _meter(device: Device) -> str:
    """What a device is read by."""
    return f"{device.sensor}/{device.uuid}"


def _slice(reading: Reading, start: float, joules: Joules, *, caught_up: bool = False) -> EnergySlice:
    """A slice that ends with `reading`."""
    return EnergySlice(reading.device, start, reading.at, joules, reading.quality, caught_up)


def _tells(reading: Reading) -> bool:
    """Whether it gives a counter or a power that can be: nonsense from a driver counts as silence."""
    if reading.energy is not None:
        return math.isfinite(reading.energy)
    return reading.power is not None and 0.0 <= reading.power < math.inf


def _last_of(reading: Reading, meter: str) -> _Last:
    return _Last(reading.at, meter, reading.energy, reading.power)


def _joules(value: float | None) -> Joules | None:
    return None if value is None else Joules(value)
