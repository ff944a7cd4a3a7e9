"""Control groups: which containers, systemd units and sessions there are, and the CPU time and memory of each.

The kernel counts a group's CPU time itself, so that processes shorter than our interval are not lost. Which groups are
workloads of their own is read from their paths (places.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from carbon_exporter.jobs.kept_files import KeptFiles, most_kept, read_small
from carbon_exporter.jobs.places import is_owner

__all__ = ["CgroupTree", "Hierarchy", "find_hierarchy"]


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where the kernel keeps the groups' counters."""

    version: int
    cpu_root: Path
    cpu_file: str
    memory_root: Path
    controller: str
    """The line of /proc/PID/cgroup that holds paths below `cpu_root`."""


def find_hierarchy(sysfs: Path) -> Hierarchy | None:
    """The tree with CPU counters: version 2, also beside version 1 (hybrid), else version 1; None if there is none."""
    root = sysfs / "fs/cgroup"
    for unified in (root, root / "unified"):
        if (unified / "cgroup.controllers").exists():
            memory = unified if unified == root else root / "memory"
            return Hierarchy(2, unified, "cpu.stat", memory, "")
    for name in ("cpuacct", "cpu,cpuacct"):
        if (root / name / "cpuacct.usage").exists():
            return Hierarchy(1, root / name, "cpuacct.usage", root / "memory", "cpuacct")
    return None


@dataclass(frozen=True, slots=True)
class _Folder:
    """A known directory: its link count tells whether sub-directories came or went."""

    links: int
    below: tuple[str, ...]
    """The paths of its sub-directories."""
    counter: str
    """Its file with the CPU time, below the root; empty if no workload ends there."""


