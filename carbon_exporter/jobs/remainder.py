"""The remainder: what a whole-node meter measures beyond all devices, as fans, power supplies and boards use it.

    remainder = node's energy - energy of the devices in the same time

It is a device of kind `other`, paid by the jobs in proportion to what their devices used in that time. Meters disagree
and are read at different moments, so that the difference may be negative: then it is carried forward until later energy
makes up for it, and never published.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.jobs.attribute import divide
from carbon_exporter.jobs.base import UNATTRIBUTED, Job, JobSlice
from carbon_exporter.sensors.base import Device
from carbon_exporter.units import Joules

__all__ = ["Remainder"]

HISTORY_TICKS = 120
"""A device that was silent for a while is subtracted from what the node used in that while, this far back."""


@dataclass(frozen=True, slots=True)
class _Span:
    """What the node used from `start` to `end` (monotonic seconds)."""

    start: float
    end: float
    joules: float


class Remainder:
    """One node's remainder. Not for use from several threads."""

    def __init__(self, source: str) -> None:
        """`source` names the node's meter: a sensor or one of its devices."""
        self.source = source
        self.device = Device(
            "other0", "other", "remainder", method=f"{source} less all devices: fans, power supplies, boards"
        )
        self.balance = 0.0
        """Joules of the node that no device has used and nobody has paid for yet; negative ones are carried forward."""
        self._parts: deque[tuple[JobSlice, ...]] = deque(maxlen=HISTORY_TICKS)
        self._nodes: deque[_Span] = deque(maxlen=HISTORY_TICKS)
        self._used: dict[Job, float] = {}
        self._due: list[_Span] = []

    def post(self, nodes: Iterable[EnergySlice], parts: Iterable[JobSlice]) -> list[JobSlice]:
        """Who pays for the remainder of the node's slices of the tick before; by now all devices have told of them.

        Args:
            nodes: what whole-node meters measured; of other sources too.
            parts: what the jobs used of all devices, as it became known at this tick.
        """
        fresh = tuple(part for part in parts if part.joules > 0)
        for span in self._nodes:
            self._subtract(span, fresh)
        self._parts.append(fresh)
        paid = self._pay() if self._due else []
        self._due = [
            _Span(one.start, one.end, one.joules)
            for one in nodes
            if self.source in (one.device.name, one.device.sensor)
        ]
        for span in self._due:
            self.balance += span.joules
            for tick in self._parts:
                self._subtract(span, tick)
        self._nodes.extend(self._due)
        return paid

    def _subtract(self, node: _Span, parts: Sequence[JobSlice]) -> None:
        """Take from the balance what devices used in the node's time; each span and part meet once."""
        for part in parts:
            common = min(node.end, part.end) - max(node.start, part.start)
            if common > 0:
                joules = part.joules * common / (part.end - part.start)
                self.balance -= joules
                self._used[part.job] = self._used.get(part.job, 0.0) + joules

    def _pay(self) -> list[JobSlice]:
        """The balance, if it is positive, by the jobs in proportion to what they used."""
        joules = Joules(max(0.0, self.balance))
        self.balance -= joules
        used, self._used = self._used, {}
        weights = used if math.fsum(used.values()) > 0 else {UNATTRIBUTED: 1.0}
        start, end = self._due[0].start, self._due[-1].end
        return [JobSlice(job, self.device, start, end, part) for job, part in divide(joules, weights).items()]
