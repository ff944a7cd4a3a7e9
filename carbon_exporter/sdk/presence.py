"""How processes of one user tell each other that they measure themselves, so that no parent counts them again.

One that does keeps a file in a private directory and holds a lock on it (flock) while it lives:

    $XDG_RUNTIME_DIR/carbon-exporter/sdk/4711-905512      (else <temporary directory>/carbon-exporter-<uid>/)

The name is its pid and its start in clock ticks since boot, which nobody else ever has; the text is the CPU time that
it and the children it had waited for had used when it began, in seconds: that much is still its parent's.

A file that nobody holds is what a killed process left: it counts for nothing and is removed. One that is held by a
process which is not to be seen here (in another container that shares the directory) is left alone. Processes of
different users never meet: neither trusts the other's directory.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["Presence", "private_directories", "used_until_now"]

RESCAN_SECONDS = 1.0
"""A directory whose time has not changed is read again after so long: a process that is killed does not change it."""
MOST_FILES = 4096
LONGEST_TEXT = 64
LEFT_OVER_SECONDS = 60.0
"""An announcement takes a few milliseconds: one that is still half made after this never will be."""

_NAME = re.compile(r"([1-9][0-9]{0,18})-([0-9]{1,19})(\.new)?", re.ASCII)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_log = logging.getLogger("carbon_exporter.sdk")
_announced: set[Presence] = set()
"""Those that hold a file, for the forked child to let go of."""


class _Held(NamedTuple):
    """The file that this process holds."""

    handle: int
    identity: tuple[int, int]
    """Device and inode: the program may close files that are not its own, and open others by the same number."""
    directory: Path
    name: str


class Presence:
    """This process among those of its user. Each method is for one thread at a time; none raises `OSError`."""

    def __init__(
        self,
        directories: Sequence[Path] | None = None,
        *,
        procfs: Path | None = Path("/proc") if sys.platform == "linux" else None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`directories`: where to look; the first that is usable is where to announce. None: the private ones.

        `procfs`: where processes are dated; psutil dates them if None.
        """
        self._directories = tuple(private_directories() if directories is None else directories)
        self._procfs = procfs
        self._clock = clock
        self._wall = wall
        self._held: _Held | None = None
        self._times: tuple[int, ...] = ()
        self._read_at = -RESCAN_SECONDS
        self._others: Mapping[int, float] = {}

    def announce(self) -> None:
        """Tell the others that this process measures itself, until it ends, withdraws, or forks (for the child)."""
        if self._held is not None:
            return
        started = _start_of(os.getpid(), self._procfs)
        reasons = ["it has no start"] if started is None else []
        for directory in self._directories if started is not None else ():
            try:
                self._held = _hold(directory, f"{os.getpid()}-{started}")
            except OSError as error:  # noqa: PERF203 - two at most
                reasons.append(f"{directory}: {error}")
            else:
                _announced.add(self)
                return
        _log.debug("parents of this process cannot know that it measures itself: %s", "; ".join(reasons))

    def withdraw(self) -> None:
        """Take the announcement back."""
        held, self._held = self._held, None
        _announced.discard(self)
        if held is not None:
            try:
                with _entered(held.directory) as (prefix, place):
                    os.unlink(prefix + held.name, dir_fd=place)
            except OSError:
                _log.debug("%s/%s is left behind", held.directory, held.name, exc_info=True)
            _release(held)

    def drop(self) -> None:
        """Forget the announcement and leave its file alone: it is the parent's. Called in every forked child."""
        held, self._held = self._held, None
        _announced.discard(self)
        if held is not None:
            _release(held)

    def others(self) -> frozenset[int]:
        """Pids of all other living processes of this user that measure themselves."""
        return frozenset(self.announced())

    def announced(self) -> Mapping[int, float]:
        """The same, each with the CPU seconds that it and its waited-for children had used before it began."""
        times = tuple(_changed(directory) for directory in self._directories)
        now = self._clock()
        if times != self._times or not 0 <= now - self._read_at < RESCAN_SECONDS:
            self._times, self._read_at = times, now
            found: dict[int, float] = {}
            for directory in self._directories:
                try:
                    found.update(self._look_into(directory))
                except OSError:  # noqa: PERF203 - two at most
                    continue
            self._others = found
        return self._others

    def _look_into(self, directory: Path) -> Iterator[tuple[int, float]]:
        """Whoever is announced in one directory. Raises `OSError` if it cannot be trusted."""
        with _entered(directory) as (prefix, place):
            names = os.listdir(directory if place is None else place)  # noqa: PTH208 - by its handle
            for name in names[:MOST_FILES]:
                match = _NAME.fullmatch(name)
                if match is None or (self._held is not None and name == self._held.name):
                    continue
                pid, started = int(match[1]), int(match[2])
                here = _start_of(pid, self._procfs) == started
                try:
                    text = self._text_if_held(prefix + name, place, here, bool(match[3]))
                except OSError:
                    continue
                if here and text is not None and not match[3] and pid != os.getpid():
                    yield pid, _seconds(text)

    def _text_if_held(self, name: str, place: int | None, here: bool, half_made: bool) -> bytes | None:
        """The file's text; None, and the file is removed, if it is a dead process's. Raises `OSError`."""
        handle = os.open(name, os.O_RDONLY | _NO_LINKS, dir_fd=place)
        try:
            held = _lock(handle, shared=True)
            if held or (held is None and here):
                return os.read(handle, LONGEST_TEXT)
            age = self._wall() - os.fstat(handle).st_mtime
        finally:
            os.close(handle)
        if not half_made or age > LEFT_OVER_SECONDS:
            os.unlink(name, dir_fd=place)
        return None


