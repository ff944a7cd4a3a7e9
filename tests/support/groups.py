"""Control groups of the machine's own version 2 tree, made for a test."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from carbon_exporter.jobs.cgroups import find_hierarchy

__all__ = ["Groups", "own_groups"]


@dataclass(frozen=True)
class Groups:
    """A folder of groups; paths are relative to it."""

    root: Path
    """Of the hierarchy."""
    path: str
    """Of the folder, in the hierarchy."""

    @property
    def top(self) -> Path:
        """The folder's directory."""
        return self.root / self.path[1:]

    def make(self, *paths: str) -> None:
        """Make groups, and those above them."""
        for path in paths:
            (self.top / path).mkdir(parents=True)

    def remove(self, path: str) -> None:
        """Remove a group whose processes have ended; the kernel takes a moment to let them go."""
        until = time.monotonic() + 5
        while True:
            try:
                return (self.top / path).rmdir()
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.005)

    def move(self, pid: int, path: str) -> None:
        """Put a process, with all that it will start, into a group."""
        (self.top / path / "cgroup.procs").write_text(f"{pid}\n")

    def used(self, path: str) -> float:
        """The CPU seconds that the kernel counts for a group."""
        first = (self.top / path / "cpu.stat").read_text().split("\n")[0]
        return int(first.removeprefix("usage_usec ")) / 1e6


@contextmanager
def own_groups(root: Path | None = None) -> Iterator[Groups]:
    """A folder for one test, gone after it with all that runs in it; of the same name in every tree.

    `root` is that of another tree than the one of version 2. Skips where this machine has no such tree, or lets nobody
    make groups in it.
    """
    if root is None:
        hierarchy = find_hierarchy(Path("/sys"))
        if hierarchy is None or hierarchy.version != 2:
            pytest.skip("this machine has no control groups of version 2")
        root = hierarchy.cpu_root
    made = Groups(root, f"/carbon-exporter-test-{os.getpid()}")
    try:
        made.top.mkdir()
    except OSError as error:
        pytest.skip(f"no control groups can be made below {root}: {error.strerror}")
    try:
        yield made
    finally:
        for folder, _, _ in os.walk(made.top, topdown=False):
            for pid in (Path(folder) / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
            made.remove(os.path.relpath(folder, made.top))
