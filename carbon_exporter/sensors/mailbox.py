"""Mailboxes and bells: what threads leave for another one, which waits for it as long as it says and no longer.

`queue.SimpleQueue` waits for ever up to Python 3.12, now and then: it reckons its deadline, and if its thread is not
given a processor until that has passed, what is left is negative, which to its lock means no limit at all. On a busy
machine one script in some hundreds measured nothing more, without a word, from where its thread first waits so.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ["Bell", "Mailbox"]

_T = TypeVar("_T")


class Bell:
    """For any number of threads that ring, and one that waits."""

    __slots__ = ("_free",)

    def __init__(self) -> None:
        """It has not been rung."""
        self._free = threading.Lock()
        self._free.acquire()

    def ring(self) -> None:
        """End a wait, or the next one. Waits for nothing, so that a signal's handler may interrupt it and ring, too."""
        with suppress(RuntimeError):  # rung already
            self._free.release()

    def wait(self, patience: float | None = None) -> bool:
        """Until it is rung, or for `patience` seconds, which must not be negative; whether it was rung."""
        return self._free.acquire() if patience is None else self._free.acquire(True, patience)


class Mailbox(Generic[_T]):
    """For any number of threads that put, and one that gets."""

    __slots__ = ("_bell", "_items")

    def __init__(self) -> None:
        """Nothing is in it."""
        self._items: deque[_T] = deque()
        self._bell = Bell()

    def __bool__(self) -> bool:
        """Whether something is in it."""
        return bool(self._items)

    def put(self, item: _T) -> None:
        """Leave something. Waits for nothing, so that a signal's handler may interrupt it and put something, too."""
        self._items.append(item)
        self._bell.ring()

    def get(self, patience: float | None = None) -> _T | None:
        """The oldest; None if there is none within `patience` seconds, without them it waits until there is one."""
        items, bell = self._items, self._bell
        if not items and patience is None:
            while not items:
                bell.wait()
        elif not items and patience:
            until = time.monotonic() + patience
            while not items and (left := until - time.monotonic()) > 0 and bell.wait(left):
                pass
        return items.popleft() if items else None
