"""A Unix socket that speaks in lines and never waits, for a thread that has other things to do."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Final

__all__ = ["LineSocket", "knock"]

_READ_BYTES = 65536
_MOST_READS = 64
"""In one look: a peer that talks without end must not keep the caller."""
_SHORTEST_WAIT = 0.0001
_NO_SIGNAL: Final[int] = getattr(socket, "MSG_NOSIGNAL", 0)


def knock(path: str) -> socket.socket | int:
    """A socket connected to the one at `path`, or the number of the error: EAGAIN if too many knock at once."""
    if not hasattr(socket, "AF_UNIX"):
        return errno.EAFNOSUPPORT
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        trouble = connection.connect_ex(path)
    except (OSError, ValueError):  # too long, or with a zero byte
        trouble = errno.EINVAL
    if not trouble:
        return connection
    connection.close()
    return trouble


class LineSocket:
    """One connection. Its owner closes it."""

    def __init__(self, connection: socket.socket, longest: int) -> None:
        """A line that is longer than `longest` bytes ends the connection."""
        self._socket, self._longest = connection, longest
        self._heard = self._unsaid = b""
        """The beginning of a line that is yet to come, the rest of one that is yet to go."""

    @property
    def silent(self) -> bool:
        """Whether all that was said is the kernel's."""
        return not self._unsaid

    def hear(self) -> Iterator[bytes]:
        """The lines that have come. Raises `EOFError` once the other side has ended or talks nonsense, or `OSError`."""
        for _ in range(_MOST_READS):
            try:
                chunk = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            *lines, self._heard = (self._heard + chunk).split(b"\n")
            yield from lines
            if not chunk or len(self._heard) > self._longest:
                raise EOFError

    def say(self, line: bytes = b"") -> bool:
        """Hand over this and what is left of the last line; whether the kernel took it whole. Raises `OSError`."""
        self._unsaid += line
        while self._unsaid:
            try:
                sent = self._socket.send(self._unsaid, _NO_SIGNAL)
            except BlockingIOError:
                return False
            self._unsaid = self._unsaid[sent:]
        return True

    def wait(self, seconds: float) -> None:
        """Until something has come or ended, for `seconds` at most. Not by `select`, which knows 1024 files only."""
        self._socket.settimeout(max(seconds, _SHORTEST_WAIT))
        with contextlib.suppress(OSError):  # nothing came, or an end that `hear` finds
            self._socket.recv(1, socket.MSG_PEEK)
        self._socket.setblocking(False)

    def end(self) -> None:
        """Say that nothing more will be said. Raises `OSError`."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Give back the socket, whatever it still had to say. A forked parent's own is not touched."""
        self._socket.close()
