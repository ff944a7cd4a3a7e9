"""The door of the sensors room: what a meter is, what it measures, and what it says.

A sensor knows one kind of hardware and nothing of who listens. It hands out frozen facts; whatever goes wrong inside
leaves it as one of our errors.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

from carbon_exporter.errors import SensorReadError
from carbon_exporter.sensors.names import DeviceNames
from carbon_exporter.units import Joules, Watts

__all__ = [
    "Bmc",
    "Device",
    "Host",
    "Kind",
    "Occupancy",
    "Occupant",
    "Partition",
    "Quality",
    "Reading",
    "Sample",
    "Sensor",
    "Vitals",
]

Kind = Literal["gpu", "cpu", "dram", "accelerator", "other", "node"]
"""`node` is the whole machine: it contains all the others, is a family of its own and never in a sum with them."""


class Quality(str, Enum):
    """How a number was got, best first."""

    MEASURED = "measured"
    """From a hardware energy counter."""
    INTEGRATED = "integrated"
    """From a power meter, integrated over time."""
    MODELLED = "modelled"
    """From a model of this hardware and its utilisation."""
    DEFAULT = "default"
    """From a constant, because nothing is known of this hardware."""


@dataclass(frozen=True, slots=True)
class Bmc:
    """How to reach the machine's baseboard management controller by Redfish."""

    url: str
    """`https://HOST[:PORT]`."""
    username: str = ""
    password_file: Path | None = None
    """Holds the password and nothing else; read when it is needed, never kept in a log, label or argument."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""
    verify: bool = True
    """Whether the controller's certificate is checked."""
    authentication: Literal["session", "basic"] = "session"


@dataclass(frozen=True, slots=True)
class Host:
    """The machine as the rooms see it: where its file systems are mounted and what its clock says.

    In a container the host's trees are mounted elsewhere (`/host/proc`); in a test they are a directory.
    """

    procfs: Path = Path("/proc")
    sysfs: Path = Path("/sys")
    clock: Callable[[], float] = time.monotonic
    """Seconds that never step back (CLOCK_MONOTONIC), comparable between processes of one boot."""
    wall: Callable[[], float] = time.time
    """Unix seconds, which an operator or NTP may step at any time: for stamps, never for intervals."""
    devfs: Path = Path("/dev")
    bmc: Bmc | None = None
    """None if nobody has said how to reach it."""
    names: DeviceNames = field(default_factory=DeviceNames, compare=False)
    """The names of boards, which sensors of several makers share."""


@dataclass(frozen=True, slots=True)
class Device:
    """Something that draws power and has a meter. Devices of one node never overlap, but for those of kind `node`."""

    name: str
    """`cpu0`, `dram0`, `gpu0`: stable over restarts, unique on the node. Of kind `node`: the source's name."""
    kind: Kind
    sensor: str
    vendor: str = ""
    model: str = ""
    uuid: str = ""
    counter_range: Joules | None = None
    """The value at which the energy counter starts again at zero; None if it never wraps."""
    max_power: Watts | None = None
    """More than this it cannot physically draw; None if not known."""
    method: str = ""
    """How its numbers come about, in a sentence for people: a file, a formula, a table row."""
    bound: str = ""
    """How far off they may be and why, for people: `±5 % (the maker's tolerance)`; empty if nobody knows."""
    period: float | None = None
    """Seconds between two updates of the meter itself; None if not known."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one device's meter said at one moment.

    Exactly one of `energy` and `power` is set, or neither: then it only marks that the device is here.
    """

    device: Device
    at: float
    """Seconds on the host's monotonic clock."""
    quality: Quality
    energy: Joules | None = None
    """The raw counter; its zero means nothing, only differences do."""
    power: Watts | None = None
    since: float | None = None
    """With `power`: the start of the period that it is the mean of; None if it is the power at this instant."""
    uncertainty: Watts = Watts(0.0)
    """With a mean of samples: how far sampling alone may have missed it, in 95 of 100 cases; 0 where it cannot."""
    slack: float = 0.0
    """Seconds by which `at` may differ from the moment at which the counter stood so; only fine readings tell it."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a device says of itself beside its energy; None for what it does not tell."""

    device: str
    power_limit: Watts | None = None
    utilization: float | None = None
    """Share of the time in which it computed, 0 to 1."""
    memory_used: int | None = None
    """Bytes."""
    temperature: float | None = None
    """Degrees Celsius."""
    divergence: float | None = None
    """Counted over integrated energy of the last ten minutes, minus 1; None without both, or before that time."""


