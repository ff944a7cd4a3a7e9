"""Which sensors there are, and which of them this machine has.

To add one: write `carbon_exporter/sensors/NAME.py` with `probe(host, covered)`, and give it a line in `SENSORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Literal, cast

from carbon_exporter.errors import SensorPermission, SensorUnavailable
from carbon_exporter.sensors.base import Device, Host, Kind, Quality, Sensor

__all__ = ["SENSORS", "Entry", "Finding", "Probe", "State", "discover"]

Probe = Callable[[Host, frozenset[Kind]], Sensor]
"""Makes a sensor of what the host has beside the kinds that are covered, or raises a `SensorError`."""

State = Literal["active", "covered", "missing", "denied", "failed"]
"""active: reads; covered: better ones do; missing: no such hardware; denied: see the remedy; failed: see the reason."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table."""

    name: str
    """The value of the `sensor` label."""
    module: str
    """Where its `probe` is; loaded only when it is asked."""
    fills: frozenset[Kind] = frozenset()
    """For an estimate: the kinds it stands in for. It is not asked where better sensors cover all of them."""


SENSORS: tuple[Entry, ...] = (
    Entry("nvidia", "carbon_exporter.sensors.nvidia"),
    Entry("amd", "carbon_exporter.sensors.amd"),
    Entry("intel_gpu", "carbon_exporter.sensors.intel_gpu"),
    Entry("rapl", "carbon_exporter.sensors.rapl"),
    Entry("cray", "carbon_exporter.sensors.cray"),
    Entry("hwmon", "carbon_exporter.sensors.hwmon"),
    Entry("redfish", "carbon_exporter.sensors.redfish"),
    Entry("ipmi", "carbon_exporter.sensors.ipmi"),
    Entry("model", "carbon_exporter.sensors.model", fills=frozenset({"cpu", "dram"})),
)
"""In order of trust: what an earlier one covers, a later one leaves alone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of looking for one sensor."""

    sensor: str
    state: State
    devices: tuple[Device, ...] = ()
    quality: Quality | None = None
    """The worst of an active sensor's devices; None if it cannot tell before its first reading."""
    reason: str = ""
    remedy: str = ""


def discover(
    host: Host, table: Sequence[Entry] = SENSORS, known: Mapping[str, Sensor] = MappingProxyType({})
) -> tuple[tuple[Sensor, ...], tuple[Finding, ...]]:
    """The sensors that work on this machine, and a finding for each entry. Nothing a probe raises escapes.

    `known` ones, by name, work already and are not probed again, so that a later call finds what has come since. An
    estimate is made anew if what it has to stand in for has changed.
    """
    sensors: list[Sensor] = []
    findings: list[Finding] = []
    covered: frozenset[Kind] = frozenset()
    for entry in table:
        if entry.fills and entry.fills <= covered:
            findings.append(
                Finding(entry.name, "covered", reason=f"measured already: {', '.join(sorted(entry.fills))}")
            )
            continue
        sensor, finding = _ask(entry, host, covered, _still_right(known.get(entry.name), entry, covered))
        findings.append(finding)
        if sensor is not None:
            sensors.append(sensor)
            covered |= sensor.covers | {device.kind for device in finding.devices}
    return tuple(sensors), tuple(findings)


def _still_right(known: Sensor | None, entry: Entry, covered: frozenset[Kind]) -> Sensor | None:
    """A known sensor, unless it is an estimate of something else than what is now missing."""
    if known is None or not entry.fills:
        return known
    return known if {device.kind for device in known.devices} == entry.fills - covered else None


def _ask(entry: Entry, host: Host, covered: frozenset[Kind], known: Sensor | None) -> tuple[Sensor | None, Finding]:
    name = entry.name
    try:
        sensor = known or cast("Probe", import_module(entry.module).probe)(host, covered)
        below = (device for member in sensor.members for device in member.devices)
        return sensor, Finding(name, "active", (*sensor.devices, *below), sensor.quality)
    except SensorUnavailable as error:
        return None, Finding(name, "missing", reason=error.reason, remedy=error.remedy)
    except SensorPermission as error:
        return None, Finding(name, "denied", reason=error.reason, remedy=error.remedy)
    except Exception as error:  # noqa: BLE001 - a vendor's library may raise anything, and the others are still wanted
        reason = f"{type(error).__name__}: {getattr(error, 'reason', error)}"
        return None, Finding(name, "failed", reason=reason, remedy=getattr(error, "remedy", ""))
