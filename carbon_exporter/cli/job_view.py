"""What `carbon-exporter jobs` shows: facts of jobs as text for people and as plain values. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from carbon_exporter.cli.table import table
from carbon_exporter.jobs.base import IDLE, OVERFLOW, RESERVED, UNATTRIBUTED, Job, PartitionHolder
from carbon_exporter.jobs.roll import JobTold
from carbon_exporter.snapshot import Snapshot
from carbon_exporter.units import Watts

__all__ = ["View", "as_json", "as_text"]

_MEANS = {
    IDLE: "powered, nobody's",
    UNATTRIBUTED: "used, owner unknown",
    OVERFLOW: "jobs beyond jobs.max or series.max, or not to be named (jobs.include, jobs.exclude)",
}
_NOBODY = """\
No job is seen here. Start one with a name of its own:
  CARBON_JOB=name python train.py"""
_UNITS_ONLY = """\
No job here has a name of its own, only units and sessions. To name what you start:
  CARBON_JOB=name python train.py"""
_NOTHING_WATTS = 0.05
"""What is shown as 0.0 W."""
_MOST_NAMES = 8
"""Pods of a job, or quiet units, that are named; --json has them all."""
_SHORTEST_NAME = 12
_UNANSWERED = "has not answered yet: what it knows of jobs is not here"


@dataclass(frozen=True, slots=True)
class View:
    """What there is to be shown."""

    snapshot: Snapshot
    shares: Mapping[str, Mapping[Job, Watts]]
    """Power of each job by device."""
    unanswered: tuple[str, ...] = ()
    """Directories outside that have said nothing yet."""
    notes: tuple[str, ...] = ()
    """Warnings of the start."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A job, or a reserved name."""

    job: Job
    power: Watts | None
    """None if no device's power is known."""
    devices: Mapping[str, Watts]
    slices: tuple[PartitionHolder, ...] = ()
    told: JobTold = JobTold()  # noqa: RUF009 - frozen
    runs: bool = True

    @property
    def draws_nothing(self) -> bool:
        """Whether it is known to."""
        return self.power is not None and self.power < _NOTHING_WATTS


def as_text(view: View, width: int) -> str:
    """A row for each job, the most powerful first; reserved names and the sum; what could not be read."""
    jobs = _jobs(view)
    busy = [row for row in jobs if row.told.rules != ("unit",) or not row.draws_nothing]
    quiet = [row for row in jobs if row not in busy]
    cells = [(_name(row.job), _watts(row.power), "".join(row.told.rules[:1]), _details(row)) for row in busy]
    if quiet:
        named = _some_of([_name(row.job) for row in quiet])
        cells.append((f"({len(quiet)} more)", _watts(quiet[0].power), "unit", (named,)))
    cells += [(row.job.name, _watts(row.power), "", _details(row)) for row in _reserved(view)]
    cells.append(("all", _watts(_total(view.snapshot)), "", (_sources(view.snapshot),)))
    parts = [_table(cells, width)]
    if not {rule for row in jobs for rule in row.told.rules} - {"unit"}:
        parts.insert(0, _UNITS_ONLY if jobs else _NOBODY)
    troubles = [(name, "\n".join(lines)) for name, lines in _troubles(view)]
    if troubles:
        parts.append(table(("NOT SEEN", "WHY, AND WHAT WOULD MEND IT"), troubles, width))
    return "\n\n".join(parts)


def as_json(view: View, node: str) -> dict[str, Any]:
    """The same as plain values, named as in the status: time in Unix seconds, power in W, null where not known."""
    snapshot = view.snapshot
    return {
        "node": node,
        "time": snapshot.at,
        "power_watts": _total(snapshot),
        "jobs": [_job_values(row) for row in _jobs(view)],
        "reserved": [
            {"job_name": row.job.name, "means": _MEANS[row.job], **_power_values(row)} for row in _reserved(view)
        ],
        "devices": [
            {
                "device": state.device.name,
                "kind": state.device.kind,
                "sensor": state.device.sensor,
                "quality": state.quality.value if state.quality else None,
                "power_watts": state.power,
            }
            for state in snapshot.devices
        ],
        "resolvers": [
            {"resolver": one.resolver, "success": one.success, "reason": one.reason, "remedy": one.remedy}
            for one in snapshot.resolvers
        ],
        "sensors": [
            {"sensor": one.sensor, "state": one.state, "reason": one.reason, "remedy": one.remedy}
            for one in snapshot.sensors
        ],
        "unanswered": list(view.unanswered),
        "notes": list(view.notes),
    }


def _job_values(row: _Row) -> dict[str, Any]:
    info = row.told.info
    return {
        "job_name": row.job.name,
        "job_namespace": row.job.namespace,
        "running": row.runs,
        **_power_values(row),
        "slices": [{"device": one.device, "slice": one.slice, "profile": one.profile} for one in row.slices],
        "rules": list(row.told.rules),
        "why": row.told.why,
        "job_id": info.job_id,
        "scheduler": info.scheduler,
        "queue": info.queue,
        "user": info.user,
        "members": [{"pod": pod, "container": container} for pod, container in row.told.members],
    }


def _power_values(row: _Row) -> dict[str, Any]:
    devices = [{"device": device, "power_watts": watts} for device, watts in row.devices.items()]
    return {"power_watts": row.power, "devices": devices}


def _jobs(view: View) -> list[_Row]:
    """Those that run, and those that have just ended but drew something, the most powerful first."""
    drew = {job for jobs in view.shares.values() for job, watts in jobs.items() if watts > 0}
    rows = [_row(view, job) for job in (drew | view.snapshot.running.keys()) - RESERVED]
    return sorted(rows, key=lambda row: (-(row.power or 0.0), row.job.namespace, row.job.name))


