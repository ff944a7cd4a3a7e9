"""Groups: what each container, pod, Slurm job, unit and session used since the last look, and whose it is.

A group's counter holds its subgroups' use: what is theirs is subtracted, so that a pod's own is what its counter has
beyond its containers', such as a container that came and went between two looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from carbon_exporter.jobs.cgroups import CgroupTree
from carbon_exporter.jobs.namer import NOTHING_KNOWN, PENDING_SECONDS, Known, Namer
from carbon_exporter.jobs.naming import Name
from carbon_exporter.jobs.places import Place, owner, place_of
from carbon_exporter.jobs.process_files import read_environment

__all__ = ["Group", "Groups", "Use"]

MEMORY_PERIOD_SECONDS = 15.0
"""memory.stat makes the kernel add up its per-CPU counts, so it is read less often than the CPU counters."""
MEMORY_TURNS = 3
"""A third of a node's groups at each tick of the default interval."""
ENVIRONMENT_PERIOD_SECONDS = 15.0
GONE_LOOKS = 2
"""So many looks a group is remembered after its end: who was on a board is often told later than that it is gone."""
PROCESSES_ASKED = 8
"""The first process of a container tells; of a Slurm job the first are Slurm's own."""


@dataclass(slots=True)
class Use:
    """CPU seconds since the last look, bytes now, CPUs kept for it; while it is being added up."""

    cpu_seconds: float = 0.0
    memory_bytes: float = 0.0
    cpus_reserved: float = 0.0

    def add(self, more: Use) -> None:
        """One more part."""
        self.cpu_seconds += more.cpu_seconds
        self.memory_bytes += more.memory_bytes
        self.cpus_reserved += more.cpus_reserved

    def subtract(self, part: Group) -> None:
        """Without what a group within has used, and holds."""
        self.cpu_seconds -= part.fresh_seconds
        self.memory_bytes -= part.memory
        self.cpus_reserved -= part.cpus_reserved


@dataclass(slots=True)
class Group:
    """What is known of one control group."""

    place: Place
    born: float
    cpu_seconds: float
    above: str
    """The path of the workload that it lies in; empty if it lies in none."""
    pending_until: float
    """So long it waits for a name that a directory outside may know. A pod's containers wait with it, and not anew."""
    name: Name | None = None
    known: Known | None = None
    environment: dict[str, str] = field(default_factory=dict)
    ask_again: float = -math.inf
    """When a process within is asked for its environment again."""
    debt: float = 0.0
    """CPU seconds subtracted for marked processes beyond what the group had counted: paid back at the next tick."""
    memory: float = 0.0
    memory_at: float = -math.inf
    cpus_reserved: float = 0.0
    fresh_seconds: float = 0.0
    """CPU seconds between the last look and the one before, subgroups included."""

    def charge(self, use: Use, marked: Use | None) -> None:
        """Leave of its own use what it pays itself: not what marked processes in it have used."""
        if marked is not None:
            use.cpu_seconds -= marked.cpu_seconds
            use.memory_bytes -= marked.memory_bytes
        rest = use.cpu_seconds + self.debt
        self.debt = min(0.0, rest)
        use.cpu_seconds, use.memory_bytes = max(0.0, rest), max(0.0, use.memory_bytes)
        use.cpus_reserved = max(0.0, use.cpus_reserved)


