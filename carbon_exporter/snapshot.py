"""The snapshot: one frozen picture of devices, jobs, spans, grid and health, which every publisher reads.

The sampling loop makes a new one each tick and swaps it by one assignment; nobody ever changes one. Totals here are the
ones that the state file already holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from carbon_exporter.carbon.account import DeviceKey, JobKey, JobTotal
from carbon_exporter.carbon.grid import Grid
from carbon_exporter.carbon.runs import RunKey, RunTotal
from carbon_exporter.carbon.spans import SpanKey, SpanTotal
from carbon_exporter.jobs.base import Job, PartitionHolder, ResolverHealth
from carbon_exporter.jobs.roll import JobTold
from carbon_exporter.sensors.base import Device, Quality, Vitals
from carbon_exporter.units import Grams, Joules, Watts

__all__ = ["DeviceState", "NodeState", "SensorHealth", "Snapshot", "StoreHealth", "Today"]


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device that has a meter now."""

    device: Device
    quality: Quality | None
    """How its last energy was got; None before there was any."""
    power: Watts | None
    """Mean over its last interval; None if it gave no news lately."""
    gap_seconds: float
    vitals: Vitals | None = None
    """What it said of itself at this tick; None if nothing."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """A meter of the whole machine: it contains the devices and more, and is in no sum with them."""

    source: str
    method: str
    power: Watts | None
    """Mean over its last interval; None if it gave no news lately."""
    joules: Joules


@dataclass(frozen=True, slots=True)
class SensorHealth:
    """A sensor that was looked for."""

    sensor: str
    state: Literal["active", "covered", "missing", "denied", "failed"]
    devices: tuple[str, ...] = ()
    quality: Quality | None = None
    reason: str = ""
    remedy: str = ""
    seconds: float = 0.0
    """How long its last reading took."""
    last_sample: float | None = None
    """Unix seconds of its last good reading."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """Failed readings by reason."""


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """Whether totals survive a restart."""

    path: str
    state: Literal["ok", "off", "failing"]
    last_write: float | None = None
    """Unix seconds."""
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Today:
    """Since local midnight, restarts included."""

    date: str
    """ISO 8601."""
    joules: Joules
    grams: Grams


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is published."""

    at: float
    """Unix seconds of the sample."""
    started: float
    """Unix seconds at which this process began."""
    interval: float
    """Seconds between samples."""
    samples: int
    """Ticks since the start."""
    grid: Grid
    store: StoreHealth
    today: Today
    devices: tuple[DeviceState, ...] = ()
    nodes: tuple[NodeState, ...] = ()
    partitions: tuple[PartitionHolder, ...] = ()
    device_totals: Mapping[DeviceKey, Joules] = field(default_factory=dict)
    job_totals: Mapping[JobKey, JobTotal] = field(default_factory=dict)
    """Of published jobs and reserved names."""
    job_power: Mapping[JobKey, Watts] = field(default_factory=dict)
    """Mean over the last interval, of those that have a share in it."""
    jobs: Mapping[Job, JobTold] = field(default_factory=dict)
    """What is known of published jobs beside their numbers."""
    running: Mapping[Job, str] = field(default_factory=dict)
    """Jobs that run now, and what named each."""
    jobs_folded: int = 0
    spans: Mapping[SpanKey, SpanTotal] = field(default_factory=dict)
    """What scripts say their parts have used: contained in the jobs, and inclusive of their children."""
    runs: Mapping[RunKey, RunTotal] = field(default_factory=dict)
    """What scripts say their whole runs have used: contained in the jobs, and containing their spans."""
    spans_folded: int = 0
    handoff_peers: int | None = None
    """Scripts that are connected; None where there is no socket for them."""
    handoff_refused: Mapping[str, int] = field(default_factory=dict)
    """Scripts that were turned away, by reason."""
    sensors: tuple[SensorHealth, ...] = ()
    resolvers: tuple[ResolverHealth, ...] = ()
    http_connections: int = 0
    http_refused: Mapping[str, int] = field(default_factory=dict)
    """Requests and connections that the server turned away, by reason."""
    web_config_well: bool | None = None
    """Whether the web configuration was good when it was last read; None without one."""
