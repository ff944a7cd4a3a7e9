"""Boards: who holds a GPU or another accelerator, and how much of it each job pays for. Pure, but for the memory.

The holder of a board pays for all of it, idle included. A holder is a job, not a process. Several share: each pays its
share of the compute time, and the rest equally with the others:

    share of job j = u_j + (1 - sum(u)) / holders

with `u` scaled down where they add up to more than 1, and equal shares where one of them is not known. What nobody
holds is `_idle_`. Where a board is divided in hardware (MIG), part `i` with the share `f_i` of the compute units, busy
for `u_i` of the time, is

    f_i * u_i + (1 - sum(f * u)) * f_i

of the board (`f_i` where a utilisation is not known), which its own holders share as above; units in no part are one
more, never busy and nobody's. The shares of a board add up to 1.

Users are seen at moments only. Between two looks the first half is as the look before saw it, the second as the look
after did: a job that both saw held all of the time, one that came or went half of it.

    share of job j = u_j + (1 - sum(u)) * (held_before(j) / holders_before + held_after(j) / holders_after) / 2

Who held it is wrong by half the time between them at most. Utilisations are of all that time, as the look after tells.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from carbon_exporter.jobs.attribute import divide
from carbon_exporter.jobs.base import IDLE, OVERFLOW, RESERVED, UNATTRIBUTED, Allocation, Holding, Job, PartitionHolder
from carbon_exporter.sensors.base import Occupancy, Partition
from carbon_exporter.units import Joules

__all__ = ["HISTORY_TICKS", "Boards", "Look", "Part", "fold", "hold", "look_at"]

HISTORY_TICKS = 120
"""Holdings are kept for so many looks, so that a board that was silent for a while is split by who held it then; one
that was not seen for longer is forgotten."""
_FRESH_TICKS = 3
"""A board that was not seen for so many looks has no holders any more, as far as anybody knows."""
_WHOLE = 1e-9
"""Shares of compute units are fractions of small numbers: what they miss the whole by is rounding."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a board: one of its partitions, the units in none of them, or all of it."""

    share: float
    """Of the compute units. The parts of a board add up to 1."""
    holders: frozenset[Job]
    used: Mapping[Job, float | None]
    """Share of its compute time since the look before, by job; None if not known. Those who have left may be here."""
    name: str = ""
    """Of the partition."""
    profile: str = ""
    utilization: float | None = None
    """Of the part as a whole, None if not known; of no importance where it is all of the board."""


@dataclass(frozen=True, slots=True)
class Look:
    """Who was on a board at one moment, jobs for processes."""

    device: str
    at: float
    """Monotonic seconds."""
    parts: tuple[Part, ...]
    listed: bool = True
    """Whether its users could be listed; if not, only those are known to whom a scheduler has given it."""

    @property
    def layout(self) -> tuple[tuple[str, float], ...]:
        """How the board was divided."""
        return tuple((part.name, part.share) for part in self.parts)

    @property
    def sole_holder(self) -> Job | None:
        """The one job that held all of the board, None if there was none."""
        held = {part.holders for part in self.parts if part.share > 0}
        jobs = next(iter(held)) if len(held) == 1 else frozenset()
        return next(iter(jobs)) if len(jobs) == 1 and not jobs & RESERVED else None


def look_at(
    occupancy: Occupancy,
    job_of: Callable[[int], Job],
    allocations: Sequence[Allocation] = (),
    vague: Collection[Job] = (),
) -> Look:
    """Who holds a board: the jobs of its processes, and those that a scheduler has given it to.

    Where a scheduler has given a board, a process whose job is not known is one of those who were given it: where the
    host's processes cannot be seen, that is all of them. So is one of a `vague` job: its pod is known by uid only.

    A job that was given all of a board with partitions, or whose processes name none of them, holds those that nobody
    else does; units in no partition are held by those who were given the whole board.
    """
    granted: dict[str, dict[Job, float | None]] = {}
    for one in allocations:
        granted.setdefault(one.uuid, {})[one.job] = 0.0
    granted[""] = {}  # nothing is given by a name that is none
    owners = _merged(granted, (occupancy.uuid, *occupancy.aliases))
    used = {
        one.name: _merged(granted, (one.uuid, *(f"{alias}/{one.name}" for alias in occupancy.aliases)))
        for one in occupancy.partitions
    }
    given = {name for name, jobs in used.items() if jobs or owners}
    elsewhere = used.setdefault("", {})
    elsewhere.update(owners)
    for occupant in occupancy.occupants or ():
        job, on = job_of(occupant.pid), occupant.partition if occupant.partition in used else ""
        if not (owners or on in given) or not (job == UNATTRIBUTED or job in vague):
            _add(used[on], job, occupant.utilization)
    parts = _parts(occupancy.partitions, used, owners) if occupancy.partitions else (_part(1.0, elsewhere),)
    return Look(occupancy.device, occupancy.at, parts, occupancy.occupants is not None)


