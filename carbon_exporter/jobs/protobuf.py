"""Protobuf's wire format, as far as messages made of texts and messages need it. Pure.

A message is a row of fields, each a tag (number * 8 + wire type, a varint) and a value: 0 is a varint, 1 eight bytes,
2 a length (a varint) and so many bytes, 5 four bytes; 3 and 4, groups, are not part of proto3. Source: the encoding
page of the Protocol Buffers documentation.
"""

from __future__ import annotations

from carbon_exporter.errors import JobResolutionError

__all__ = ["text_field", "texts_and_messages"]

_FIXED = {1: 8, 5: 4}
_VARINT, _LENGTH_DELIMITED = 0, 2
_LONGEST_VARINT_BITS = 70
_MOST_NUMBER = (1 << 29) - 1


def texts_and_messages(message: bytes) -> dict[int, list[bytes]]:
    """The length-delimited fields of a message, by number, in their order; numbers and what else is in it are skipped.

    Raises `JobResolutionError` if it is cut short, or no message at all.
    """
    found: dict[int, list[bytes]] = {}
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number <= _MOST_NUMBER:
            raise JobResolutionError(f"not a protobuf message: field number {number}")
        if wire == _VARINT:
            _, at = _varint(message, at)
        elif wire == _LENGTH_DELIMITED:
            length, start = _varint(message, at)
            at = start + length
            found.setdefault(number, []).append(message[start:at])
        elif wire in _FIXED:
            at += _FIXED[wire]
        else:
            raise JobResolutionError(f"not a protobuf message: wire type {wire}")
    if at > end:
        raise JobResolutionError("not a protobuf message: it is cut short")
    return found


def text_field(number: int, text: str) -> bytes:
    """A field with a text of less than 16 KiB, to be put into a message; `number` is less than 16."""
    payload = text.encode()
    size = len(payload)
    length = bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])  # noqa: PLR2004 - as above
    return bytes([number << 3 | _LENGTH_DELIMITED]) + length + payload


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, 7 bits a byte from the lowest on, and where the next field begins."""
    number = 0
    for shift in range(0, _LONGEST_VARINT_BITS, 7):
        if at >= len(message):
            raise JobResolutionError("not a protobuf message: it is cut short")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that more follow
            return number, at
    raise JobResolutionError("not a protobuf message: a number without end")
