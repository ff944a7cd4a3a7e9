"""The last hour of power, by kind of device and by job: what the page's graph begins with.

It is in memory only and bounded: a point for every five seconds or more, and in each the kinds of device, the reserved
names and the twelve most powerful jobs. That takes 0.2 MB, and 3 MB at most, where all jobs have other names each time.
"""

from __future__ import annotations

import heapq
import math
import threading
from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from carbon_exporter.jobs.base import RESERVED, Job
from carbon_exporter.publish.catalogue import utf8
from carbon_exporter.snapshot import Snapshot

__all__ = ["HOUR_SECONDS", "JOBS_OF_A_POINT", "POINTS", "SLOT_SECONDS", "History", "Moment"]

HOUR_SECONDS = 3600.0
SLOT_SECONDS = 5.0
"""Samples that come faster are joined to means of about this long."""
POINTS = 800
"""At most: an hour of slots, of which each may be a tenth too short."""
JOBS_OF_A_POINT = 12
"""Others are in what the devices drew beyond these."""
_EARLY_INTERVALS = 0.1
"""A sample that comes so much before its time begins a slot all the same."""
_DIGITS = 3
"""Power is told to the milliwatt, time to the millisecond."""

Name = str | Job
"""A kind of device, or a job."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Power at a time (Unix seconds), or its mean over a slot that ends then."""

    at: float
    names: tuple[Name, ...]
    """Equal ones are one object from point to point: they seldom change."""
    watts: array[float]
    """In single precision, of each name; the whole machine is the sum of the kinds."""

    @property
    def power(self) -> dict[Name, float]:
        """Watts by name."""
        return dict(zip(self.names, self.watts, strict=True))


class History:
    """Remembers an hour. `note` is for the sampling thread, `encoded` for the server's.

    Each holds the other up for no longer than it takes to copy a list of references.
    """

    def __init__(self) -> None:
        """Empty: what was before this process began is Prometheus's to know."""
        self._lock = threading.Lock()
        self._closed: deque[Moment] = deque(maxlen=POINTS - 1)
        self._open: list[Moment] = []
        """The samples of the slot that is not over yet."""
        self._encoded: tuple[float | None, bytes] = (None, _encode(()))

    def note(self, snapshot: Snapshot) -> None:
        """Add a sample. After a clock was set back, what then lies in the future is forgotten."""
        last = self._open[-1].names if self._open else ()
        moment = _kept(snapshot.at, _power(snapshot), last)
        early = _EARLY_INTERVALS * min(snapshot.interval, SLOT_SECONDS)
        with self._lock:
            if self._open and moment.at - self._open[0].at >= SLOT_SECONDS - early:
                self._closed.append(_mean(self._open))
                self._open = []
            self._open = [*(known for known in self._open if known.at < moment.at), moment]
            while self._closed and self._closed[-1].at >= moment.at:
                self._closed.pop()
            while self._closed and self._closed[0].at < moment.at - HOUR_SECONDS:
                self._closed.popleft()

    @property
    def moments(self) -> tuple[Moment, ...]:
        """From the oldest to the newest; the last one grows until its slot is over."""
        with self._lock:
            closed, running = tuple(self._closed), tuple(self._open)
        return (*closed, _mean(running)) if running else closed

    def encoded(self) -> tuple[str, bytes]:
        """Its entity tag of HTTP, and the hour as JSON: columns of equal length, null where nothing is known."""
        moments = self.moments
        newest = moments[-1].at if moments else None
        known = self._encoded
        if newest != known[0]:
            known = self._encoded = (newest, _encode(moments))
        return f'W/"{newest}"', known[1]


def _power(snapshot: Snapshot) -> dict[Name, float]:
    """What a snapshot says of power now; a number that is none says nothing."""
    power: dict[Name, float] = {}
    for state in snapshot.devices:
        if state.power is not None and math.isfinite(state.power):
            power[state.device.kind] = power.get(state.device.kind, 0.0) + state.power
    for key, watts in snapshot.job_power.items():
        if math.isfinite(watts):
            power[key.job] = power.get(key.job, 0.0) + watts
    return power


def _kept(at: float, power: Mapping[Name, float], last: tuple[Name, ...]) -> Moment:
    """What is remembered of it: `last` are the names before, used again if they are the same."""
    kinds: list[Name] = [name for name in power if isinstance(name, str)]
    names = (*kinds, *_foremost(power))
    names = last if names == last else names
    return Moment(at, names, array("f", [power[name] for name in names]))


def _foremost(power: Mapping[Name, float]) -> list[Job]:
    """The reserved names and the most powerful of the other jobs, in an order that does not hang on their power."""
    jobs = [name for name in power if isinstance(name, Job)]
    named = [job for job in jobs if job not in RESERVED]
    if len(named) > JOBS_OF_A_POINT:
        named = heapq.nlargest(JOBS_OF_A_POINT, named, key=power.__getitem__)
    return sorted([*named, *RESERVED.intersection(jobs)])


def _mean(moments: Sequence[Moment]) -> Moment:
    """One for all: a kind's mean is over those that know it; a job that is missing from one drew nothing then."""
    last = moments[-1]
    if len(moments) == 1:
        return last
    sums, known = _sums(moments), [name for moment in moments for name in moment.names]
    of = {name: known.count(name) if isinstance(name, str) else len(moments) for name in sums}
    return _kept(last.at, {name: watts / of[name] for name, watts in sums.items()}, last.names)


def _sums(moments: Iterable[Moment]) -> dict[Name, float]:
    sums: dict[Name, float] = {}
    for moment in moments:
        for name, watts in zip(moment.names, moment.watts, strict=True):
            sums[name] = sums.get(name, 0.0) + watts
    return sums


def _encode(moments: Sequence[Moment]) -> bytes:
    """The jobs are those that used most in the hour: what the devices drew beyond them is of others."""
    sums, rows = _sums(moments), [moment.power for moment in moments]

    def column(name: Name) -> list[float | None]:
        return [round(row[name], _DIGITS) if name in row else None for row in rows]

    kinds = [{"kind": name, "power_watts": column(name)} for name in sums if isinstance(name, str)]
    jobs = [
        {"job_name": utf8(job.name), "job_namespace": utf8(job.namespace), "power_watts": column(job)}
        for job in _foremost(sums)
    ]
    times = [round(moment.at, _DIGITS) for moment in moments]
    return msgspec.json.encode({"times": times, "kinds": kinds, "jobs": jobs})
