"""Lanes: who pays for what while several spans of a process are open at once.

A span covers its children. Siblings that overlap, and spans without a parent that do, share what their parent (or the
process) has: from each enter or exit to the next, the processors' energy by the CPU time of the threads that they and
their children run on, all else by equal parts. A span that is alone among its siblings has all. While nobody overlaps
there is nothing to divide, and nothing is kept.
"""

from __future__ import annotations

from threading import RLock

TYPE_CHECKING = False  # as type checkers know it; a training script pays for every import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Lane", "Lanes", "Moment", "Part"]

Moment = tuple[float, float]
"""The two clocks of a `base.Edge`, bare: an `Edge` costs more to make, and its module most of the package to load."""

Part = tuple[Moment, Moment, float, float]
"""From one moment to another: the weight, 0 to 1, in the processors' energy and in everything else."""

FINEST_SECONDS = 0.001
"""A part that is shorter takes in the next one: company that changes faster than that is taken in the mean."""
MOST_PARTS = 4096
"""Of a lane, between two foldings; then the last one grows."""


class Lane:
    """One passage through a span, from its enter to its exit."""

    __slots__ = (
        "began",
        "children",
        "clock",
        "cpu_shared",
        "ended",
        "parent",
        "parts",
        "rest_shared",
        "since",
        "thread",
    )

    def __init__(self, thread: int, clock: int | None) -> None:
        """`thread` enters it; `clock` is the id of that thread's CPU clock, None where there is none."""
        self.thread, self.clock = thread, clock
        self.parent: Lane | None = None
        self.children: list[Lane] = []
        self.began: Moment = (0.0, 0.0)
        self.since: Moment = (0.0, 0.0)
        """Where the part begins that is not closed yet."""
        self.parts: list[Part] = []
        self.ended: Moment | None = None
        self.cpu_shared = self.rest_shared = False
        """Whether some of it was divided by equal parts, for want of knowledge."""


class Lanes:
    """All open spans of this process. Safe from any thread; nothing is done under the lock but arithmetic."""

    def __init__(self, now: Callable[[], Moment], read: Callable[[int], float | None]) -> None:
        """`now` reads the process's clocks, `read` a thread's CPU seconds by its clock's id (None: it has ended)."""
        self._now, self._read = now, read
        self.lock = RLock()  # re-entrant: a signal's handler may enter a span while its thread enters another
        self._roots: list[Lane] = []
        self._crowds = 0
        """Groups of siblings with more than one member."""
        self._cpu: dict[int, float] = {}
        """CPU seconds by clock at the last cut."""

    @property
    def crowded(self) -> bool:
        """Whether any spans overlap now."""
        return self._crowds > 0

    def enter(self, lane: Lane, parent: Lane | None) -> None:
        """Begin: it takes its share from now on. A parent that has ended is stepped over."""
        with self.lock:
            while parent is not None and parent.ended is not None:
                parent = parent.parent
            lane.parent = parent
            group = self._roots if parent is None else parent.children
            lane.began = lane.since = moment = self._now()
            if self._crowds or group:
                self._cut(moment)
                self._crowds += len(group) == 1
            group.append(lane)
            if self._crowds:
                self._look()

    def leave(self, lane: Lane, thread: int) -> None:
        """End it. Children that are still open go to its parent. Raises `ValueError` if it is not open."""
        with self.lock:
            moment = self._now()
            group = self._roots if lane.parent is None else lane.parent.children
            place = group.index(lane)
            if self._crowds:
                self._cut(moment)
            else:
                _close(lane, moment, 1.0, 1.0)
            lane.ended = moment
            lane.cpu_shared |= lane.rest_shared and thread != lane.thread
            self._crowds -= (len(group) > 1) + (len(lane.children) > 1)
            group[place : place + 1] = lane.children
            for child in lane.children:
                child.parent = lane.parent
            lane.children = []
            self._crowds += len(group) > 1

    def cut(self) -> None:
        """Close the open parts where spans overlap, so that what was used until now can be told."""
        with self.lock:
            if self._crowds:
                self._cut(self._now())

    def _cut(self, moment: Moment) -> None:
        """Close the open part of every open lane."""
        before = self._cpu
        self._look()
        used = {clock: max(0.0, seconds - before.get(clock, 0.0)) for clock, seconds in self._cpu.items()}
        waiting: list[tuple[list[Lane], float, float, bool, bool]] = [(self._roots, 1.0, 1.0, False, False)]
        while waiting:
            group, cpu, rest, cpu_shared, rest_shared = waiting.pop()
            rest, rest_shared = rest / len(group), rest_shared or len(group) > 1
            for lane, share, guessed in _shares(group, used):
                lane.cpu_shared |= cpu_shared or guessed
                lane.rest_shared |= rest_shared
                _close(lane, moment, cpu * share, rest)
                if lane.children:
                    waiting.append((lane.children, cpu * share, rest, cpu_shared or guessed, rest_shared))

    def _look(self) -> None:
        """Note where the clocks of all open lanes stand; one whose thread has ended stays where it was."""
        lanes, seen = list(self._roots), {}
        for lane in lanes:  # grows meanwhile
            lanes.extend(lane.children)
            if lane.clock is not None and lane.clock not in seen:
                seconds = self._read(lane.clock)
                seen[lane.clock] = self._cpu.get(lane.clock, 0.0) if seconds is None else seconds
        self._cpu = seen


