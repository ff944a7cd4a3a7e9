"""Where scripts knock: the node's Unix socket, and one for each job whose peers the kernel cannot name.

Any local user may connect. A socket that a dead exporter left behind is replaced, that of a living one is not.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from carbon_exporter.errors import ListenError
from carbon_exporter.jobs.base import Job, clean_name
from carbon_exporter.publish.unix_socket import SYSTEM_SOCKET, clear_dead, listen_unix

__all__ = ["JOB_SOCKET", "Door", "default_socket", "job_rooms", "open_door"]

JOB_SOCKET = "sdk.sock"
BACKLOG = 128
_LONGEST_PATH = 107
"""Bytes that the kernel's sockaddr_un holds, without the end mark."""
_EVERYBODY = 0o666
_ENTER = 0o755
_WRITABLE_BY_OTHERS = 0o022


@dataclass(frozen=True, slots=True)
class Door:
    """A socket that listens."""

    path: Path
    listener: socket.socket
    inode: tuple[int, int]
    job: Job | None = None
    """Whose all its peers are; None if the kernel says who each is."""

    @property
    def stands(self) -> bool:
        """Whether its path still leads to it."""
        try:
            found = self.path.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.inode

    def close(self) -> None:
        """Listen no more, and take the path away."""
        if self.stands:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self.listener.close()


def default_socket(environ: Mapping[str, str], system: Path = Path(SYSTEM_SOCKET)) -> Path | None:
    """Where to listen unless a setting says otherwise; None if this user has no place for a socket.

    In /run/carbon-exporter if that is or can be made writable, else below `$XDG_RUNTIME_DIR`.
    """
    folder = system.parent
    if os.access(folder if folder.exists() else folder.parent, os.W_OK | os.X_OK):
        return system
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime) / "carbon-exporter" / JOB_SOCKET if runtime.startswith("/") else None


def open_door(path: Path, job: Job | None = None) -> Door:
    """Listen at a path, whose folder is made if it is missing. Raises `ListenError` with what to do about it."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ListenError(f"{path} is too long for a socket", remedy=f"at most {_LONGEST_PATH} bytes")
    try:
        if not path.parent.exists():
            path.parent.mkdir()
            path.parent.chmod(_ENTER)
        if clear_dead(path):
            other = "stop it, or give this one another socket with --sdk.socket=PATH, or none with --sdk.socket="
            raise ListenError(f"another exporter listens on {path}", remedy=other)
        with contextlib.ExitStack() as undo:
            listener = undo.enter_context(listen_unix(path, _EVERYBODY, BACKLOG))
            listener.setblocking(False)
            found = path.lstat()
            undo.pop_all()
    except OSError as error:
        reason = f"cannot listen on {path}: {error.strerror or error}"
        raise ListenError(reason, remedy="name a place that it may write, with --sdk.socket=PATH") from error
    return Door(path, listener, (found.st_dev, found.st_ino), job)


def job_rooms(folder: Path) -> Iterator[tuple[Path, Job]]:
    """The sub-directories NAME or NAMESPACE:NAME and the jobs they are for. Raises `OSError`.

    Who may write in one could put another's socket there: those are left out.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and _is_safe(entry.stat(follow_symlinks=False)):
                namespace, colon, name = entry.name.partition(":")
                job = Job(clean_name(name), clean_name(namespace)) if colon else Job(clean_name(entry.name))
                if job.name:
                    yield Path(entry.path), job


def _is_safe(found: os.stat_result) -> bool:
    return found.st_uid in {0, os.geteuid()} and not stat.S_IMODE(found.st_mode) & _WRITABLE_BY_OTHERS
