"""The book of spans: the account of what scripts have told, which jobs' spans are shown and for how long.

As with the jobs' energy, an entry is announced at one tick (a new counter appears at zero) and posted at the next. What
waits between is in the state file with the totals and the sessions, so that a kill at any time loses nothing and
counts nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, NamedTuple

import msgspec

from carbon_exporter.carbon.grid import Grid
from carbon_exporter.carbon.runs import RunKey
from carbon_exporter.carbon.spans import FOLDED, SpanAccount, SpanEntry, SpanKey, SpanTotal
from carbon_exporter.jobs.base import OVERFLOW, Job, clean_name
from carbon_exporter.publish.handoff_wire import RunRow, SpanRow
from carbon_exporter.sensors.base import Kind
from carbon_exporter.service.runs import RunBook, SavedRuns
from carbon_exporter.service.sessions import Session, SessionRow, Sessions, entry_of
from carbon_exporter.units import Grams, Joules

__all__ = ["MOST_SPANS", "SavedSpans", "SpanBook", "SpanLimits"]

MOST_SPANS = 256
MOST_VALUES = 8
_SERIES_PART = 3
"""Spans have a third of series.max: jobs come first,"""
_RUNS_PART = 6
"""and runs a sixth."""

Amount = Annotated[float, msgspec.Meta(ge=0)]


class SavedRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A span's total, or what waits to be added to it."""

    name: str
    namespace: str
    region: str
    span: str
    rank: str
    joules: dict[Kind, Amount]
    grams: Amount
    seconds: Amount
    count: Annotated[int, msgspec.Meta(ge=0)]
    values: dict[str, float]


