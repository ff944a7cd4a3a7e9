"""The door of the SDK: the few things that its parts hand to each other.

    span ── edges ──► odometer ◄── slices ── meters        (own sensors, or the node's exporter)
      │                  ▲
      │                  └── own use: CPU time, memory, boards
      └── entries ─► span account ─► outlet                (exporter, OpenTelemetry, page, Pushgateway)

One thread, the sampler's, talks to meters and outlets. The thread that enters or leaves a span reads two clocks and
memory, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from carbon_exporter.carbon.spans import SpanAccount
from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.jobs.base import IdlePolicy
from carbon_exporter.sensors.base import Device
from carbon_exporter.units import GramsPerKwh, Joules

__all__ = ["BoardUse", "Edge", "Identity", "Machine", "Meters", "Outlet", "Price", "Share", "Sum", "Tally"]

Share = Literal["process", "cpu", "shared"]


class Edge(NamedTuple):
    """A moment at which a span began, ended or changed its company, as its own thread saw it."""

    at: float
    """CLOCK_MONOTONIC seconds (`time.monotonic`)."""
    cpu_seconds: float
    """CPU time of all threads of this process until then (`time.process_time`)."""


class Tally(NamedTuple):
    """This process's own energy from the odometer's zero until an edge."""

    joules: Mapping[str, Joules]
    """By device name."""
    bound: Mapping[str, Joules]
    """How far off each may be, in 95 of 100 cases: by when the meters move and by what is not known yet."""
    settled: bool
    """Whether readings on both sides of the edge were there. If not, the last power was drawn out."""


class Sum(NamedTuple):
    """This process's own energy between edges."""

    joules: Mapping[str, Joules]
    """By device name; never less than nothing."""
    bound: Mapping[str, Joules]
    """How far off each may be, in 95 of 100 cases."""
    settled: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """What the shares of a machine's devices are of."""

    cpus: int
    memory_total: float
    """Bytes installed, as the kernel sees them."""
    idle: IdlePolicy = "separate"


@dataclass(frozen=True, slots=True)
class Price:
    """What a kilowatt-hour costs the air, as the exporter or this process's own settings have it."""

    region: str
    grams_per_kwh: GramsPerKwh
    pue: float = 1.0
    source: str = ""
    """`ember/yearly`: the provider and the quality of its figure."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is, by the order that docs/sdk.md states."""

    job: str
    namespace: str = ""
    run: str = ""
    rank: str = ""
    """Empty outside distributed runs."""


@dataclass(frozen=True, slots=True)
class BoardUse:
    """What this process (with its children) pays of the boards: by device name, 0 to 1."""

    shares: Mapping[str, float] = field(default_factory=dict)
    certain: bool = True
    """False if that is a guess from the environment, or equal parts among holders of unknown use."""


class Meters(Protocol):
    """Where the energy of whole devices comes from. `open` to `close` are for the sampler's thread alone."""

    name: str
    """`exporter` or `own`."""

    def open(self) -> None:
        """Find the devices. May take seconds. Raises `CarbonExporterError` if there is nothing to be had."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """What is measured now, for any thread."""

    @property
    def machine(self) -> Machine:
        """What CPU time and memory are shares of."""

    def slack(self, device: str) -> float:
        """How far the ends of this device's slices may be from what its counter meant, in seconds."""

    def glance(self) -> bool:
        """Note what counters show now, as cheaply as can be; whether `read` is wanted at once."""

    def ease(self, grain: float) -> None:
        """Read every `grain` seconds; if that is finer than before, the next `glance` does so at once."""

    def take(self) -> Sequence[EnergySlice]:
        """Energy by what was noted since the last call. Asks no meter; any thread, one at a time with `read`."""

    def read(self) -> Sequence[EnergySlice]:
        """Energy of whole devices since the last call, in order of time. Never raises; what fails gives nothing."""

    def wait(self) -> float:
        """Seconds until the next `glance` or `read` is worth it, seen from now."""

    def boards(self) -> BoardUse | None:
        """What this process tree pays of each board, as the driver lists it; None if nobody can tell."""

    def pause(self) -> None:
        """Nobody measures any more: give up what costs, keep what is slow to open."""

    def close(self) -> None:
        """Give back files, handles and sockets."""


class Outlet(Protocol):
    """A way by which spans leave this process. All but `start` is called on the sampler's thread."""

    name: str
    """`exporter`, `opentelemetry`, `page` or `pushgateway`."""

    def start(self, account: SpanAccount, identity: Identity) -> None:
        """From now on publish what the account holds."""

    def tell(self) -> None:
        """The account has changed. Must not block for longer than it takes to hand data to the kernel."""

    def close(self, patience: float) -> None:
        """Send what is left, within `patience` seconds, and stop."""