class CgroupTree:
    """Walks one hierarchy and reads the named groups' counters. Not for use from several threads."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        """Nothing is read before `cpu_seconds`."""
        self.hierarchy = hierarchy
        self._folders: dict[str, _Folder] = {}
        self._owners: dict[str, str] = {}
        """The workloads' groups as the last walk found them, parents first, with their counters."""
        self._others: list[str] = []
        self._counters = KeptFiles(most_kept() * 3 // 4)
        self._parse: Callable[[bytes], float] = _usage_v2 if hierarchy.version == 2 else _usage_v1  # noqa: PLR2004

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time since each workload's group was made, subgroups included, by path; without those that vanish.

        Parents come first.
        """
        try:
            root = os.open(self.hierarchy.cpu_root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return {}
        try:
            usage = self._read(root) if self._is_as_walked(root) else {}
            if not usage or len(usage) < len(self._owners):
                found = dict(self._walk(root))
                self._owners = {path: counter for path, counter in found.items() if counter}
                self._others = [path for path, counter in found.items() if not counter]
                usage = self._read(root)
                self._counters.keep({self._owners[path] for path in usage})
        finally:
            os.close(root)
        return usage

    def _is_as_walked(self, root: int) -> bool:
        """Whether there are as many groups as the last walk found, and those that are not read are still there.

        If all that are read are there, too, then there are no others, and a walk, which asks each of them for its link
        count, would find the same.
        """
        try:
            for path in self._others:
                os.stat(path[1:], dir_fd=root)
        except OSError:
            return False
        return _number_of_groups(root) == len(self._owners) + len(self._others)

    def _read(self, root: int) -> dict[str, float]:
        """The counters of those groups that can be read; a folder of one that cannot is listed again."""
        usage: dict[str, float] = {}
        for path, counter in self._owners.items():
            seconds = self._seconds(counter, root)
            if seconds is None:
                self._folders.pop(path.rpartition("/")[0], None)
            else:
                usage[path] = seconds
        return usage

    def _seconds(self, counter: str, root: int) -> float | None:
        try:
            return self._parse(self._counters.read(counter, root))
        except (OSError, ValueError, IndexError):
            return None

    def processes(self, path: str, most: int) -> list[int]:
        """Up to `most` processes of a group, its own first, then those of its subgroups; the oldest of each first."""
        found: list[int] = []
        pending = [path]
        while pending and len(found) < most:
            one = pending.pop(0)
            try:
                found += map(int, read_small(f"{self.hierarchy.cpu_root}{one}/cgroup.procs").split())
            except (OSError, ValueError):
                continue
            folder = self._folders.get(one)
            pending += folder.below if folder else ()
        return found[:most]

    def memory_bytes(self, path: str) -> float:
        """Anonymous and shared memory of a group, in bytes; 0 where the kernel does not count it."""
        try:
            return _memory(read_small(f"{self.hierarchy.memory_root}{path}/memory.stat"))
        except (OSError, ValueError):
            return 0.0

    def cpus_reserved(self, path: str) -> float:
        """How many CPUs a cpuset keeps for this very group; 0 if it may run anywhere."""
        try:
            return float(_count_cpus(read_small(f"{self.hierarchy.cpu_root}{path}/cpuset.cpus")))
        except (OSError, ValueError):
            return 0.0

    def _walk(self, root: int) -> Iterator[tuple[str, str]]:
        """Every group with its counter, as paths below the root (a directory's handle), parents first.

        A folder is listed again only when its link count moved, or when one that it held has gone: another may have
        come in its place.
        """
        pending, seen, listed = [""], set[str](), set[str]()
        while pending:
            path = pending.pop()
            folder = self._look_at(path, root, listed)
            if folder is None:
                above = path.rpartition("/")[0]
                if self._folders.pop(above, None) and above not in listed:
                    pending.append(above)
                continue
            if path and path not in seen:
                yield path, folder.counter
            seen.add(path)
            if folder.below:
                pending += [one for one in folder.below if one not in seen]
        for stale in self._folders.keys() - seen:
            del self._folders[stale]

    def _look_at(self, path: str, root: int, listed: set[str]) -> _Folder | None:
        """What a group's directory holds, None if it has gone; notes in `listed` when it had to look."""
        known = self._folders.get(path)
        try:
            links = os.stat(path[1:] or ".", dir_fd=root).st_nlink
            if known is None or known.links != links:
                known = self._folders[path] = self._list(path, links)
                listed.add(path)
        except OSError:
            return None
        return known

    def _list(self, path: str, links: int) -> _Folder:
        """Raises `OSError`."""
        with os.scandir(f"{self.hierarchy.cpu_root}{path}") as entries:
            below = tuple(f"{path}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False))
        return _Folder(links, below, f"{path[1:]}/{self.hierarchy.cpu_file}" if is_owner(path) else "")


def _number_of_groups(root: int) -> int:
    """How many groups there are below the root of a tree of version 2, as the kernel counts them; -1 if it does not."""
    try:
        return _field(read_small("cgroup.stat", root), b"nr_descendants ", -1)
    except (OSError, ValueError):
        return -1


def _usage_v2(text: bytes) -> float:
    """cpu.stat: `usage_usec`, in microseconds."""
    return _field(text, b"usage_usec ", None) / 1e6


def _usage_v1(text: bytes) -> float:
    """cpuacct.usage: nanoseconds."""
    return int(text) / 1e9


def _memory(text: bytes) -> float:
    """memory.stat: `anon` and `shmem` on version 2, `total_rss` and `total_shmem` (with descendants) on version 1."""
    anonymous = _field(text, b"anon ", -1)
    if anonymous >= 0:
        return float(anonymous + _field(text, b"shmem ", 0))
    return float(_field(text, b"total_rss ", 0) + _field(text, b"total_shmem ", 0))


def _field(text: bytes, name: bytes, default: int | None) -> int:
    """The number behind this name and its space: lines of `name number`. Raises `ValueError` if it is missing, or none.

    Hundreds of groups are read each time, of whose dozens of lines two are wanted.
    """
    at = 0 if text.startswith(name) else text.find(b"\n" + name) + 1
    if at or text.startswith(name):
        at += len(name)
        end = text.find(b"\n", at)
        return int(text[at:end] if end >= 0 else text[at:])
    if default is None:
        raise ValueError(f"no {name.decode()}")
    return default


def _count_cpus(text: bytes) -> int:
    """A kernel list such as `0-3,8`: how many numbers it holds."""
    count = 0
    for part in text.strip().split(b","):
        if part:
            first, dash, last = part.partition(b"-")
            count += int(last if dash else first) - int(first) + 1
    return max(0, count)
