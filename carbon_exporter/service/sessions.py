"""Sessions: what each script has told of its spans so far, so that a total told twice counts once.

A script tells running totals; what is new of them since the last time is an entry of the account. A session belongs to
the process that began it: another that calls itself so is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import msgspec

from carbon_exporter.carbon.base import Intensity
from carbon_exporter.carbon.grid import Grid
from carbon_exporter.carbon.spans import FOLDED, SpanEntry, SpanKey, Trace, clean_span
from carbon_exporter.jobs.base import Job, clean_name
from carbon_exporter.publish.handoff_wire import RunRow, SpanRow
from carbon_exporter.sensors.base import Kind
from carbon_exporter.units import Joules, grams_emitted

__all__ = ["Owner", "Session", "SessionRow", "Sessions", "entry_of", "fresh", "highest"]

_MOST_ROWS = 4096
"""Span names of all sessions of one user that are remembered; root's may be eight times as many."""
_ROOT = 8


class Owner(NamedTuple):
    """Whose a session is."""

    uid: int
    pid: int
    started: int
    door: str
    """The path of a socket that is for one job; empty for the node's."""


@dataclass(slots=True)
class Session:
    """What one script has told."""

    owner: Owner
    at: float
    """Monotonic seconds of its last word."""
    job: Job
    rank: str = ""
    final: bool = True
    """Whether the job's name is the last word on it."""
    free: bool = False
    """Whether the script may say of a span that it is another job's, since it named itself."""
    rows: dict[tuple[str, str], SpanRow] = field(default_factory=dict)
    """The highest totals, by the names of span and job that the script gives."""
    runs: dict[tuple[str, str], RunRow] = field(default_factory=dict)
    """Likewise, of runs."""


class SessionRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A session in the state file."""

    session: str
    uid: int
    pid: int
    started: int
    door: str
    seconds_ago: Annotated[float, msgspec.Meta(ge=0)]
    name: str
    namespace: str
    rank: str
    rows: tuple[SpanRow, ...]
    runs: tuple[RunRow, ...] = ()


class Sessions:
    """All sessions of a node. Not for use from several threads."""

    def __init__(self) -> None:
        """None yet."""
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._sessions)

    def open(self, name: str, owner: Owner, job: Job, rank: str, now: float) -> Session | None:
        """Go on with a session, or begin it; None if it is somebody else's."""
        known = self._sessions.get(name)
        if known is None:
            known = self._sessions[name] = Session(owner, now, job, rank)
        elif known.owner != owner:
            return None
        known.job, known.rank, known.at = job, rank, now
        return known

    def tell(self, session: Session, rows: Iterable[SpanRow], now: float) -> list[SpanRow]:
        """What is new since the last time, as rows of their own."""
        session.at = now
        news = []
        for row in rows:
            before = session.rows.get((row.span, row.job))
            session.rows[row.span, row.job] = highest(before or row, row)
            news.append(fresh(before, row))
        return news

    def tell_runs(self, session: Session, rows: Iterable[RunRow]) -> list[tuple[RunRow, float]]:
        """Rows with the joules that are new since the last time."""
        news = []
        for row in rows:
            before = session.runs.get((row.run, row.job))
            known = before.joules if before else 0.0
            session.runs[row.run, row.job] = row if row.joules >= known else msgspec.structs.replace(row, joules=known)
            news.append((row, max(0.0, row.joules - known)))
        return news

    def forget(self, keep: Callable[[Session], bool]) -> None:
        """Forget sessions that can tell nothing any more; of a user with very many names the oldest, too."""
        self._sessions = {name: one for name, one in self._sessions.items() if keep(one)}
        rows: dict[int, int] = {}
        for name, one in sorted(self._sessions.items(), key=lambda item: -item[1].at):
            uid = one.owner.uid
            rows[uid] = rows.get(uid, 0) + 1 + len(one.rows) + len(one.runs)
            if rows[uid] > _MOST_ROWS * (1 if uid else _ROOT):
                del self._sessions[name]

    def saved(self, now: float) -> list[SessionRow]:
        """For the state file; sessions that have told nothing are left out."""
        return [
            SessionRow(
                name,
                *one.owner,
                max(0.0, now - one.at),
                one.job.name,
                one.job.namespace,
                one.rank,
                (*one.rows.values(),),
                (*one.runs.values(),),
            )
            for name, one in self._sessions.items()
            if one.rows or one.runs
        ]

    def restore(self, rows: Iterable[SessionRow], now: float) -> None:
        """Go on from an earlier life; `now` is the moment of the save on this life's monotonic clock."""
        for row in rows:
            owner = Owner(row.uid, row.pid, row.started, row.door)
            self._sessions[row.session] = Session(
                owner,
                now - row.seconds_ago,
                Job(row.name, row.namespace),
                row.rank,
                rows={(one.span, one.job): one for one in row.rows},
                runs={(one.run, one.job): one for one in row.runs},
            )


def fresh(before: SpanRow | None, now: SpanRow) -> SpanRow:
    """What has been added between two totals: what fell counts as nothing."""
    if before is None:
        return now
    joules = {kind: max(0.0, total - before.joules.get(kind, 0.0)) for kind, total in now.joules.items()}
    seconds, count = max(0.0, now.seconds - before.seconds), max(0, now.count - before.count)
    return SpanRow(now.span, joules, seconds, count, now.values, now.trace_id, now.span_id, now.trace_joules, now.job)


def highest(before: SpanRow, now: SpanRow) -> SpanRow:
    """The greater of each number, so that one that fell and rises again is not counted twice."""
    joules = dict(before.joules)
    for kind, total in now.joules.items():
        joules[kind] = max(total, joules.get(kind, 0.0))
    return SpanRow(now.span, joules, max(now.seconds, before.seconds), max(now.count, before.count), job=now.job)


def entry_of(row: SpanRow, job: Job, rank: str, grid: Grid, wall: float) -> SpanEntry:
    """An entry at the price of now; `wall` is Unix seconds."""
    joules: dict[Kind, Joules] = {kind: Joules(used) for kind, used in row.joules.items()}
    intensity: Intensity = grid.intensity
    grams = grams_emitted(Joules(math.fsum(joules.values())), intensity.grams_per_kwh, grid.pue)
    span = FOLDED if row.span == FOLDED else clean_span(row.span)
    values = _clean_values(row.values)
    trace = Trace(row.trace_id, row.span_id, Joules(row.trace_joules), wall) if row.trace_id and row.count else None
    return SpanEntry(SpanKey(job, grid.region, span, rank), joules, grams, row.seconds, row.count, values, trace)


def _clean_values(values: Mapping[str, float]) -> dict[str, float]:
    cleaned = {clean_name(name): value for name, value in values.items() if math.isfinite(value)}
    return {name: value for name, value in cleaned.items() if name}
