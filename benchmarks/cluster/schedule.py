"""Which run holds which boards of a cluster, and when.

The mix is an assumption, shaped after what is published of such clusters (Philly, ATC 2019; Helios, SC 2021): most runs
are small and short, most board-hours belong to few that are large and long.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.tsdb.chunks import Integers

__all__ = ["BOARDS", "WARM_MINUTES", "Run", "schedule"]

BOARDS: Final = 8
"""Of a node."""
_MIX: Final = (
    (1, 0.55, 90),
    (2, 0.10, 90),
    (4, 0.10, 90),
    (8, 0.18, 360),
    (32, 0.05, 1440),
    (64, 0.015, 2160),
    (256, 0.005, 2880),
)
"""Boards of a run, its share of all runs, and the mean of its minutes."""
_SPREAD = 1.6
"""Sigma of the log-normal duration: the median is 0.28 of the mean."""
_SHORTEST, _LONGEST = 2, 5 * 1440
_WANTED = 0.85
"""Share of the boards that runs ask for."""
WARM_MINUTES: Final = _LONGEST
"""Before the week begins, so that it begins with the long runs that it would have."""
_PATIENCE = 32
"""Runs at the head of the queue that are tried when boards come free."""


@dataclass(frozen=True, slots=True)
class Run:
    """It holds `slots` (node x 8 + board) from minute `start` to `end`; the week begins at minute 0."""

    number: int
    start: int
    end: int
    slots: Integers
    load: float
    """How busy its boards are, 0 to 1."""
    team: int


def schedule(nodes: int, minutes: int, source: np.random.Generator) -> list[Run]:
    """All runs that hold a board between minute 0 and `minutes`, by start."""
    free, queue = _Free(nodes), deque[tuple[int, int]]()
    running: list[tuple[int, int, Integers]] = []
    held: list[Run] = []
    numbers = itertools.count()
    for minute, wanted in zip(range(-WARM_MINUTES, minutes), _arrivals(nodes, minutes, source), strict=True):
        queue.extend(wanted)
        freed = False
        while running and running[0][0] <= minute:
            free.give(heapq.heappop(running)[2])
            freed = True
        for boards, duration in [queue.popleft() for _ in range(min(len(queue), _PATIENCE))] if freed or wanted else ():
            slots = free.take(boards)
            if slots is None:
                queue.append((boards, duration))
                continue
            number = next(numbers)
            heapq.heappush(running, (minute + duration, number, slots))
            held.append(
                Run(number, minute, minute + duration, slots, source.uniform(0.35, 1.0), int(source.integers(40)))
            )
    return [run for run in held if run.end > 0]


def _arrivals(nodes: int, minutes: int, source: np.random.Generator) -> list[list[tuple[int, int]]]:
    """For each minute, boards and duration of the runs that come."""
    mix = [line for line in _MIX if line[0] <= nodes * BOARDS // 4]
    sizes, shares, means = (np.array(column, float) for column in zip(*mix, strict=True))

    def draw(count: int) -> tuple[Integers, Integers]:
        kind = source.choice(len(mix), count, p=shares / shares.sum())
        drawn = source.lognormal(np.log(means[kind]) - _SPREAD**2 / 2, _SPREAD)
        return sizes[kind].astype(int), np.clip(drawn, _SHORTEST, _LONGEST).astype(int)

    boards, lasting = draw(100_000)
    rate = _WANTED * nodes * BOARDS / float(np.mean(boards * lasting))
    counts = source.poisson(rate, minutes + WARM_MINUTES)
    pairs = iter(list(zip(*(column.tolist() for column in draw(int(counts.sum()))), strict=True)))
    return [list(itertools.islice(pairs, count)) for count in counts.tolist()]


class _Free:
    """Boards that nobody holds. Small runs go where the fewest are free, large ones get whole nodes."""

    def __init__(self, nodes: int) -> None:
        self._boards = {node: list(range(BOARDS)) for node in range(nodes)}
        self._nodes: list[dict[int, None]] = [{} for _ in range(BOARDS + 1)]
        self._nodes[BOARDS] = dict.fromkeys(range(nodes))

    def take(self, boards: int) -> Integers | None:
        if boards < BOARDS:
            found = next((free for free in range(boards, BOARDS + 1) if self._nodes[free]), None)
            nodes = [] if found is None else [next(iter(self._nodes[found]))]
        else:
            nodes = list(itertools.islice(self._nodes[BOARDS], boards // BOARDS))
        slots = [slot for node in nodes for slot in self._of(node, min(boards, BOARDS))]
        if len(slots) < boards:
            self.give(np.array(slots, int))
            return None
        return np.array(slots, int)

    def give(self, slots: Integers) -> None:
        for slot in slots.tolist():
            node, board = divmod(slot, BOARDS)
            self._keep(node, [*self._boards[node], board])

    def _of(self, node: int, boards: int) -> list[int]:
        free = self._boards[node]
        self._keep(node, free[boards:])
        return [node * BOARDS + board for board in free[:boards]]

    def _keep(self, node: int, boards: list[int]) -> None:
        self._nodes[len(self._boards[node])].pop(node, None)
        self._boards[node] = boards
        self._nodes[len(boards)][node] = None
