"""The form of a recording: a file of JSON lines that holds what meters said, read here and checked line by line.

The first line names the devices, each other what they said at one moment:

    {"carbon_exporter_recording": 1, "devices": [{"name": "cpu0", "kind": "cpu", "counter_range": 262143.3}]}
    {"t": 0.0, "readings": [{"device": "cpu0", "quality": "measured", "energy": 17.5}]}

Times are seconds from the start, `energy` is the raw counter in joules (wraps and all), `power` is in watts. A record
may name all devices anew from then on, hold vitals and failures, and give a reading a time `t` of its own. A recording
that says its `interval` is played record by record; of one without it, only the newest record counts at each look.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from carbon_exporter.errors import ConfigError
from carbon_exporter.sensors.base import Device, Kind, Quality
from carbon_exporter.units import Joules, Watts

__all__ = [
    "DeviceRow",
    "FailureRow",
    "Header",
    "Moment",
    "ReadingRow",
    "Record",
    "Recording",
    "VitalsRow",
    "load_recording",
]

SHOWN = 80
"""Characters of a faulty line that an error repeats."""


class DeviceRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A device, as `Device` has it; `sensor` is what once measured it."""

    name: str
    kind: Kind
    sensor: str = ""
    vendor: str = ""
    model: str = ""
    uuid: str = ""
    counter_range: float | None = None
    max_power: float | None = None
    method: str = ""
    bound: str = ""
    period: float | None = None


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The first line. `interval` is the time between two records, `version` that of the program which wrote it."""

    carbon_exporter_recording: Literal[1]
    devices: tuple[DeviceRow, ...]
    interval: float | None = None
    version: str = ""


class ReadingRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A reading, as `Reading` has it; without `t` it was taken at its record's time."""

    device: str
    quality: Quality
    energy: float | None = None
    power: float | None = None
    since: float | None = None
    uncertainty: float | None = None
    t: float | None = None


class VitalsRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a device said of itself, as `Vitals` has it."""

    device: str
    power_limit: float | None = None
    utilization: float | None = None
    memory_used: int | None = None
    temperature: float | None = None
    divergence: float | None = None


class FailureRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Something that could not be read; without a device a whole source."""

    reason: str
    device: str = ""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One look at all meters. `devices` are all that are measured from now on; None if they are the same as before."""

    t: float
    devices: tuple[DeviceRow, ...] | None = None
    readings: tuple[ReadingRow, ...] = ()
    vitals: tuple[VitalsRow, ...] = ()
    failures: tuple[FailureRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Moment:
    """A record and the devices, by name, that it speaks of."""

    record: Record
    devices: Mapping[str, Device]


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording that can be played: it has at least one moment, and their times rise."""

    devices: tuple[Device, ...]
    """As its first line names them."""
    moments: tuple[Moment, ...]
    interval: float | None = None


_Row = TypeVar("_Row", Header, Record)
_Numbers = Iterable[tuple[str, float | None]]


