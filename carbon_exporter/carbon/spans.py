"""The account of spans: what scripts say their parts have used, by job, region, span and rank.

Spans are a family of their own: they are inclusive of their children, and their energy is in the jobs' already. The
same account stands in a script (what this process has measured) and in the exporter (what all its peers have told).
Limits fold what is too much into one name, so that nothing is lost and nothing grows without end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from carbon_exporter.carbon.runs import RunKey, RunTotal
from carbon_exporter.jobs.base import OVERFLOW, Job, clean_name
from carbon_exporter.sensors.base import Kind
from carbon_exporter.units import Grams, Joules

__all__ = ["FOLDED", "SpanAccount", "SpanEntry", "SpanKey", "SpanTotal", "Trace", "clean_span"]

FOLDED = OVERFLOW.name
"""The span that everything beyond a limit is counted under."""
_OWN_SERIES = 3
"""Of a span beside one for each kind and value: grams, seconds and count."""
_SERIES_OF_NEW = _OWN_SERIES + 3
"""What a span that is not known yet will have, about."""
_RESTING_PER_SHOWN = 16


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

    @property
    def series(self) -> int:
        """How many series it makes."""
        return len(self.joules) + len(self.values) + _OWN_SERIES

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

    def __init__(self, *, per_job: int = 32, most: int = 256, values: int = 8, series: int | None = None) -> None:
        """`per_job` spans of a job and rank, `most` in all, `values` of each span; the rest is folded and counted.

        `series`: no new spans once those here make so many; None for no such limit.
        """
        self.per_job, self.series_limit = per_job, series
        self.most, self._values = most, values
        self.totals: Mapping[SpanKey, SpanTotal] = {}
        self.resting: Mapping[SpanKey, SpanTotal] = {}
        """Of jobs that are not published now, in case they come back: beyond the limits, and never shown."""
        self.folded_total = 0
        """Spans that ended beyond a limit."""
        self.runs: Callable[[], Mapping[RunKey, RunTotal]] = dict
        """In a script: what its runs have used until now, for whoever publishes the account."""
        self.other_runs: Callable[[], Mapping[RunKey, RunTotal]] = dict
        """Likewise, of runs that are not among those: each until its last total was given, for who keeps totals."""

    @property
    def series(self) -> int:
        """How many series the totals make."""
        return sum(total.series for total in self.totals.values())

    def all_runs(self) -> Mapping[RunKey, RunTotal]:
        """Both; by one who keeps totals, for nobody else is given the last one of a run that is not published."""
        return {**self.other_runs(), **self.runs()}

    def post(self, entry: SpanEntry) -> SpanKey:
        """Add an entry; returns the key that it was counted under."""
        return self.post_all((entry,))[0]

    def post_all(self, entries: Iterable[SpanEntry]) -> list[SpanKey]:
        """Add entries at once; returns the keys that they were counted under."""
        desk, keys = _Desk(self), []
        for entry in entries:
            key = desk.place(entry.key)
            if key.span == FOLDED:
                if entry.key.span != FOLDED:
                    self.folded_total += entry.ended
                entry = replace(entry, values={}, trace=None)  # noqa: PLW2901 - of which span they were is not told
            desk.totals[key] = desk.take(key).plus(entry, self._values)
            keys.append(key)
        self.totals = desk.totals
        return keys

    def announce(self, entries: Iterable[SpanEntry]) -> list[SpanEntry]:
        """Make the counters of these entries, at zero where they are new; returns the entries as they will be posted.

        A scraper that sees a counter at zero first misses nothing of its first step.
        """
        desk, placed = _Desk(self), []
        for entry in entries:
            key = desk.place(entry.key)
            folded = key.span == FOLDED
            if folded and entry.key.span != FOLDED:
                self.folded_total += entry.ended
            known = desk.take(key)
            zero = SpanEntry(key, dict.fromkeys(entry.joules, Joules(0.0)))
            desk.totals[key] = known.plus(zero, self._values)
            told = replace(entry, key=key, values={}, trace=None) if folded else replace(entry, key=key)
            placed.append(told)
        self.totals = desk.totals
        return placed

    def place(self, key: SpanKey) -> SpanKey:
        """Where an entry of this key is counted: its own place, or where a limit folds it. Its name is cleaned."""
        return _Desk(self).place(key)

    def restore(
        self,
        totals: Mapping[SpanKey, SpanTotal],
        folded_total: int,
        resting: Mapping[SpanKey, SpanTotal] | None = None,
    ) -> None:
        """Go on from an earlier life."""
        self.totals, self.folded_total, self.resting = dict(totals), folded_total, dict(resting or {})

    def rest(self, shown: Collection[Job]) -> None:
        """Take the spans of all other jobs off the page, but remember them; of very many those that rest longest go."""
        leaving = {key: total for key, total in self.totals.items() if key.job not in shown and key.job != OVERFLOW}
        if not leaving:
            return
        self.totals = {key: total for key, total in self.totals.items() if key not in leaving}
        resting = list({**self.resting, **leaving}.items())
        self.resting = dict(resting[-_RESTING_PER_SHOWN * self.most :])

    def keep(self, jobs: Collection[Job]) -> None:
        """Forget the spans of all other jobs."""
        self.totals = {key: total for key, total in self.totals.items() if key.job in jobs or key.job == OVERFLOW}
        self.resting = {key: total for key, total in self.resting.items() if key.job in jobs}


class _Desk:
    """The totals while they are being changed, with what the limits are about counted once."""

    def __init__(self, account: SpanAccount) -> None:
        self._account = account
        self.totals = dict(account.totals)
        self._per_job = Counter((key.job, key.rank) for key in self.totals)
        self._series = account.series if account.series_limit is not None else 0

    def place(self, key: SpanKey) -> SpanKey:
        key = key._replace(span=clean_span(key.span))
        if key in self.totals or (key.span != FOLDED and self._has_room(key)):
            return key
        folded = key._replace(span=FOLDED)
        if folded in self.totals or self._has_room_for_folded():
            return folded
        return SpanKey(OVERFLOW, key.region, FOLDED)

    def take(self, key: SpanKey) -> SpanTotal:
        """What is known of a key that was placed; a new one counts against the limits from now on."""
        known = self.totals.get(key)
        if known is not None:
            return known
        self._per_job[key.job, key.rank] += 1
        known = self._account.resting.get(key)
        if known is None:
            self._series += _SERIES_OF_NEW
            return SpanTotal()
        self._account.resting = {other: total for other, total in self._account.resting.items() if other != key}
        self._series += known.series
        return known

    def _has_room(self, key: SpanKey) -> bool:
        account = self._account
        few = len(self.totals) < account.most and self._per_job[key.job, key.rank] < account.per_job
        return few and (account.series_limit is None or self._series + _SERIES_OF_NEW <= account.series_limit)

    def _has_room_for_folded(self) -> bool:
        limit = self._account.series_limit
        return len(self.totals) < 2 * self._account.most and (limit is None or self._series <= 1.25 * limit)


def clean_span(text: str) -> str:
    """A span's name from free text, as `clean_name` makes a job's; the name of what is folded stays itself."""
    return FOLDED if text == FOLDED else clean_name(text) or "span"
