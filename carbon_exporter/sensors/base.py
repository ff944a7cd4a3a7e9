"""The door of the sensors room: what a meter is, what it measures, and what it says.

A sensor knows one kind of hardware and nothing of who listens. It hands out frozen readings; whatever goes wrong inside
leaves it as one of our errors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol

from carbon_exporter.errors import SensorReadError
from carbon_exporter.units import Joules, Watts

__all__ = ["Device", "Host", "Kind", "Quality", "Reading", "Sample", "Sensor"]

Kind = Literal["gpu", "cpu", "dram", "accelerator", "other"]


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


@dataclass(frozen=True, slots=True)
class Device:
    """Something that draws power and has a meter. Devices of one node never overlap."""

    name: str
    """`cpu0`, `dram0`, `gpu0`: stable over restarts, unique on the node."""
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


@dataclass(frozen=True, slots=True)
class Sample:
    """All that one sensor had to say at one tick: what it read, and which devices failed."""

    readings: tuple[Reading, ...]
    failures: tuple[SensorReadError, ...] = ()


class Sensor(Protocol):
    """One source of readings. Made by its file's `probe`, which raises `SensorUnavailable` or `SensorPermission`."""

    @property
    def name(self) -> str:
        """Short and stable: the value of the `sensor` label."""
        ...

    @property
    def devices(self) -> tuple[Device, ...]:
        """What it measures now."""
        ...

    def read(self) -> Sample:
        """Read all devices once. Raises `SensorReadError` if nothing can be read at all."""
        ...

    def close(self) -> None:
        """Give back files and handles."""
        ...
