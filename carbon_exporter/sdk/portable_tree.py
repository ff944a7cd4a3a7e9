"""The descendants of this process by psutil, for systems without Linux's /proc.

What short-lived children used is known where the system adds it up for those who waited (macOS), and lost on Windows.
Memory is what this process holds plus what only its descendants hold; macOS tells nobody what is theirs alone, so that
there it is all they hold.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from carbon_exporter.sdk.process_tree import ProcessTree, Seen

if TYPE_CHECKING:
    import psutil

__all__ = ["PortableTree"]

SEARCH_SECONDS = 1.0
SEARCH_COST = 300
"""A search goes through all processes of the machine: it waits for so many times as long before the next."""
MEMORY_SECONDS = 5.0
MEMORY_COST = 1000
SLACK_SECONDS = 1.0
"""A search takes a while."""


class PortableTree:
    """One process and its descendants. Not for use from several threads."""

    def __init__(
        self,
        root: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        cost_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """`cost_clock`: CPU seconds of this thread, by which searches are paid."""
        import psutil  # noqa: PLC0415 - only where it is needed

        self._psutil = psutil
        self.tree = ProcessTree(root)
        self._processes = {root: psutil.Process(root)}
        self._clock = clock
        self._there: frozenset[int] = frozenset()
        """All processes of the machine at the last search. Their dates are of no use: clocks are off by seconds."""
        self._strangers: frozenset[int] = frozenset()
        """Those that measure themselves and were found not to be descendants."""
        self._cost_clock = cost_clock
        self._searched_at = self._next_search = self._next_memory = -math.inf
        self._bytes = 0.0

    @property
    def seconds(self) -> float:
        """CPU seconds of the descendants since the first look."""
        return self.tree.seconds

    @property
    def pids(self) -> tuple[int, ...]:
        """This process and the descendants that it pays for."""
        return self.tree.ours

    def look(self, announced: Callable[[], Mapping[int, float]]) -> None:
        """Count what is new. `announced`: see `ProcessTree.look`. What cannot be read is taken to have ended."""
        now, before = self._clock(), self._searched_at
        there, known, apart = self._there, self.tree.pids, announced()
        if now >= self._next_search or apart.keys() - self._strangers - set(known):
            began = self._cost_clock()
            self._search()
            self._strangers = frozenset(apart.keys() - self._processes.keys())
            self._searched_at = now
            self._next_search = now + max(SEARCH_SECONDS, SEARCH_COST * (self._cost_clock() - began))
        seen = {pid: one for pid, process in self._processes.items() if (one := self._read(pid, process)) is not None}
        self._processes = {pid: self._processes[pid] for pid in seen}
        self.tree.look(
            seen.values(),
            apart,
            adopted=there.difference(known),
            possible=(now - before + SLACK_SECONDS) * (os.cpu_count() or 1),
        )

    def memory(self, now: float) -> float:
        """Bytes that they hold; at most five seconds old, or older where it takes long to ask."""
        if now >= self._next_memory:
            began = self._cost_clock()
            sizes = [self._size(process, pid) for pid, process in self._processes.items() if pid in self.tree.ours]
            self._bytes = math.fsum(sizes)
            self._next_memory = now + max(MEMORY_SECONDS, MEMORY_COST * (self._cost_clock() - began))
        return self._bytes

    def busy(self) -> float:
        """CPU seconds of the whole machine since boot."""
        times = self._psutil.cpu_times()
        return math.fsum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "dpc"))

    def _search(self) -> None:
        try:
            root = self._processes.get(self.tree.root) or self._psutil.Process(self.tree.root)
            self._processes[self.tree.root] = root
            self._there = frozenset(self._psutil.pids())
            for process in root.children(recursive=True):
                self._processes.setdefault(process.pid, process)
        except (self._psutil.Error, OSError):
            return

    def _read(self, pid: int, process: psutil.Process) -> Seen | None:
        try:
            with process.oneshot():
                times, parent, started = process.cpu_times(), process.ppid(), process.create_time()
        except (self._psutil.Error, OSError):
            return None
        if pid == self.tree.root:
            own = os.times()
            return Seen(pid, parent, started, own.user + own.system, own.children_user + own.children_system)
        waited = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        return Seen(pid, parent, started, times.user + times.system, waited)

    def _size(self, process: psutil.Process, pid: int) -> float:
        """All that the root holds; of others what is theirs alone, where that is told."""
        try:
            if pid != self.tree.root:
                return float(process.memory_full_info().uss)
        except (self._psutil.Error, OSError, AttributeError):
            pass
        try:
            return float(process.memory_info().rss)
        except (self._psutil.Error, OSError):
            return 0.0
