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

from carbon_exporter.jobs.kept_files import KeptFiles, most_kept, read_small
from carbon_exporter.jobs.procfs import ProcessStat, parse_process_stat

__all__ = ["Process", "ProcessTable", "fresh_ticks"]

PidAndStart = tuple[int, int]
CHECK_EVERY_SCANS = 12
_NOT_TO_BE_HAD = (FileNotFoundError, ProcessLookupError, PermissionError)
"""How a process's file fails that has just ended, or with hidepid may not be seen."""


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


class Process(NamedTuple):
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


@dataclass(slots=True)
class _Seen:
    """What the last scan saw of a process. Most sleep: it is the same object until something of it has changed."""

    path: str
    """Of its stat, below the directory of all processes."""
    text: bytes
    stat: ProcessStat
    entry: _Entry | None
    """Asked for before the stat was first read, so that it is never the one of a process that came later."""
    asleep: Process
    """What is told of it while nothing changes."""


class ProcessTable:
    """Scans one /proc. Not for use from several threads."""

    def __init__(self, procfs: Path) -> None:
        """`procfs` is where the host's processes are: `/proc`, or a mount of the host's in a container."""
        self._procfs = procfs
        self._seen: dict[int, _Seen] | None = None
        """By pid, without those that are passed over; None before the first scan."""
        self._stats = KeptFiles(most_kept() // 4)
        self._passed_over: dict[str, _PassedOver] = {}
        """Those that `pass_over` named, by the name of their directory: most of what /proc lists is among them."""
        self._to_check = [set[str]() for _ in range(CHECK_EVERY_SCANS)]
        """The same names, by the scan at which they are looked at again."""
        self._forgotten: list[PidAndStart] = []
        self._settled: list[str] | None = None
        """What /proc listed beside those that are passed over, if the last scan saw just that: `_seen` is its order."""
        self._scans = 0
        self._owed: dict[int, int] = {}
        """By pid: ticks reported of children that have ended, which the process's own time did not hold yet."""

    def scan(self) -> list[Process]:
        """All processes now. A process that ends meanwhile is left out. Raises `OSError` if /proc cannot be read."""
        before, now = self._seen, self._read_all()
        self._seen = now
        self._scans += 1
        if before is None:
            return [Process(pid, seen.stat, True, 0) for pid, seen in now.items()]
        gone = [(pid, old.stat) for pid, old in before.items() if not _same(now.get(pid), old)]
        reported = _reported_of_children(gone, before, now, self._owed) if gone else {}
        owed, self._owed = self._owed, {}
        processes = []
        for pid, seen in now.items():
            old = before.get(pid)
            if old is seen and pid not in reported and pid not in owed:
                processes.append(seen.asleep)
                continue
            last = old.stat if old is not None and _same(old, seen) else None
            new = last is None or (last.comm, last.stack) != (seen.stat.comm, seen.stat.stack)
            due = reported.get(pid, 0) + owed.get(pid, 0)
            processes.append(Process(pid, seen.stat, new, fresh_ticks(last, seen.stat, due)))
            if last is not None and pid in reported:
                self._owed[pid] = min(reported[pid], max(0, due - (seen.stat.waited - last.waited)))
        return processes

    def pass_over(self, keys: Iterable[PidAndStart]) -> None:
        """Leave these out of all later scans: their groups count what they do, and reading them all takes long.

        A pid may be given anew meanwhile, so that each is looked at again every twelfth scan.
        """
        known = self._seen or {}
        for key in keys:
            name, seen = str(key[0]), known.pop(key[0], None)
            self._passed_over[name] = _PassedOver(key, seen.entry if seen else None)
            self._to_check[key[0] % CHECK_EVERY_SCANS].add(name)
            self._settled = None

    def take_forgotten(self) -> list[PidAndStart]:
        """Those that were passed over and have ended, as far as that is known, since this was last asked."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def _forget(self, names: Iterable[str]) -> None:
        """Pass these over no longer."""
        for name in names:
            self._forgotten.append(self._passed_over.pop(name).key)
            self._to_check[int(name) % CHECK_EVERY_SCANS].discard(name)

    def _others(self, listed: Sequence[str]) -> list[str]:
        """What /proc lists, without those that are passed over."""
        others = [name for name in listed if name not in self._passed_over]
        if len(listed) - len(others) < len(self._passed_over):
            self._forget(self._passed_over.keys() - set(listed))
        return others

    def _wanted(self, others: Sequence[str], before: dict[int, _Seen]) -> Iterable[int]:
        """Whose stat is to be read now: those who started first before others, and new ones at the end."""
        checked = self._to_check[-self._scans % CHECK_EVERY_SCANS]
        if others == self._settled:
            return (*before, *sorted(map(int, checked)))
        pids = sorted(int(name) for name in (*others, *checked) if name.isdigit())
        return sorted(pids, key=lambda pid: before[pid].stat.started if pid in before else math.inf)

    def _read_all(self) -> dict[int, _Seen]:
        """Every process, parents before their children; the directory is asked anew each time."""
        before, now, fresh = self._seen or {}, dict[int, _Seen](), False
        root = os.open(self._procfs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            others = self._others(os.listdir(root))
            for pid in self._wanted(others, before):
                known = before.get(pid)
                seen = self._meet(pid, root) if known is None else self._look_at(pid, known, root)
                if seen is not None:
                    now[pid] = seen
                    fresh = fresh or not _same(known, seen)
        finally:
            os.close(root)
        same = not fresh and len(now) == len(before)
        if not same or others != self._settled:
            self._settled = others if now.keys() == {int(name) for name in others if name.isdigit()} else None
        if same:
            return now
        self._stats.keep({seen.path for seen in now.values()})
        return dict(sorted(now.items(), key=lambda item: (item[1].stat.started, item[0])))

    def _look_at(self, pid: int, known: _Seen, root: int) -> _Seen | None:
        """A process that the last scan saw, or another of its pid; None if it has ended."""
        try:
            text = self._stats.read(known.path, root)
        except _NOT_TO_BE_HAD:
            return None
        if text == known.text:
            return known
        stat = _parsed(text)
        return _Seen(known.path, text, stat, known.entry, Process(pid, stat, False, 0)) if stat else None

    def _meet(self, pid: int, root: int) -> _Seen | None:
        """A process that the last scan did not see; None if it is passed over, or has ended."""
        name = str(pid)
        entry, passed_over = _entry_of(name, root), self._passed_over.get(name)
        if passed_over is not None and entry is not None and passed_over.entry == entry:
            return None
        path = name + "/stat"
        text = _read_stat(path, root)
        stat = _parsed(text)
        if stat is None:
            return None
        if passed_over is not None:
            if passed_over.key == (pid, stat.started):
                self._passed_over[name] = _PassedOver(passed_over.key, entry)
                return None
            self._forget([name])
        return _Seen(path, text, stat, entry, Process(pid, stat, False, 0))


def fresh_ticks(old: ProcessStat | None, now: ProcessStat, reported_of_children: int) -> int:
    """CPU time since `old` (None: since its start), without what was reported of children it waited for meanwhile."""
    if old is None:
        return now.own + now.waited
    own = max(0, now.own - old.own)
    waited = max(0, now.waited - old.waited - reported_of_children)
    return own + waited


def _same(one: _Seen | None, other: _Seen) -> bool:
    """Whether two looks at a pid saw the same process."""
    return one is other or (one is not None and one.stat.started == other.stat.started)


def _reported_of_children(
    gone: Iterable[tuple[int, ProcessStat]], before: dict[int, _Seen], now: dict[int, _Seen], owed: dict[int, int]
) -> dict[int, int]:
    """For each living process: ticks already reported of descendants that have ended since, and came to it by wait."""
    reported: dict[int, int] = {}
    for pid, stat in gone:
        parent, steps = stat.parent, 0
        while (old := before.get(parent)) is not None and not _same(now.get(parent), old) and steps < len(before):
            parent, steps = old.stat.parent, steps + 1
        reported[parent] = reported.get(parent, 0) + stat.own + stat.waited + owed.get(pid, 0)
    return reported


def _entry_of(pid: str, root: int) -> _Entry | None:
    """None if it has just ended, or may not be seen."""
    try:
        found = os.stat(pid, dir_fd=root)
    except OSError:
        return None
    return _Entry(found.st_ino, found.st_ctime_ns)


def _read_stat(path: str, root: int) -> bytes:
    """The text of one process's stat, empty if it is not to be had."""
    try:
        return read_small(path, root)
    except _NOT_TO_BE_HAD:
        return b""


def _parsed(text: bytes) -> ProcessStat | None:
    try:
        return parse_process_stat(text)
    except ValueError:
        return None
