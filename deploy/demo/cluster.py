"""What a synthetic cluster is: nodes, devices, jobs, and each moment at which a job drew power from a device.

Times are seconds from the start of the history. Power is a square wave, so that energy has a closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["IDLE", "UNATTRIBUTED", "Device", "Job", "Node", "Scenario", "Training", "Use", "Window"]

IDLE, UNATTRIBUTED = "_idle_", "_unattributed_"
Window = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Device:
    """A device of a node; devices never overlap."""

    name: str
    kind: str
    vendor: str
    model: str
    limit: float
    """Watts that it cannot exceed."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine, with the times at which nobody could scrape it."""

    name: str
    region: str
    devices: tuple[Device, ...]
    offset: float
    """Seconds by which it is scraped later than on the full minute."""
    restarts: tuple[Window, ...] = ()
    """The exporter was away; the devices went on, and their counters tell of it afterwards."""
    reboots: tuple[Window, ...] = ()
    """The machine was off."""
    renamed_at: float | None = None
    """From then on its target has another `instance`; the exporter's totals go on."""

    def instance(self, t: float) -> str:
        """The target's label at that time."""
        new = self.renamed_at is not None and t >= self.renamed_at
        return f"{self.name}{'-new' if new else ''}:12011"

    def away(self, t: float) -> bool:
        """Whether a scrape at that time fails."""
        return any(start <= t < end for start, end in (*self.restarts, *self.reboots))


@dataclass(frozen=True, slots=True)
class Training:
    """What a training script says of itself."""

    model: str
    dataset: str
    batch_size: int
    epoch_seconds: float


@dataclass(frozen=True, slots=True)
class Job:
    """One appearance of a job on its nodes."""

    name: str
    namespace: str
    user: str
    number: int
    """Of the scheduler."""
    start: float
    end: float
    boards: tuple[tuple[str, tuple[str, ...]], ...]
    """By node: the boards that it holds; none for a job of CPUs alone."""
    training: Training | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        """Where it runs, in the order of its ranks."""
        return tuple(node for node, _ in self.boards)


@dataclass(frozen=True, slots=True)
class Use:
    """A job's share of a device's power from `start` to `end`: `high` watts for `duty` of each `period`, then `low`."""

    job: str
    namespace: str
    node: str
    device: str
    start: float
    end: float
    high: float
    low: float
    period: float = 600.0
    duty: float = 0.5

    def joules(self, t: float) -> float:
        """Energy from its start to `t`, or to its end."""
        whole, rest = divmod(min(max(t, self.start), self.end) - self.start, self.period)
        busy = self.duty * self.period
        cycle = busy * self.high + (self.period - busy) * self.low
        return whole * cycle + min(rest, busy) * self.high + max(0.0, rest - busy) * self.low

    def watts(self, t: float) -> float:
        """Power at `t`."""
        if not self.start <= t < self.end:
            return 0.0
        return self.high if (t - self.start) % self.period < self.duty * self.period else self.low


@dataclass(frozen=True, slots=True)
class Scenario:
    """The whole history."""

    start: float
    """Unix seconds, a multiple of five minutes."""
    seconds: float
    nodes: tuple[Node, ...]
    jobs: tuple[Job, ...]
    uses: Sequence[Use]
