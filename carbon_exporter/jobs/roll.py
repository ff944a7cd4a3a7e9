"""The roll: what is known of each published job beside its numbers, and how it came by its name.

A job has exactly one info, however many pods and processes it consists of: what all of them agree upon. It is kept as
long as the job is published, so that its series do not change when its last process ends.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from carbon_exporter.jobs.base import RESERVED, Job
from carbon_exporter.jobs.naming import JobInfo, Name, common_info
from carbon_exporter.jobs.privacy import Privacy

__all__ = ["MOST_MEMBERS", "JobRoll", "JobTold"]

MOST_MEMBERS = 32
"""Pods and containers that are told of one job on one node."""


@dataclass(frozen=True, slots=True)
class JobTold:
    """What is told of a job."""

    info: JobInfo = field(default_factory=JobInfo)
    members: tuple[tuple[str, str], ...] = ()
    """Pod and container of those that run now, the container empty for a pod's own use."""
    rules: tuple[str, ...] = ()
    """The rules that named its parts."""
    why: str = ""
    """What said so: a label's key, a variable, a kind of owner."""


class JobRoll:
    """The jobs of one node. Not for use from several threads."""

    def __init__(self, privacy: Privacy) -> None:
        """`privacy` says how users are shown."""
        self._privacy = privacy
        self.told: dict[Job, JobTold] = {}
        self._said: dict[Job, frozenset[Name]] = {}

    def call(self, names: Mapping[Job, Collection[Name]], published: Collection[Job]) -> None:
        """Note what runs now, and forget what is not published any more."""
        told = {
            job: one if job in names else replace(one, members=()) for job, one in self.told.items() if job in published
        }
        for job, said in names.items():
            if job in published and job not in RESERVED:
                told[job] = self._told(job, frozenset(said))
        self.told = told
        self._said = {job: said for job, said in self._said.items() if job in told and job in names}

    def why(self, job: Job) -> str:
        """What named a job; empty if it is not known."""
        return self.told[job].why if job in self.told else ""

    def _told(self, job: Job, said: frozenset[Name]) -> JobTold:
        known = self.told.get(job)
        if known is not None and self._said.get(job) == said:
            return known
        self._said[job] = said
        info = common_info(name.info for name in said)
        ordered = sorted(said, key=lambda name: (name.rule, name.why, name.member))
        members = sorted({name.member for name in said} - {("", "")})
        return JobTold(
            info._replace(user=self._privacy.user(info.user)),
            tuple(members[:MOST_MEMBERS]),
            tuple(dict.fromkeys(name.rule for name in ordered)),
            ordered[0].why,
        )
