"""The account of spans: what scripts say their parts have used, by job, region, span and rank.

Spans are a family of their own: they are inclusive of their children, and their energy is in the jobs' already. The
same account stands in a script (what this process has measured) and in the exporter (what all its peers have told).
Limits fold what is too much into one name, so that nothing is lost and nothing grows without end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from carbon_exporter.jobs.base import OVERFLOW, Job, clean_name
from carbon_exporter.sensors.base import Kind
from carbon_exporter.units import Grams, Joules

__all__ = ["FOLDED", "SpanAccount", "SpanEntry", "SpanKey", "SpanTotal", "Trace"]

FOLDED = OVERFLOW.name
"""The span, and the value, that everything beyond a limit is counted under."""


class SpanKey(NamedTuple):
    """What a span's counters are labelled by."""

    job: Job
    region: str
    span: str
    rank: str = ""
    """Empty outside distributed runs."""


class Trace(NamedTuple):
    """Which trace a span was last seen in, for an exemplar: lower-case hexadecimal, as in W3C's trace context."""

    trace_id: str
    span_id: str
    joules: Joules
    """What that one span used."""
    at: float
    """Unix seconds of its end."""


@dataclass(frozen=True, slots=True)
class SpanEntry:
    """What one or more spans of one key have used since they were last told of."""

    key: SpanKey
    joules: Mapping[Kind, Joules]
    grams: Grams = Grams(0.0)
    seconds: float = 0.0
    ended: int = 0
    """How many spans ended."""
    values: Mapping[str, float] = field(default_factory=dict)
    """What was recorded last, by name: loss, accuracy."""
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class SpanTotal:
    """All that the spans of one key have used since their counters began. Numbers only ever grow, but for values."""

    joules: Mapping[Kind, Joules] = field(default_factory=dict)
    grams: Grams = Grams(0.0)
    seconds: float = 0.0
    count: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    trace: Trace | None = None

    def plus(self, entry: SpanEntry, most_values: int) -> SpanTotal:
        """With one more entry; at most so many values are kept, those that came first."""
        joules = dict(self.joules)
        for kind, more in entry.joules.items():
            joules[kind] = Joules(joules.get(kind, 0.0) + more)
        values = dict(self.values)
        for name, value in entry.values.items():
            if name in values or len(values) < most_values:
                values[name] = value
        return SpanTotal(
            joules,
            Grams(self.grams + entry.grams),
            self.seconds + entry.seconds,
            self.count + entry.ended,
            values,
            entry.trace or self.trace,
        )


class SpanAccount:
    """Totals by span. Not for use from several threads; `totals` is replaced as a whole and may be read from any."""

    def __init__(self, *, per_job: int = 32, most: int = 256, values: int = 8) -> None:
        """`per_job` spans of a job and rank, `most` in all, `values` of each span; the rest is folded and counted."""
        self._per_job, self._most, self._values = per_job, most, values
        self.totals: Mapping[SpanKey, SpanTotal] = {}
        self.folded_total = 0
        """Entries whose span was beyond a limit."""

    def post(self, entry: SpanEntry) -> SpanKey:
        """Add an entry; returns the key that it was counted under."""
        key = self.place(entry.key)
        if key.span == FOLDED != entry.key.span:
            self.folded_total += entry.ended
        totals = dict(self.totals)
        totals[key] = totals.get(key, SpanTotal()).plus(entry, self._values)
        self.totals = totals
        return key

    def place(self, key: SpanKey) -> SpanKey:
        """Where an entry of this key is counted: its own place, or where a limit folds it. Its name is cleaned."""
        key = key._replace(span=clean_name(key.span) or "span")
        if key in self.totals:
            return key
        same = sum(other.job == key.job and other.rank == key.rank for other in self.totals)
        if same < self._per_job and len(self.totals) < self._most:
            return key
        folded = key._replace(span=FOLDED)
        if folded in self.totals or len(self.totals) < 2 * self._most:
            return folded
        return SpanKey(OVERFLOW, key.region, FOLDED)

    def restore(self, totals: Mapping[SpanKey, SpanTotal], folded_total: int) -> None:
        """Go on from an earlier life."""
        self.totals, self.folded_total = dict(totals), folded_total

    def keep(self, jobs: frozenset[Job]) -> None:
        """Forget the spans of all other jobs."""
        self.totals = {key: total for key, total in self.totals.items() if key.job in jobs or key.job == OVERFLOW}
