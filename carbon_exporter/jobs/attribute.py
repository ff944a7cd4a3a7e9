"""The split: one device's energy among the jobs that used it. Pure, and exact: the parts add up to the whole.

CPU   a job's CPU time over what all CPUs could have given; the rest of the busy time is `_unattributed_`, the rest of
      the capacity `_idle_`.
DRAM  a job's memory over what is installed; the rest of what is used is `_unattributed_`, the free rest `_idle_`.
GPU   the jobs that hold the board, idle included, whatever the policy for idle (boards.py says who holds how much);
      `_unattributed_` where its users are not known. Other accelerators too.
Other devices are `_idle_`; energy of a time in which nobody watched is `_unattributed_`.

Who pays for idle CPUs and memory is a policy: `separate` leaves it to `_idle_`, `shared` divides it among those who ran
in proportion to their use, `reserved` charges a job for the CPUs kept for it, and leaves the rest to `_idle_`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.jobs.base import IDLE, UNATTRIBUTED, Activity, Holding, IdlePolicy, Job, JobSlice, Usage
from carbon_exporter.units import Joules

__all__ = ["divide", "split"]


SAME_MOMENT_SECONDS = 0.1
"""A board's meter and its users are read one after the other at a tick: so much of a slice may lie outside what was
watched and still belongs to the holders."""

_Interval = TypeVar("_Interval", Activity, Holding)


def split(
    energy: EnergySlice, activities: Sequence[Activity], policy: IdlePolicy, holdings: Sequence[Holding] = ()
) -> tuple[JobSlice, ...]:
    """Who pays for a slice of energy.

    Args:
        energy: what the device used.
        activities: what ran, in order of time and without overlaps; each counts as far as it lies in the slice's time.
        policy: who pays for idle CPUs and memory.
        holdings: who held this device, in order of time and without overlaps, where it is a board.
    """
    device = energy.device
    if device.kind in {"cpu", "dram"}:
        weights = _machine_weights(energy, activities, policy)
    elif holdings or device.kind in {"gpu", "accelerator"}:
        weights = _board_weights(energy, holdings)
    else:
        weights = {UNATTRIBUTED if energy.caught_up else IDLE: 1.0}
    parts, start, end = divide(energy.joules, weights), energy.start, energy.end
    return tuple([JobSlice(job, device, start, end, joules) for job, joules in parts.items()])


def divide(joules: Joules, weights: dict[Job, float]) -> dict[Job, Joules]:
    """`joules` in proportion to `weights` (>= 0, not all zero); what rounding leaves over goes to the largest part."""
    total = math.fsum(weights.values())
    parts = {job: Joules(joules * (weight / total)) for job, weight in weights.items()}
    largest = max(parts, key=parts.__getitem__)
    parts[largest] = Joules(max(0.0, parts[largest] + (joules - math.fsum(parts.values()))))
    return parts


def _during(energy: EnergySlice, intervals: Sequence[_Interval]) -> list[tuple[_Interval, float]]:
    """Those that overlap with the slice, and the seconds that both have in common.

    Meters and their users are not read at the same moment, nor equally often. What counts stands at the end.
    """
    during = []
    for one in reversed(intervals):
        if one.end <= energy.start:
            break
        if (seconds := min(energy.end, one.end) - max(energy.start, one.start)) > 0:
            during.append((one, seconds))
    return during[::-1]


def _machine_weights(energy: EnergySlice, activities: Sequence[Activity], policy: IdlePolicy) -> dict[Job, float]:
    """Weights for a device that all jobs of the machine share."""
    during = [] if energy.caught_up else _during(energy, activities)
    if not during:
        return {UNATTRIBUTED: 1.0}
    watched = math.fsum(seconds for _, seconds in during)
    of = _cpu_weights if energy.device.kind == "cpu" else _memory_weights
    return _with_unwatched(of(during, policy), watched, energy.end - energy.start)


def _board_weights(energy: EnergySlice, holdings: Sequence[Holding]) -> dict[Job, float]:
    """Seconds of the board by job; `_unattributed_` pays for those in which its users were not known.

    Energy that was used while the exporter was away has no time within the slice: it goes to the one job that held the
    board all along, else to nobody.
    """
    during = _during(energy, holdings)
    unwatched = (energy.end - energy.start) - math.fsum(seconds for _, seconds in during)
    if unwatched <= SAME_MOMENT_SECONDS:
        unwatched = 0.0
    weights = {UNATTRIBUTED: unwatched} if unwatched or not during else {}
    for holding, seconds in during:
        for job, share in holding.shares.items():
            weights[job] = weights.get(job, 0.0) + share * seconds
    known = math.fsum(weights.values()) > 0 and (len(weights) == 1 or not energy.caught_up)
    return weights if known else {UNATTRIBUTED: 1.0}


def _cpu_weights(during: Iterable[tuple[Activity, float]], policy: IdlePolicy) -> dict[Job, float]:
    """CPU seconds by job, with what nobody is known to have used, and what nobody used."""
    weights: dict[Job, float] = {}
    capacity = unknown = 0.0
    for activity, seconds in during:
        interval = activity.end - activity.start
        part = seconds / interval
        known = math.fsum(usage.cpu_seconds for usage in activity.usages)
        capacity += activity.cpus * seconds
        unknown += max(0.0, min(activity.busy_seconds, activity.cpus * interval) - known) * part
        for usage in activity.usages:
            weights[usage.job] = weights.get(usage.job, 0.0) + _cpu_seconds(usage, interval, policy) * part
    return _with_rest(weights, unknown, capacity, policy)


def _cpu_seconds(usage: Usage, interval: float, policy: IdlePolicy) -> float:
    """What a job pays for: what it used, or what was kept for it."""
    return max(usage.cpu_seconds, usage.cpus_reserved * interval) if policy == "reserved" else usage.cpu_seconds


def _memory_weights(during: Iterable[tuple[Activity, float]], policy: IdlePolicy) -> dict[Job, float]:
    """Byte-seconds by job, with those of unknown owners, and the free ones."""
    weights: dict[Job, float] = {}
    total = unknown = 0.0
    for activity, seconds in during:
        known = math.fsum(usage.memory_bytes for usage in activity.usages)
        total += activity.memory_total * seconds
        unknown += max(0.0, activity.memory_used - known) * seconds
        for usage in activity.usages:
            weights[usage.job] = weights.get(usage.job, 0.0) + usage.memory_bytes * seconds
    return _with_rest(weights, unknown, total, policy)


def _with_rest(weights: dict[Job, float], unknown: float, whole: float, policy: IdlePolicy) -> dict[Job, float]:
    """Add `_unattributed_` (used, not by these jobs) and `_idle_` (the rest of the whole), all in the weights' unit.

    Meters of use are read one after the other, so that their sum may exceed the whole by a little: there is then no
    idle, and the shares are of the sum.
    """
    idle = 0.0 if policy == "shared" else max(0.0, whole - math.fsum(weights.values()) - unknown)
    filled = {**weights, UNATTRIBUTED: unknown, IDLE: idle}
    return filled if math.fsum(filled.values()) > 0 else {IDLE: 1.0}


def _with_unwatched(weights: dict[Job, float], watched: float, seconds: float) -> dict[Job, float]:
    """Add the part of the slice's `seconds` that no activity covers to `_unattributed_`."""
    unwatched = math.fsum(weights.values()) * max(0.0, seconds - watched) / watched
    return {**weights, UNATTRIBUTED: weights.get(UNATTRIBUTED, 0.0) + unwatched}
