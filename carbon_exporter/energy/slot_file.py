"""The file of totals while it is written: over its older slot where that will do, else as a new file in its place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from carbon_exporter.energy.slots import file_of, offset_of, room_for, slot_of

__all__ = ["SlotFile"]

_WASTE = 8
"""A file whose slots are this many times too large gives way to a smaller one."""


class SlotFile:
    """A file that this process alone has made: the first save replaces what was there, whatever it was."""

    def __init__(self, path: Path) -> None:
        """Nothing is touched before `save`."""
        self._path = str(path)
        self._scratch = f"{self._path}.new"
        self._handle: int | None = None
        self._left: tuple[int, ...] = ()
        """How the last save left it; changed since, it is replaced as a whole."""
        self._room = 0
        self._number = 0

    def save(self, body: bytes) -> None:
        """When this returns, the body survives a crash of the machine; if it does not, the last one has.

        Raises `OSError`.
        """
        number = self._number + 1
        slot = slot_of(number, body)
        needed = room_for(slot)
        if self._handle is None or not needed <= self._room < needed * _WASTE or not self._is_as_left():
            self._handle, self._room = self._replace(file_of(number, slot, needed)), needed
        else:
            _write(self._handle, slot, offset_of(number, self._room))
            os.fdatasync(self._handle)
        self._number, self._left = number, _state(os.fstat(self._handle))

    def close(self) -> None:
        """May be called twice, and `save` after it."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def _is_as_left(self) -> bool:
        """Whether the path still leads to the file, and nobody has written, cut, linked or opened it to others."""
        try:
            return _state(os.lstat(self._path)) == self._left
        except OSError:
            return False

    def _replace(self, content: bytes) -> int:
        """Put a new file in the old one's place, and wait until the disk has it; returns its handle."""
        self.close()
        handle = _create(self._scratch)
        try:
            _write(handle, content, 0)
            os.fsync(handle)
            os.replace(self._scratch, self._path)  # noqa: PTH105 - a Path is slow to make
            _sync_directory(os.path.dirname(self._path))  # noqa: PTH120
        except OSError:
            os.close(handle)
            raise
        return handle


def _state(found: os.stat_result) -> tuple[int, ...]:
    """What tells a file from any other, and from itself changed: its ctime moves with all that is done to it."""
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns


def _create(path: str) -> int:
    """A new file that nobody else reads."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:  # a crash has left it, or somebody has put it there
        os.unlink(path)  # noqa: PTH108
        return os.open(path, flags, 0o600)


def _write(handle: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


def _sync_directory(directory: str) -> None:
    """Make a rename durable. Some file systems refuse to sync a directory; they order renames themselves."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(handle)
