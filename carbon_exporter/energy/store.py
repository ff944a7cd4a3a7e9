"""Durable totals: one small file, written and synced each tick, that a crash cannot spoil and nobody else can write.

The file has two slots that are written in turn, so a reader finds the last save or the one before (`slots`). A lock
file beside it, held for the life of the process, keeps a second exporter out; the kernel releases it even after
`kill -9`. What the body means is its writer's business.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path

from carbon_exporter.energy.slot_file import SlotFile
from carbon_exporter.energy.slots import LARGEST_FILE, newest
from carbon_exporter.errors import StoreError

__all__ = ["FILE_NAME", "Store", "default_directory"]

FILE_NAME = "totals.json"
_LONGEST_BODY = 64 * 1024 * 1024
_MOVE_HINT = "choose another place with --storage.path=DIR, or turn durable totals off with --storage.path="


def default_directory(environ: Mapping[str, str], system: Path = Path("/var/lib/carbon-exporter")) -> Path | None:
    """Where totals live unless a setting says otherwise; None if this user has no place to write.

    systemd's `$STATE_DIRECTORY`, else `system` if it is (or can be made) writable, else `$XDG_STATE_HOME`, else
    `~/.local/state`.
    """
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if _writable(system):
        return system
    home = environ.get("XDG_STATE_HOME") or (f"{environ['HOME']}/.local/state" if environ.get("HOME") else "")
    return Path(home) / "carbon-exporter" if home.startswith("/") else None


def _writable(directory: Path) -> bool:
    """Whether the directory, or if it is missing its parent, lets this process write."""
    return os.access(directory if directory.exists() else directory.parent, os.W_OK | os.X_OK)


class Store:
    """The state file of one exporter. `open` first; `save` as often as you like; `close` gives the lock back."""

    def __init__(self, directory: Path) -> None:
        """Nothing is touched before `open`."""
        self.directory = directory
        self.was_torn = False
        """Whether `open` has gone on from the save before the last one, because a crash had cut that short."""
        self._slots = SlotFile(self.file)
        self._lock: int | None = None

    @property
    def file(self) -> Path:
        """Where the totals are."""
        return self.directory / FILE_NAME

    def open(self) -> bytes | None:
        """Take the lock and read the last state: its body, or None if there is none yet.

        Raises `StoreError` if the place is unwritable or another exporter holds it (then this store stays closed), or
        if the file cannot be believed: it is then set aside, the store is open, and counting starts anew.
        """
        self._take_lock()
        try:
            body, self.was_torn = newest(self._read())
        except FileNotFoundError:
            return None
        except OSError as error:
            self.close()
            raise StoreError(f"cannot read {self.file}: {error.strerror}", remedy=_MOVE_HINT) from error
        except ValueError as error:
            raise self.set_aside(str(error)) from None
        return body

    @property
    def is_open(self) -> bool:
        """Whether this process holds the lock, and so may save."""
        return self._lock is not None

    def set_aside(self, reason: str) -> StoreError:
        """Move an unbelievable file out of the way, so that nothing of it is lost; returns the error that says so."""
        kept = self.file.with_name(f"{FILE_NAME}.unusable-{time.time_ns()}")
        try:
            self.file.rename(kept)
        except OSError as error:
            return StoreError(f"{self.file} {reason}, and could not be set aside ({error.strerror})", remedy=_MOVE_HINT)
        return StoreError(
            f"{self.file} {reason}; it is kept as {kept.name} and counting starts anew",
            remedy="counters restart at zero once, which Prometheus treats as a reset",
        )

    def save(self, body: bytes) -> None:
        """When this returns, the body survives a crash of the machine; until then, the last. Raises `StoreError`."""
        if self._lock is None:
            raise StoreError(f"{self.directory} is not open")
        if len(body) > _LONGEST_BODY:
            raise StoreError(f"totals of {len(body)} bytes are more than {_LONGEST_BODY}, which {self.file} may hold")
        try:
            self._slots.save(body)
        except OSError as error:
            raise StoreError(f"cannot write {self.file}: {error.strerror}", remedy=_write_remedy(error)) from error

    def close(self) -> None:
        """Give the lock back. May be called twice."""
        self._slots.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        path = self.directory / "lock"
        try:
            self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise StoreError(
                f"cannot write in {self.directory}: {error.strerror}", remedy=_write_remedy(error)
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise StoreError(
                f"{self.directory} is in use by another carbon-exporter (pid {holder})",
                remedy="stop that one, or give this one a place of its own with --storage.path=DIR",
            ) from None
        except OSError as error:
            os.close(handle)
            raise StoreError(f"cannot lock {path}: {error.strerror}", remedy=_MOVE_HINT) from error
        self._lock = handle
        # A full disk must not keep us from the totals that are there: the pid is only for the message above.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.write(handle, b"%d\n" % os.getpid())

    def _read(self) -> bytes:
        with self.file.open("rb") as file:
            if os.fstat(file.fileno()).st_size > LARGEST_FILE:
                raise ValueError(f"is larger than {LARGEST_FILE} bytes")
            return file.read()


def _write_remedy(error: OSError) -> str:
    """What mends a failed write, by its cause."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"free some space, or {_MOVE_HINT}"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"let uid {os.geteuid()} write there, or {_MOVE_HINT}"
    return _MOVE_HINT
