"""Marked processes: those outside containers whose environment names a job (`CARBON_JOB`), and what runs below them.

The environment is read once per process and program; a child without the mark has its parent's. What runs in a
container, a pod, a virtual machine or a Slurm job's group is counted and named with its group: of it only the path is
read, once, and it is passed over from then on. Memory of marked processes counts
shared pages once: by the kernel's proportional size where it may be read (at most once a minute: it walks the page
tables), else a child counts for what it holds beyond its parent.

Of the others nothing is read, but for those that somebody asks about, as of a process on a board: their group.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carbon_exporter.jobs.namer import Namer
from carbon_exporter.jobs.naming import Name
from carbon_exporter.jobs.places import place_of
from carbon_exporter.jobs.process_files import read_environment, read_file
from carbon_exporter.jobs.processes import Process, ProcessTable
from carbon_exporter.jobs.procfs import parse_cgroup, parse_pss

__all__ = ["Mark", "MarkedProcesses"]

PSS_PERIOD_SECONDS = 60.0
PSS_READS_PER_TICK = 20
GROUP_PERIOD_SECONDS = 15.0
"""A process may be moved to another group while it runs, so that its group is read again this often."""
ENDED_UPDATES = 2
"""So many updates a process is remembered after its end: what it used is often told later than that it is gone."""


@dataclass(slots=True)
class Mark:
    """What is known of one process since it was first met."""

    name: Name | None
    contained: bool = False
    """Whether its group counts and names all that it does."""
    group: str | None = None
    """The path of the container, unit or session it runs in, whose counter holds its use too."""
    group_at: float = float("-inf")
    pss_ratio: float | None = None
    """Proportional over resident size, as last read; None if it was not or may not be."""
    pss_at: float = float("-inf")


class MarkedProcesses:
    """Remembers processes from scan to scan. Not for use from several threads."""

    def __init__(
        self, table: ProcessTable, procfs: Path, controller: str | None, page_bytes: int, namer: Namer
    ) -> None:
        """`controller` is the line of /proc/PID/cgroup whose path counts, None if groups have no counters to see."""
        self._table = table
        self._procfs = str(procfs)
        self._controller = controller
        self._page_bytes = page_bytes
        self._namer = namer
        self._variables = namer.variables
        self._marks: dict[tuple[int, int], Mark] = {}
        self._passed_over: dict[tuple[int, int], Mark] = {}
        """Those that the table leaves out: most of a busy node's, so that they are kept and not gone through."""
        self._by_pid: dict[int, Mark] | None = None
        """The same by pid alone, once somebody has asked."""
        self._ended: dict[int, tuple[Mark, int]] = {}
        """By pid: processes that have ended, and how many updates ago."""
        self.unreadable = 0
        """Living processes whose environment may not be read by this user."""
        self._unreadable: set[tuple[int, int]] = set()

    def update(self, now: float) -> list[tuple[Process, Mark, Name]]:
        """Meet the new ones, forget those that ended; returns those that belong to a job.

        Raises `OSError` if the process table cannot be read.
        """
        processes = self._table.scan()
        marks, both = self._meet_all(processes)
        self._remember_ended(marks)
        self._marks, self._by_pid = marks, None
        self._unreadable &= marks.keys()
        self.unreadable = len(self._unreadable)
        marked = [(process, mark, mark.name) for process, mark in both if mark.name is not None]
        for process, mark, _ in marked:
            self._look_at_group(process.pid, mark, now)
        self._pass_over(both, {process.pid for process, _, _ in marked})
        return marked

    def knows(self, pid: int) -> bool:
        """Whether this process was there at the last update, or ended at the last or the one before."""
        return pid in self._living() or pid in self._ended

    def name_of(self, pid: int, now: float, of_group: Callable[[str], Name | None]) -> Name | None:
        """The job of a process, living or just ended: its own, else that of its container, unit or session.

        `of_group` names a group by its path.
        """
        mark = self._living().get(pid)
        if mark is None:
            mark = self._ended.get(pid, (None, 0))[0]
        elif mark.name is None:
            self._look_at_group(pid, mark, now)
        if mark is None or mark.name is not None:
            return mark.name if mark else None
        return of_group(mark.group) if mark.group else None

    def _living(self) -> dict[int, Mark]:
        if self._by_pid is None:
            both = (*self._passed_over.items(), *self._marks.items())
            self._by_pid = {pid: mark for (pid, _), mark in both}
        return self._by_pid

    def _remember_ended(self, marks: Mapping[tuple[int, int], Mark]) -> None:
        ended = {pid: (mark, age + 1) for pid, (mark, age) in self._ended.items() if age < ENDED_UPDATES}
        gone = {key: self._marks[key] for key in self._marks.keys() - marks.keys()}
        forgotten = ((key, self._passed_over.pop(key, None)) for key in self._table.take_forgotten())
        gone.update((key, mark) for key, mark in forgotten if mark is not None)
        ended.update((pid, (mark, 1)) for (pid, _), mark in gone.items())
        self._ended = ended

    def _pass_over(self, processes: Iterable[tuple[Process, Mark]], named: Collection[int]) -> None:
        """Leave out from now on those whose group counts all that they do, or nobody does.

        `named` are the processes of jobs: one that waits for a container's process has its time, which is then
        subtracted.
        """
        keys = [
            process.key
            for process, mark in processes
            if (mark.contained and process.stat.parent not in named) or process.stat.kernel
        ]
        self._table.pass_over(keys)
        self._passed_over.update((key, self._marks.pop(key)) for key in keys)

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

    def _meet_all(self, processes: Sequence[Process]) -> tuple[dict[tuple[int, int], Mark], list[tuple[Process, Mark]]]:
        """The marks of all, those of before and those of the new ones; and each process with its own."""
        marks = dict[tuple[int, int], Mark]()
        strangers = []
        for process in processes:
            key = process.key
            mark = None if process.new else self._marks.get(key)
            if mark is None:
                strangers.append(process)
            else:
                marks[key] = mark
        if not strangers:
            return marks, list(zip(processes, marks.values(), strict=True))
        by_pid = {process.pid: process for process in processes}
        for process in strangers:
            if process.key not in marks:
                self._meet_line(process, by_pid, marks)
        return marks, [(process, marks[process.key]) for process in processes]

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
        group, contained = self._group(process.pid)
        if contained:
            return Mark(None, contained, group)
        name = self._namer.of_process(self._environment(process))
        name = name or (before.name if before else None) or (parent.name if parent else None)
        return Mark(name, group=group)

    def _environment(self, process: Process) -> dict[str, str]:
        try:
            environment = read_environment(self._procfs, process.pid, self._variables)
        except PermissionError:
            self._unreadable.add(process.key)
            return {}
        except OSError:
            return {}
        self._unreadable.discard(process.key)
        return environment

    def _look_at_group(self, pid: int, mark: Mark, now: float) -> None:
        """A process may be moved to another group while it runs."""
        if now - mark.group_at >= GROUP_PERIOD_SECONDS:
            group, _ = self._group(pid)
            mark.group, mark.group_at = group or mark.group, now

    def _group(self, pid: int) -> tuple[str | None, bool]:
        """Where a workload's group ends that the process runs in, and whether that counts and names all in it."""
        if self._controller is None:
            return None, False
        try:
            path = parse_cgroup(read_file(f"{self._procfs}/{pid}/cgroup", 65536)).get(self._controller)
        except OSError:
            return None, False
        place = place_of(path) if path else None
        return (place.path, place.kind not in {"unit", "session"}) if place else (None, False)

    def _pss_ratio(self, pid: int, resident: float) -> float | None:
        try:
            pss = parse_pss(read_file(f"{self._procfs}/{pid}/smaps_rollup", 8192))
        except (OSError, ValueError):
            return None
        return min(1.0, pss / resident) if resident > 0 else None


def _once(process: Process, mark: Mark, resident: Mapping[int, float]) -> float:
    """A process's share of its job's memory, in bytes."""
    mine = resident[process.pid]
    if mark.pss_ratio is not None:
        return mine * mark.pss_ratio
    return max(0.0, mine - resident.get(process.stat.parent, 0.0))
