"""Told energy: what the exporter says its devices used, kept as it came until somebody wants to reckon with it.

Messages come ten times a second, and to understand each at once costs several times what it costs to understand five
in a row: the processor's caches have forgotten how.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import msgspec

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.publish import handoff_wire as wire
from carbon_exporter.sensors.base import Device, Quality
from carbon_exporter.units import Joules, Watts

__all__ = ["ToldEnergy"]

MOST_WAITING = 256
"""Messages that nobody took; older ones are dropped."""
_BEGINNING = wire.encode(wire.Energy(()))[: len(b'{"type":"energy"')]
"""By which a message of energy is known without being understood."""


class ToldEnergy:
    """`note` is for one thread, `take` for any, one at a time; properties for all."""

    def __init__(self) -> None:
        """No device is known yet."""
        self._waiting: deque[bytes | wire.FromExporter] = deque(maxlen=MOST_WAITING)
        self._devices: Mapping[str, tuple[Device, Quality]] = {}
        self._slacks: dict[str, float] = {}

    @property
    def devices(self) -> tuple[Device, ...]:
        """All devices that the exporter measures, as of the last `take`."""
        return tuple(device for device, _ in self._devices.values())

    def slack(self, device: str) -> float:
        """How far the ends of this device's last slices may be from what its counter meant, in seconds."""
        return self._slacks.get(device, 0.0)

    def know(self, rows: Sequence[wire.DeviceRow]) -> None:
        """All devices anew; the mapping is replaced, for other threads read it."""
        self._devices = {row.name: (_device(row), _quality(row.quality)) for row in rows}

    def note(self, line: bytes) -> bool:
        """Keep a message if it is one of energy; whether it is, as far as its beginning tells."""
        if not line.startswith(_BEGINNING):
            return False
        self._waiting.append(line)
        return True

    def note_understood(self, energy: wire.Energy) -> None:
        """Keep one that could not be told by its beginning."""
        self._waiting.append(energy)

    def take(self, warn: Callable[[str], None]) -> list[EnergySlice]:
        """Energy by the messages since the last time, in their order. `warn` is told of those that make no sense."""
        found: list[EnergySlice] = []
        for message in self._waited():
            try:
                energy = wire.decode_exporter(message) if isinstance(message, bytes) else message
            except msgspec.DecodeError as error:
                warn(f"a message of the exporter is not understood, and left out: {error}")
                continue
            if isinstance(energy, wire.Energy):
                if energy.devices:
                    self.know(energy.devices)
                found += self._slices(energy)
        return found

    def clear(self) -> None:
        """Nobody wants what has come."""
        self._waiting.clear()

    def _waited(self) -> Iterator[bytes | wire.FromExporter]:
        """What is there, the oldest first; more may come meanwhile, and another thread may clear it."""
        with suppress(IndexError):
            while True:
                yield self._waiting.popleft()

    def _slices(self, energy: wire.Energy) -> list[EnergySlice]:
        """Those of devices that are known, and that can be."""
        found = []
        for row in energy.slices:
            known = self._devices.get(row.device)
            if known is not None and row.start < row.end and row.joules >= 0:
                device, quality = known
                found.append(EnergySlice(device, row.start, row.end, Joules(row.joules), quality))
                self._slacks[row.device] = max(row.slack, 0.0)
        return found


def _device(row: wire.DeviceRow) -> Device:
    """The device as the sensors' room has it; a counter's range and the like stay with the exporter."""
    most = None if row.max_power is None else Watts(row.max_power)
    named = (row.name, row.kind, row.sensor, row.vendor, row.model, row.uuid)
    return Device(*named, max_power=most, period=row.period)


def _quality(text: str) -> Quality:
    """How a device's numbers are got; the worst that can be where the exporter's word for it is not known here."""
    try:
        return Quality(text)
    except ValueError:
        return Quality.DEFAULT
