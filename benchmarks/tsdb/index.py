"""Writes the index of a block: its symbols, series, postings and table of contents.

Format: tsdb/docs/format/index.md of Prometheus, version 2. Label indices, which no reader uses any more, are left out.
"""

from __future__ import annotations

import io
import struct
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.tsdb.chunks import crc32c

__all__ = ["Labels", "write_index"]

Labels = tuple[tuple[str, str], ...]
"""Sorted by name; `__name__` is one of them."""
_HEADER = struct.pack(">IB", 0xBAAAD700, 2)
_ALL = ("", "")
"""The posting of all series."""


def write_index(path: Path, series: Mapping[Labels, bytes]) -> None:
    """Write the index of these series, each with the places of its chunks."""
    out = io.BytesIO()
    out.write(_HEADER)
    symbols_at = out.tell()
    numbers = _symbols(out, series)
    series_at = out.tell()
    postings = _series(out, series, numbers)
    postings_at = _align(out, 4)
    offsets = {pair: _posting(out, postings[pair]) for pair in sorted(postings)}
    table_at = _align(out, 4)
    entries = b"".join(b"\x02" + _text(name) + _text(value) + uvarint(at) for (name, value), at in offsets.items())
    _section(out, struct.pack(">I", len(offsets)) + entries)
    contents = struct.pack(">6Q", symbols_at, series_at, 0, 0, postings_at, table_at)
    out.write(contents + crc32c(contents))
    path.write_bytes(out.getbuffer())


def uvarint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _symbols(out: io.BytesIO, series: Iterable[Labels]) -> dict[str, bytes]:
    """All texts, once each; and how the rest refers to them."""
    texts = sorted({text for labels in series for pair in labels for text in pair}, key=str.encode)
    _section(out, struct.pack(">I", len(texts)) + b"".join(map(_text, texts)))
    return {text: uvarint(number) for number, text in enumerate(texts)}


def _series(
    out: io.BytesIO, series: Mapping[Labels, bytes], numbers: Mapping[str, bytes]
) -> dict[tuple[str, str], array[int]]:
    postings: dict[tuple[str, str], array[int]] = defaultdict(lambda: array("I"))
    for labels in sorted(series):
        reference = _align(out, 16) // 16
        pairs = b"".join([numbers[text] for pair in labels for text in pair])
        entry = uvarint(len(labels)) + pairs + series[labels]
        out.write(uvarint(len(entry)) + entry + crc32c(entry))
        for pair in (_ALL, *labels):
            postings[pair].append(reference)
    return postings


def _posting(out: io.BytesIO, references: array[int]) -> int:
    at = _align(out, 4)
    big = array("I", references)
    big.byteswap()
    _section(out, struct.pack(">I", len(references)) + big.tobytes())
    return at


def _section(out: io.BytesIO, content: bytes) -> None:
    out.write(struct.pack(">I", len(content)) + content + crc32c(content))


def _align(out: io.BytesIO, size: int) -> int:
    out.write(bytes(-out.tell() % size))
    return out.tell()


def _text(text: str) -> bytes:
    data = text.encode()
    return uvarint(len(data)) + data