@dataclass(frozen=True, slots=True)
class Occupant:
    """A process that has a context on a board."""

    pid: int
    """As the host's root namespace numbers it."""
    utilization: float | None = None
    """Share of its board's (or partition's) compute time since the last look, 0 to 1; None if not known."""
    partition: str = ""
    """Name of the partition it runs on; empty on a board that is whole."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A slice of a board that is divided in hardware (MIG)."""

    name: str
    """Unique on the board: `gi1`."""
    share: float
    """Of the board's compute units, 0 to 1. The partitions of a board may add up to less: the rest is free."""
    profile: str = ""
    """`1g.10gb`"""
    uuid: str = ""
    utilization: float | None = None
    """Share of its own compute time since the last look, 0 to 1; None if not known."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Who is on a board, at one moment."""

    device: str
    at: float
    """Seconds on the host's monotonic clock."""
    occupants: tuple[Occupant, ...] | None = ()
    """None where nobody can see them, which is not nobody."""
    partitions: tuple[Partition, ...] = ()
    """Empty for a board that is whole."""
    uuid: str = ""
    aliases: tuple[str, ...] = ()
    """Other names by which schedulers know the board: `nvidia0`; a partition's is `nvidia0/gi1`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """All that sensors had to say at one tick: what was read, and which devices failed."""

    readings: tuple[Reading, ...] = ()
    failures: tuple[SensorReadError, ...] = ()
    vitals: tuple[Vitals, ...] = ()
    occupancies: tuple[Occupancy, ...] = ()


class Sensor(ABC):
    """One source of readings. Made by its file's `probe`, which raises `SensorUnavailable` or `SensorPermission`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short and stable: the value of the `sensor` label."""

    @property
    @abstractmethod
    def devices(self) -> tuple[Device, ...]:
        """What it measures now, without its members' devices."""

    @property
    def covers(self) -> frozenset[Kind]:
        """Kinds whose energy its counters contain beside those of its devices, as one number for a whole board does."""
        return frozenset()

    @property
    def quality(self) -> Quality | None:
        """The worst of its devices; None if it cannot tell before its first reading."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What it cannot give here and why, in sentences for people."""
        return ()

    @property
    def members(self) -> tuple[Sensor, ...]:
        """Sensors below this one, a board each: one that hangs never holds up another. They may come and go."""
        return ()

    @property
    def sampling_period(self) -> float | None:
        """Seconds between two calls of `sample` in the time between readings; None where readings are enough."""
        return None

    @property
    def offers_fine(self) -> bool:
        """Whether `fine` gives something now."""
        return False

    @abstractmethod
    def read(self) -> Sample:
        """Read all devices once. Raises `SensorReadError` if nothing can be read at all."""

    def fine(self) -> tuple[Reading, ...]:
        """The energy alone, between two readings and as cheaply as can be; it changes nothing of what `read` tells.

        `slack` is how far off `at` may be because the call took its time. A device that fails is left out, and may be
        told by the next `read`; raises `SensorReadError` if nothing can be read.
        """
        return ()

    def glance(self) -> tuple[Reading, ...]:
        """The same, without what draws little and steadily, for who reads all of it now and then."""
        return self.fine()

    def sample(self) -> None:  # noqa: B027 - most meters need none
        """Look at a meter that is not a counter, between two readings. What goes wrong is told by the next reading."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back files and handles."""
