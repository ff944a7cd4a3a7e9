"""The feed: the devices' energy for scripts, as fine as their meters give it, while anybody watches.

Fine readings are counted in a ledger of their own, on the socket's thread. What has none is told as the ticks find it.
A device's slices never overlap, so that nothing is told twice where it changes from the one to the other.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from carbon_exporter.energy.ledger import EnergySlice, Ledger
from carbon_exporter.publish import handoff_wire as wire
from carbon_exporter.sensors.base import Device, Quality, Reading
from carbon_exporter.sensors.crew import Crew

__all__ = ["Feed", "device_rows"]

_log = logging.getLogger(__name__)
_FINE_SECONDS = 2.0
"""A device that gave fine readings within so many seconds is not told by ticks."""
_MOST_SLICES = 4096
_ROWS_PER_LINE = 400
"""About a quarter of what a line may hold."""
_COUNTER_SLACK = 0.001
"""Of a counter whose period nobody knows, such as RAPL's: it moves every millisecond."""


class Feed:
    """One node's. `offer` and `know` are for the sampling thread, the rest is for the socket's."""

    def __init__(self, crew: Crew, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._crew, self._clock = crew, clock
        self._watching = False
        self._ledger = Ledger()
        self._slack: dict[str, float] = {}
        self._fine_at: dict[str, float] = {}
        self._told_until: dict[str, float] = {}
        self._lock = threading.Lock()
        self._offered: list[EnergySlice] = []
        self._devices: tuple[wire.DeviceRow, ...] = ()
        self._changed = False

    @property
    def devices(self) -> tuple[wire.DeviceRow, ...]:
        """What is measured."""
        return self._devices

    def offer(self, slices: Iterable[EnergySlice]) -> None:
        """What a tick has found, whole-node meters left out."""
        if self._watching:
            with self._lock:
                self._offered = [*self._offered, *slices][-_MOST_SLICES:]

    def know(self, devices: tuple[wire.DeviceRow, ...]) -> None:
        """What is measured now."""
        if devices != self._devices:
            self._devices, self._changed = devices, True

    def watch(self, on: bool) -> None:
        """Whether anybody wants it: nothing is read finely where nobody does."""
        if on == self._watching:
            return
        self._watching = on
        self._crew.watch(on)
        self._crew.take_fine()
        self._ledger, self._slack, self._fine_at, self._told_until = Ledger(), {}, {}, {}
        with self._lock:
            self._offered = []

    def lines(self) -> list[bytes]:
        """All news as lines of the wire; none if there is none."""
        try:
            rows = self._rows()
        except Exception:  # noqa: BLE001 - one bad reading must not end the feed; the log has the traceback
            _log.exception("the news of the devices could not be made")
            return []
        devices: tuple[wire.DeviceRow, ...] = ()
        if self._changed:
            self._changed, devices = False, self._devices
        parts = [tuple(rows[at : at + _ROWS_PER_LINE]) for at in range(0, len(rows), _ROWS_PER_LINE)]
        if devices and not parts:
            parts = [()]
        return [wire.encode(wire.Energy(part, () if number else devices)) for number, part in enumerate(parts)]

    def _rows(self) -> list[wire.SliceRow]:
        rows, now = [], self._clock()
        for reading in self._crew.take_fine():
            rows += self._fine(reading, now)
        with self._lock:
            offered, self._offered = self._offered, []
        for one in offered:
            if now - self._fine_at.get(one.device.name, float("-inf")) > _FINE_SECONDS:
                slack = _COUNTER_SLACK if one.device.period is None else one.device.period
                rows += self._row(one, slack)
        return rows

    def _fine(self, reading: Reading, now: float) -> list[wire.SliceRow]:
        name = reading.device.name
        self._fine_at[name] = now
        before, self._slack[name] = self._slack.get(name, 0.0), reading.slack
        return [row for one in self._ledger.post([reading]) for row in self._row(one, max(before, reading.slack))]

    def _row(self, one: EnergySlice, slack: float) -> list[wire.SliceRow]:
        """The slice, or what of it was not told yet."""
        name = one.device.name
        start = max(one.start, self._told_until.get(name, float("-inf")))
        if start >= one.end or one.device.kind == "node":
            return []
        self._told_until[name] = one.end
        joules = one.joules * (one.end - start) / (one.end - one.start)
        return [wire.SliceRow(name, start, one.end, joules, slack)]


def device_rows(devices: Sequence[Device], qualities: Mapping[str, Quality | None]) -> tuple[wire.DeviceRow, ...]:
    """The devices as the wire has them; whole-node meters are left out."""
    rows = []
    for d in devices:
        if d.kind != "node":
            quality = qualities.get(d.name)
            told = quality.value if quality else ""
            rows.append(
                wire.DeviceRow(d.name, d.kind, d.sensor, d.vendor, d.model, d.uuid, told, d.max_power, d.period)
            )
    return tuple(rows)
