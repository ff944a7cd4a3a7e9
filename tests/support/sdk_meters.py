"""Meters of known power for the SDK's sampler: counters that are renewed at fixed times, and fail when told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from support.traces import Trace

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.errors import SensorUnavailable
from carbon_exporter.sdk.base import BoardUse, Machine
from carbon_exporter.sensors.base import Device, Kind, Quality
from carbon_exporter.units import Joules

__all__ = ["CountedMeters", "device", "piece"]


def device(name: str, kind: Kind = "gpu", period: float | None = None) -> Device:
    """A device whose counter is renewed every `period` seconds."""
    return Device(name, kind, "simulated", period=period)


def piece(of: Device, start: float, end: float, joules: float, *, caught_up: bool = False) -> EnergySlice:
    """A slice of a device's energy."""
    return EnergySlice(of, start, end, Joules(joules), Quality.MEASURED, caught_up)


@dataclass
class CountedMeters:
    """Implements `Meters` in real time. Counts what is asked of it, and by which thread."""

    traces: Mapping[Device, Trace]
    machine: Machine = field(default_factory=lambda: Machine(4, 16e9))
    period: float = 0.1
    opening: float = 0.0
    """Seconds that `open` takes."""
    unopened: int = 0
    """How often `open` still fails."""
    failing: bool = False
    """Whether `read` and `wait` raise."""
    silent: frozenset[str] = frozenset()
    """Devices that tell nothing."""
    clock: Callable[[], float] = time.monotonic
    name: str = "simulated"
    calls: list[str] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    _told: float | None = None

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.current_thread().name)

    def open(self) -> None:
        self._note("open")
        time.sleep(self.opening)
        if self.unopened:
            self.unopened -= 1
            raise SensorUnavailable("no meter answers")

    @property
    def devices(self) -> tuple[Device, ...]:
        return tuple(self.traces) if "open" in self.calls else ()

    def slack(self, device: str) -> float:
        assert device in {one.name for one in self.traces}
        return 0.001

    def glance(self) -> bool:
        return True

    def ease(self, grain: float) -> None:
        self._note(f"ease {grain:g}")

    def take(self) -> Sequence[EnergySlice]:
        return ()

    def read(self) -> Sequence[EnergySlice]:
        self._note("read")
        if self.failing:
            raise OSError(5, "Input/output error")
        newest = self._renewal()
        start, self._told = self._told, newest
        if start is None:
            return ()
        slices, count = [], round((newest - start) / self.period)
        for number in range(count):
            first, last = start + number * self.period, start + (number + 1) * self.period
            spoken = [item for item in self.traces.items() if item[0].name not in self.silent]
            slices += [piece(one, first, last, trace.joules(first, last)) for one, trace in spoken]
        return slices

    def _renewal(self) -> float:
        return self.clock() // self.period * self.period

    def wait(self) -> float:
        if self.failing:
            raise OSError(5, "Input/output error")
        return self._renewal() + self.period + 0.002 - self.clock()

    def boards(self) -> BoardUse | None:
        return None

    def pause(self) -> None:
        self._note("pause")
        self._told = None

    def close(self) -> None:
        self._note("close")
