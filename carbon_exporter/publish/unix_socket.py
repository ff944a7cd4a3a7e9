"""Unix sockets to listen on: what a dead server left behind is replaced, a living one's is not."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

__all__ = ["SYSTEM_SOCKET", "clear_dead", "listen_unix"]

SYSTEM_SOCKET = "/run/carbon-exporter/sdk.sock"
"""Where the exporter hears scripts as a system service; as a user's program below `$XDG_RUNTIME_DIR`."""


def listen_unix(path: Path, mode: int, backlog: int) -> socket.socket:
    """A socket that listens at `path` with these permissions. Raises `OSError`: EADDRINUSE if somebody lives there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        clear_dead(path)
        listener.bind(str(path))
        path.chmod(mode)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def clear_dead(path: Path) -> bool:
    """Take away a socket on which nobody listens; whether somebody does. Raises `OSError` if that cannot be told."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return False
        return True
