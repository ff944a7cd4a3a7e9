"""The process table: which processes there are, and the CPU time each has used since the last look.

A process's own time misses its short-lived children, and the time of its waited-for children holds again what was
already counted while they lived. `scan` reports time that was not reported before: own time, plus waited-for time less
what was already reported of those who were waited for.

A scan is not one moment. Parents are read before their children, so that a child which ends meanwhile is at worst gone
before its parent's time holds it: what was reported of it is then subtracted at the next scan.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from carbon_exporter.jobs.procfs import ProcessStat, parse_process_stat

__all__ = ["Process", "ProcessTable", "fresh_ticks"]

PidAndStart = tuple[int, int]
CHECK_EVERY_SCANS = 12


class _Entry(NamedTuple):
    """A process's directory in /proc: the kernel makes another one for another process of the same pid.

    Its number alone would be given anew by other file systems than the kernel's own.
    """

    number: int
    made_ns: int


class _PassedOver(NamedTuple):
    """A process that is left out, and its directory; asking for that one takes a fraction of reading its stat."""

    key: PidAndStart
    entry: _Entry | None


@dataclass(frozen=True, slots=True)
class Process:
    """One living process, as `scan` found it."""

    pid: int
    stat: ProcessStat
    new: bool
    """Not there at the last scan, or another program since (exec)."""
    ticks: int
    """CPU time, in clock ticks, that no earlier scan reported; 0 at the first scan of all."""

    @property
    def key(self) -> PidAndStart:
        """What names this process for ever."""
        return (self.pid, self.stat.started)


class ProcessTable:
    """Scans one /proc. Not for use from several threads."""

    def __init__(self, procfs: Path) -> None:
        """`procfs` is where the host's processes are: `/proc`, or a mount of the host's in a container."""
        self._procfs = procfs
        self._last: dict[int, ProcessStat] | None = None
        self._passed_over: dict[str, _PassedOver] = {}
        """Those that `pass_over` named, by the name of their directory: most of what /proc lists is among them."""
        self._to_check = [set[str]() for _ in range(CHECK_EVERY_SCANS)]
        """The same names, by the scan at which they are looked at again."""
        self._forgotten: list[PidAndStart] = []
        self._scans = 0
        self._texts: dict[int, bytes] = {}
        self._entries: dict[int, _Entry | None] = {}
        """By pid, asked for before the stat is first read, so that it is never the one of a process that came later."""
        self._owed: dict[int, int] = {}
        """By pid: ticks reported of children that have ended, which the process's own time did not hold yet."""

    def scan(self) -> list[Process]:
        """All processes now. A process that ends meanwhile is left out. Raises `OSError` if /proc cannot be read."""
        before, now = self._last, self._read_all()
        self._last = now
        self._scans += 1
        if before is None:
            return [Process(pid, stat, True, 0) for pid, stat in now.items()]
        gone = [
            (pid, stat)
            for pid, stat in before.items()
            if not _same(now.get(pid), stat) and not self._passes_over(pid, stat)
        ]
        reported = _reported_of_children(gone, before, now, self._owed) if gone else {}
        owed, self._owed = self._owed, {}
        processes = []
        for pid, stat in now.items():
            old = before.get(pid)
            old = old if _same(old, stat) else None
            new = old is None or (old.comm, old.stack) != (stat.comm, stat.stack)
            due = reported.get(pid, 0) + owed.get(pid, 0)
            processes.append(Process(pid, stat, new, fresh_ticks(old, stat, due)))
            if old is not None and pid in reported:
                self._owed[pid] = min(reported[pid], max(0, due - (stat.waited - old.waited)))
        return processes

    def pass_over(self, keys: Iterable[PidAndStart]) -> None:
        """Leave these out of all later scans: their groups count what they do, and reading them all takes long.

        A pid may be given anew meanwhile, so that each is looked at again every twelfth scan.
        """
        for key in keys:
            name = str(key[0])
            self._passed_over[name] = _PassedOver(key, self._entries.get(key[0]))
            self._to_check[key[0] % CHECK_EVERY_SCANS].add(name)

    def take_forgotten(self) -> list[PidAndStart]:
        """Those that were passed over and have ended, as far as that is known, since this was last asked."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def _forget(self, names: Iterable[str]) -> None:
        """Pass these over no longer."""
        for name in names:
            self._forgotten.append(self._passed_over.pop(name).key)
            self._to_check[int(name) % CHECK_EVERY_SCANS].discard(name)

    def _wanted(self, listed: Sequence[str]) -> list[int]:
        """Which of those that /proc lists are to be read now, in the order of their numbers."""
        others = [name for name in listed if name not in self._passed_over]
        if len(listed) - len(others) < len(self._passed_over):
            self._forget(self._passed_over.keys() - set(listed))
        checked = self._to_check[-self._scans % CHECK_EVERY_SCANS]
        return sorted(int(name) for name in (*others, *checked) if name.isdigit())

    def _passes_over(self, pid: int, stat: ProcessStat) -> bool:
        """Whether this very process is left out."""
        passed_over = self._passed_over.get(str(pid))
        return passed_over is not None and passed_over.key == (pid, stat.started)

    def _read_all(self) -> dict[int, ProcessStat]:
        """Every process's stat. Most processes sleep: a text that is the same as before is not taken apart again."""
        last, table, texts = self._last or {}, dict[int, ProcessStat](), dict[int, bytes]()
        entries = dict[int, _Entry | None]()
        root = os.open(self._procfs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pids = self._wanted(os.listdir(root))
            for pid in sorted(pids, key=lambda pid: last[pid].started if pid in last else math.inf):
                name = str(pid)
                passed_over = self._passed_over.get(name)
                new = pid not in last or passed_over is not None
                entry = _entry_of(name, root) if new else self._entries.get(pid)
                if passed_over is not None and entry is not None and passed_over.entry == entry:
                    continue
                text = _read_stat(name, root)
                known = last.get(pid) if text == self._texts.get(pid) else None
                stat = known or _parsed(text)
                if stat is None:
                    continue
                if passed_over is not None:
                    if passed_over.key == (pid, stat.started):
                        self._passed_over[name] = _PassedOver(passed_over.key, entry)
                        continue
                    self._forget([name])
                table[pid], texts[pid], entries[pid] = stat, text, entry
        finally:
            os.close(root)
        self._texts, self._entries = texts, entries
        return table


def fresh_ticks(old: ProcessStat | None, now: ProcessStat, reported_of_children: int) -> int:
    """CPU time since `old` (None: since its start), without what was reported of children it waited for meanwhile."""
    if old is None:
        return now.own + now.waited
    own = max(0, now.own - old.own)
    waited = max(0, now.waited - old.waited - reported_of_children)
    return own + waited


def _same(one: ProcessStat | None, other: ProcessStat) -> bool:
    """Whether two looks at a pid saw the same process."""
    return one is not None and one.started == other.started


def _reported_of_children(
    gone: Iterable[tuple[int, ProcessStat]],
    before: dict[int, ProcessStat],
    now: dict[int, ProcessStat],
    owed: dict[int, int],
) -> dict[int, int]:
    """For each living process: ticks already reported of descendants that have ended since, and came to it by wait."""
    reported: dict[int, int] = {}
    for pid, stat in gone:
        parent, seen = stat.parent, 0
        while (old := before.get(parent)) is not None and not _same(now.get(parent), old) and seen < len(before):
            parent, seen = old.parent, seen + 1
        reported[parent] = reported.get(parent, 0) + stat.own + stat.waited + owed.get(pid, 0)
    return reported


def _entry_of(pid: str, root: int) -> _Entry | None:
    """None if it has just ended, or may not be seen."""
    try:
        found = os.stat(pid, dir_fd=root)
    except OSError:
        return None
    return _Entry(found.st_ino, found.st_ctime_ns)


def _read_stat(pid: str, root: int) -> bytes:
    """The text of one process's stat, empty if it has just ended (or, with hidepid, may not be seen)."""
    try:
        handle = os.open(pid + "/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
        try:
            return os.read(handle, 4096)
        finally:
            os.close(handle)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def _parsed(text: bytes) -> ProcessStat | None:
    try:
        return parse_process_stat(text)
    except ValueError:
        return None
