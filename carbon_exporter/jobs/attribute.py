"""The split: one device's energy among the jobs that used it. Pure, and exact: the parts add up to the whole.

CPU   a job's CPU time over what all CPUs could have given; the rest of the busy time is `_unattributed_`, the rest of
      the capacity `_idle_`.
DRAM  a job's memory over what is installed; the rest of what is used is `_unattributed_`, the free rest `_idle_`.
Other devices nobody holds are `_idle_`; energy of a time in which nobody watched is `_unattributed_`.

Who pays for idle is a policy: `separate` leaves it to `_idle_`, `shared` divides it among those who ran in proportion
to their use, `reserved` charges a job for the CPUs kept for it, and leaves the rest to `_idle_`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.jobs.base import IDLE, UNATTRIBUTED, Activity, IdlePolicy, Job, JobSlice, Usage
from carbon_exporter.units import Joules

__all__ = ["divide", "split"]


def split(energy: EnergySlice, activities: Sequence[Activity], policy: IdlePolicy) -> tuple[JobSlice, ...]:
    """Who pays for a slice of energy.

    Args:
        energy: what the device used.
        activities: what ran, in order of time; those that lie in the slice's time count.
        policy: who pays for idle.
    """
    device = energy.device
    during = [activity for activity in activities if energy.start <= (activity.start + activity.end) / 2 <= energy.end]
    if energy.caught_up or (not during and device.kind in {"cpu", "dram"}):
        weights = {UNATTRIBUTED: 1.0}
    elif device.kind == "cpu":
        weights = _cpu_weights(during, policy)
    elif device.kind == "dram":
        weights = _memory_weights(during, policy)
    else:
        weights = {IDLE: 1.0}
    parts = divide(energy.joules, weights)
    return tuple(JobSlice(job, device, energy.start, energy.end, joules) for job, joules in parts.items())


def divide(joules: Joules, weights: dict[Job, float]) -> dict[Job, Joules]:
    """`joules` in proportion to `weights` (>= 0, not all zero); what rounding leaves over goes to the largest part."""
    total = math.fsum(weights.values())
    parts = {job: joules * (weight / total) for job, weight in weights.items()}
    largest = max(parts, key=parts.__getitem__)
    parts[largest] = max(0.0, parts[largest] + (joules - math.fsum(parts.values())))
    return {job: Joules(part) for job, part in parts.items()}


def _cpu_weights(activities: Iterable[Activity], policy: IdlePolicy) -> dict[Job, float]:
    """CPU seconds by job, with what nobody is known to have used, and what nobody used."""
    weights: dict[Job, float] = {}
    capacity = unknown = 0.0
    for activity in activities:
        interval = activity.end - activity.start
        known = math.fsum(usage.cpu_seconds for usage in activity.usages)
        capacity += activity.cpus * interval
        unknown += max(0.0, min(activity.busy_seconds, activity.cpus * interval) - known)
        for usage in activity.usages:
            weights[usage.job] = weights.get(usage.job, 0.0) + _cpu_seconds(usage, interval, policy)
    return _with_rest(weights, unknown, capacity, policy)


def _cpu_seconds(usage: Usage, interval: float, policy: IdlePolicy) -> float:
    """What a job pays for: what it used, or what was kept for it."""
    return max(usage.cpu_seconds, usage.cpus_reserved * interval) if policy == "reserved" else usage.cpu_seconds


def _memory_weights(activities: Iterable[Activity], policy: IdlePolicy) -> dict[Job, float]:
    """Byte-seconds by job, with those of unknown owners, and the free ones."""
    weights: dict[Job, float] = {}
    total = unknown = 0.0
    for activity in activities:
        interval = activity.end - activity.start
        known = math.fsum(usage.memory_bytes for usage in activity.usages)
        total += activity.memory_total * interval
        unknown += max(0.0, activity.memory_used - known) * interval
        for usage in activity.usages:
            weights[usage.job] = weights.get(usage.job, 0.0) + usage.memory_bytes * interval
    return _with_rest(weights, unknown, total, policy)


def _with_rest(weights: dict[Job, float], unknown: float, whole: float, policy: IdlePolicy) -> dict[Job, float]:
    """Add `_unattributed_` (used, not by these jobs) and `_idle_` (the rest of the whole), all in the weights' unit.

    Meters of use are read one after the other, so that their sum may exceed the whole by a little: there is then no
    idle, and the shares are of the sum.
    """
    idle = 0.0 if policy == "shared" else max(0.0, whole - math.fsum(weights.values()) - unknown)
    filled = {**weights, UNATTRIBUTED: unknown, IDLE: idle}
    return filled if math.fsum(filled.values()) > 0 else {IDLE: 1.0}
