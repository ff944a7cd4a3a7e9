"""What a process tree pays of the boards it is on, by the driver's lists of processes. Pure.

The policy is the node's (jobs/boards.py): the holder of a board pays for all of it; several share by their use of it,
the rest equally, and a board that is divided in hardware by its partitions. The tree is one holder, and each process
that is not of it one more: whose it is, a guest does not know.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from carbon_exporter.jobs.base import Job
from carbon_exporter.jobs.boards import Part, hold, look_at
from carbon_exporter.sdk.base import BoardUse
from carbon_exporter.sensors.base import Occupancy

__all__ = ["board_use"]

_OURS = Job("ours")


def board_use(occupancies: Iterable[Occupancy], pids: Collection[int]) -> BoardUse | None:
    """The shares of the tree `pids`; None if no driver tells who is on its boards, or `pids` are not known."""
    if not pids:
        return None

    def job_of(pid: int) -> Job:
        return _OURS if pid in pids else Job(f"pid {pid}")

    shares: dict[str, float] = {}
    listed, certain = False, True
    for occupancy in occupancies:
        look = look_at(occupancy, job_of)
        listed = listed or look.listed
        mine = [part for part in look.parts if _OURS in part.holders]
        if look.listed and mine:
            shares[occupancy.device] = hold(look, look).shares.get(_OURS, 0.0)
            certain = certain and all(_is_told(part) for part in mine)
    return BoardUse(shares, certain) if listed else None


def _is_told(part: Part) -> bool:
    """Whether its holders' use is known, or there is but one."""
    return len(part.holders) == 1 or all(used is not None for used in part.used.values())
