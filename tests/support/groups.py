"""Control groups of the machine's own version 2 tree, made for a test."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Groups"]


@dataclass(frozen=True)
class Groups:
    """A folder of groups; paths are relative to it."""

    root: Path
    """Of the hierarchy."""
    path: str
    """Of the folder, in the hierarchy."""

    def make(self, *paths: str) -> None:
        """Make groups, and those above them."""
        for path in paths:
            (self.root / self.path[1:] / path).mkdir(parents=True)

    def remove(self, path: str) -> None:
        """Remove a group whose processes have ended; the kernel takes a moment to let them go."""
        until = time.monotonic() + 5
        while True:
            try:
                return (self.root / self.path[1:] / path).rmdir()
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.005)

    def move(self, pid: int, path: str) -> None:
        """Put a process, with all that it will start, into a group."""
        (self.root / self.path[1:] / path / "cgroup.procs").write_text(f"{pid}\n")

    def used(self, path: str) -> float:
        """The CPU seconds that the kernel counts for a group."""
        first = (self.root / self.path[1:] / path / "cpu.stat").read_text().split("\n")[0]
        return int(first.removeprefix("usage_usec ")) / 1e6
