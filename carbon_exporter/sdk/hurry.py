"""Getting ready beside a program that does not let go of the interpreter.

A thread that reads a file gives the interpreter away and gets it back a switch interval later, 5 ms by default. Loading
and opening what measures takes a thousand such turns: five seconds beside a loop of pure Python. For so long the
interval is shorter; the program's own work takes no longer for it than for the same turns spread out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["hurried"]

HURRIED_SECONDS = 0.0005


@contextmanager
def hurried() -> Iterator[None]:
    """A short switch interval while the block runs, unless somebody has chosen one meanwhile."""
    before = sys.getswitchinterval()
    if before > HURRIED_SECONDS:
        sys.setswitchinterval(HURRIED_SECONDS)
    try:
        yield
    finally:
        if before > HURRIED_SECONDS and abs(sys.getswitchinterval() - HURRIED_SECONDS) < HURRIED_SECONDS / 10:
            sys.setswitchinterval(before)
