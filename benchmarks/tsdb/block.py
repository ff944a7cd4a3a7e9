"""Writes one block: a folder with chunks, an index and meta.json, as Prometheus, Thanos and promtool read them.

Formats: tsdb/docs/format of Prometheus, chunks.md, index.md and README.md.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.tsdb.chunks import LONGEST, Floats, Integers, Span, encode, places
from benchmarks.tsdb.index import Labels, write_index

__all__ = ["Block", "Group"]

_SEGMENT_BYTES = 512 << 20
"""A file of chunks is no longer; Prometheus' own limit."""
_SEGMENT_HEADER = struct.pack(">IB3x", 0x85BD40DD, 1)
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Group:
    """Series of a block that are written together, a window of time after the other."""

    def __init__(self, block: Block, labels: Sequence[Labels]) -> None:
        self.labels = labels
        self._block = block
        self._windows: list[tuple[Integers, Integers, Integers]] = []

    def append(self, rows: Floats, first: int, step: int, since: Span | None = None, until: Span | None = None) -> None:
        """A row a series, a column each `step` ms from `first` on; of each row those `since` to `until`."""
        series, columns = rows.shape
        assert series == len(self.labels)
        since = np.zeros(series, np.int32) if since is None else since
        until = np.full(series, columns, np.int32) if until is None else until
        for start in range(0, columns, LONGEST):
            part = np.ascontiguousarray(rows[:, start : start + LONGEST])
            bounds = [np.clip(bound - start, 0, part.shape[1]).astype(np.int32) for bound in (since, until)]
            self._write(part, first + start * step, step, *bounds)

    def chunks(self) -> list[bytes]:
        """Of each series where its chunks are; nothing for one that has none."""
        if not self._windows:
            return [b""] * len(self.labels)
        begins, ends, refs = (np.stack(parts) for parts in zip(*self._windows, strict=True))
        found = places(begins, ends, refs)
        counts = np.count_nonzero(refs, axis=0).tolist()
        return [place if count else b"" for place, count in zip(found, counts, strict=True)]

    def _write(self, rows: Floats, first: int, step: int, since: Span, until: Span) -> None:
        data, sizes = encode(rows, first, step, since, until)
        there = sizes > 0
        at = self._block.put(data) + np.cumsum(sizes) - sizes
        begins, ends = first + step * since.astype(np.int64), first + step * (until.astype(np.int64) - 1)
        self._windows.append((begins, ends, np.where(there, at, 0)))
        self._block.count(int((until - since)[there].sum()), int(there.sum()), int(ends[there].max(initial=0)))


class Block:
    """Use as a context manager: the index and meta.json are written at its end."""

    def __init__(self, folder: Path, start: int, source: random.Random) -> None:
        self.ulid = _ulid(start, source)
        self._folder = folder / self.ulid
        (self._folder / "chunks").mkdir(parents=True)
        self._start = start
        self._end = start
        self._groups: list[Group] = []
        self._segments = 0
        self._samples = self._chunks = self.series = 0
        self._next_segment()

    def __enter__(self) -> Block:  # noqa: PYI034 - Self is of Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._segment.close()
        found = {
            labels: chunks
            for group in self._groups
            for labels, chunks in zip(group.labels, group.chunks(), strict=True)
            if chunks
        }
        self.series = len(found)
        write_index(self._folder / "index", found)
        (self._folder / "meta.json").write_text(json.dumps(self._meta()))

    @property
    def samples(self) -> int:
        """Samples in it so far."""
        return self._samples

    def group(self, labels: Sequence[Labels]) -> Group:
        """A new group of series, none of which stands in another."""
        group = Group(self, labels)
        self._groups.append(group)
        return group

    def put(self, data: memoryview) -> int:
        """Append chunks; where the first of them is."""
        if self._segment.tell() + len(data) > _SEGMENT_BYTES:
            self._segment.close()
            self._next_segment()
        at = (self._segments - 1) << 32 | self._segment.tell()
        self._segment.write(data)
        return at

    def count(self, samples: int, chunks: int, last: int) -> None:
        """Chunks that were put, and the time of their newest sample (ms)."""
        self._samples += samples
        self._chunks += chunks
        self._end = max(self._end, last + 1)

    def _next_segment(self) -> None:
        self._segments += 1
        self._segment = (self._folder / "chunks" / f"{self._segments:06d}").open("wb")
        self._segment.write(_SEGMENT_HEADER)

    def _meta(self) -> dict[str, object]:
        stats = {"numSamples": self._samples, "numSeries": self.series, "numChunks": self._chunks}
        return {
            "ulid": self.ulid,
            "minTime": self._start,
            "maxTime": self._end,
            "stats": stats,
            "compaction": {"level": 3, "sources": [self.ulid]},
            "version": 1,
        }


def _ulid(milliseconds: int, source: random.Random) -> str:
    """A name of 26 letters: 48 bits of time and 80 of chance (github.com/ulid/spec)."""
    number = milliseconds << 80 | source.getrandbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
