"""What a running process has used so far, from its own /proc entry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "cpu_seconds", "memory"]


@dataclass(frozen=True, slots=True)
class Memory:
    """A process's memory in bytes."""

    resident: float
    proportional: float
    """The same with shared pages divided by their users (PSS)."""


def cpu_seconds(pid: int) -> float:
    """CPU time of the process's living threads: schedstat counts nanoseconds, where stat counts clock ticks."""
    threads = (Path("/proc") / str(pid) / "task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def memory(pid: int) -> Memory:
    """Memory of the process now. The kernel walks its page tables for this: do not ask often."""
    lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()
    bytes_of = {line.split(":")[0]: int(line.split()[1]) * 1024.0 for line in lines if line.endswith(" kB")}
    return Memory(bytes_of["Rss"], bytes_of["Pss"])
