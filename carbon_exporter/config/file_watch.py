"""Looks after the settings file: whether it is another than the one that was read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

__all__ = ["FileWatch", "identity"]

_PERIOD_SECONDS = 3.0


class FileWatch:
    """Tells of each change of a file, from a thread of its own. A change is told when it is over.

    Who writes into a file leaves it empty for a moment, and an empty one is good settings: so it must look the same
    twice. A file that another is moved over, or another link leads to, as the kubelet does it, is a change as well.
    """

    def __init__(self, file: Path | None, period: float = _PERIOD_SECONDS) -> None:
        """`period`: seconds between two looks. Without a `file` there is nothing to tell."""
        self._file = file
        self._period = period
        self._read = self._look()
        self._closed = threading.Event()

    def note(self) -> None:
        """The file is about to be read: what it is now is no change any more."""
        self._read = self._look()

    def start(self, changed: Callable[[], None]) -> None:
        """Begin to look; `changed` is called until `note` is."""
        if self._file is not None:
            threading.Thread(target=self._watch, args=(changed,), name="settings", daemon=True).start()

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()

    def _watch(self, changed: Callable[[], None]) -> None:
        before = self._look()
        while not self._closed.wait(self._period):
            now = self._look()
            if now == before != self._read:
                changed()
            before = now

    def _look(self) -> tuple[int, ...]:
        return identity(self._file) if self._file else ()


def identity(file: Path) -> tuple[int, ...]:
    """Differs when the file does, also when it is replaced, reached by another link, or made readable; () if none."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
