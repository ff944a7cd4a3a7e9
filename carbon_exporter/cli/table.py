"""Plain text for terminals: tables, and words of others that may not move the cursor."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

__all__ = ["grid", "printable", "table"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Columns padded to their widest cell; the last one wraps so that lines fit `width` columns where they can.

    In the last column a newline begins a new line, and what wraps is indented below it.
    """
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header) - 1)]
    indent = sum(widths) + 2 * len(widths)
    room = max(24, width - indent)
    lines = []
    for row in cells:
        start = "".join(f"{cell:<{size}}  " for cell, size in zip(row, widths, strict=False))
        wrapped = [
            part
            for line in row[-1].split("\n")
            for part in (
                textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ")
                or [""]
            )
        ]
        lines.append((start + wrapped[0]).rstrip())
        lines.extend(" " * indent + part for part in wrapped[1:])
    return "\n".join(lines)


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> str:
    """Columns padded to their widest cell; those whose heading is in `right` end together, as numbers should."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        columns = zip(header, row, widths, strict=True)
        padded = (f"{cell:>{size}}" if name in right else f"{cell:<{size}}" for name, cell, size in columns)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def printable(text: str) -> str:
    """The text as one line without control characters: `?` stands for each."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)
