"""The picture: what a tick's facts look like as the parts of a snapshot. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from carbon_exporter.carbon.account import CarbonEntry, JobKey
from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.jobs.base import JobSlice
from carbon_exporter.sensors.base import Device, Quality, Sample
from carbon_exporter.sensors.crew import CrewMember
from carbon_exporter.sensors.registry import Finding
from carbon_exporter.snapshot import DeviceState, NodeState, SensorHealth
from carbon_exporter.units import Joules, Watts, mean_watts

__all__ = ["Draw", "device_states", "draws", "job_power", "node_states", "sensor_health"]


@dataclass(frozen=True, slots=True)
class Draw:
    """What a device drew at its last news: joules in seconds of known energy, until `end` (monotonic seconds)."""

    joules: Joules
    seconds: float
    end: float
    quality: Quality

    @property
    def power(self) -> Watts:
        """The mean."""
        return mean_watts(self.joules, self.seconds)


def draws(slices: Iterable[EnergySlice]) -> dict[str, Draw]:
    """One for each device that gave news at this tick, its slices of the tick together."""
    found: dict[str, Draw] = {}
    for one in slices:
        before = found.get(one.device.name)
        joules, seconds = (before.joules, before.seconds) if before else (0.0, 0.0)
        seconds += one.end - one.start
        found[one.device.name] = Draw(Joules(joules + one.joules), seconds, one.end, one.quality)
    return found


def device_states(
    devices: Iterable[Device], sample: Sample, latest: Mapping[str, Draw], gaps: Mapping[str, float], oldest: float
) -> Iterator[DeviceState]:
    """The devices that have a meter now; a draw that ended before `oldest` (monotonic seconds) is no news any more."""
    quality = {reading.device.name: reading.quality for reading in sample.readings}
    vitals = {one.device: one for one in sample.vitals}
    for device in devices:
        last = latest.get(device.name)
        power = last.power if last and last.end >= oldest else None
        known = last.quality if last else quality.get(device.name)
        yield DeviceState(device, known, power, gaps.get(device.name, 0.0), vitals.get(device.name))


def node_states(
    devices: Sequence[Device], totals: Mapping[str, Joules], latest: Mapping[str, Draw], oldest: float
) -> Iterator[NodeState]:
    """The whole-node meters that there are or were; a total never vanishes."""
    methods = {device.name: device.method for device in devices}
    for source, joules in totals.items():
        last = latest.get(source)
        power = last.power if last and last.end >= oldest else None
        yield NodeState(source, methods.get(source, ""), power, joules)


def job_power(entries: Iterable[CarbonEntry], parts: Iterable[JobSlice]) -> dict[JobKey, Watts]:
    """Each job's share of what its devices drew at this tick. `entries` and `parts` belong together one by one."""
    joules: dict[JobKey, float] = {}
    spans: dict[str, set[tuple[float, float]]] = {}
    last: tuple[Device, float, float] | None = None
    for (key, _, _), (_, device, start, end, used) in zip(entries, parts, strict=True):
        if end > start:
            joules[key] = joules.get(key, 0.0) + used
            if last is None or last[0] is not device or last[1] != start or last[2] != end:  # a slice's parts follow
                last = device, start, end
                spans.setdefault(device.name, set()).add((start, end))
    seconds = {device: math.fsum(end - start for start, end in of) for device, of in spans.items()}
    return {key: mean_watts(Joules(used), seconds[key.device.device]) for key, used in joules.items()}


def sensor_health(members: Iterable[CrewMember], findings: Iterable[Finding]) -> Iterator[SensorHealth]:
    """One for each sensor that was looked for."""
    active = {member.sensor.name: member for member in members}
    for finding in findings:
        member = active.get(finding.sensor)
        if member is None:
            yield SensorHealth(finding.sensor, finding.state, reason=finding.reason, remedy=finding.remedy)
            continue
        trouble = member.trouble
        yield SensorHealth(
            finding.sensor,
            "failed" if trouble else "active",
            tuple(device.name for device in member.devices),
            finding.quality,
            trouble.reason if trouble else "; ".join(part for part in (finding.reason, *member.notes) if part),
            trouble.remedy if trouble else finding.remedy,
            member.seconds,
            member.last_sample,
            member.errors,
        )
