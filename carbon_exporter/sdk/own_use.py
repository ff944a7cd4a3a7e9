"""What this process and those it starts use of the machine: CPU time and memory.

Children count, however they were started (fork, spawn, subprocess, workers of a data loader) and however short they
lived, grandchildren too; those that measure themselves do not, from when they do (presence.py). On Linux by /proc,
elsewhere by psutil.

A look costs about 20 µs of CPU, and each child as much more (with cold caches, as ten times a second, some times that);
once a second it also searches for new children, a few µs a thread. While there are no children only every fifth or so
looks for more than this process's own CPU time; what a child used before it is seen is still counted.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from carbon_exporter.sdk.presence import Presence

__all__ = ["OwnUse", "UsePoint"]

ALONE_SECONDS = 0.45
"""With no descendants nothing else is looked for in this time: what measures itself takes longer to get ready."""
ROOT_NAMESPACE = "pid:[4026531836]"
"""The host's own numbering of processes: PROC_PID_INIT_INO of the kernel's include/linux/proc_ns.h."""


class UsePoint(NamedTuple):
    """What was used until one moment. Seconds only grow; their zero means nothing."""

    at: float
    """Seconds on the clock of `OwnUse`."""
    cpu_seconds: float
    """CPU time of this process's own threads (`time.process_time`)."""
    children_seconds: float
    """CPU time of all descendants that do not measure themselves, ended ones included."""
    memory_bytes: float
    """Held by this process and those descendants, shared pages once."""
    busy_seconds: float
    """CPU time of everything on the machine; 0 where it is not asked for, or not known."""


class _Tree(Protocol):
    """This process's tree, as one system shows it."""

    @property
    def seconds(self) -> float: ...
    @property
    def pids(self) -> tuple[int, ...]: ...
    def look(self, announced: Callable[[], Mapping[int, float]]) -> None: ...
    def memory(self, now: float) -> float: ...
    def busy(self) -> float: ...


class OwnUse:
    """Looks at this process's tree. For one thread, in the process that made it: a fork makes a new one."""

    def __init__(
        self,
        procfs: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
        presence: Presence | None = None,
        *,
        needs_busy: bool = False,
        portable: bool = sys.platform != "linux",
    ) -> None:
        """`needs_busy`: whether the whole machine's CPU time is wanted. `portable`: by psutil instead of `procfs`."""
        self._clock = clock
        self._presence = presence or Presence()
        self.needs_busy = needs_busy
        """May be changed at any time."""
        self._tree = _by_psutil(os.getpid()) if portable else _by_procfs(procfs, os.getpid())
        self._hosts_numbers = _numbers_are_the_hosts(procfs)
        self._last_pids: tuple[int, ...] = (os.getpid(),)
        self._pids = frozenset(self._last_pids)
        self._last = UsePoint(0.0, 0.0, 0.0, 0.0, 0.0)
        self._alone_until = -math.inf

    def look(self) -> UsePoint:
        """What was used until now. Does not raise for processes that come and go, or files that are not there."""
        at, cpu_seconds = self._clock(), time.process_time()
        if at < self._alone_until and not self.needs_busy:
            last = self._last
            return UsePoint(at, cpu_seconds, last.children_seconds, last.memory_bytes, 0.0)
        tree = self._tree
        tree.look(self._presence.announced)
        pids = tree.pids
        if self._last_pids != pids:
            self._last_pids, self._pids = pids, frozenset(pids)
        self._alone_until = at + ALONE_SECONDS if len(pids) == 1 else -math.inf
        busy = tree.busy() if self.needs_busy else 0.0
        self._last = UsePoint(at, cpu_seconds, tree.seconds, tree.memory(at), busy)
        return self._last

    def pids(self) -> frozenset[int]:
        """This process and the descendants it pays for, as the host numbers them. For any thread.

        Empty where that cannot be known: in a container with a numbering of its own, in which the kernel shows nobody
        the host's. A driver's lists of processes, which have the host's numbers, cannot be matched there.
        """
        return self._pids if self._hosts_numbers else frozenset()


def _by_procfs(procfs: Path, root: int) -> _Tree:
    from carbon_exporter.sdk.procfs_tree import ProcfsTree  # noqa: PLC0415 - the one that is needed

    return ProcfsTree(procfs, root)


def _by_psutil(root: int) -> _Tree:
    from carbon_exporter.sdk.portable_tree import PortableTree  # noqa: PLC0415 - the one that is needed

    return PortableTree(root)


def _numbers_are_the_hosts(procfs: Path) -> bool:
    """Whether pids here are those that a driver sees. Only Linux has others."""
    if sys.platform != "linux":
        return True
    try:
        return str((procfs / "self" / "ns" / "pid").readlink()) == ROOT_NAMESPACE
    except OSError:
        return False
