"""A week as the blocks that Prometheus has made of it by its end: of 18 hours each, and one of what is left."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.tsdb.block import Block, Group
from benchmarks.tsdb.chunks import Floats
from benchmarks.tsdb.index import Labels

__all__ = ["BLOCK_MINUTES", "START", "Shelf", "Week"]

BLOCK_MINUTES: Final = 18 * 60
"""Prometheus merges two hours to six, and six to eighteen; the next step, 54 hours, is more than a tenth of 15 days."""
START: Final = 27_000 * BLOCK_MINUTES * 60
"""Unix time of minute 0: a block begins there."""
_STALE: Final = np.array([0x7FF0000000000002], np.uint64).view(np.float64)[0]
"""The value that says that a series has ended (model/value of Prometheus)."""


class Week:
    """Blocks in `folder`, open for writing until the context ends."""

    def __init__(self, folder: Path, minutes: int) -> None:
        self.minutes = minutes
        self._folder = folder
        self._open = contextlib.ExitStack()
        self._blocks: list[Block] = []

    def __enter__(self) -> Week:  # noqa: PYI034 - Self is of Python 3.11
        source = random.Random(7)  # noqa: S311 - names of blocks, alike in every run
        for minute in range(0, self.minutes, BLOCK_MINUTES):
            block = Block(self._folder, (START + minute * 60) * 1000, source)
            self._blocks.append(self._open.enter_context(block))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def block(self, minute: float) -> Block:
        """The block of that minute."""
        return self._blocks[int(minute // BLOCK_MINUTES)]

    @property
    def samples(self) -> int:
        """Samples that were written."""
        return sum(block.samples for block in self._blocks)

    @property
    def series(self) -> int:
        """Series of the block that has the most; known at the end."""
        return max(block.series for block in self._blocks)


class Shelf:
    """A family of series that is written window after window, all of them named again for each block."""

    def __init__(self, week: Week, seconds: float) -> None:
        self._week = week
        self._seconds = seconds
        self._block: Block | None = None
        self._group: Group

    def name(self, minute: float, labels: Sequence[Labels]) -> None:
        """The series from this minute on, where a block begins."""
        self._block = self._week.block(minute)
        self._group = self._block.group(labels)

    def put(
        self, rows: Floats, first: int, since: NDArray[np.int64] | None = None, last: NDArray[np.int64] | None = None
    ) -> None:
        """A row a series, a column a step from step `first` on.

        Those with `since` and `last` are there in these steps only, and say afterwards once that they have ended.
        """
        step = int(self._seconds * 1000)
        begin = START * 1000 + first * step
        if since is None or last is None:
            self._group.append(rows, begin, step)
            return
        columns = rows.shape[1]
        ended = last + 1 - first
        there = np.flatnonzero((ended >= 0) & (ended < columns) & (since <= last))
        rows = rows.copy()
        rows[there, ended[there]] = _STALE
        bounds = [np.clip(bound - first, 0, columns).astype(np.int32) for bound in (since, last + 2)]
        self._group.append(rows, begin, step, *bounds)
