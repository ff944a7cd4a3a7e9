"""Marked processes: those whose environment names a job (`CARBON_JOB`), and what runs below them.

The environment is read once per process and program; a child without the mark has its parent's. Their memory counts
shared pages once: by the kernel's proportional size where it may be read (at most once a minute: it walks the page
tables), else a child counts for what it holds beyond its parent.

Of the others nothing is read, but for those that somebody asks about, as of a process on a board: their group.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carbon_exporter.jobs.base import Claim, Workload
from carbon_exporter.jobs.cgroups import owner_path
from carbon_exporter.jobs.processes import Process
from carbon_exporter.jobs.procfs import parse_cgroup, parse_environ, parse_pss
from carbon_exporter.jobs.registry import RESOLVERS, first_claim

__all__ = ["Mark", "MarkedProcesses"]

PSS_PERIOD_SECONDS = 60.0
PSS_READS_PER_TICK = 20
GROUP_PERIOD_SECONDS = 15.0
"""A process may be moved to another group while it runs, so that its group is read again this often."""
ENDED_UPDATES = 2
"""So many updates a process is remembered after its end: what it used is often told later than that it is gone."""
_LONGEST_ENVIRONMENT = 2 * 1024 * 1024


@dataclass(slots=True)
class Mark:
    """What is known of one process since it was first met."""

    claim: Claim | None
    group: str | None = None
    """The path of the container, unit or session it runs in, whose counter holds its use too."""
    group_at: float = float("-inf")
    group_claim: Claim | None = None
    """The group's own name, where somebody asked for it."""
    pss_ratio: float | None = None
    """Proportional over resident size, as last read; None if it was not or may not be."""
    pss_at: float = float("-inf")