def hold(before: Look, now: Look) -> Holding:
    """Who held a board between two looks: see the top of this file. It is wrong by half that time at most.

    If the board was divided anew meanwhile, the first half is the old division's, with the utilisations of its last
    look, and the second half the new one's.
    """
    if before.layout == now.layout:
        shares = _shares(before.parts, now.parts)
    else:
        old, new = _shares(before.parts, before.parts), _shares(now.parts, now.parts)
        shares = {job: (old.get(job, 0.0) + new.get(job, 0.0)) / 2 for job in {**old, **new}}
    return Holding(now.device, before.at, now.at, divide(Joules(1.0), shares))


def fold(holding: Holding, folded: Collection[Job]) -> Holding:
    """The same, with `folded` jobs together as `_overflow_`."""
    if not folded or not any(job in folded for job in holding.shares):
        return holding
    shares: dict[Job, float] = {}
    for job, share in holding.shares.items():
        payer = OVERFLOW if job in folded else job
        shares[payer] = shares.get(payer, 0.0) + share
    return replace(holding, shares=shares)


@dataclass(slots=True)
class _Board:
    """What is remembered of one board."""

    last: Look
    holdings: deque[Holding] = field(default_factory=lambda: deque(maxlen=HISTORY_TICKS))
    missed: int = 0
    """How many looks ago it was last seen."""


class Boards:
    """The boards of one machine and who held them. Not for use from several threads."""

    def __init__(self) -> None:
        """Nothing has been seen yet: a board's first look is only a mark."""
        self._boards: dict[str, _Board] = {}
        self._restored: dict[str, Job] = {}
        self._folded: frozenset[Job] = frozenset()

    def look(
        self,
        occupancies: Iterable[Occupancy],
        job_of: Callable[[int], Job],
        allocations: Sequence[Allocation] = (),
        vague: Collection[Job] = (),
    ) -> None:
        """Note who is on the boards now, once a tick.

        Args:
            occupancies: the boards, with their users where they could be listed.
            job_of: the job of a process.
            allocations: what a scheduler has given to whom; they hold with or without a process.
            vague: jobs that are called by a pod's uid, because nothing else is known of it.
        """
        for board in self._boards.values():
            board.missed += 1
        for occupancy in occupancies:
            if math.isfinite(occupancy.at):
                self._note_if_known(look_at(occupancy, job_of, allocations, vague))
        self._boards = {name: board for name, board in self._boards.items() if board.missed < HISTORY_TICKS}

    def fold(self, folded: Collection[Job]) -> None:
        """Let these jobs, which are beyond the limit, pay as `_overflow_` for what the last look found."""
        self._folded = frozenset(folded)
        for board in self._boards.values():
            if board.holdings and board.missed == 0:
                board.holdings[-1] = fold(board.holdings[-1], self._folded)

    def holdings(self, device: str) -> Sequence[Holding]:
        """Who held this board, in order of time."""
        board = self._boards.get(device)
        return board.holdings if board else ()

    def holders(self) -> frozenset[Job]:
        """Jobs that hold a board or a part of one now, or did since the look before; without reserved names."""
        jobs: set[Job] = set()
        for board in self._fresh():
            jobs.update(*(part.holders for part in board.last.parts))
            if board.holdings and board.missed == 0:
                jobs.update(board.holdings[-1].shares)
        return frozenset(jobs) - RESERVED

    def partition_jobs(self) -> tuple[PartitionHolder, ...]:
        """Which job holds which partition now, without reserved names and folded jobs."""
        found = (
            PartitionHolder(job, board.last.device, part.name, part.profile)
            for board in self._fresh()
            for part in board.last.parts
            if part.name
            for job in sorted(part.holders - RESERVED - self._folded)
        )
        return tuple(dict.fromkeys(found))  # each once, though a driver may name two partitions alike

    def sole_holders(self) -> dict[str, Job]:
        """By device: the one job that holds all of it. To be kept over a restart."""
        now = {name: board.last.sole_holder for name, board in self._boards.items()}
        known = {name: job for name, job in now.items() if job is not None and job not in self._folded}
        return {**self._restored, **known}

    def restore_sole_holders(self, holders: Mapping[str, Job]) -> None:
        """Who held which board alone when the exporter was last there.

        If the first look finds the same, it held it all the while: it pays for what was used meanwhile.
        """
        self._restored = dict(holders)

    def _fresh(self) -> list[_Board]:
        return [board for board in self._boards.values() if board.missed < _FRESH_TICKS]

    def _note_if_known(self, now: Look) -> None:
        """Of a board whose users cannot be listed, note who was given it; and when that has ended, that it has."""
        board = self._boards.get(now.device)
        if now.listed or any(part.holders for part in now.parts):
            self._note(now)
        elif board is not None and not board.last.listed:
            self._note(replace(now, parts=(_part(1.0, {UNATTRIBUTED: None}),)))

    def _note(self, now: Look) -> None:
        board = self._boards.get(now.device)
        if board is None:
            board = self._boards[now.device] = _Board(now)
            job = self._restored.pop(now.device, None)
            if job is not None and job == now.sole_holder:
                board.holdings.append(Holding(now.device, -math.inf, now.at, {job: 1.0}))
        elif now.at > board.last.at:
            board.holdings.append(hold(board.last, now))
            board.last = now
            board.missed = 0