def _shares(group: list[Lane], used: dict[int, float]) -> Iterator[tuple[Lane, float, bool]]:
    """Each sibling's share of its parent's CPU time, and whether that is divided equally for want of knowledge.

    What a thread used that several of them run on, as tasks do, is divided equally among these.
    """
    if len(group) == 1:
        yield group[0], 1.0, False
        return
    clocks = [_clocks(lane) for lane in group]
    runners: dict[int | None, int] = {}
    for clock in (clock for own in clocks for clock in own):
        runners[clock] = runners.get(clock, 0) + 1
    seconds = [sum(used.get(clock, 0.0) / runners[clock] for clock in own if clock is not None) for own in clocks]
    total = sum(seconds)
    known = total > 0 and None not in runners
    for lane, own, mine in zip(group, clocks, seconds, strict=True):
        if known:
            yield lane, mine / total, any(runners[clock] > 1 for clock in own)
        else:
            yield lane, 1.0 / len(group), True


def _clocks(lane: Lane) -> set[int | None]:
    """The threads that it and its open children run on."""
    clocks, lanes = set(), [lane]
    for one in lanes:  # grows meanwhile
        clocks.add(one.clock)
        lanes.extend(one.children)
    return clocks


def _close(lane: Lane, moment: Moment, cpu: float, rest: float) -> None:
    """End the open part at `moment`; a very short one before it takes it in, with weights in the mean."""
    parts, since = lane.parts, lane.since
    lane.since = moment
    if parts and since == moment:
        return
    if parts and parts[-1][1] == since and (since[0] - parts[-1][0][0] < FINEST_SECONDS or len(parts) >= MOST_PARTS):
        start, _, earlier_cpu, earlier_rest = parts[-1]
        old_cpu, old_rest = since[1] - start[1], since[0] - start[0]
        new_cpu, new_rest = moment[1] - since[1], moment[0] - since[0]
        cpu = _mean(earlier_cpu, old_cpu, cpu, new_cpu)
        rest = _mean(earlier_rest, old_rest, rest, new_rest)
        parts[-1] = (start, moment, cpu, rest)
    else:
        parts.append((since, moment, cpu, rest))


def _mean(one: float, weight: float, other: float, other_weight: float) -> float:
    """A weighted mean; the plain one where nothing has any weight."""
    whole = weight + other_weight
    return (one * weight + other * other_weight) / whole if whole > 0 else (one + other) / 2
