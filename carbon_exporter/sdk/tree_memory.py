"""The memory of a family of processes, by Linux's /proc: anonymous and shared pages, each once.

Forked processes share most pages. The kernel divides each page by its users (PSS, `smaps_rollup`), but walks through
all pages for that: about 0.1 s for 10 GB. So this is done for one process at a time, each at most every five seconds,
and seldom enough to take less than 0.1 % of a core; in between, what `statm` says has come or gone is added. Files that
are mapped are not counted: their pages are the machine's cache, as in the accounts of cgroups.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["TreeMemory", "parse_shares", "read_start"]

PERIOD_SECONDS = 1.0
WALK_SECONDS = 5.0
FIRST_WALK_SECONDS = 2.0
"""Nothing slow before that: a span that begins with the program is not to wait for it."""
WALK_COST = 1000
"""A walk that takes long waits for so many times as long before the next."""
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class _Walk(NamedTuple):
    """What one process's pages were at a walk, in bytes."""

    at: float
    shares: float | None
    """Anonymous and shared pages, each divided by its users; None if this user may not know."""
    private: float
    """Anonymous pages, as `statm` had them."""


class TreeMemory:
    """Of processes that are named at each look. Not for use from several threads."""

    def __init__(self, procfs: str, cost_clock: Callable[[], float] = time.thread_time) -> None:
        """`cost_clock`: CPU seconds of this thread, by which walks are paid."""
        self._procfs = procfs
        self._cost_clock = cost_clock
        self._walks: dict[int, _Walk] = {}
        self._next, self._next_walk = -math.inf, math.nan
        self._bytes = 0.0

    def look(self, pids: Sequence[int], now: float) -> float:
        """Bytes that they hold, the first of `pids` being the forebear of all. May be a second old."""
        if now < self._next:
            return self._bytes
        if math.isnan(self._next_walk):
            self._next_walk = now + FIRST_WALK_SECONDS
        self._next = now + PERIOD_SECONDS
        private = {pid: size for pid in pids if (size := self._private(pid)) is not None}
        self._walks = {pid: walk for pid, walk in self._walks.items() if pid in private}
        self._walk_one(private, now)
        root = private.get(pids[0], 0.0)
        self._bytes = sum(self._size(pid, size, 0.0 if pid == pids[0] else root) for pid, size in private.items())
        return self._bytes

    def _size(self, pid: int, private: float, inherited: float) -> float:
        """One process's part. Until its pages were walked, what it has more than its forebear passes for its own."""
        walk = self._walks.get(pid)
        if walk is None or walk.shares is None:
            return max(0.0, private - inherited)
        return max(0.0, walk.shares + private - walk.private)

    def _walk_one(self, private: dict[int, float], now: float) -> None:
        """Walk through the pages of the process that has waited for it longest, if it is time."""
        pid = min(private, key=lambda one: self._walks[one].at if one in self._walks else -math.inf, default=None)
        if pid is None or now < self._next_walk or (pid in self._walks and now < self._walks[pid].at + WALK_SECONDS):
            return
        before = self._cost_clock()
        try:
            shares = parse_shares(read_start(f"{self._procfs}/{pid}/smaps_rollup"))
        except (OSError, ValueError):
            shares = None
        self._walks[pid] = _Walk(now, shares, private[pid])
        self._next_walk = now + WALK_COST * max(0.0, self._cost_clock() - before)
        self._next = now if len(self._walks) < len(private) else self._next

    def _private(self, pid: int) -> float | None:
        """Anonymous bytes in memory; None if the process has ended. Cheap: the kernel keeps count."""
        try:
            words = read_start(f"{self._procfs}/{pid}/statm").split()
            return max(0.0, (int(words[1]) - int(words[2])) * float(PAGE))
        except (OSError, ValueError, IndexError):
            return None


def parse_shares(text: bytes) -> float:
    """/proc/PID/smaps_rollup: bytes of anonymous and shared pages, each divided by its users; of all before Linux 5.4.

    Raises `ValueError` for a text that the kernel would not have written.
    """
    sizes: dict[bytes, float] = {}
    for line in text.split(b"\n"):
        key, colon, rest = line.partition(b":")
        words = rest.split()
        if colon and key.startswith(b"Pss") and words:
            sizes[key] = int(words[0]) * 1024.0
    if b"Pss_Anon" in sizes and b"Pss_Shmem" in sizes:
        return sizes[b"Pss_Anon"] + sizes[b"Pss_Shmem"]
    if b"Pss" not in sizes:
        raise ValueError("no Pss")
    return sizes[b"Pss"]


def read_start(path: str, most: int = 4096) -> bytes:
    """The first bytes of a file of /proc, as many as the kernel gives at once. Raises `OSError`."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, most)
    finally:
        os.close(handle)