def _merged(granted: Mapping[str, Mapping[Job, float | None]], names: Iterable[str]) -> dict[Job, float | None]:
    """All jobs to which something was given by one of these names."""
    merged: dict[Job, float | None] = {}
    for name in names:
        merged.update(granted.get(name, {}))
    return merged


def _add(holders: dict[Job, float | None], job: Job, utilization: float | None) -> None:
    """One more process of a job: utilisations add up, and one that is not known makes the sum unknown."""
    sum_before, more = holders.get(job, 0.0), _known(utilization)
    holders[job] = None if sum_before is None or more is None else sum_before + more


def _known(utilization: float | None) -> float | None:
    """0 to 1; None where a driver tells nonsense."""
    return min(1.0, utilization) if utilization is not None and 0 <= utilization < math.inf else None


def _part(share: float, used: Mapping[Job, float | None], partition: Partition | None = None) -> Part:
    """All of a board, a partition of it, or what is in none."""
    if partition is None:
        return Part(share, frozenset(used), used, utilization=0.0)
    return Part(share, frozenset(used), used, partition.name, partition.profile, _known(partition.utilization))


def _parts(
    partitions: Sequence[Partition], used: Mapping[str, Mapping[Job, float | None]], owners: Mapping[Job, float | None]
) -> tuple[Part, ...]:
    """The partitions, and what is in none of them, as parts that add up to 1."""
    shares = [_known(partition.share) or 0.0 for partition in partitions]
    total = math.fsum(shares)
    scale = 1.0 / total if total > 1.0 - _WHOLE else 1.0
    parts = [
        _part(share * scale, used[partition.name] or used[""], partition)
        for partition, share in zip(partitions, shares, strict=True)
    ]
    rest = [] if total > 1.0 - _WHOLE else [_part(1.0 - total, owners)]
    return (*parts, *rest)


def _shares(before: Sequence[Part], now: Sequence[Part]) -> dict[Job, float]:
    """What each job pays of a board that was divided in the same way at both looks."""
    busy = [part.share * part.utilization for part in now if part.utilization is not None]
    if len(busy) < len(now):
        busy = [0.0] * len(now)
    rest = max(0.0, 1.0 - math.fsum(busy))
    shares: dict[Job, float] = {}
    for was, part, own in zip(before, now, busy, strict=True):
        of_part = own + rest * part.share
        for job, share in _among(was, part).items():
            shares[job] = shares.get(job, 0.0) + of_part * share
    return shares


def _among(before: Part, now: Part) -> dict[Job, float]:
    """How those who held one part share it: their utilisations, and the rest by halves as each look saw them.

    One that has left without telling its utilisation pays of the rest only.
    """
    told = {job: used for job, used in now.used.items() if used is not None}
    total = math.fsum(told.values()) if len(told) == len(now.used) else 0.0
    rest = max(0.0, 1.0 - total)
    whole = max(1.0, total)
    shares = {job: used / whole for job, used in told.items()} if total > 0 else {}
    for half in (before.holders or (IDLE,), now.holders or (IDLE,)):
        each = rest / 2 / len(half)
        for job in half:
            shares[job] = shares.get(job, 0.0) + each
    return shares
