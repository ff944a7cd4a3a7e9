"""The descendants of this process by Linux's /proc: who they are, and what each has used.

New ones are searched for once a second, by the lists of children that the kernel keeps of every thread
(`task/TID/children`, CONFIG_PROC_CHILDREN), or in a scan of all processes where it keeps none; those of the main thread
at every look. The known ones are read at every look. No file is kept open: the program may close what it did not open.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from carbon_exporter.jobs.procfs import parse_cpu_times
from carbon_exporter.sdk.process_tree import ProcessTree, Seen
from carbon_exporter.sdk.tree_memory import TreeMemory, read_start

__all__ = ["ProcfsTree"]

SEARCH_SECONDS = 1.0
SEARCH_COST = 500
"""A search that takes long waits for so many times as long before the next: 0.2 % of a core."""
SLACK_SECONDS = 1.0
"""Times are told in hundredths, cut off, and a search takes a while."""
_NOBODY: Mapping[int, float] = {}
TICK = 1.0 / (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100)


class ProcfsTree:
    """One process and its descendants. Not for use from several threads."""

    def __init__(
        self, procfs: Path, root: int, *, boot_clock: Callable[[], float] | None = None, cpus: int | None = None
    ) -> None:
        """`boot_clock`: seconds since boot, by which processes are dated; the kernel's if None."""
        self.tree = ProcessTree(root)
        self._procfs = str(procfs)
        self._memory = TreeMemory(self._procfs)
        self._main_children = f"{procfs}/{root}/task/{root}/children"
        self._listed = Path(self._main_children).exists()
        self._of_children = _own_children() if root == os.getpid() and procfs == Path("/proc") else None
        self._boot_clock = boot_clock or _boot_clock()
        self._cpus = cpus or os.cpu_count() or 1
        self._searched_at = -math.inf
        """Boot seconds at which the last search of all began."""
        self._next_search = -math.inf
        self._pids = self.tree.ours
        self._waited: float | None = None
        """With no descendants now and at the look before: what this process has waited for; else None."""
        self._strangers: frozenset[int] = frozenset()
        """Those that measure themselves and were found not to be descendants."""

    @property
    def seconds(self) -> float:
        """CPU seconds of the descendants since the first look."""
        return self.tree.seconds

    @property
    def pids(self) -> tuple[int, ...]:
        """This process and the descendants that it pays for."""
        return self._pids

    def look(self, announced: Callable[[], Mapping[int, float]]) -> None:
        """Count what is new. `announced`: see `ProcessTree.look`; asked only if there is anybody whom it may concern.

        What cannot be read is taken to have ended.
        """
        now, before = self._boot_clock(), self._searched_at
        alone = now < self._next_search and self._is_alone()
        children = _pids_in(self._main_children) if self._listed else []
        if alone and not children:
            return
        known = self.tree.pids
        fresh = [pid for pid in children if pid not in known]
        apart = announced() if fresh or len(known) > 1 else _NOBODY
        if now >= self._next_search or (apart and apart.keys() - self._strangers - set(known)):
            found = self._search(self.tree.ours)
            apart = announced() if found or len(known) > 1 else _NOBODY
            self._strangers = frozenset(apart.keys() - found - set(known))
            self._searched_at = now
            self._next_search = now + max(SEARCH_SECONDS, SEARCH_COST * (self._boot_clock() - now))
        else:
            found = [*fresh, *self._search(fresh)] if fresh else []
        seen = [self._read_root(), *(self._read(pid) for pid in (*known[1:], *found))]
        oldest = math.floor(before / TICK) - 1 if math.isfinite(before) else -math.inf
        self.tree.look(
            [one for one in seen if one is not None],
            apart,
            adopted=[one.pid for one in seen[len(known) :] if one is not None and one.started < oldest],
            possible=(now - before + SLACK_SECONDS) * self._cpus,
        )
        self._pids = self.tree.ours
        self._waited = seen[0].waited if len(seen) == 1 and seen[0] is not None else None

    def memory(self, now: float) -> float:
        """Bytes that they hold, shared pages once."""
        return self._memory.look(self.pids, now)

    def busy(self) -> float:
        """CPU seconds of the whole machine since boot; 0 where that is not told."""
        try:
            return parse_cpu_times(read_start(f"{self._procfs}/stat")).busy * TICK
        except (OSError, ValueError):
            return 0.0

    def _is_alone(self) -> bool:
        """Whether there was nobody else at the last two looks, and nobody has been waited for since."""
        return self._waited is not None and self._of_children is not None and self._waited == self._of_children()

    def _search(self, parents: Iterable[int]) -> list[int]:
        """Descendants of `parents` that are not known, parents first."""
        children = self._children_of if self._listed else self._scan().get
        seen, found, queue = {*self.tree.pids, *parents}, list[int](), list(parents)
        for parent in queue:  # it grows
            fresh = [pid for pid in children(parent) or () if pid not in seen]
            seen.update(fresh)
            found += fresh
            queue += fresh
        return found

    def _children_of(self, pid: int) -> list[int]:
        """By the kernel's lists, a thread each."""
        try:
            threads = os.listdir(f"{self._procfs}/{pid}/task")  # noqa: PTH208 - once a second, of many
        except OSError:
            return []
        return [child for thread in threads for child in _pids_in(f"{self._procfs}/{pid}/task/{thread}/children")]

    def _scan(self) -> dict[int, list[int]]:
        """Children by parent, of all processes."""
        try:
            names = os.listdir(self._procfs)  # noqa: PTH208 - of all processes
        except OSError:
            return {}
        children: dict[int, list[int]] = {}
        for name in names:
            one = self._read(int(name)) if name.isdecimal() else None
            if one is not None:
                children.setdefault(one.parent, []).append(one.pid)
        return children

    def _read_root(self) -> Seen | None:
        """This process: what it has waited for is all that counts of it, and a call tells that to the microsecond."""
        if self._of_children is None:
            return self._read(self.tree.root)
        return Seen(self.tree.root, 0, 0, 0.0, self._of_children())

    def _read(self, pid: int) -> Seen | None:
        """One process's stat; None if it is not there. proc(5) numbers the fields; the name may hold brackets."""
        try:
            text = read_start(f"{self._procfs}/{pid}/stat")
            fields = text[text.rindex(b") ") + 2 :].split(None, 20)
            own = int(fields[11]) + int(fields[12])
            waited = int(fields[13]) + int(fields[14])
            ended = fields[0] in (b"Z", b"X")
            return Seen(pid, int(fields[1]), int(fields[19]), own * TICK, waited * TICK, ended)
        except (OSError, ValueError, IndexError):
            return None


def _pids_in(path: str) -> list[int]:
    try:
        text = read_start(path, 65536)
        return [int(word) for word in text.split()] if text else []
    except (OSError, ValueError):
        return []


def _own_children() -> Callable[[], float]:
    """CPU seconds of all children that this process has waited for."""
    import resource  # noqa: PLC0415 - not everywhere

    def used() -> float:
        times = resource.getrusage(resource.RUSAGE_CHILDREN)
        return times.ru_utime + times.ru_stime

    return used


def _boot_clock() -> Callable[[], float]:
    """Linux's clock by which it dates processes."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if clock is None else partial(time.clock_gettime, clock)