class Groups:
    """All groups of one machine that are workloads. Not for use from several threads."""

    def __init__(self, tree: CgroupTree, procfs: Path, namer: Namer) -> None:
        """Nothing is read before `look`."""
        self._tree = tree
        self._procfs = str(procfs)
        self._namer = namer
        self._groups: dict[str, Group] = {}
        self._first_readings = 0
        self._gone: dict[str, tuple[Group, int]] = {}
        """Groups that have gone, and how many looks ago."""

    def look(self, now: float, possible: float, *, reservations: bool) -> list[tuple[str, Group, Use]]:
        """Each group with what it used alone since the last look.

        Args:
            now: monotonic seconds.
            possible: CPU seconds that all CPUs together could have given since the last look, 0 at the first: a new
                group that has more is older than that look, and counts from now.
            reservations: whether CPUs that are kept for a group are of interest.
        """
        groups: dict[str, Group] = {}
        alone: dict[str, Use] = {}
        for path, seconds in self._tree.cpu_seconds().items():  # what lies in another comes after it
            group = groups[path] = self._group(path, seconds, possible, now)
            self._refresh(path, group, groups.get(group.above), now, reservations=reservations)
            group.fresh_seconds, group.cpu_seconds = max(0.0, seconds - group.cpu_seconds), seconds
            alone[path] = Use(group.fresh_seconds, group.memory, group.cpus_reserved)
            if group.above in alone:
                alone[group.above].subtract(group)
        gone = {path: (group, looks + 1) for path, (group, looks) in self._gone.items() if looks < GONE_LOOKS}
        gone.update((path, (self._groups[path], 1)) for path in self._groups.keys() - groups.keys())
        self._groups, self._gone = groups, gone
        return [(path, group, alone[path]) for path, group in groups.items()]

    def name_of(self, path: str) -> Name | None:
        """Whose a group is, or was until it went, at most two looks ago; None if that is not known."""
        group = self._groups.get(path) or self._gone.get(path, (None, 0))[0]
        return group.name if group else None

    def _group(self, path: str, seconds: float, possible: float, now: float) -> Group:
        """The known group, or a new one, which may have taken the place of one that has gone."""
        known = self._groups.get(path)
        if known is not None and seconds >= known.cpu_seconds:
            return known
        place = place_of(path) or Place("unit", path)
        above = owner(path.rpartition("/")[0]) or ""
        pod = self._groups.get(above) if place.pod else None
        pending_until = pod.pending_until if pod and pod.place.pod == place.pod else now + PENDING_SECONDS
        return Group(place, now, 0.0 if seconds <= possible else seconds, above, pending_until)

    def _refresh(self, path: str, group: Group, above: Group | None, now: float, *, reservations: bool) -> None:
        asked = not group.environment and (_inherit(group, above) or self._ask(path, group, now))
        known = self._namer.known_of(group.place, group.environment, group.known or NOTHING_KNOWN)
        if asked or (known is not group.known and known != group.known) or self._may_give_up(group, known, now):
            group.known = known
            waits = self._namer.awaits(group.place, known) and now < group.pending_until
            group.name = None if waits else self._namer.of_group(group.place, known, group.environment)
        if now - group.memory_at >= MEMORY_PERIOD_SECONDS:
            early = self._early() if math.isinf(group.memory_at) else 0.0
            group.memory, group.memory_at = self._tree.memory_bytes(path), now - early
            group.cpus_reserved = self._reserved(path, group) if reservations else 0.0

    def _early(self) -> float:
        """How much earlier than it was a group's first reading counts: not all are to be read at the same ticks."""
        self._first_readings += 1
        return MEMORY_PERIOD_SECONDS / MEMORY_TURNS * ((self._first_readings - 1) % MEMORY_TURNS)

    def _ask(self, path: str, group: Group, now: float) -> bool:
        """Read a process's environment if the name may depend on it; True if that has told something new.

        A container's first process is asked twice: before it becomes the container's program it is the runtime's.
        """
        if now < group.ask_again or not self._namer.wants_environment(group.place):
            return False
        group.ask_again = now + ENVIRONMENT_PERIOD_SECONDS
        for pid in self._tree.processes(path, PROCESSES_ASKED):
            try:
                group.environment = read_environment(self._procfs, pid, self._namer.wanted_of(group.place))
            except OSError:
                continue
            if group.environment:
                return True
            if group.place.kind == "container":
                if now - group.born >= ENVIRONMENT_PERIOD_SECONDS:
                    group.ask_again = math.inf
                return False
        return False

    def _may_give_up(self, group: Group, known: Known, now: float) -> bool:
        """Whether a pod has waited long enough for its metadata."""
        return group.name is None and self._namer.awaits(group.place, known) and now >= group.pending_until

    def _reserved(self, path: str, group: Group) -> float:
        """CPUs kept for a group: by its cpuset, or by what its pod has requested."""
        requested = group.known.pod.cpus_requested if group.known and group.known.pod else 0.0
        return max(self._tree.cpus_reserved(path), requested if group.place.kind == "pod" else 0.0)


def _inherit(group: Group, above: Group | None) -> bool:
    """What one process tells of a pod holds for all of its containers, for one that has no such process, too."""
    if above is None or above.place.kind != "pod" or group.place.kind != "container":
        return False
    group.environment = above.environment
    return bool(group.environment)
