"""The observer: once a tick, what the machine and its jobs have done since the last.

It joins three views of the same CPU time: the kernel's total, the control groups' counters and the process table. A
process that was started for a job (`CARBON_JOB`) is that job's, and is subtracted from the group it runs in; what is
left of a group is the container's, unit's or session's; what is left of the total has no known owner.

It also knows the job of a single process, for boards that tell who is on them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter

from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.base import UNATTRIBUTED, Activity, Claim, Job, ResolverHealth, Usage, Workload
from carbon_exporter.jobs.cgroups import CgroupTree, find_hierarchy, owner_path
from carbon_exporter.jobs.marked import MarkedProcesses
from carbon_exporter.jobs.processes import ProcessTable
from carbon_exporter.jobs.procfs import CpuTimes, Memory, parse_cpu_times, parse_memory
from carbon_exporter.jobs.registry import first_claim
from carbon_exporter.sensors.base import Host

__all__ = ["Observer"]

GROUP_MEMORY_PERIOD_SECONDS = 15.0
"""memory.stat makes the kernel add up its per-CPU counts, so it is read less often than the CPU counters."""
NEWBORN_SLACK_SECONDS = 1.0
"""How much longer than the interval the CPUs may seem to have run for a group, because its parts are read in turn."""

_SEES_ENVIRONMENTS = 1 << 2 | 1 << 19
"""CAP_DAC_READ_SEARCH, because /proc/PID/environ is its owner's, and CAP_SYS_PTRACE, because the kernel guards what
lies behind it. What is hidden even so is hidden by the process itself, and nothing would mend it."""


@dataclass(slots=True)
class _Group:
    """What is known of one control group."""

    claim: Claim | None
    cpu_seconds: float
    debt: float = 0.0
    """CPU seconds subtracted for marked processes beyond what the group had counted: paid back at the next tick."""
    memory: float = 0.0
    memory_at: float = float("-inf")
    cpus_reserved: float = 0.0


@dataclass(slots=True)
class _Sum:
    """A job's use, while it is being added up."""

    cpu_seconds: float = 0.0
    memory_bytes: float = 0.0
    cpus_reserved: float = 0.0