def private_directories() -> tuple[Path, ...]:
    """Where processes of this user meet, the better place first. Without a user's number (Windows) by name."""
    import tempfile  # noqa: PLC0415 - it is slow to load, and needed once

    user = str(os.geteuid()) if hasattr(os, "geteuid") else os.environ.get("USERNAME", "user")
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    preferred = (runtime / "carbon-exporter" / "sdk",) if _is_own(runtime) else ()
    return (*preferred, Path(tempfile.gettempdir(), f"carbon-exporter-{user}"))


def _is_own(directory: Path) -> bool:
    """Whether this user owns it: after `sudo` the environment may name another user's, who could lay links there."""
    try:
        return directory.is_absolute() and directory.stat().st_uid == os.geteuid()
    except OSError:
        return False


def used_until_now() -> float:
    """CPU seconds of this process's threads and of all children it has waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _hold(directory: Path, name: str) -> _Held:
    """Make the file and lock it, before anybody sees it by its name. Raises `OSError`."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _entered(directory) as (prefix, place):
        new = f"{prefix}{name}.new"
        try:
            handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o600, dir_fd=place)
        except FileExistsError:  # of a fork that took over this pid and start: there is none but ours
            os.unlink(new, dir_fd=place)
            handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o600, dir_fd=place)
        try:
            _lock(handle, shared=False)
            os.write(handle, b"%.6f\n" % used_until_now())
            os.replace(new, prefix + name, src_dir_fd=place, dst_dir_fd=place)
            status = os.fstat(handle)
        except BaseException:
            os.close(handle)
            raise
    return _Held(handle, (status.st_dev, status.st_ino), directory, name)


@contextmanager
def _entered(directory: Path) -> Iterator[tuple[str, int | None]]:
    """What to put before a file's name, and the open directory. Raises `OSError` if it is not ours alone."""
    if os.open not in os.supports_dir_fd:
        yield f"{directory}{os.sep}", None
        return
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | _NO_LINKS)
    try:
        status = os.fstat(place)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError(f"{directory} is not this user's alone (mode 0700)")
        yield "", place
    finally:
        os.close(place)


def _changed(directory: Path) -> int:
    """When something came into a directory or left it; 0 if it is not there."""
    try:
        return os.stat(directory).st_mtime_ns  # noqa: PTH116 - ten times a second
    except OSError:
        return 0


def _lock(handle: int, *, shared: bool) -> bool | None:
    """Try to lock a file: whether somebody else holds it; None where files cannot be locked."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _release(held: _Held) -> None:
    """Close the file, if its number still means it."""
    try:
        status = os.fstat(held.handle)
        if (status.st_dev, status.st_ino) == held.identity:
            os.close(held.handle)
    except OSError:
        pass


def _start_of(pid: int, procfs: Path | None) -> int | None:
    """When a process started, in clock ticks (Linux) or hundredths of a second; None if it is not there."""
    if procfs is None:
        return _portable_start_of(pid)
    try:
        with Path(procfs, str(pid), "stat").open("rb", buffering=0) as file:
            return int(file.read(4096).rpartition(b") ")[2].split(None, 20)[19])
    except (OSError, ValueError, IndexError):
        return None


def _portable_start_of(pid: int) -> int | None:
    import psutil  # noqa: PLC0415 - only where there is no /proc

    try:
        return round(psutil.Process(pid).create_time() * 100)
    except psutil.Error:
        return None


def _seconds(text: bytes) -> float:
    """The number in a file that any program of this user may have written."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if 0.0 <= seconds < float("inf") else 0.0


def _drop_in_child() -> None:
    for presence in tuple(_announced):
        presence.drop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_in_child)
