"""What the descendants of one process have used: each CPU second once, however they come and go. Pure.

A process's own time misses its short-lived children; the time of children it has waited for holds again what was
counted while they lived. So a look adds what is new of each: its own time, and its waited-for time less what was
already seen of those who were waited for. The accounting is that of `jobs/processes.py`, for one family.

Descendants that measure themselves are not ours from then on, and neither is what they start; what they used before is.
Their time comes to whoever waits for them, and the last of it was never seen: when one ends, what its parent has waited
for meanwhile is taken to be its own. Rather a short-lived child is lost now and then than a second counted twice.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

__all__ = ["ProcessTree", "Seen"]


class Seen(NamedTuple):
    """One process at one look. One that has ended is still seen until its parent has waited for it."""

    pid: int
    parent: int
    started: float
    """With the pid it names a process for ever."""
    own: float
    """CPU seconds of its threads."""
    waited: float
    """CPU seconds of all descendants that were waited for."""
    ended: bool = False

    @property
    def total(self) -> float:
        """What comes to its parent when it is waited for."""
        return self.own + self.waited


class ProcessTree:
    """The family of one process, from look to look. Not for use from several threads."""

    def __init__(self, root: int) -> None:
        """`root`: the pid whose descendants are counted; its own time is not."""
        self.root = root
        self.seconds = 0.0
        """CPU seconds of the descendants since the first look. Never decreases."""
        self._last: dict[int, Seen] = {}
        self._apart: frozenset[int] = frozenset()
        self._owed: dict[int, float] = {}
        """By pid: seconds already seen of those who ended, which its waited-for time did not hold yet."""
        self._clouded: frozenset[int] = frozenset()
        """One of those measured itself, and its last seconds were not seen."""

    @property
    def pids(self) -> tuple[int, ...]:
        """The root and all descendants that the last look saw, in its order."""
        return (self.root, *(pid for pid in self._last if pid != self.root))

    @property
    def ours(self) -> tuple[int, ...]:
        """The same without those that measure themselves, or whose forebear does."""
        return tuple(pid for pid in self.pids if pid not in self._apart)

    def look(
        self,
        processes: Iterable[Seen],
        announced: Mapping[int, float],
        *,
        adopted: Collection[int] = (),
        possible: float = math.inf,
    ) -> None:
        """Take what the family is now. The first look is only a mark.

        Args:
            processes: the root and its descendants, parents read before their children.
            announced: those that measure themselves, with the CPU seconds (total) that they had used before.
            adopted: pids of those who are new to us and older than our last search: orphans that were taken in, whose
                lives before were not ours.
            possible: CPU seconds that could have been used since all descendants were searched for. Nobody can have
                waited for more that was not seen: that is an orphan's whole life again.
        """
        before, now = self._last, {one.pid: one for one in processes}
        due, clouded = self._of_gone(now)
        apart = self._set_apart(now, announced)
        owed: dict[int, float] = {}
        for pid, one in now.items() if before else ():
            old = before.get(pid)
            expected = due.get(pid, 0.0) + self._owed.get(pid, 0.0)
            if old is None or old.started != one.started:
                is_ours = pid != self.root and pid not in adopted and one.parent not in apart
                self.seconds += min(one.total, announced.get(pid, one.total)) if is_ours else 0.0
            elif pid not in apart:
                own = max(0.0, one.own - old.own) if pid != self.root else 0.0
                waited = max(0.0, one.waited - old.waited - expected)
                self.seconds += own + (0.0 if pid in clouded or pid in self._clouded else min(waited, possible))
            elif pid not in self._apart:
                fresh = min(announced.get(pid, 0.0), one.total) - old.total - expected
                self.seconds += max(0.0, fresh)
            if old is not None and pid in due:
                owed[pid] = min(due[pid], max(0.0, expected - (one.waited - old.waited)))
        self._last, self._apart, self._owed, self._clouded = now, apart, owed, clouded

    def _of_gone(self, now: Mapping[int, Seen]) -> tuple[dict[int, float], frozenset[int]]:
        """For each living process: seconds seen of descendants that have ended, and came to it; and whose are clouded.

        One that had ended when it was last seen clouds nothing: no second of it was missed.
        """
        due: dict[int, float] = {}
        clouded = set()
        for pid, one in self._last.items():
            if _is(now.get(pid), one):
                continue
            parent, steps = one.parent, 0
            while (old := self._last.get(parent)) is not None and not _is(now.get(parent), old) and steps < len(now):
                parent, steps = old.parent, steps + 1
            due[parent] = due.get(parent, 0.0) + one.total + self._owed.get(pid, 0.0)
            if pid in self._apart and not one.ended:
                clouded.add(parent)
        return due, frozenset(clouded)

    def _set_apart(self, now: Mapping[int, Seen], announced: Mapping[int, float]) -> frozenset[int]:
        """Those that measure themselves, or did once, and all that they have started."""
        apart: set[int] = set()
        for pid, one in now.items():
            was = pid in self._apart and _is(self._last.get(pid), one)
            if pid != self.root and (was or pid in announced or one.parent in apart):
                apart.add(pid)
        return frozenset(apart)


def _is(one: Seen | None, other: Seen) -> bool:
    """Whether two looks at a pid saw the same process."""
    return one is not None and one.started == other.started
