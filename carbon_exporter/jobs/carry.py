"""The carry: CPU time that a tick cannot hold is counted at the next one. Pure.

The kernel's total, the groups and the processes are read one after the other, on a busy machine further apart at one
tick than at another: then one shows more CPU time of the jobs than was busy, or than all CPUs could have given, and the
next one less. A split by shares can only cut the first: jobs would pay for less than they used, `_unattributed_` for
more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from carbon_exporter.jobs.base import Activity, Job, Usage

__all__ = ["Carry", "fit"]

MOST_SECONDS = 1.0
"""Of each CPU: how far apart readings of one tick may lie. What differs by more differs for another reason, such as a
/proc that shows fewer CPUs than there are, and no later tick makes up for it."""


@dataclass(frozen=True, slots=True)
class Carry:
    """CPU seconds that earlier ticks have left over."""

    busy: float = 0.0
    """Of the machine; less than 0 where jobs seemed to have used more than was busy."""
    jobs: Mapping[Job, float] = field(default_factory=dict)


def fit(activity: Activity, carry: Carry) -> tuple[Activity, Carry]:
    """The same with what was carried, as far as the tick can hold it, and what it leaves for the next.

    Then the usages are at most what was busy, and that is at most what all CPUs could have given. Over all ticks each
    sum is what it was, but for what is still carried and what lies beyond `MOST_SECONDS`.
    """
    capacity, most = activity.cpus * (activity.end - activity.start), activity.cpus * MOST_SECONDS
    usages = _with_carried(activity.usages, carry.jobs) if carry.jobs else activity.usages
    used, left = math.fsum(usage.cpu_seconds for usage in usages), dict[Job, float]()
    if used > capacity:
        kept, cut = capacity / used, min(used - capacity, most) / used
        left = {usage.job: usage.cpu_seconds * cut for usage in usages if usage.cpu_seconds > 0}
        usages = tuple([replace(usage, cpu_seconds=usage.cpu_seconds * kept) for usage in usages])
        used = capacity
    due = activity.busy_seconds + carry.busy
    busy = max(used, min(due, capacity))
    return replace(activity, busy_seconds=busy, usages=usages), Carry(max(-most, min(due - busy, most)), left)


def _with_carried(usages: tuple[Usage, ...], carried: Mapping[Job, float]) -> tuple[Usage, ...]:
    """Those of jobs that have gone since, too."""
    rest = dict(carried)
    fresh = [replace(usage, cpu_seconds=usage.cpu_seconds + rest.pop(usage.job, 0.0)) for usage in usages]
    return (*fresh, *(Usage(job, seconds) for job, seconds in rest.items()))
