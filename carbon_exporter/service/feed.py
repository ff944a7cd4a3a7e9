"""The feed: the devices' energy for scripts, as fine as their meters give it, while anybody watches.

Fine readings are counted in a ledger of their own, on the socket's thread. What has none is told as the ticks find it.
A device's slices never overlap, so that nothing is told twice where it changes from the one to the other.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from carbon_exporter.energy.ledger import EnergySlice, Ledger
from carbon_exporter.errors import SensorError
from carbon_exporter.publish import handoff_wire as wire
from carbon_exporter.sensors.base import Device, Quality, Reading, Sensor
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
_LOAD_SECONDS, _LOAD_SLACK = 0.25, 0.01
"""How often the load is looked at for an estimate, and how coarse its clock is."""


class Feed:
    """One node's. `offer` and `know` are for the sampling thread, the rest is for the socket's."""

    def __init__(
        self,
        crew: Crew,
        clock: Callable[[], float],
        estimate: Callable[[], Sensor] | None = None,
        *,
        coarse: bool = False,
    ) -> None:
        """`clock` gives monotonic seconds; `estimate` makes a model of the machine that nobody else reads.

        `coarse`: of each device one slice for a call of `lines`, so that rarer messages tell no more than they look.
        """
        self._coarse = coarse
        self._crew, self._clock, self._make_estimate = crew, clock, estimate
        self._estimate: Sensor | None = None
        self._estimated = float("-inf")
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
        self._estimate, self._estimated = None, float("-inf")
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
        for reading in (*self._crew.take_fine(), *self._estimates(now)):
            rows += self._fine(reading, now)
        with self._lock:
            offered, self._offered = self._offered, []
        for one in offered:
            if now - self._fine_at.get(one.device.name, float("-inf")) > _FINE_SECONDS:
                slack = _COUNTER_SLACK if one.device.period is None else one.device.period
                rows += self._row(one, slack)
        return _merged(rows) if self._coarse else rows

    def _estimates(self, now: float) -> list[Reading]:
        """Of the devices that are estimated: ticks are too rare for blocks of a second."""
        names = {row.name for row in self._devices if row.sensor == "model"}
        if not names or self._make_estimate is None or now - self._estimated < _LOAD_SECONDS:
            return []
        self._estimated = now
        try:
            self._estimate = self._estimate or self._make_estimate()
            readings = self._estimate.read().readings
        except SensorError:
            return []  # the ticks say what is wrong
        found = [one for one in readings if one.device.name in names and one.power is not None]
        return [dataclasses.replace(one, slack=_LOAD_SLACK) for one in found]

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


def _merged(rows: Iterable[wire.SliceRow]) -> list[wire.SliceRow]:
    """Slices that follow each other without a gap as one."""
    merged: dict[str, list[wire.SliceRow]] = {}
    for row in rows:
        known = merged.setdefault(row.device, [])
        if known and known[-1].end == row.start:
            last = known.pop()
            slack = max(last.slack, row.slack)
            row = wire.SliceRow(row.device, last.start, row.end, last.joules + row.joules, slack)  # noqa: PLW2901
        known.append(row)
    return [row for known in merged.values() for row in known]


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
