"""The odometer: this process's own joules by device, as a function of an edge, by the node's policy.

| device             | what is mine of a slice                                       | abscissa            |
|--------------------|---------------------------------------------------------------|---------------------|
| processor          | own CPU seconds over those all CPUs could have given          | own CPU seconds     |
|                    | and in the same way those of children                         | time                |
| memory             | held memory over what is installed                            | time                |
| board, other       | the share of it that is paid for                              | time                |

So a burst of CPU right before an edge is charged to the side on which it was. With idle `shared`, CPU seconds are over
all busy ones; memory is then as with `separate`, for how much of it all others hold is not known here. `reserved` is as
`separate`. It is the policy of `jobs.attribute`: what all processes pay, and idle, add up to the device.

A slice counts as far as this process was looked at meanwhile. Energy before the first slice is drawn backwards from it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import hypot
from operator import add
from typing import NamedTuple, Protocol

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.sdk.base import BoardUse, Edge, Machine, Sum, Tally
from carbon_exporter.sdk.lanes import Moment
from carbon_exporter.sdk.own_use import UsePoint
from carbon_exporter.sdk.timeline import Timeline
from carbon_exporter.sensors.base import Device
from carbon_exporter.units import Joules

__all__ = ["EdgeTally", "Odometer", "span_bound"]

PATIENCE_SECONDS = 0.5
"""A meter is waited for at least so long,"""
PATIENCE_PERIODS = 3.0
"""and for so many of its periods."""
SHORT_SECONDS = 0.35
"""Edges in an interval up to this length are final when the next one is known, which tells where the load stepped."""
KEEP_LOOKS = 1200
EVENING = 0.9
"""How much of an unevenness of use is still expected one slice later."""
NO_BOARDS = BoardUse()


class EdgeTally(Tally):
    """A tally that also knows of energy that was used unmeasured, or by whom is not sure."""

    missing: Mapping[str, Joules]
    """By device: so many joules more or less until the edge, at the most. Only differences mean something."""


def span_bound(start: Tally, end: Tally) -> dict[str, Joules]:
    """How far off the energy between two edges may be, by device, in 95 of 100 cases.

    The edges are off independently of each other: squares add up. Energy of gaps between them comes on top.
    """
    before, bounds = start.bound, dict[str, Joules]()
    for name, bound in end.bound.items():
        bounds[name] = Joules(hypot(bound, before.get(name, 0.0)))
    if isinstance(end, EdgeTally):
        lost = start.missing if isinstance(start, EdgeTally) else {}
        for name, missing in end.missing.items():
            gap = missing - lost.get(name, 0.0)
            if gap > 0.0:
                bounds[name] = Joules(bounds.get(name, 0.0) + gap)
    return bounds


class Source(Protocol):
    """What the odometer asks of meters."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """What is measured now."""

    @property
    def machine(self) -> Machine:
        """What CPU time and memory are shares of."""

    def slack(self, device: str) -> float:
        """How far the ends of this device's slices may be off, in seconds."""


class _Line(NamedTuple):
    """A device's timelines, for readers."""

    device: str
    by_cpu: bool
    own: Timeline
    children: Timeline | None = None
    """Of a processor, what others used that this process pays for; by time."""


@dataclass(slots=True)
class _Meter:
    """What the writer knows of a device."""

    end: float
    final: float
    """Edges before it have their last value."""
    patience: float
    """How long it may be silent, in seconds."""
    each: float = 0.0
    """Of a processor: joules of a CPU second in its last slice,"""
    own: float = 0.0
    """the part of the time in which this process ran, in CPUs,"""
    uneven: float = 0.0
    """and by how much that changed lately."""
    lines: dict[str, Timeline] = field(default_factory=dict)