def load_recording(path: Path) -> Recording:
    """Read a whole recording. Raises `ConfigError` with the file, and the line where it is one line's fault."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        accepted = f"a recording that can be read ({error.strerror})"
        raise ConfigError(str(path), "recording", str(path), accepted) from error
    numbered = [(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise ConfigError(str(path), "recording", "", 'a first line {"carbon_exporter_recording": 1, "devices": [...]}')
    where, line = numbered[0]
    header = _decode(line, Header, where)
    _require_above_0(where, [("interval", header.interval)])
    first = devices = _checked_devices(header.devices, where)
    moments: list[Moment] = []
    for where, line in numbered[1:]:
        record = _decode(line, Record, where)
        if record.devices is not None:
            devices = _checked_devices(record.devices, where)
        _check_record(record, moments[-1].record.t if moments else None, devices, where)
        moments.append(Moment(record, devices))
    if not moments:
        raise ConfigError(str(path), "recording", "", 'at least one line {"t": 0.0, "readings": [...]}')
    return Recording(tuple(first.values()), tuple(moments), header.interval)


def _decode(line: bytes, row: type[_Row], where: str) -> _Row:
    try:
        return msgspec.json.decode(line, type=row)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        shown = line[:SHOWN].decode("utf-8", "replace")
        raise ConfigError(where, "line", shown, f"one JSON object by the recording's schema ({error})") from error


def _checked_devices(rows: Iterable[DeviceRow], where: str) -> dict[str, Device]:
    devices: dict[str, Device] = {}
    for row in rows:
        if not row.name or row.name in devices:
            raise ConfigError(where, "name", row.name, "a name that no other device has")
        numbers = (("counter_range", row.counter_range), ("max_power", row.max_power), ("period", row.period))
        _require_above_0(where, numbers)
        devices[row.name] = _device(row)
    return devices


def _check_record(record: Record, previous: float | None, devices: Mapping[str, Device], where: str) -> None:
    if not (0 if previous is None else math.nextafter(previous, math.inf)) <= record.t < math.inf:
        raise ConfigError(where, "t", record.t, "seconds from the start, later than the line before")
    at_its_time: set[str] = set()
    for row in record.readings:
        if row.device not in devices or (row.t is None and row.device in at_its_time):
            accepted = f"each at most once of: {', '.join(devices)}; more with a t of their own"
            raise ConfigError(where, "device", row.device, accepted)
        if row.t is None:
            at_its_time.add(row.device)
        _check_reading(row, record.t, where)
    for vitals in record.vitals:
        _require_known(where, vitals.device, devices)
        _check_vitals(vitals, where)
    for failure in record.failures:
        if failure.device:
            _require_known(where, failure.device, devices)


def _check_reading(row: ReadingRow, t: float, where: str) -> None:
    at = t if row.t is None else row.t
    if not -math.inf < at <= t:
        raise ConfigError(where, "t", row.t, "a time not after its record's")
    if row.energy is not None and row.power is not None:
        raise ConfigError(where, "power", row.power, "either energy or power")
    _require_0_or_more(where, [("energy", row.energy), ("power", row.power), ("uncertainty", row.uncertainty)])
    if row.since is not None and (row.power is None or not -math.inf < row.since < at):
        raise ConfigError(where, "since", row.since, "with power, a time before t")


def _check_vitals(row: VitalsRow, where: str) -> None:
    numbers = (("power_limit", row.power_limit), ("utilization", row.utilization), ("memory_used", row.memory_used))
    _require_0_or_more(where, numbers)
    for key, number in (("temperature", row.temperature), ("divergence", row.divergence)):
        if number is not None and not math.isfinite(number):
            raise ConfigError(where, key, number, "a number")


def _require_known(where: str, device: str, devices: Iterable[str]) -> None:
    if device not in devices:
        raise ConfigError(where, "device", device, f"one of: {', '.join(devices)}")


def _require_above_0(where: str, numbers: _Numbers) -> None:
    for key, number in numbers:
        if number is not None and not 0 < number < math.inf:
            raise ConfigError(where, key, number, "a number above 0, or none")


def _require_0_or_more(where: str, numbers: _Numbers) -> None:
    for key, number in numbers:
        if number is not None and not 0 <= number < math.inf:
            raise ConfigError(where, key, number, "a number of 0 or more")


def _device(row: DeviceRow) -> Device:
    """The device that a replay shows: its sensor is `replay`, and its method tells what once measured it."""
    recorded = f"recorded by {row.sensor}" if row.sensor else "recorded"
    return Device(
        name=row.name,
        kind=row.kind,
        sensor="replay",
        vendor=row.vendor,
        model=row.model,
        uuid=row.uuid,
        counter_range=None if row.counter_range is None else Joules(row.counter_range),
        max_power=None if row.max_power is None else Watts(row.max_power),
        method=f"{recorded}: {row.method}" if row.method else recorded,
        bound=row.bound,
        period=row.period,
    )
