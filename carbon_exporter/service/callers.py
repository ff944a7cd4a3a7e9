"""Callers: whose process it is that has knocked at the socket, by the same rules that name all else that runs.

What may be gone a moment later is read at once, on the socket's thread: when the process was started, its control
group, its environment, its parents. What that means is asked on the sampling thread, where the directories are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from carbon_exporter.jobs.base import UNATTRIBUTED, Job
from carbon_exporter.jobs.cgroups import CgroupTree, Hierarchy, find_hierarchy
from carbon_exporter.jobs.namer import PENDING_SECONDS, Namer
from carbon_exporter.jobs.observer import Observer
from carbon_exporter.jobs.places import Place, place_of
from carbon_exporter.jobs.process_files import read_environment, read_file
from carbon_exporter.jobs.procfs import ProcessStat, parse_cgroup, parse_process_stat
from carbon_exporter.sensors.base import Host

__all__ = ["Caller", "CallerNamer", "CallerReader", "Finding", "is_own_namespace", "parent_of"]

_OWN_WORDS = frozenset({"environment", "otel"})
"""Rules by which a process outside containers names itself."""
_MOST_PARENTS = 32
_PROCESSES_ASKED = 8
_ENVIRONMENT_SECONDS = 60.0
_MOST_REMEMBERED = 512
_JUST_STARTED_SECONDS = 0.05
_ANYBODY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Caller:
    """What was read of a process while it was surely there."""

    pid: int
    """As our /proc has it; 0 if it is not there."""
    started: int = 0
    """Clock ticks since boot; with the pid it names a process for ever."""
    at: float = 0.0
    """Monotonic seconds of the look."""
    place: Place | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: _ANYBODY)
    """If it holds anything that names a job."""
    parents: tuple[int, ...] = ()
    """From its own upwards."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Whose a caller is."""

    job: Job
    sure: bool
    """Whether that is more than the unit or session it runs in."""
    final: bool = True
    """False while a directory may soon know better."""
    free: bool = False
    """Whether it is called so by its own environment, or by nothing: then it may call itself otherwise, too."""


class CallerReader:
    """Reads of a process what may be gone soon. For any one thread."""

    def __init__(self, host: Host, variables: tuple[bytes, ...]) -> None:
        """`variables` are what an environment must hold to be of interest."""
        self._procfs, self._clock, self._variables = str(host.procfs), host.clock, variables
        hierarchy = find_hierarchy(host.sysfs)
        self._controller = hierarchy.controller if hierarchy else None

    def look(self, pid: int) -> Caller:
        """All that is to be known of it; never raises."""
        stat = _stat(self._procfs, pid) if pid > 0 else None
        if stat is None:
            return Caller(0, at=self._clock())
        place, environment = self._place(pid), _ANYBODY
        if not _is_contained(place):
            environment = self._environment(pid)
        return Caller(pid, stat.started, self._clock(), place, environment, self._parents(stat))

    def _place(self, pid: int) -> Place | None:
        if self._controller is None:
            return None
        try:
            path = parse_cgroup(read_file(f"{self._procfs}/{pid}/cgroup", 65536)).get(self._controller)
        except OSError:
            return None
        return place_of(path) if path else None

    def _environment(self, pid: int) -> Mapping[str, str]:
        try:
            return read_environment(self._procfs, pid, self._variables)
        except OSError:
            return _ANYBODY

    def _parents(self, stat: ProcessStat) -> tuple[int, ...]:
        parents: list[int] = []
        above: ProcessStat | None = stat
        while above is not None and above.parent > 1 and len(parents) < _MOST_PARENTS:
            parents.append(above.parent)
            above = _stat(self._procfs, above.parent)
        return tuple(parents)