class Odometer:
    """`begin`, `look` and `add` are for one thread at a time; all else for any, without a lock."""

    def __init__(self, source: Source) -> None:
        """`source` is asked only while slices are added, so that it may be opened later."""
        self._source = source
        self._meters: dict[str, _Meter] = {}
        self._lines: tuple[_Line, ...] = ()
        self._looks = _Looks(UsePoint(0.0, 0.0, 0.0, 0.0, 0.0))
        self._early: list[EnergySlice] = []
        self._settled = Edge(-math.inf, 0.0)
        self._cold = True
        self._awaiting = True
        """Whether some device has not spoken yet since `begin`."""

    @property
    def settled_until(self) -> float:
        """Edges up to then are final, in monotonic seconds; minus infinity before anything is known.

        All devices have told of what came before and after it, but for those that have been silent for long.
        """
        return self._settled.at

    def settled_edge(self) -> Edge:
        """The newest moment that is final."""
        return self._settled

    def tally(self, edge: Edge) -> Tally:
        """Own energy until an edge. May be called from any thread.

        No devices before each has told something for the first time: the part that is known would pass for the whole.
        """
        at, cpu_seconds = edge
        joules: dict[str, Joules] = {}
        bounds: dict[str, Joules] = {}
        missing: dict[str, Joules] = {}
        for device, by_cpu, line, children in () if self._cold else self._lines:
            own, bound, lost = line.at(cpu_seconds if by_cpu else at)
            if children is not None:
                own, bound, lost = map(add, (own, bound, lost), children.at(at))
            joules[device], bounds[device], missing[device] = own, bound, lost  # type: ignore[assignment]
        tally = EdgeTally(joules, bounds, at <= self._settled.at)
        tally.missing = missing
        return tally

    def between(self, start: Moment, end: Moment) -> Sum:
        """Own energy from one edge (an `Edge`, or as bare a tuple) to another: the usual case, as of two tallies."""
        at, cpu_seconds = start
        at_end, cpu_end = end
        joules: dict[str, Joules] = {}
        bounds: dict[str, Joules] = {}
        for device, by_cpu, line, children in () if self._cold else self._lines:
            own, off, bound, gap = line.between(cpu_seconds, cpu_end) if by_cpu else line.between(at, at_end)
            if children is not None:
                own, off, bound, gap = map(add, (own, off, bound, gap), children.between(at, at_end))
            bound = hypot(off, bound)
            joules[device] = max(0.0, own)  # type: ignore[assignment]
            bounds[device] = bound + max(0.0, gap)  # type: ignore[assignment]
        settled = self._settled.at
        return Sum(joules, bounds, at <= settled and at_end <= settled)

    def begin(self, use: UsePoint) -> None:
        """Meters are being opened, or woken after a pause: nothing is known of the time before this look."""
        self._looks = _Looks(use)
        self._early.clear()
        self._awaiting = True
        for meter in self._meters.values():
            for part, timeline in meter.lines.items():
                timeline.wake(use.cpu_seconds if part == "own" else use.at)

    def look(self, use: UsePoint) -> None:
        """What this process used until now; before the next slices, if there are some."""
        self._looks.add(use)

    def add(self, slices: Sequence[EnergySlice], use: UsePoint, boards: BoardUse | None) -> None:
        """Devices' energy since the last call, and what this process used of the machine until now. `begin` first.

        Args:
            slices: in order of time for each device. What ends after `use` waits for the next call.
            use: after the last one, or after that of `begin`.
            boards: what is paid of each board; None for none.
        """
        self._looks.add(use)
        waiting: Iterable[EnergySlice] = slices
        if self._early:
            self._early, waiting = [], chain(self._early, slices)
        shares = (boards or NO_BOARDS).shares
        for one in waiting:
            if one.end > use.at:
                self._early.append(one)
            elif not one.caught_up and one.device.kind != "node":
                self._post(one, shares)
        self._settle(use, shares)

    def _post(self, one: EnergySlice, shares: Mapping[str, float]) -> None:
        """Count what is mine of a slice. One that lies mostly before the first look tells little of what is asked."""
        start = max(one.start, self._looks.first)
        seconds = one.end - start
        if seconds <= 0 or seconds < (one.end - one.start) / 2:
            return
        device = one.device
        joules = one.joules * seconds / (one.end - one.start)
        name, kind = device.name, device.kind
        paid = shares.get(name, 0.0)
        meter = self._meters.get(name)
        if meter is None:
            if kind not in {"cpu", "dram"} and paid <= 0:
                return  # somebody else's
            meter = self._meters[name] = _Meter(one.end, one.end, PATIENCE_SECONDS)
        slack = self._source.slack(name)
        if kind == "cpu":
            self._post_cpu(meter, device, (start, one.end), joules, slack)
        else:
            if kind == "dram":
                paid = min(1.0, self._looks.newest.memory_bytes / max(1.0, self._source.machine.memory_total))
            line = meter.lines.get("time") or self._line(meter, name, "time")
            line.add(start, one.end, joules * paid, slack=slack)
        meter.end, meter.final = one.end, start if seconds <= SHORT_SECONDS else one.end
        meter.patience = _patience(device, seconds)

    def _post_cpu(self, meter: _Meter, device: Device, time: tuple[float, float], joules: float, slack: float) -> None:
        """A processor's slice: own CPU seconds and children's, each on its abscissa."""
        machine = self._source.machine
        seconds = time[1] - time[0]
        looks = self._looks
        cpu, children, busy = looks.at(time[0])
        cpu_end, children_end, busy_end = looks.at(time[1])
        own, others = cpu_end - cpu, children_end - children
        shared = machine.idle == "shared" and busy_end > busy  # where that is not known, idle is nobody's
        whole = max(busy_end - busy if shared else machine.cpus * seconds, own + others)
        each = joules / whole if whole > 0 else 0.0
        line = meter.lines.get("own") or self._line(meter, device.name, "own")
        line.add(
            cpu,
            cpu_end,
            own * each,
            slack=slack * own / seconds,
            slope=each,
            interval=machine.cpus * seconds,
            unsure=_unsure(meter, own / seconds, each, seconds),
        )
        if others > 0 or "children" in meter.lines:
            self._line(meter, device.name, "children").add(*time, others * each, slack=slack)

    def _line(self, meter: _Meter, device: str, part: str) -> Timeline:
        """A device's timeline; a new one is cold if its device was mine before its first slice, as far as is known."""
        timeline = meter.lines.get(part)
        if timeline is None:
            cold = self._cold and part != "children"
            timeline = Timeline(cold=cold)
            if part == "children":
                self._lines = tuple(
                    line._replace(children=timeline) if line.device == device else line for line in self._lines
                )
            else:
                self._lines = (*self._lines, _Line(device, part == "own", timeline))
            meter.lines[part] = timeline
        return timeline

    def _settle(self, use: UsePoint, shares: Mapping[str, float]) -> None:
        """Find until when all is final, without those that have been silent for too long."""
        first, until = self._looks.first, use.at
        for meter in self._meters.values():
            silent = max(first, meter.end) + meter.patience
            if use.at > silent:
                for part, timeline in meter.lines.items():
                    timeline.hold(self._looks.at(silent)[0] if part == "own" else silent)
            elif meter.final < until:
                until = meter.final
        if self._awaiting:
            self._awaiting = any(use.at - first <= patience for patience in self._awaited(shares))
        if not self._awaiting:
            self._cold = False
            if until > self._settled.at:
                self._settled = Edge(until, self._looks.at(until)[0])

    def _awaited(self, shares: Mapping[str, float]) -> Iterable[float]:
        """The patience for each device of mine that has not told anything yet."""
        for device in self._source.devices:
            mine = device.kind in {"cpu", "dram"} or shares.get(device.name, 0.0) > 0
            if mine and device.kind != "node" and device.name not in self._meters:
                yield _patience(device)