class SavedJob(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How long before the save a job's script was last heard of."""

    name: str
    namespace: str
    seconds_ago: Amount


class SavedSpans(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What survives of spans."""

    totals: list[SavedRow] = []
    resting: list[SavedRow] = []
    pending: list[SavedRow] = []
    seen: list[SavedJob] = []
    sessions: list[SessionRow] = []
    folded_total: Annotated[int, msgspec.Meta(ge=0)] = 0
    runs: SavedRuns = msgspec.field(default_factory=SavedRuns)


class SpanLimits(NamedTuple):
    """How many, and for how long: the settings spans.max, series.max, jobs.linger, jobs.retain and runs.max."""

    per_job: int
    """Spans of a job and rank."""
    series_max: int
    linger: float
    """Seconds."""
    retain: float
    """Seconds."""
    runs: int = 8
    """Runs of a job."""


class SpanBook:
    """The spans of one node. Not for use from several threads."""

    def __init__(self, limits: SpanLimits) -> None:
        """Empty; `limits` may be set anew at any time: what is beyond them by then stays as it is."""
        self.limits = limits
        self.account = SpanAccount(most=MOST_SPANS, values=MOST_VALUES)
        self.runs = RunBook(limits.runs, limits.series_max // _RUNS_PART)
        self.sessions = Sessions()
        self._collected: list[SpanEntry] = []
        self._announced: list[SpanEntry] = []
        self._seen: dict[Job, float] = {}
        self._posted: frozenset[Job] = frozenset()

    def tell(
        self,
        session: Session,
        rows: Iterable[SpanRow],
        grid: Grid,
        *,
        shows: Callable[[Job], bool],
        now: float,
        wall: float,
        runs: Iterable[RunRow] = (),
    ) -> None:
        """Take what a script has told, at the price of now; of a job that is not shown only that it was there."""
        for row in self.sessions.tell(session, rows, now):
            job = _job_of(row, session)
            hidden = not shows(job)
            self._seen[OVERFLOW if hidden else job] = now
            entry = entry_of(row, job, session.rank, grid, wall)
            self._collected.append(_unnamed(entry) if hidden else entry)
        for run, more in self.sessions.tell_runs(session, runs):
            job, name = _job_of(run, session), clean_name(run.run)
            if name and shows(job):
                self._seen[job] = now
                self.runs.tell(RunKey(job, name, session.rank), run, more, grid)

    def see(self, job: Job, now: float) -> None:
        """A script of this job is connected."""
        if job in self._seen:
            self._seen[job] = now

    def turn(self, now: float) -> None:
        """Post what was announced, announce what was told since, and let go of jobs that have ended."""
        linger, retain = self.limits.linger, self.limits.retain
        self.account.per_job = self.limits.per_job
        self.account.series_limit = self.limits.series_max // _SERIES_PART
        self.account.post_all(self._announced)
        self._posted = frozenset(entry.key.job for entry in self._announced)
        self._announced = self.account.announce(_joined(self._collected))
        self._collected = []
        self._seen = {job: at for job, at in self._seen.items() if now - at <= max(retain, linger)}
        busy = {entry.key.job for entry in self._announced} | self._posted
        self.account.keep(self._seen.keys() | busy)
        shown = {job for job, at in self._seen.items() if now - at <= linger} | busy
        self.account.rest(shown)
        self.runs.per_job, self.runs.series_max = self.limits.runs, self.limits.series_max // _RUNS_PART
        self.runs.turn(shown, self._seen.keys() | busy)

    def shown(self, shows: Callable[[Job], bool]) -> Mapping[SpanKey, SpanTotal]:
        """The totals to publish."""
        totals = self.account.totals
        return {key: total for key, total in totals.items() if shows(key.job)}

    @property
    def series(self) -> int:
        """How many series spans and runs make."""
        return self.account.series + self.runs.series

    def forget_sessions(self, keep: Callable[[Session], bool]) -> None:
        """Forget sessions that can tell nothing any more."""
        self.sessions.forget(keep)

    def saved(self, now: float) -> SavedSpans:
        """For the state file; `now` is monotonic seconds."""
        pending = _joined([*self._announced, *self._collected])
        return SavedSpans(
            [_row_of_total(key, total) for key, total in self.account.totals.items()],
            [_row_of_total(key, total) for key, total in self.account.resting.items()],
            [_row_of_entry(entry) for entry in pending],
            [SavedJob(job.name, job.namespace, max(0.0, now - at)) for job, at in self._seen.items()],
            self.sessions.saved(now),
            self.account.folded_total,
            self.runs.saved(),
        )

    def restore(self, saved: SavedSpans, *, saved_at: float, same_boot: bool) -> None:
        """Go on from an earlier life, saved at `saved_at` on this life's monotonic clock.

        What was pending is announced again at the first tick. After a reboot no script of then runs any more.
        """
        self.account.restore(_totals(saved.totals), saved.folded_total, _totals(saved.resting))
        self.runs.restore(saved.runs)
        self._collected = [_entry(row) for row in saved.pending]
        self._seen = {Job(row.name, row.namespace): saved_at - row.seconds_ago for row in saved.seen}
        if same_boot:
            self.sessions.restore(saved.sessions, saved_at)


def _job_of(row: SpanRow | RunRow, session: Session) -> Job:
    """The session's, unless the script may name another and does."""
    name = clean_name(row.job) if session.free else ""
    return session.job._replace(name=name) if name else session.job


def _unnamed(entry: SpanEntry) -> SpanEntry:
    return SpanEntry(SpanKey(OVERFLOW, entry.key.region, FOLDED), entry.joules, entry.grams, entry.seconds, entry.ended)


def _joined(entries: Collection[SpanEntry]) -> list[SpanEntry]:
    """One for each key: a script tells of a span every second."""
    joined: dict[SpanKey, SpanTotal] = {}
    for entry in entries:
        joined[entry.key] = joined.get(entry.key, SpanTotal()).plus(entry, MOST_VALUES)
    return [
        SpanEntry(key, one.joules, one.grams, one.seconds, one.count, one.values, one.trace)
        for key, one in joined.items()
    ]


def _row_of_total(key: SpanKey, total: SpanTotal) -> SavedRow:
    amounts = (total.joules, total.grams, total.seconds, total.count, total.values)
    return SavedRow(key.job.name, key.job.namespace, key.region, key.span, key.rank, *_plain(*amounts))


def _row_of_entry(entry: SpanEntry) -> SavedRow:
    amounts = (entry.joules, entry.grams, entry.seconds, entry.ended, entry.values)
    key = entry.key
    return SavedRow(key.job.name, key.job.namespace, key.region, key.span, key.rank, *_plain(*amounts))


def _plain(
    joules: Mapping[Kind, Joules], grams: Grams, seconds: float, count: int, values: Mapping[str, float]
) -> tuple[dict[Kind, float], float, float, int, dict[str, float]]:
    return dict(joules), grams, seconds, count, dict(values)


def _totals(rows: Iterable[SavedRow]) -> dict[SpanKey, SpanTotal]:
    entries = ((_entry(row), row) for row in rows)
    return {
        entry.key: SpanTotal(entry.joules, entry.grams, entry.seconds, entry.ended, entry.values)
        for entry, _ in entries
    }


def _entry(row: SavedRow) -> SpanEntry:
    key = SpanKey(Job(row.name, row.namespace), row.region, row.span, row.rank)
    joules: dict[Kind, Joules] = {kind: Joules(used) for kind, used in row.joules.items()}
    return SpanEntry(key, joules, Grams(row.grams), row.seconds, row.count, row.values)
