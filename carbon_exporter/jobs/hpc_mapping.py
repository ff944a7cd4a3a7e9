"""Which job a scheduler has given each board to, from the files that dcgm-exporter reads (`--hpc-job-mapping-dir`).

A site's prolog writes, and its epilog empties, one file a board: its name is the board's number, or number and GPU
instance (`0`, `0.7`), and each line a job's number. Sites that have the directory need nothing else to tell idle boards
of a job from idle boards of nobody. Where several jobs stand in a file they share the board; it is never counted twice.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from carbon_exporter.jobs.base import ResolverHealth, clean_name

__all__ = ["HpcMapping", "parse_mapping"]

_log = logging.getLogger(__name__)

RESOLVER = "hpc-mapping"
MOST_FILES = 256
MOST_BYTES = 65536
MOST_JOBS = 64
"""On one board."""
SETTLED_SECONDS = 2.0
"""A file that was written this short a time ago may be written again without a new time of change (which some file
systems keep in whole seconds): it is read at each tick."""

_NAME = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was last read."""

    stamp: tuple[int, int, int]
    """Inode, nanoseconds of its last change, size."""
    settled: bool
    jobs: tuple[str, ...]


class HpcMapping:
    """One mapping directory. Not for use from several threads.

    It is read by whoever asks, so it should lie on a local file system, as `/run` does.
    """

    def __init__(self, directory: Path, wall: Callable[[], float] = time.time) -> None:
        """Nothing is read before `grants`; `wall` gives Unix seconds, by which files are young or old."""
        self._directory = directory
        self._wall = wall
        self._files: dict[str, _File] = {}
        self._trouble: tuple[str, str] = ("", "")

    def grants(self) -> tuple[tuple[str, str], ...]:
        """Board (`nvidia0`), or part of one (`nvidia0/gi7`), and job, of all that is given now. Never raises.

        Empty if the directory cannot be read: what it said before is no longer believed.
        """
        troubles: list[tuple[str, str]] = []
        names = self._names(troubles)
        files = ((name, self._file(name, troubles)) for name in names)
        self._files = {name: file for name, file in files if file is not None}
        self._tell(troubles[0] if troubles else ("", ""))
        found = ((_alias(name), job) for name, file in self._files.items() for job in file.jobs)
        return tuple(dict.fromkeys(found))

    def health(self) -> ResolverHealth:
        """Whether the last `grants` could read all."""
        reason, remedy = self._trouble
        return ResolverHealth(RESOLVER, not reason, reason, remedy)

    def _names(self, troubles: list[tuple[str, str]]) -> list[str]:
        try:
            with os.scandir(self._directory) as entries:
                names = sorted(entry.name for entry in entries if _NAME.fullmatch(entry.name))
        except OSError as error:
            troubles.append((f"{self._directory} cannot be read: {error.strerror}", _remedy(error, self._directory)))
            return []
        if len(names) > MOST_FILES:
            troubles.append((f"{self._directory} has {len(names)} files, only {MOST_FILES} are read", ""))
        return names[:MOST_FILES]

    def _file(self, name: str, troubles: list[tuple[str, str]]) -> _File | None:
        try:
            return self._read(name)
        except FileNotFoundError:
            return None  # the epilog has been here meanwhile
        except OSError as error:
            path = self._directory / name
            troubles.append((f"{path} cannot be read: {error.strerror}", _remedy(error, path)))
            return None

    def _read(self, name: str) -> _File:
        """The file anew if it may have changed. Never waits for a pipe, and follows no link."""
        path = os.path.join(self._directory, name)
        known = self._files.get(name)
        status = os.stat(path, follow_symlinks=False)
        if known is not None and known.settled and known.stamp == _stamp(status):
            return known
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is not a file")
            text = os.read(handle, MOST_BYTES)
        finally:
            os.close(handle)
        settled = abs(self._wall() - status.st_mtime) > SETTLED_SECONDS
        return _File(_stamp(status), settled, parse_mapping(text))

    def _tell(self, trouble: tuple[str, str]) -> None:
        """Log a new trouble, and its end, once."""
        before, self._trouble = self._trouble, trouble
        if trouble[0] and trouble != before:
            _log.warning("%s", "; ".join(part for part in trouble if part))
        elif before[0] and not trouble[0]:
            _log.info("%s is read again", self._directory)


def parse_mapping(text: bytes) -> tuple[str, ...]:
    """The jobs of one file, a line each, each once, cleaned; at most 64. Empty lines count as none."""
    lines = (clean_name(line.decode("utf-8", "replace")) for line in text[:MOST_BYTES].split(b"\n"))
    return tuple(dict.fromkeys(line for line in lines if line))[:MOST_JOBS]


def _alias(name: str) -> str:
    board, _, instance = name.partition(".")
    return f"nvidia{int(board)}/gi{int(instance)}" if instance else f"nvidia{int(board)}"


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _remedy(error: OSError, path: Path) -> str:
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"let the exporter's user read it: chmod a+rX {path}"
    if error.errno == errno.ENOENT:
        return "name the directory that the prolog writes to (dcgm-exporter's --hpc-job-mapping-dir)"
    return ""
