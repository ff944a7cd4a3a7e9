"""Small files of the kernel's that are read again and again, kept open: to open one takes longer than to read it.

A file of the kernel's tells its own end: what is kept open of a group or process that has gone cannot be read any more,
also where another has taken its place.
"""

from __future__ import annotations

import os
from collections.abc import Collection

__all__ = ["KeptFiles", "most_kept", "read_small"]

LONGEST_TEXT = 16384
MOST = 2048
"""The kernel keeps a buffer of a page for each."""


class KeptFiles:
    """Files by path, closed with this object. Not for use from several threads."""

    def __init__(self, most: int) -> None:
        """`most` files are kept open; others are opened each time."""
        self._most = most
        self._handles: dict[str, int] = {}

    def __del__(self) -> None:
        """Close them all."""
        self.keep(())

    def read(self, path: str, folder: int) -> bytes:
        """A file's text as it is now; the path is one below `folder`, a directory's handle. Raises `OSError`."""
        handle = self._handles.get(path)
        if handle is not None:
            try:
                return os.pread(handle, LONGEST_TEXT, 0)
            except OSError:  # what it told of has gone; another may have come
                os.close(self._handles.pop(path))
        if len(self._handles) >= self._most:
            return read_small(path, folder)
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        self._handles[path] = handle
        return os.pread(handle, LONGEST_TEXT, 0)

    def keep(self, paths: Collection[str]) -> None:
        """Close all others."""
        for path in self._handles.keys() - paths:
            os.close(self._handles.pop(path))


def most_kept() -> int:
    """Half of what this process may have open: the other half is for connections, meters and files of the moment.

    Control groups take three quarters of these, processes the rest.
    """
    import resource  # noqa: PLC0415 - not on Windows

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else min(MOST, soft // 2)


def read_small(path: str, folder: int | None = None) -> bytes:
    """A small file; a relative path is one below `folder`, a directory's handle. Raises `OSError`."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(handle, LONGEST_TEXT)
    finally:
        os.close(handle)
