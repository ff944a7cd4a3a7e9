"""Durable totals: one small file, written and synced each tick, that a crash cannot tear and nobody else can write.

The file is a header line (`carbon-exporter totals <schema> <sha256 of the rest>`) and a JSON body. It is replaced
atomically, so a reader finds the old state or the new one. A lock file beside it, held for the life of the process,
keeps a second exporter out; the kernel releases it even after `kill -9`. What the body means is its writer's business.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from carbon_exporter.errors import StoreError

__all__ = ["FILE_NAME", "SCHEMA", "Store", "default_directory"]

SCHEMA = 1
"""Raised when the body changes so that an older version would misread it."""

FILE_NAME = "totals.json"
_MAGIC = b"carbon-exporter totals"
_LONGEST_HEADER = 128
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
            content = self._read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self.close()
            raise StoreError(f"cannot read {self.file}: {error.strerror}", remedy=_MOVE_HINT) from error
        try:
            return _body_of(content)
        except ValueError as error:
            raise self.set_aside(str(error)) from None

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
        """Replace the file: when this returns, the body survives a crash of the machine. Raises `StoreError`."""
        if self._lock is None:
            raise StoreError(f"{self.directory} is not open")
        if len(body) > _LONGEST_BODY:
            raise StoreError(f"totals of {len(body)} bytes are more than {_LONGEST_BODY}, which {self.file} may hold")
        header = b"%s %d %s\n" % (_MAGIC, SCHEMA, hashlib.sha256(body).hexdigest().encode())
        scratch = self.file.with_name(FILE_NAME + ".new")
        try:
            _write_synced(scratch, header + body)
            scratch.replace(self.file)
            _sync_directory(self.directory)
        except OSError as error:
            raise StoreError(f"cannot write {self.file}: {error.strerror}", remedy=_write_remedy(error)) from error

    def close(self) -> None:
        """Give the lock back. May be called twice."""
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
            return file.read(_LONGEST_HEADER + _LONGEST_BODY + 1)


def _body_of(content: bytes) -> bytes:
    """The body of a state file. Raises `ValueError` with the reason why it cannot be believed."""
    header, _, body = content.partition(b"\n")
    words = header.rsplit(b" ", 2)
    if len(words) != 3 or words[0] != _MAGIC:  # noqa: PLR2004 - magic, schema, checksum
        raise ValueError("is not a totals file of carbon-exporter")
    if words[1] != b"%d" % SCHEMA:
        raise ValueError(f"has schema {words[1].decode('ascii', 'replace')}, and this version reads schema {SCHEMA}")
    if len(body) > _LONGEST_BODY:
        raise ValueError(f"is larger than {_LONGEST_BODY} bytes")
    if hashlib.sha256(body).hexdigest().encode() != words[2]:
        raise ValueError("is truncated or corrupt (its checksum does not match)")
    return body


def _write_synced(path: Path, content: bytes) -> None:
    """Write a new file that nobody else reads, and wait until the disk has it."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_directory(directory: Path) -> None:
    """Make a rename durable. Some file systems refuse to sync a directory; they order renames themselves."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(handle)


def _write_remedy(error: OSError) -> str:
    """What mends a failed write, by its cause."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"free some space, or {_MOVE_HINT}"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"let uid {os.geteuid()} write there, or {_MOVE_HINT}"
    return _MOVE_HINT
