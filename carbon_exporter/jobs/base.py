"""The door of the jobs room: what a job is, what it used, and which boards it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from carbon_exporter.sensors.base import Device
from carbon_exporter.units import Joules

__all__ = [
    "IDLE",
    "OVERFLOW",
    "RESERVED",
    "UNATTRIBUTED",
    "Activity",
    "Allocation",
    "Holding",
    "IdlePolicy",
    "Job",
    "JobSlice",
    "PartitionHolder",
    "ResolverHealth",
    "Usage",
    "clean_name",
]

IdlePolicy = Literal["separate", "shared", "reserved"]
"""separate: idle is `_idle_`'s; shared: idle is spread over those who ran; reserved: over those who reserved it."""

LONGEST_NAME = 128


class Job(NamedTuple):
    """A job's identity: the same wherever and whenever it is seen.

    A tuple, as are the keys made of it: they are hashed thousands of times a tick.
    """

    name: str
    namespace: str = ""
    """Empty outside Kubernetes."""


IDLE = Job("_idle_")
"""Powered, nobody's."""
UNATTRIBUTED = Job("_unattributed_")
"""Used, owner unknown."""
OVERFLOW = Job("_overflow_")
"""Beyond a limit, or not to be named."""
RESERVED = frozenset({IDLE, UNATTRIBUTED, OVERFLOW})


@dataclass(frozen=True, slots=True)
class Usage:
    """What one job used of the machine in one interval."""

    job: Job
    cpu_seconds: float = 0.0
    """CPU time in the interval."""
    memory_bytes: float = 0.0
    """Memory held at its end, shared pages counted once."""
    cpus_reserved: float = 0.0
    """CPUs kept for it (a cpuset), busy or not."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What the machine and its jobs did from `start` to `end` (monotonic seconds)."""

    start: float
    end: float
    cpus: int
    busy_seconds: float
    """CPU time of everything together, known owner or not: at least the usages', at most all that CPUs could give."""
    memory_total: float
    """Bytes installed, as the kernel sees them."""
    memory_used: float
    """Bytes that are not available to a new program."""
    usages: tuple[Usage, ...]


@dataclass(frozen=True, slots=True)
class Allocation:
    """A board, or a partition of one, that a scheduler has given to a job, with or without a process on it."""

    uuid: str
    """The board's or the partition's, or one of its aliases."""
    job: Job


@dataclass(frozen=True, slots=True)
class Holding:
    """Who pays for a board from `start` to `end` (monotonic seconds): what lies between two looks at its users.

    `start` is minus infinity in one that reaches back to before the exporter was started.
    """

    device: str
    start: float
    end: float
    shares: Mapping[Job, float]
    """0 to 1 each, `_idle_` for what nobody holds; they add up to 1."""


@dataclass(frozen=True, slots=True)
class PartitionHolder:
    """A job that holds a slice of a board that is divided in hardware, now."""

    job: Job
    device: str
    slice: str
    """The partition's name: `gi1`."""
    profile: str
    """`1g.10gb`; empty if not known."""


class JobSlice(NamedTuple):
    """A job's share of one device's energy from `start` to `end` (monotonic seconds)."""

    job: Job
    device: Device
    start: float
    end: float
    joules: Joules


@dataclass(frozen=True, slots=True)
class ResolverHealth:
    """Whether a resolver sees what it should; what it cannot see, and what would change that."""

    resolver: str
    success: bool
    reason: str = ""
    remedy: str = ""
    seconds: float = 0.0
    """How long its part of the last tick took."""


def clean_name(text: str) -> str:
    """A job's name from free text: printable, at most 128 characters, never one of the reserved names.

    Unprintable characters become `?`; a name that would pass for a reserved one loses its underscores.
    """
    name = "".join(c if c.isprintable() else "?" for c in text.strip())[:LONGEST_NAME].strip()
    return name.strip("_") if Job(name) in RESERVED else name