def _reserved(view: View) -> list[_Row]:
    """`_overflow_` only if there is some."""
    rows = [_row(view, job) for job in (IDLE, UNATTRIBUTED, OVERFLOW)]
    return [row for row in rows if row.devices or row.job in view.snapshot.running or row.job != OVERFLOW]


def _row(view: View, job: Job) -> _Row:
    snapshot = view.snapshot
    devices = {device: jobs[job] for device, jobs in view.shares.items() if job in jobs}
    power = Watts(math.fsum(devices.values())) if view.shares else None
    slices = tuple(one for one in snapshot.partitions if one.job == job)
    return _Row(job, power, devices, slices, snapshot.jobs.get(job, JobTold()), job in snapshot.running)


def _total(snapshot: Snapshot) -> Watts | None:
    known = [state.power for state in snapshot.devices if state.power is not None]
    return Watts(math.fsum(known)) if known else None


def _name(job: Job) -> str:
    return f"{job.namespace}/{job.name}" if job.namespace else job.name


def _details(row: _Row) -> tuple[str, ...]:
    if row.job in _MEANS:
        return _MEANS[row.job], _devices(row)
    return _devices(row), _said(row), _members(row.told.members)


def _devices(row: _Row) -> str:
    """`gpu0 412.0 W, gpu4 100.3 W (gi1 1g.10gb), cpu0 12.1 W`, without those of which it uses next to nothing."""
    held: dict[str, list[str]] = {}
    for one in row.slices:
        held.setdefault(one.device, []).append(f"{one.slice} {one.profile}".rstrip())
    shown = [device for device, watts in row.devices.items() if watts >= _NOTHING_WATTS or device in held]
    return ", ".join(
        f"{device} {_watts(row.devices.get(device))}{_in_brackets(held.get(device, ()))}"
        for device in [*shown, *(device for device in held if device not in row.devices)]
    )


def _said(row: _Row) -> str:
    info = row.told.info
    facts = (
        ("", row.told.why),
        ("parts by ", " and ".join(row.told.rules[1:])),
        ("", info.scheduler),
        ("queue ", info.queue),
        ("id ", info.job_id),
        ("user ", info.user),
        ("", "" if row.runs else "has just ended"),
    )
    return ", ".join(f"{label}{value}" for label, value in facts if value)


def _members(members: Collection[tuple[str, str]]) -> str:
    """`pods: a (main, sidecar), b (main)`."""
    pods: dict[str, list[str]] = {}
    for pod, container in members:
        containers = pods.setdefault(pod, [])
        if container:
            containers.append(container)
    names = [f"{pod}{_in_brackets(containers)}" for pod, containers in pods.items()]
    return f"pods: {_some_of(names)}" if names else ""


def _some_of(names: Sequence[str]) -> str:
    """The first ones, and how many there are beside them."""
    more = [f"and {len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return ", ".join([*names[:_MOST_NAMES], *more])


def _in_brackets(words: Iterable[str]) -> str:
    text = ", ".join(words)
    return f" ({text})" if text else ""


def _sources(snapshot: Snapshot) -> str:
    """Where the watts come from."""
    told = [
        f"{state.device.name} {_watts(state.power)}{f' {state.quality.value}' if state.quality else ''}"
        for state in snapshot.devices
    ]
    return ", ".join(told) or "no device has a meter or an estimate"


def _troubles(view: View) -> Iterator[tuple[str, list[str]]]:
    """What could not be read: who tried, and in lines why and the remedy."""
    for health in view.snapshot.resolvers:
        if health.reason or not health.success:
            yield health.resolver, _lines(health.reason, health.remedy)
    for name in view.unanswered:
        if not any(health.resolver == name and health.reason for health in view.snapshot.resolvers):
            yield name, [_UNANSWERED]
    for note in view.notes:
        who, _, what = note.partition(": ")
        yield (who, [what]) if what else ("", [note])
    for sensor in view.snapshot.sensors:
        if sensor.state in {"denied", "failed"}:
            yield sensor.sensor, _lines(sensor.reason, sensor.remedy)


def _lines(reason: str, remedy: str) -> list[str]:
    return [reason, *([f"→ {remedy}"] if remedy else [])]


def _watts(watts: float | None) -> str:
    return "-" if watts is None else f"{watts:,.1f} W"


def _table(cells: Sequence[tuple[str, str, str, Sequence[str]]], width: int) -> str:
    """Details stand in one line where they fit; a name that would leave little room for them has a line of its own."""
    longest = max(_SHORTEST_NAME, width // 4)
    names = max(len("JOB"), *(len(name) for name, _, _, _ in cells if len(name) <= longest))
    digits = max(len("POWER"), *(len(power) for _, power, _, _ in cells))
    rules = max(len("RULE"), *(len(rule) for _, _, rule, _ in cells))
    header = (f"{'JOB':<{names}}", f"{'POWER':>{digits}}", f"{'RULE':<{rules}}", "DETAILS")
    room = width - names - digits - rules - 3 * len("  ")
    lines = [table(header, (), width)]
    for name, power, rule, details in cells:
        told = [part for part in details if part]
        line = "; ".join(told)
        apart = len(name) > longest
        row = ("" if apart else name, f"{power:>{digits}}", rule, line if len(line) <= room else "\n".join(told))
        lines += [name] if apart else []
        lines += table(header, (row,), width).split("\n")[1:]
    return "\n".join(lines)
