"""The job book: which jobs are published, for how long, and how many at most.

A job appears when it first runs or holds a board, stays for `linger` seconds after it was last seen, and is remembered
for `retain` seconds, so that a job that comes back goes on where it was. Jobs beyond the limit, and those
that are not to be named, are folded into `_overflow_`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from carbon_exporter.jobs.base import OVERFLOW, RESERVED, Activity, Job, Usage
from carbon_exporter.jobs.privacy import Privacy

__all__ = ["REMEMBERED_PER_PUBLISHED", "JobBook"]

REMEMBERED_PER_PUBLISHED = 16
"""Ended jobs are remembered up to this many times the published ones, so that a node with thousands of short jobs a day
keeps its state small; the longest ended are forgotten first."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """When a job was last seen (monotonic seconds), and whether it is published."""

    seen: float
    published: bool


class JobBook:
    """The jobs of one node. Not for use from several threads."""

    def __init__(self, *, most: int, linger: float, retain: float, privacy: Privacy | None = None) -> None:
        """`most` jobs are published at a time; `linger` and `retain` are in seconds."""
        self.privacy = privacy or Privacy()
        self.most = most
        self.linger = linger
        self.retain = retain
        self.folded_total = 0
        """Jobs that were folded into `_overflow_`, each time one was."""
        self._entries: dict[Job, _Entry] = {}
        self._folded: frozenset[Job] = frozenset()

    @property
    def folded(self) -> frozenset[Job]:
        """Jobs that were beyond the limit when they were last to be admitted."""
        return self._folded

    def admit(self, activity: Activity, preferred: Collection[Job], holders: Collection[Job] = ()) -> Activity:
        """Note the jobs that ran; those beyond the limit appear in the result as `_overflow_`.

        `preferred` ones (which somebody named on purpose) come first, if need be in the place of others; then `holders`
        of boards, which run even if they use no CPU; then those that are published already, running ones before
        lingering ones; then by CPU time.
        """
        self._retire(activity.end)
        held = frozenset(holders) - RESERVED
        seen = {**dict.fromkeys(held, 0.0), **{usage.job: usage.cpu_seconds for usage in activity.usages}}
        published = self.published()

        def rank(job: Job) -> tuple[bool, bool, bool, bool, float, Job]:
            last = (job not in preferred, job not in held, job not in published, job not in seen)
            return (*last, -seen.get(job, 0.0), job)

        ranked = sorted(published | seen.keys(), key=rank)
        shown = [job for job in ranked if self.privacy.shows(job)]
        admitted = frozenset(shown[: self.most])
        for job in published - admitted:
            self._entries[job] = replace(self._entries[job], published=False)
        for job in admitted & seen.keys():
            self._entries[job] = _Entry(activity.end, published=True)
        folded = frozenset(seen) - admitted
        self.folded_total += len(folded.intersection(shown) - self._folded)
        self._folded = folded
        touched = any(usage.job in folded for usage in activity.usages)
        return replace(activity, usages=_fold(activity.usages, folded)) if touched else activity

    def published(self) -> frozenset[Job]:
        """Jobs that run or have run within `linger`."""
        return frozenset(job for job, entry in self._entries.items() if entry.published)

    def remembered(self) -> frozenset[Job]:
        """Jobs whose totals are kept."""
        return frozenset(self._entries)

    def last_seen(self) -> dict[Job, float]:
        """Monotonic seconds of the last sight of every remembered job."""
        return {job: entry.seen for job, entry in self._entries.items()}

    def restore(self, seen: Mapping[Job, float], folded_total: int, now: float) -> None:
        """Go on from an earlier life: `seen` in monotonic seconds of this one (they may be negative)."""
        self.folded_total = folded_total
        known = {job: at for job, at in seen.items() if job not in RESERVED}
        self._entries = {job: _Entry(at, published=self.privacy.shows(job)) for job, at in known.items()}
        self._retire(now)

    def _retire(self, now: float) -> None:
        """Hide jobs that have lingered, forget those that were retained."""
        kept = {job: entry for job, entry in self._entries.items() if now - entry.seen <= self.retain}
        if len(kept) > REMEMBERED_PER_PUBLISHED * self.most:
            newest = sorted(kept, key=lambda job: kept[job].seen, reverse=True)
            kept = {job: kept[job] for job in newest[: REMEMBERED_PER_PUBLISHED * self.most]}
        self._entries = {
            job: entry if now - entry.seen <= self.linger else replace(entry, published=False)
            for job, entry in kept.items()
        }


def _fold(usages: Iterable[Usage], folded: frozenset[Job]) -> tuple[Usage, ...]:
    """The same usages, those of folded jobs added up as `_overflow_`."""
    kept = [usage for usage in usages if usage.job not in folded]
    rest = [usage for usage in usages if usage.job in folded]
    overflow = Usage(
        OVERFLOW,
        sum(usage.cpu_seconds for usage in rest),
        sum(usage.memory_bytes for usage in rest),
        sum(usage.cpus_reserved for usage in rest),
    )
    return (*kept, overflow)
