"""The observer: once a tick, what the machine and its jobs have done since the last.

It joins three views of the same CPU time: the kernel's total, the control groups' counters and the process table. A
process outside containers that was started for a job (`CARBON_JOB`) is that job's, and is subtracted from the unit it
runs in; what is left of a group is the pod's, container's, Slurm job's, unit's or session's; what is left of the total
has no known owner.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter

from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.base import UNATTRIBUTED, Activity, Allocation, Job, ResolverHealth, Usage
from carbon_exporter.jobs.carry import Carry, fit
from carbon_exporter.jobs.cgroups import CgroupTree, find_hierarchy
from carbon_exporter.jobs.groups import Groups, Use
from carbon_exporter.jobs.marked import Mark, MarkedProcesses
from carbon_exporter.jobs.namer import Namer
from carbon_exporter.jobs.naming import BY_UID, Name
from carbon_exporter.jobs.process_files import read_file
from carbon_exporter.jobs.processes import Process, ProcessTable
from carbon_exporter.jobs.procfs import CpuTimes, Memory, parse_cpu_times, parse_memory
from carbon_exporter.sensors.base import Host

__all__ = ["Observer"]

LONGEST_TOTALS = 4 * 1024 * 1024
"""Bytes: /proc/stat has a line for each CPU, and one with a number for each interrupt."""
NEWBORN_SLACK_SECONDS = 1.0
"""How much longer than the interval the CPUs may seem to have run for a group, because its parts are read in turn."""

_SEES_ENVIRONMENTS = 1 << 2 | 1 << 19
"""CAP_DAC_READ_SEARCH, because /proc/PID/environ is its owner's, and CAP_SYS_PTRACE, because the kernel guards what
lies behind it. What is hidden even so is hidden by the process itself, and nothing would mend it."""


class Observer:
    """Watches one machine. Not for use from several threads."""

    def __init__(self, host: Host, *, reservations: bool = False, namer: Namer | None = None) -> None:
        """`reservations`: also find out which CPUs are kept for a group (for the policy that charges for them)."""
        self.reservations = reservations
        self._host = host
        self._namer = namer or Namer()
        hierarchy = find_hierarchy(host.sysfs)
        self._groups = Groups(CgroupTree(hierarchy), host.procfs, self._namer) if hierarchy else None
        self._sees_all = _has_capabilities(_SEES_ENVIRONMENTS)
        self._ticks_per_second = float(os.sysconf("SC_CLK_TCK"))
        self._marked = MarkedProcesses(
            ProcessTable(host.procfs),
            host.procfs,
            hierarchy.controller if hierarchy else None,
            os.sysconf("SC_PAGE_SIZE"),
            self._namer,
        )
        self._last: tuple[float, CpuTimes] | None = None
        self._carry = Carry()
        self._seconds = {"environment": 0.0, "cgroup": 0.0, "gpu": 0.0}
        self._on_boards: set[int] = set()
        """Processes that somebody has asked about since the last look."""
        self._unseen: set[int] = set()
        """Those of them that are not in /proc."""
        self._unseen_before: set[int] = set()
        self._scanned = False
        self.names: dict[Job, set[Name]] = {}
        """All that was said of each job that runs now: by which rule, and of which pods and containers it consists."""
        self.marked_jobs: frozenset[Job] = frozenset()
        """Those of them that a process's environment names."""

    def observe(self) -> Activity | None:
        """What was done since the last call; None at the first. Raises `JobResolutionError` if /proc gives nothing."""
        now = self._host.clock()
        self._on_boards, self._unseen, self._unseen_before = set(), set(), self._unseen
        self._seconds["gpu"] = 0.0
        self._scanned = False
        times, memory = self._totals()
        sums: dict[Job, Use] = {}
        in_groups = self._add_processes(sums, now)
        self._add_groups(sums, in_groups, now, times.cpus)
        last, self._last = self._last, (now, times)
        if last is None or now <= last[0]:
            return None
        seen = Activity(
            start=last[0],
            end=now,
            cpus=times.cpus,
            busy_seconds=max(0, times.busy - last[1].busy) / self._ticks_per_second,
            memory_total=memory.total,
            memory_used=memory.total - memory.available,
            usages=tuple(Usage(job, s.cpu_seconds, s.memory_bytes, s.cpus_reserved) for job, s in sums.items()),
        )
        activity, self._carry = fit(seen, self._carry)
        return activity

    def job_of(self, pid: int) -> Job:
        """The job of a process on a board, living or just ended; `_unattributed_` if it is not known. Never raises.

        Its own, inherited or not (`CARBON_JOB`), else that of its pod, container, unit or session. For the time between
        `observe` and `health`. A process that has ended keeps its job for two more looks.
        """
        began = perf_counter()
        self._on_boards.add(pid)
        name = self._marked.name_of(pid, self._host.clock(), self._name_of_group)
        if name is not None:
            self._note(name)
        elif self._scanned and not self._marked.knows(pid):
            self._unseen.add(pid)
        self._seconds["gpu"] += perf_counter() - began
        return name.job if name else UNATTRIBUTED

    def allocations(self) -> tuple[Allocation, ...]:
        """Which boards schedulers have given to whom."""
        running = {name for names in self.names.values() for name in names}
        return self._namer.allocations(running, self._host.clock())

    @property
    def vague(self) -> frozenset[Job]:
        """Jobs that run now and are called by the uid of a pod of which nothing else is known."""
        return frozenset(job for job, names in self.names.items() if any(name.why == BY_UID for name in names))

    def health(self) -> tuple[ResolverHealth, ...]:
        """What each way of naming sees, and what would let it see more; `gpu` only while processes are on boards."""
        parts = [self._environment_health(), self._cgroup_health()]
        if self._on_boards:
            parts.append(self._board_health())
        return tuple(replace(one, seconds=self._seconds[one.resolver]) for one in parts)

    def _environment_health(self) -> ResolverHealth:
        hidden = self._marked.unreadable
        if not hidden:
            return ResolverHealth("environment", success=True)
        return ResolverHealth(
            "environment",
            success=self._sees_all,
            reason=f"the environment of {hidden} processes may not be read: their CARBON_JOB is not seen",
            remedy=""
            if self._sees_all
            else "give it the capabilities CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH (root has them; in a systemd "
            "unit AmbientCapabilities=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH)",
        )

    def _cgroup_health(self) -> ResolverHealth:
        if self._groups is not None:
            return ResolverHealth("cgroup", success=True)
        return ResolverHealth(
            "cgroup",
            success=False,
            reason=f"no control groups with CPU counters below {self._host.sysfs}/fs/cgroup: units and containers "
            "are not seen",
            remedy="in a container, mount the host's /sys read-only at /host/sys and pass --path.sysfs=/host/sys",
        )

    def _board_health(self) -> ResolverHealth:
        """A process that ended within the tick was seen by its board alone, too: that is no trouble."""
        unseen = len(self._unseen & self._unseen_before)
        if not unseen:
            return ResolverHealth("gpu", success=True)
        return ResolverHealth(
            "gpu",
            success=False,
            reason=f"{unseen} processes on boards are not in {self._host.procfs}: their jobs are not known",
            remedy="in a container, let it see the host's processes: hostPID: true in Kubernetes, --pid=host in Docker",
        )

    def _totals(self) -> tuple[CpuTimes, Memory]:
        try:
            times = parse_cpu_times(read_file(f"{self._host.procfs}/stat", LONGEST_TOTALS))
            return times, parse_memory(read_file(f"{self._host.procfs}/meminfo", LONGEST_TOTALS))
        except (OSError, ValueError) as error:
            raise JobResolutionError(
                f"cannot read {self._host.procfs}: {error}", remedy="pass the host's /proc with --path.procfs=DIR"
            ) from error

    def _add_processes(self, sums: dict[Job, Use], now: float) -> dict[str, Use]:
        """Add what marked processes used to their jobs; returns the same by the group that counted it too."""
        began = perf_counter()
        try:
            marked = self._marked.update(now)
        except OSError as error:
            raise JobResolutionError(f"cannot list {self._host.procfs}: {error}") from error
        self._scanned = True
        self.names = {}
        in_groups: dict[str, Use] = {}
        by_job: dict[Job, list[tuple[Process, Mark]]] = {}
        for process, mark, name in marked:
            by_job.setdefault(name.job, []).append((process, mark))
            self._note(name)
        self.marked_jobs = frozenset(by_job)
        for job, members in by_job.items():
            bytes_of = self._marked.memory_bytes(members, now)
            total = sums[job] = Use()
            for process, mark in members:
                use = Use(process.ticks / self._ticks_per_second, bytes_of[process.pid])
                total.add(use)
                if mark.group is None:
                    continue
                known = in_groups.get(mark.group)
                if known is None:
                    known = in_groups[mark.group] = Use()
                known.add(use)
        self._seconds["environment"] = perf_counter() - began
        return in_groups

    def _add_groups(self, sums: dict[Job, Use], in_groups: Mapping[str, Use], now: float, cpus: int) -> None:
        """Add what is left of each group's counters, without subgroups and marked processes, to its own job."""
        if self._groups is None:
            return
        began = perf_counter()
        possible = cpus * (now - self._last[0] + NEWBORN_SLACK_SECONDS) if self._last else 0.0
        for path, group, use in self._groups.look(now, possible, reservations=self.reservations):
            if group.name is not None:
                self._note(group.name)
                group.charge(use, in_groups.get(path))
                known = sums.setdefault(group.name.job, use)
                if known is not use:
                    known.add(use)
        self._seconds["cgroup"] = perf_counter() - began

    def _name_of_group(self, path: str) -> Name | None:
        return self._groups.name_of(path) if self._groups else None

    def _note(self, name: Name) -> None:
        said = self.names.get(name.job)
        if said is None:
            self.names[name.job] = {name}
        else:
            said.add(name)


def _has_capabilities(wanted: int) -> bool:
    """Whether this very process has these capabilities (a mask), as the kernel tells it."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            effective = next(line for line in status if line.startswith("CapEff:"))
        return int(effective.split()[1], 16) & wanted == wanted
    except (OSError, StopIteration, ValueError, IndexError):
        return False
