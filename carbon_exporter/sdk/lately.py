"""How wrong guesses were lately: by that it is told how wrong those to come may be."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque

__all__ = ["Lately"]

LATELY = 300
"""So many past guesses are remembered: half a minute at ten a second."""
ENOUGH = 30
"""With fewer of them, what has not been seen yet may well be larger."""
COVERED = 0.96
"""Of the past guesses: those to come are then right in 95 of 100."""


class Lately:
    """The last values, and what most of them stay under."""

    __slots__ = ("_order", "_sorted")

    def __init__(self) -> None:
        self._order: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, value: float) -> None:
        """One more value; the oldest goes if there are too many."""
        if len(self._order) == LATELY:
            del self._sorted[bisect_right(self._sorted, self._order.popleft()) - 1]
        self._order.append(value)
        insort(self._sorted, value)

    def most(self, unseen: float) -> float:
        """What 96 of 100 values stay under. While only few are known, nearly `unseen` if that is more."""
        count = len(self._sorted)
        if count >= ENOUGH:
            return self._sorted[int(COVERED * count)]
        return max(self._sorted[-1] if count else 0.0, unseen * (1.0 - count / ENOUGH))