def _unsure(meter: _Meter, own: float, each: float, seconds: float) -> float:
    """How far off the own part of a processor's slice may be, because neither power nor use was even within it.

    Of a step of power in its middle, a process that ran more before it than after has so much more or less than its
    mean part: a quarter of the step times the change. Both are taken to be as lately, from slice to slice.
    """
    step, change = (abs(each - meter.each), abs(own - meter.own)) if meter.each else (0.0, 0.0)
    meter.own, meter.each, meter.uneven = own, each, max(change, EVENING * meter.uneven)
    return step * meter.uneven * seconds / 4


def _patience(device: Device, seconds: float = 0.0) -> float:
    """How long a device may be silent whose last slice was of so many seconds."""
    return max(PATIENCE_SECONDS, PATIENCE_PERIODS * max(device.period or 0.0, seconds))


class _Looks:
    """What was used, as a function of time: straight lines between looks, level outside."""

    def __init__(self, first: UsePoint) -> None:
        self.first = first.at
        """When the process was looked at first, whether that is still kept or not."""
        self._at = [first.at]
        self._points = [first]
        self._found: dict[float, tuple[float, float, float]] = {}

    @property
    def newest(self) -> UsePoint:
        """The last look."""
        return self._points[-1]

    def add(self, use: UsePoint) -> None:
        """One more look."""
        if len(self._at) > KEEP_LOOKS:
            del self._at[: KEEP_LOOKS // 2], self._points[: KEEP_LOOKS // 2]
        self._at.append(use.at)
        self._points.append(use)
        self._found.clear()

    def at(self, when: float) -> tuple[float, float, float]:
        """CPU seconds of this process, of its children and of the machine until `when`."""
        found = self._found.get(when)
        if found is None:  # the packages of a machine are read together
            found = self._found[when] = self._find(when)
        return found

    def _find(self, when: float) -> tuple[float, float, float]:
        i = bisect_right(self._at, when)
        if i == 0 or i == len(self._at):
            _, cpu, children, _, busy = self._points[i and -1]
            return cpu, children, busy
        at, cpu, children, _, busy = self._points[i - 1]
        at_end, cpu_end, children_end, _, busy_end = self._points[i]
        part = (when - at) / (at_end - at)
        return (
            cpu + part * (cpu_end - cpu),
            children + part * (children_end - children),
            busy + part * (busy_end - busy),
        )
