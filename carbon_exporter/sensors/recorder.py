"""Writes recordings: the lines that `recording` reads, one for each look at all meters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from carbon_exporter import __version__
from carbon_exporter.errors import SensorError, SensorReadError
from carbon_exporter.sensors.base import Device, Reading, Sample, Vitals
from carbon_exporter.sensors.recording import DeviceRow, FailureRow, Header, ReadingRow, Record, VitalsRow

__all__ = ["Recorder", "recording_lines", "write_recording"]

_RECORDED = re.compile(r"recorded(?: by ([^\s:]+))?(?:: )?(.*)", re.DOTALL)
"""How a replay spells the method of a device: by whom, and how."""


class Recorder:
    """Makes the lines of one recording, each with its newline. The header comes first."""

    def __init__(self, interval: float | None = None, redact: Callable[[str], str] | None = None) -> None:
        """`interval` is the seconds between two records.

        With `redact` no serial number is written, and names, methods and reasons are written as it gives them back.
        """
        self._interval = interval
        self._redact = redact
        self._start: float | None = None
        self._t = -math.inf
        self._devices: dict[str, Device] = {}
        self._names: dict[str, str] = {}
        self._meters: dict[str, list[tuple[str, str]]] = {}

    def header(self, devices: Iterable[Device]) -> bytes:
        """The first line, with the devices that are known so far."""
        self._devices = _by_name(devices)
        version = "" if self._interval is None else __version__
        return _line(Header(1, self._rows(), self._interval, version))

    def record(
        self, at: float, devices: Iterable[Device], sample: Sample, troubles: Iterable[SensorError] = ()
    ) -> bytes:
        """One look at `at` (monotonic seconds, rising): `devices` are measured now, `sample` is what they said.

        `troubles` are of whole sources. Of two meters of one name only the first is recorded. A value that no meter
        can have is left out, so that its reading is only a mark.
        """
        start = self._start = at if self._start is None else self._start
        self._t = max(at - start, math.nextafter(self._t, math.inf))
        wanted = _by_name([*devices, *(reading.device for reading in sample.readings)])
        changed, self._devices = wanted != self._devices, wanted
        readings = [
            reading for reading in sample.readings if _meter(reading.device) == _meter(wanted[reading.device.name])
        ]
        return _line(
            Record(
                self._t,
                self._rows() if changed else None,
                tuple(self._reading_rows(readings, start)),
                tuple(self._vitals_row(vitals) for vitals in sample.vitals if vitals.device in wanted),
                tuple(self._failure_row(error) for error in (*sample.failures, *troubles)),
            )
        )

    def _rows(self) -> tuple[DeviceRow, ...]:
        return tuple(self._device_row(device) for device in self._devices.values())

    def _device_row(self, device: Device) -> DeviceRow:
        sensor, method = device.sensor, device.method
        known = _RECORDED.fullmatch(method) if sensor == "replay" else None
        if known is not None:
            sensor, method = known[1] or "", known[2]
        return DeviceRow(
            name=self._name(device.name),
            kind=device.kind,
            sensor=sensor,
            vendor=_text(device.vendor),
            model=_text(device.model),
            uuid=self._identity(device),
            counter_range=_above_0(device.counter_range),
            max_power=_above_0(device.max_power),
            method=self._redacted(method),
            bound=self._redacted(device.bound),
            period=_above_0(device.period),
        )

    def _reading_rows(self, readings: Iterable[Reading], start: float) -> Iterator[ReadingRow]:
        """A reading has a time of its own if it is not the record's, or not its device's first at that time."""
        at_its_time: set[str] = set()
        for reading in readings:
            name, t = self._name(reading.device.name), min(reading.at - start, self._t)
            own = t != self._t or name in at_its_time
            at_its_time.add(name)
            energy = _0_or_more(reading.energy)
            power = _0_or_more(reading.power) if reading.energy is None else None
            since = None if power is None or reading.since is None else reading.since - start
            if since is not None and reading.since is not None and reading.since >= reading.at:
                power = since = None
            elif since is not None:
                since = min(since, math.nextafter(t, -math.inf))
            uncertainty = _0_or_more(reading.uncertainty) or None
            yield ReadingRow(name, reading.quality, energy, power, since, uncertainty, t if own else None)

    def _vitals_row(self, vitals: Vitals) -> VitalsRow:
        memory = vitals.memory_used
        return VitalsRow(
            self._name(vitals.device),
            _0_or_more(vitals.power_limit),
            _0_or_more(vitals.utilization),
            memory if memory is not None and memory >= 0 else None,
            _finite(vitals.temperature),
            _finite(vitals.divergence),
        )

    def _failure_row(self, error: SensorError) -> FailureRow:
        device = error.device if isinstance(error, SensorReadError) else ""
        return FailureRow(self._redacted(error.reason), self._name(device) if device in self._devices else "")

    def _name(self, name: str) -> str:
        """A device's name as the recording has it: redacted, and still no other's."""
        known = self._names.get(name)
        if known is None:
            known = self._redacted(name)
            taken = set(self._names.values())
            if known in taken:
                known = next(other for n in range(2, len(taken) + 3) if (other := f"{known} {n}") not in taken)
            self._names[name] = known
        return known

    def _identity(self, device: Device) -> str:
        """The serial number, if those are written, and what tells a meter from one that had the same name before."""
        meters = self._meters.setdefault(device.name, [])
        if _meter(device) not in meters:
            meters.append(_meter(device))
        number = meters.index(_meter(device)) + 1
        written = "" if self._redact else _text(device.uuid)
        return written if number == 1 else f"{written} meter {number}".strip()

    def _redacted(self, text: str) -> str:
        return _text(self._redact(text) if self._redact else text)


def recording_lines(devices: Iterable[Device], samples: Iterable[Sample]) -> Iterator[bytes]:
    """The lines of a recording that is played by its newest record, as one is made for demonstrations.

    Samples come in the order of time, which starts with the first reading. One without readings leaves no line.
    """
    recorder, fixed = Recorder(), tuple(devices)
    yield recorder.header(fixed)
    for sample in samples:
        if sample.readings:
            yield recorder.record(max(reading.at for reading in sample.readings), fixed, sample)


def write_recording(path: Path, devices: Iterable[Device], samples: Iterable[Sample]) -> None:
    """Write `recording_lines` to a file. Raises `OSError`."""
    with path.open("wb") as file:
        file.writelines(recording_lines(devices, samples))


def _line(row: Header | Record) -> bytes:
    return msgspec.json.encode(row) + b"\n"


def _by_name(devices: Iterable[Device]) -> dict[str, Device]:
    """The first of each name."""
    named: dict[str, Device] = {}
    for device in devices:
        named.setdefault(device.name, device)
    return named


def _meter(device: Device) -> tuple[str, str]:
    """What tells one meter from another."""
    return device.sensor, device.uuid


def _text(text: str) -> str:
    """Text that JSON can hold: what the kernel gave as bytes that are no UTF-8 becomes question marks."""
    return text.encode("utf-8", "replace").decode()


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _0_or_more(number: float | None) -> float | None:
    return number if number is not None and 0 <= number < math.inf else None


def _above_0(number: float | None) -> float | None:
    return number if number is not None and 0 < number < math.inf else None