class Observer:
    """Watches one machine. Not for use from several threads."""

    def __init__(self, host: Host, *, reservations: bool = False) -> None:
        """`reservations`: also read which CPUs are kept for a group (for the policy that charges for them)."""
        self.reservations = reservations
        self._host = host
        hierarchy = find_hierarchy(host.sysfs)
        self._tree = CgroupTree(hierarchy) if hierarchy else None
        self._sees_all = _has_capabilities(_SEES_ENVIRONMENTS)
        self._ticks_per_second = float(os.sysconf("SC_CLK_TCK"))
        self._table = ProcessTable(host.procfs)
        controller = hierarchy.controller if hierarchy else ""
        self._marked = MarkedProcesses(host.procfs, controller, os.sysconf("SC_PAGE_SIZE"))
        self._groups: dict[str, _Group] = {}
        self._last: tuple[float, CpuTimes] | None = None
        self._seconds = {"environment": 0.0, "cgroup": 0.0, "gpu": 0.0}
        self._on_boards: set[int] = set()
        """Processes that somebody has asked about since the last look."""
        self._unseen: set[int] = set()
        """Those of them that are not in /proc."""
        self._unseen_before: set[int] = set()
        self._scanned = False
        self.rules: dict[Job, str] = {}
        """Which rule named each job that runs now."""
        self.marked_jobs: frozenset[Job] = frozenset()
        """Those of them that a process's environment names."""

    def observe(self) -> Activity | None:
        """What was done since the last call; None at the first. Raises `JobResolutionError` if /proc gives nothing."""
        now = self._host.clock()
        self._on_boards, self._unseen, self._unseen_before = set(), set(), self._unseen
        self._seconds["gpu"] = 0.0
        self._scanned = False
        times, memory = self._totals()
        self.rules = {}
        sums: dict[Job, _Sum] = {}
        in_groups = self._add_processes(sums, now)
        self._add_groups(sums, in_groups, now, times.cpus)
        last, self._last = self._last, (now, times)
        if last is None or now <= last[0]:
            return None
        return Activity(
            start=last[0],
            end=now,
            cpus=times.cpus,
            busy_seconds=max(0, times.busy - last[1].busy) / self._ticks_per_second,
            memory_total=memory.total,
            memory_used=memory.total - memory.available,
            usages=tuple(Usage(job, s.cpu_seconds, s.memory_bytes, s.cpus_reserved) for job, s in sums.items()),
        )

    def job_of(self, pid: int) -> Job:
        """The job of a process on a board, living or just ended; `_unattributed_` if it is not known. Never raises.

        Its own, inherited or not (`CARBON_JOB`), else that of its container, unit or session. For the time between
        `observe` and `health`. A process that has ended keeps its job for two more looks.
        """
        began = perf_counter()
        self._on_boards.add(pid)
        if self._scanned and not self._marked.knows(pid):
            self._unseen.add(pid)
        claim = self._marked.claim_of(pid, self._host.clock())
        if claim is not None:
            self.rules.setdefault(claim.job, claim.rule)
        self._seconds["gpu"] += perf_counter() - began
        return claim.job if claim else UNATTRIBUTED

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
        if self._tree is not None:
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
            times = parse_cpu_times((self._host.procfs / "stat").read_bytes())
            return times, parse_memory((self._host.procfs / "meminfo").read_bytes())
        except (OSError, ValueError) as error:
            raise JobResolutionError(
                f"cannot read {self._host.procfs}: {error}", remedy="pass the host's /proc with --path.procfs=DIR"
            ) from error

    def _add_processes(self, sums: dict[Job, _Sum], now: float) -> dict[str, _Sum]:
        """Add what marked processes used to their jobs; returns the same by the group that counted it too."""
        began = perf_counter()
        try:
            marked = self._marked.update(self._table.scan(), now)
        except OSError as error:
            raise JobResolutionError(f"cannot list {self._host.procfs}: {error}") from error
        self._scanned = True
        in_groups: dict[str, _Sum] = {}
        by_job: dict[Job, list[int]] = {}
        for index, (_, _, claim) in enumerate(marked):
            by_job.setdefault(claim.job, []).append(index)
            self.rules[claim.job] = claim.rule
        self.marked_jobs = frozenset(by_job)
        for job, members in by_job.items():
            bytes_of = self._marked.memory_bytes([marked[index][:2] for index in members], now)
            for process, mark, _ in (marked[index] for index in members):
                use = _Sum(process.ticks / self._ticks_per_second, bytes_of[process.pid])
                _add(sums.setdefault(job, _Sum()), use)
                if mark.group is not None:
                    _add(in_groups.setdefault(mark.group, _Sum()), use)
        self._seconds["environment"] = perf_counter() - began
        return in_groups

    def _add_groups(self, sums: dict[Job, _Sum], in_groups: Mapping[str, _Sum], now: float, cpus: int) -> None:
        """Add what is left of each group's counters, without subgroups and marked processes, to its own job."""
        if self._tree is None:
            return
        began = perf_counter()
        usage = self._tree.cpu_seconds()
        possible = cpus * (now - self._last[0] + NEWBORN_SLACK_SECONDS) if self._last else 0.0
        groups = {path: self._group(path, seconds, possible) for path, seconds in usage.items()}
        deltas = {path: max(0.0, seconds - groups[path].cpu_seconds) for path, seconds in usage.items()}
        self._refresh_memory(groups, now)
        alone = {path: _Sum(deltas[path], group.memory, group.cpus_reserved) for path, group in groups.items()}
        for path, group in groups.items():
            above = owner_path(path.rpartition("/")[0])
            if above in alone:
                alone[above].cpu_seconds -= deltas[path]
                alone[above].memory_bytes -= group.memory
                alone[above].cpus_reserved -= group.cpus_reserved
        for path, group in groups.items():
            group.cpu_seconds = usage[path]
            self._settle(group, alone[path], in_groups.get(path), sums)
        self._groups = groups
        self._seconds["cgroup"] = perf_counter() - began

    def _group(self, path: str, seconds: float, possible: float) -> _Group:
        """The known group; a new one counts from its birth, or from now if it must be older than the last look.

        `possible` is what all CPUs together could have given it since then: 0 at the first look of all.
        """
        known = self._groups.get(path)
        if known is not None and seconds >= known.cpu_seconds:
            return known
        return _Group(first_claim(Workload(path)), 0.0 if seconds <= possible else seconds)

    def _refresh_memory(self, groups: Mapping[str, _Group], now: float) -> None:
        assert self._tree is not None  # noqa: S101 - only called with a tree
        for path, group in groups.items():
            if now - group.memory_at >= GROUP_MEMORY_PERIOD_SECONDS:
                group.memory, group.memory_at = self._tree.memory_bytes(path), now
                group.cpus_reserved = self._tree.cpus_reserved(path) if self.reservations else 0.0

    def _settle(self, group: _Group, alone: _Sum, marked: _Sum | None, sums: dict[Job, _Sum]) -> None:
        """Charge a group's job with what marked processes in it do not pay themselves."""
        if group.claim is None:
            return
        rest = alone.cpu_seconds - (marked.cpu_seconds if marked else 0.0) + group.debt
        group.debt = min(0.0, rest)
        memory = max(0.0, alone.memory_bytes - (marked.memory_bytes if marked else 0.0))
        self.rules.setdefault(group.claim.job, group.claim.rule)
        _add(sums.setdefault(group.claim.job, _Sum()), _Sum(max(0.0, rest), memory, max(0.0, alone.cpus_reserved)))


def _add(total: _Sum, part: _Sum) -> None:
    total.cpu_seconds += part.cpu_seconds
    total.memory_bytes += part.memory_bytes
    total.cpus_reserved += part.cpus_reserved


def _has_capabilities(wanted: int) -> bool:
    """Whether this very process has these capabilities (a mask), as the kernel tells it."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            effective = next(line for line in status if line.startswith("CapEff:"))
        return int(effective.split()[1], 16) & wanted == wanted
    except (OSError, StopIteration, ValueError, IndexError):
        return False
