"""Which boards a script's process tree is on, and what it pays of each: as jobs share them, with processes for jobs.

A process that belongs to two scripts, one the other's ancestor, is the nearer one's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from carbon_exporter.jobs.base import Job
from carbon_exporter.jobs.boards import hold, look_at
from carbon_exporter.publish import handoff_wire as wire
from carbon_exporter.sensors.base import Occupancy

__all__ = ["boards_of"]

_MOST_PARENTS = 64
_NOBODY = wire.Boards(known=False, shares=())


def boards_of(
    pids: Collection[int], occupancies: Sequence[Occupancy], parent_of: Callable[[int], int]
) -> Mapping[int, wire.Boards]:
    """For each of the scripts' processes what it is to be told; by `pids`, as our /proc has them."""
    if any(one.occupants is None for one in occupancies):
        return dict.fromkeys(pids, _NOBODY)
    known: dict[int, int] = {}
    shares: dict[int, list[wire.BoardShare]] = {pid: [] for pid in pids}
    certain = dict.fromkeys(pids, True)

    def owner(pid: int) -> Job:
        if pid not in known:
            known[pid] = _nearest(pid, pids, parent_of)
        return Job(str(known[pid] or pid), "script" if known[pid] else "process")

    for occupancy in occupancies:
        look = look_at(occupancy, owner)
        guessed = any(used is None for part in look.parts for used in part.used.values()) and any(
            len(part.holders) > 1 for part in look.parts
        )
        for job, share in hold(look, look).shares.items():
            if job.namespace == "script" and share > 0:
                shares[int(job.name)].append(wire.BoardShare(occupancy.device, min(1.0, share)))
                certain[int(job.name)] &= not guessed
    return {pid: wire.Boards(known=True, shares=tuple(told), certain=certain[pid]) for pid, told in shares.items()}


def _nearest(pid: int, pids: Collection[int], parent_of: Callable[[int], int]) -> int:
    """The first of `pids` on the way from a process to its ancestors; 0 if there is none."""
    seen = 0
    while pid > 0 and seen < _MOST_PARENTS:
        if pid in pids:
            return pid
        pid, seen = parent_of(pid), seen + 1
    return 0