class MarkedProcesses:
    """Remembers processes from scan to scan. Not for use from several threads."""

    def __init__(self, procfs: Path, controller: str, page_bytes: int) -> None:
        """`controller` is the line of /proc/PID/cgroup whose path counts; `page_bytes` the size of a page."""
        self._procfs = procfs
        self._controller = controller
        self._page_bytes = page_bytes
        self._resolvers = tuple(resolver for resolver in RESOLVERS if resolver.variables)
        self._variables = tuple(name.encode() for resolver in self._resolvers for name in resolver.variables)
        self._marks: dict[tuple[int, int], Mark] = {}
        self._by_pid: dict[int, Mark] | None = None
        """The same by pid alone, once somebody has asked."""
        self._ended: dict[int, tuple[Mark, int]] = {}
        """By pid: processes that have ended, and how many updates ago."""
        self.unreadable = 0
        """Living processes whose environment may not be read by this user."""
        self._unreadable: set[tuple[int, int]] = set()

    def update(self, processes: Sequence[Process], now: float) -> list[tuple[Process, Mark, Claim]]:
        """Meet the new ones, forget those that ended; returns those that belong to a job."""
        known = ((process.key, self._marks.get(process.key)) for process in processes if not process.new)
        marks = {key: mark for key, mark in known if mark is not None}
        if len(marks) < len(processes):
            by_pid = {process.pid: process for process in processes}
            for process in processes:
                if process.key not in marks:
                    self._meet_line(process, by_pid, marks)
        self._remember_ended(marks)
        self._marks, self._by_pid = marks, None
        self._unreadable &= marks.keys()
        self.unreadable = len(self._unreadable)
        both = ((process, marks[process.key]) for process in processes)
        marked = [(process, mark, mark.claim) for process, mark in both if mark.claim is not None]
        for process, mark, _ in marked:
            if now - mark.group_at >= GROUP_PERIOD_SECONDS:
                mark.group, mark.group_at = self._group(process.pid, mark.group), now
        return marked

    def knows(self, pid: int) -> bool:
        """Whether this process was there at the last update, or ended at the last or the one before."""
        return pid in self._living() or pid in self._ended

    def claim_of(self, pid: int, now: float) -> Claim | None:
        """The job of a process, living or just ended: its own, else that of its container, unit or session."""
        living = pid in self._living()
        mark = self._living().get(pid) or self._ended.get(pid, (None, 0))[0]
        if mark is None:
            return None
        if mark.claim is None and living and now - mark.group_at >= GROUP_PERIOD_SECONDS:
            before, mark.group, mark.group_at = mark.group, self._group(pid, mark.group), now
            if mark.group != before:
                mark.group_claim = first_claim(Workload(mark.group)) if mark.group else None
        return mark.claim or mark.group_claim

    def _living(self) -> dict[int, Mark]:
        if self._by_pid is None:
            self._by_pid = {pid: mark for (pid, _), mark in self._marks.items()}
        return self._by_pid

    def _remember_ended(self, marks: Mapping[tuple[int, int], Mark]) -> None:
        ended = {pid: (mark, age + 1) for pid, (mark, age) in self._ended.items() if age < ENDED_UPDATES}
        ended.update((key[0], (self._marks[key], 1)) for key in self._marks.keys() - marks.keys())
        self._ended = ended

    def memory_bytes(self, members: Sequence[tuple[Process, Mark]], now: float) -> dict[int, float]:
        """Bytes by pid of the processes of one job, pages that they share counted once."""
        resident = {process.pid: float(process.stat.resident_pages * self._page_bytes) for process, _ in members}
        if len(members) == 1:
            return resident
        due = sorted(
            (one for one in members if now - one[1].pss_at >= PSS_PERIOD_SECONDS), key=lambda one: one[1].pss_at
        )
        for process, mark in due[:PSS_READS_PER_TICK]:
            mark.pss_ratio, mark.pss_at = self._pss_ratio(process.pid, resident[process.pid]), now
        return {process.pid: _once(process, mark, resident) for process, mark in members}

    def _meet_line(self, process: Process, by_pid: Mapping[int, Process], marks: dict[tuple[int, int], Mark]) -> None:
        """Make the process's mark; first those of its ancestors that have none, so that it can inherit."""
        line = [process]
        while (parent := by_pid.get(line[-1].stat.parent)) and parent.key not in marks and parent not in line:
            line.append(parent)
        for one in reversed(line):
            above = by_pid.get(one.stat.parent)
            marks[one.key] = self._meet(one, self._marks.get(one.key), marks.get(above.key) if above else None)

    def _meet(self, process: Process, before: Mark | None, parent: Mark | None) -> Mark:
        """The mark of a new program: its own word, else its job `before` it became this one, else its parent's."""
        if process.stat.kernel:
            return Mark(None)
        claim = first_claim(Workload("/", self._environment(process)), self._resolvers)
        return Mark(claim or (before.claim if before else None) or (parent.claim if parent else None))

    def _environment(self, process: Process) -> dict[str, str]:
        try:
            text = _read(f"{self._procfs}/{process.pid}/environ", _LONGEST_ENVIRONMENT)
        except PermissionError:
            self._unreadable.add(process.key)
            return {}
        except OSError:
            return {}
        self._unreadable.discard(process.key)
        return parse_environ(text) if any(name in text for name in self._variables) else {}

    def _group(self, pid: int, known: str | None) -> str | None:
        """The group that it is in now; the one that is `known` if it has just ended, or may not be read."""
        try:
            paths = parse_cgroup(_read(f"{self._procfs}/{pid}/cgroup", 65536))
        except OSError:
            return known
        path = paths.get(self._controller)
        return owner_path(path) if path else None

    def _pss_ratio(self, pid: int, resident: float) -> float | None:
        try:
            pss = parse_pss(_read(f"{self._procfs}/{pid}/smaps_rollup", 8192))
        except (OSError, ValueError):
            return None
        return min(1.0, pss / resident) if resident > 0 else None


def _once(process: Process, mark: Mark, resident: Mapping[int, float]) -> float:
    """A process's share of its job's memory, in bytes."""
    mine = resident[process.pid]
    if mark.pss_ratio is not None:
        return mine * mark.pss_ratio
    return max(0.0, mine - resident.get(process.stat.parent, 0.0))


def _read(path: str, most: int) -> bytes:
    """Up to `most` bytes of a file of /proc."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while most > 0 and (chunk := os.read(handle, min(most, 131072))):
            chunks.append(chunk)
            most -= len(chunk)
        return b"".join(chunks)
    finally:
        os.close(handle)
