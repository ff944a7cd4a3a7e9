"""Stretches of time, asked about in pieces: no server has to answer for a month at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from carbon_exporter.errors import QueryTooLarge

__all__ = ["DAY", "Stretch", "in_parts", "pieces"]

DAY = 86_400
SHORTEST = 300
"""Seconds of a window that is not divided any more."""
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Windows of `step` seconds that touch, from `begin` to `end`, in Unix seconds; each leaves out its left edge."""

    begin: int
    end: int
    step: int

    @property
    def seconds(self) -> int:
        """Its length."""
        return self.end - self.begin


def pieces(begin: int, end: int, step: int, longest: int = DAY) -> Iterator[Stretch]:
    """What lies between, in pieces of whole windows; what is left over at the end is a shorter window of its own."""
    longest -= longest % step
    whole = end - (end - begin) % step
    for start in range(begin, whole, longest):
        yield Stretch(start, min(start + longest, whole), step)
    if whole < end:
        yield Stretch(whole, end, end - whole)


def in_parts(stretch: Stretch, ask: Callable[[Stretch], Answer]) -> Iterable[tuple[Stretch, Answer]]:
    """What `ask` says of the stretch, or of its parts where the server cannot answer so much. Raises `QueryError`.

    Parts have fewer windows; a single long window becomes two shorter ones.
    """
    try:
        yield stretch, ask(stretch)
    except QueryTooLarge:
        windows = stretch.seconds // stretch.step
        if windows == 1 and stretch.step <= SHORTEST:
            raise
        step = stretch.step if windows > 1 else (stretch.step + 1) // 2
        middle = stretch.begin + max(windows // 2, 1) * step
        yield from in_parts(Stretch(stretch.begin, middle, step), ask)
        yield from in_parts(Stretch(middle, stretch.end, min(step, stretch.end - middle)), ask)
