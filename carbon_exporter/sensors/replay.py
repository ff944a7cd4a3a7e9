"""Plays a recording of readings: for tests, demonstrations, and questions about a machine that is not at hand.

A recording is a file of JSON lines. The first names the devices, each other what they said at one moment:

    {"carbon_exporter_recording": 1, "devices": [{"name": "cpu0", "kind": "cpu", "counter_range": 262143.3}]}
    {"t": 0.0, "readings": [{"device": "cpu0", "quality": "measured", "energy": 17.5}]}

`t` and `since` are seconds from the start, `energy` is the raw counter in joules (wraps and all), `power` is in watts.
What writes a recording stands here too, so that both sides keep to one schema.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

import msgspec

from carbon_exporter.errors import ConfigError, SensorReadError
from carbon_exporter.sensors.base import Device, Kind, Quality, Reading, Sample
from carbon_exporter.units import Joules, Watts

__all__ = ["Replay", "recording_lines", "write_recording"]

SHOWN = 80
"""Characters of a faulty line that an error repeats."""


class _DeviceRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    kind: Kind
    vendor: str = ""
    model: str = ""
    uuid: str = ""
    counter_range: float | None = None
    max_power: float | None = None
    method: str = ""


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    carbon_exporter_recording: Literal[1]
    devices: tuple[_DeviceRow, ...]


class _ReadingRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    device: str
    quality: Quality
    energy: float | None = None
    power: float | None = None
    since: float | None = None


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    t: float
    readings: tuple[_ReadingRow, ...]


_Row = TypeVar("_Row", _Header, _Record)


class Replay:
    """The sensor. Time starts with the first read."""

    name = "replay"

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """Read the whole recording. Raises `ConfigError` with file and line."""
        self._path = path
        self._clock = clock
        self._devices, self._records = _load(path)
        self._times = tuple(record.t for record in self._records)
        self._start: float | None = None

    @property
    def devices(self) -> tuple[Device, ...]:
        """As the recording names them; their sensor is `replay`, whatever once measured them."""
        return tuple(self._devices.values())

    def read(self) -> Sample:
        """The newest record up to now, nothing before the first. Raises `SensorReadError` when the recording has ended.

        It ends one step, the time between the last two records, after the last; one of a single record with that.
        """
        now = self._clock()
        start = self._start = now if self._start is None else self._start
        times = self._times
        step = times[-1] - times[-2] if len(times) > 1 else 0.0
        if now - start > times[-1] + step:
            raise SensorReadError(f"the recording has ended: {self._path} is {times[-1]:g} s long")
        index = bisect_right(times, now - start)
        return self._sample(self._records[index - 1], start) if index else Sample(())

    def close(self) -> None:
        """The file is long closed."""

    def _sample(self, record: _Record, start: float) -> Sample:
        return Sample(tuple(_reading(row, self._devices[row.device], record.t, start) for row in record.readings))


def recording_lines(devices: Iterable[Device], samples: Iterable[Sample]) -> Iterator[bytes]:
    """The lines of a recording, one by one, each with its newline; time starts with the first reading.

    Samples come in the order of time. One without readings leaves no line; the readings of one share a line, and
    so the newest of their times.
    """
    rows = tuple(_device_row(device) for device in devices)
    yield msgspec.json.encode(_Header(1, rows)) + b"\n"
    start: float | None = None
    for sample in samples:
        if sample.readings:
            at = max(reading.at for reading in sample.readings)
            start = at if start is None else start
            yield msgspec.json.encode(_record(sample, at, start)) + b"\n"


def write_recording(path: Path, devices: Iterable[Device], samples: Iterable[Sample]) -> None:
    """Write `recording_lines` to a file. Raises `OSError`."""
    with path.open("wb") as file:
        file.writelines(recording_lines(devices, samples))


def _load(path: Path) -> tuple[dict[str, Device], tuple[_Record, ...]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        accepted = f"a recording that can be read ({error.strerror})"
        raise ConfigError(str(path), "recording", str(path), accepted) from error
    numbered = [(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise ConfigError(str(path), "recording", "", 'a first line {"carbon_exporter_recording": 1, "devices": [...]}')
    devices = _checked_devices(*numbered[0])
    records: list[_Record] = []
    for where, line in numbered[1:]:
        record = _decode(line, _Record, where)
        _check_record(record, records[-1].t if records else None, devices, where)
        records.append(record)
    if not records:
        raise ConfigError(str(path), "recording", "", 'at least one line {"t": 0.0, "readings": [...]}')
    return devices, tuple(records)


def _decode(line: bytes, row: type[_Row], where: str) -> _Row:
    try:
        return msgspec.json.decode(line, type=row)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        shown = line[:SHOWN].decode("utf-8", "replace")
        raise ConfigError(where, "line", shown, f"one JSON object by the recording's schema ({error})") from error


def _checked_devices(where: str, line: bytes) -> dict[str, Device]:
    devices: dict[str, Device] = {}
    for row in _decode(line, _Header, where).devices:
        if not row.name or row.name in devices:
            raise ConfigError(where, "name", row.name, "a name that no other device has")
        for key, number in (("counter_range", row.counter_range), ("max_power", row.max_power)):
            if number is not None and not 0 < number < math.inf:
                raise ConfigError(where, key, number, "a number above 0, or none")
        devices[row.name] = _device(row)
    return devices


def _check_record(record: _Record, previous: float | None, devices: dict[str, Device], where: str) -> None:
    def refuse(key: str, value: object, accepted: str) -> NoReturn:
        raise ConfigError(where, key, value, accepted)

    if not (0 if previous is None else math.nextafter(previous, math.inf)) <= record.t < math.inf:
        refuse("t", record.t, "seconds from the start, later than the line before")
    seen: set[str] = set()
    for row in record.readings:
        if row.device not in devices or row.device in seen:
            refuse("device", row.device, f"each at most once of: {', '.join(devices)}")
        seen.add(row.device)
        if row.energy is not None and row.power is not None:
            refuse("power", row.power, "either energy or power")
        for key, number in (("energy", row.energy), ("power", row.power)):
            if number is not None and not 0 <= number < math.inf:
                refuse(key, number, "a number of 0 or more")
        if row.since is not None and (row.power is None or not -math.inf < row.since < record.t):
            refuse("since", row.since, "with power, a time before t")


def _device(row: _DeviceRow) -> Device:
    return Device(
        name=row.name,
        kind=row.kind,
        sensor="replay",
        vendor=row.vendor,
        model=row.model,
        uuid=row.uuid,
        counter_range=None if row.counter_range is None else Joules(row.counter_range),
        max_power=None if row.max_power is None else Watts(row.max_power),
        method=f"recorded: {row.method}" if row.method else "recorded",
    )


def _device_row(device: Device) -> _DeviceRow:
    method = device.method.removeprefix("recorded").removeprefix(": ") if device.sensor == "replay" else device.method
    return _DeviceRow(
        device.name,
        device.kind,
        device.vendor,
        device.model,
        device.uuid,
        device.counter_range,
        device.max_power,
        method,
    )


def _reading(row: _ReadingRow, device: Device, t: float, start: float) -> Reading:
    return Reading(
        device=device,
        at=start + t,
        quality=row.quality,
        energy=None if row.energy is None else Joules(row.energy),
        power=None if row.power is None else Watts(row.power),
        since=None if row.since is None else start + row.since,
    )


def _record(sample: Sample, at: float, start: float) -> _Record:
    return _Record(
        at - start,
        tuple(
            _ReadingRow(
                reading.device.name,
                reading.quality,
                reading.energy,
                reading.power,
                None if reading.since is None else reading.since - start,
            )
            for reading in sample.readings
        ),
    )