class CallerNamer:
    """Names callers. For the sampling thread, between two ticks."""

    def __init__(self, host: Host, namer: Namer, observer: Observer) -> None:
        """The namer and the observer that name all else."""
        self._procfs, self._namer, self._observer = str(host.procfs), namer, observer
        hierarchy: Hierarchy | None = find_hierarchy(host.sysfs)
        self._tree = CgroupTree(hierarchy) if hierarchy else None
        self._environments: dict[str, tuple[Mapping[str, str], float]] = {}
        self._ticks_per_second = float(os.sysconf("SC_CLK_TCK"))
        self._looked = 0.0
        """Seconds since boot at which the observer last began to look."""

    def note_look(self, boot_clock: Callable[[], float] | None = None) -> None:
        """The observer is about to look."""
        self._looked = (boot_clock or _seconds_since_boot)()

    def name(self, caller: Caller, now: float) -> Finding:
        """Whose it is; `now` is monotonic seconds. Never raises."""
        if caller.pid == 0:
            return Finding(UNATTRIBUTED, sure=True)  # it was gone at once: it could be anybody's
        place = caller.place
        if place is not None and _is_contained(place):
            return self._of_group(place, caller, now)
        name = self._namer.of_process(caller.environment)
        if name is not None:
            return Finding(name.job, sure=True, free=name.rule in _OWN_WORDS)
        for pid in (caller.pid, *caller.parents):
            if pid == caller.pid and not self._was_there(caller):
                continue
            job = self._observer.job_of(pid)
            if job in self._observer.marked_jobs:
                return Finding(job, sure=True, free=True)
        if place is not None:
            name = self._namer.of_group(place, self._namer.known_of(place, {}), {})
            if name is not None:
                return Finding(name.job, sure=name.rule != "unit", free=name.rule == "unit")
        return Finding(UNATTRIBUTED, sure=False, free=True)

    def _was_there(self, caller: Caller) -> bool:
        """Whether the observer saw this very process, not one before it of the same number."""
        return caller.started / self._ticks_per_second < self._looked - _JUST_STARTED_SECONDS

    def _of_group(self, place: Place, caller: Caller, now: float) -> Finding:
        environment = self._environment(place, now)
        known = self._namer.known_of(place, environment)
        awaits = self._namer.awaits(place, known) and now - caller.at < PENDING_SECONDS
        name = self._namer.of_group(place, known, environment)
        return Finding(name.job if name else UNATTRIBUTED, sure=True, final=not awaits)

    def _environment(self, place: Place, now: float) -> Mapping[str, str]:
        """That of one of the first processes of a group, where the namer asks for it."""
        if self._tree is None or not self._namer.wants_environment(place):
            return _ANYBODY
        known = self._environments.get(place.path)
        if known is not None and now - known[1] < _ENVIRONMENT_SECONDS:
            return known[0]
        found = self._read_environment(self._tree, place)
        if len(self._environments) >= _MOST_REMEMBERED:
            self._environments.clear()
        self._environments[place.path] = found, now
        return found

    def _read_environment(self, tree: CgroupTree, place: Place) -> Mapping[str, str]:
        """A container's first process tells; of a Slurm job the first are Slurm's own."""
        for pid in tree.processes(place.path, _PROCESSES_ASKED):
            try:
                environment = read_environment(self._procfs, pid, self._namer.wanted_of(place))
            except OSError:
                continue
            if environment or place.kind == "container":
                return environment
        return _ANYBODY


def is_own_namespace(procfs: Path) -> bool:
    """Whether this /proc numbers processes as the kernel does for us: else the numbers of peers lead astray.

    `NSpid` of proc(5) has one number for each namespace from that of this /proc down to our own.
    """
    try:
        lines = (procfs / "self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
    return len(numbers) <= 1


def parent_of(procfs: Path, pid: int) -> int:
    """The parent of a process; 0 if it has none, or is gone."""
    stat = _stat(str(procfs), pid)
    return stat.parent if stat else 0


def started(procfs: Path, pid: int) -> int:
    """When a process was started, in clock ticks since boot; 0 if it is gone."""
    stat = _stat(str(procfs), pid)
    return stat.started if stat else 0


def _stat(procfs: str, pid: int) -> ProcessStat | None:
    try:
        return parse_process_stat(read_file(f"{procfs}/{pid}/stat", 4096))
    except (OSError, ValueError):
        return None


def _is_contained(place: Place | None) -> bool:
    return place is not None and place.kind not in {"unit", "session"}


def _seconds_since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
