"""What a file of totals looks like: a first block, and two slots that are written in turn. Pure.

The first block begins with `carbon-exporter totals <schema> <bytes of a slot>` and a newline, and never changes. A slot
is a sequence number, the length of the body, the SHA-256 of these and the body, and the body. A save that is cut short
spoils one slot; the other one holds the save before. Files of schema 1 are one line, `carbon-exporter totals 1 <SHA-256
of the rest>`, and the body.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["LARGEST_FILE", "SCHEMA", "Found", "file_of", "newest", "offset_of", "room_for", "slot_of"]

SCHEMA = 2
"""Raised when the file changes so that an older version would misread it."""

_MAGIC = b"carbon-exporter totals"
_BLOCK = 4096
"""Slots begin at multiples of it: disks write, and so tear, no less at once."""
LARGEST_FILE = _BLOCK + 2 * 128 * 1024 * 1024
_COUNTS = struct.Struct("<QQ")
_HEADER = _COUNTS.size + hashlib.sha256().digest_size


class Found(NamedTuple):
    """What a file holds."""

    body: bytes
    torn: bool
    """Whether another save is in the file, and not whole."""


def room_for(slot: bytes) -> int:
    """Bytes to set aside for each slot: a power of two, so that totals which grow seldom need another file."""
    return max(_BLOCK, 1 << (len(slot) - 1).bit_length())


def slot_of(number: int, body: bytes) -> bytes:
    """What to write of a body that is the save of this number, from 1 on."""
    return _COUNTS.pack(number, len(body)) + _checksum(number, body) + body


def offset_of(number: int, room: int) -> int:
    """Where the slot of this save begins: not where the one before is."""
    return _BLOCK + number % 2 * room


def file_of(number: int, slot: bytes, room: int) -> bytes:
    """A whole new file, in which the other slot is blank."""
    other = bytes(room)
    slots = (other, slot.ljust(room, b"\0")) if number % 2 else (slot.ljust(room, b"\0"), other)
    return b"".join((_first_block(room), *slots))


def newest(content: bytes) -> Found:
    """The save to go on from. Raises `ValueError` with the reason why none can be believed."""
    line, _, rest = content.partition(b"\n")
    words = line.rsplit(b" ", 2)
    if len(words) != 3 or words[0] != _MAGIC:  # noqa: PLR2004 - magic, schema, and what the schema has there
        raise ValueError("is not a totals file of carbon-exporter")
    if words[1] == b"%d" % SCHEMA:
        return _newer(_slots(content))
    if words[1] != b"1":
        raise ValueError(
            f"has schema {words[1].decode('ascii', 'replace')}, and this version reads schema 1 to {SCHEMA}"
        )
    return _newer([(0, rest)] if hashlib.sha256(rest).hexdigest().encode() == words[2] else [])


def _newer(slots: Sequence[tuple[int, bytes] | None]) -> Found:
    """Of the slots that are not blank, None if spoilt, the one that was written last."""
    whole = [slot for slot in slots if slot is not None]
    if not whole:
        raise ValueError("is truncated or corrupt (its checksum does not match)")
    return Found(max(whole)[1], torn=len(whole) < len(slots))


def _slots(content: bytes) -> list[tuple[int, bytes] | None]:
    """Number and body of each slot that is not blank, None if it is spoilt; nothing of a file of the wrong size."""
    room = (len(content) - _BLOCK) // 2
    if room < _BLOCK or content[:_BLOCK] != _first_block(room):
        return []
    slots = (content[start : start + room] for start in (_BLOCK, _BLOCK + room))
    return [_read(slot) for slot in slots if any(slot[:_HEADER])]


def _read(slot: bytes) -> tuple[int, bytes] | None:
    number, length = _COUNTS.unpack_from(slot)
    body = slot[_HEADER : _HEADER + length]
    return (number, body) if slot[_COUNTS.size : _HEADER] == _checksum(number, body) else None


def _first_block(room: int) -> bytes:
    return (b"%s %d %d\n" % (_MAGIC, SCHEMA, room)).ljust(_BLOCK, b"\0")


def _checksum(number: int, body: bytes) -> bytes:
    return hashlib.sha256(_COUNTS.pack(number, len(body)) + body).digest()
