"""Readers of the kernel's /proc texts: bytes in, numbers out. Pure, so that any text can be thrown at them.

Each raises `ValueError` for a text that the kernel would not have written; proc(5) describes the fields.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CpuTimes",
    "Memory",
    "ProcessStat",
    "parse_cgroup",
    "parse_cpu_times",
    "parse_environ",
    "parse_memory",
    "parse_process_stat",
    "parse_pss",
]


_MEMORY = frozenset({b"MemTotal", b"MemAvailable", b"MemFree", b"Buffers", b"Cached"})
_PF_KTHREAD = 0x0020_0000
"""The flag of kernel threads in field 9, `flags`, of proc(5): PF_KTHREAD of the kernel's include/linux/sched.h."""


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One process at one moment. Times are in clock ticks (`os.sysconf("SC_CLK_TCK")` a second)."""

    comm: bytes
    parent: int
    own: int
    """User and system time of its threads."""
    waited: int
    """The same of all descendants that were waited for."""
    started: int
    """Ticks since boot: with the pid it names a process for ever."""
    resident_pages: int
    stack: int = 0
    """Where its stack starts, drawn anew for every program it becomes (exec); 0 where this user may not know."""
    kernel: bool = False
    """A thread of the kernel's own: it has no program and no environment."""


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """All CPUs together, in clock ticks since boot."""

    busy: int
    cpus: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the machine's memory."""

    total: float
    available: float


def parse_process_stat(text: bytes) -> ProcessStat:
    """/proc/PID/stat. The name stands in brackets and may hold brackets and spaces itself: the last one ends it."""
    head, bracket, tail = text.rpartition(b") ")
    fields = tail.split(None, 26)
    if not bracket or len(fields) < 26:  # noqa: PLR2004 - up to startstack, field 28 of proc(5)
        raise ValueError("not a process's stat")
    return ProcessStat(
        comm=head.partition(b"(")[2],
        parent=int(fields[1]),
        own=int(fields[11]) + int(fields[12]),
        waited=int(fields[13]) + int(fields[14]),
        started=int(fields[19]),
        resident_pages=int(fields[21]),
        stack=int(fields[25]),
        kernel=bool(int(fields[6]) & _PF_KTHREAD),
    )


def parse_cpu_times(text: bytes) -> CpuTimes:
    """/proc/stat. Guest time is already in user time; time stolen by other virtual machines is not use of ours."""
    total = text.partition(b"\n")[0].split()
    if len(total) < 5 or total[0] != b"cpu":  # noqa: PLR2004 - cpu, user, nice, system, idle
        raise ValueError("not the kernel's stat")
    times = [int(field) for field in total[1:]]
    busy = sum(times[0:3]) + sum(times[5:7])
    cpus = text.count(b"\ncpu")
    if cpus < 1:
        raise ValueError("a stat without CPUs")
    return CpuTimes(busy, cpus)


def parse_memory(text: bytes) -> Memory:
    """/proc/meminfo. Kernels before 3.14 give no MemAvailable: free, buffers and cache stand in for it."""
    values: dict[bytes, float] = {}
    for line in text.split(b"\n"):
        key, _, rest = line.partition(b":")
        if key in _MEMORY and (words := rest.split()):
            values[key] = int(words[0]) * 1024.0
            if b"MemAvailable" in values and b"MemTotal" in values:
                break
    if b"MemTotal" not in values:
        raise ValueError("no MemTotal")
    standing_in = sum(values.get(key, 0.0) for key in (b"MemFree", b"Buffers", b"Cached"))
    return Memory(values[b"MemTotal"], min(values.get(b"MemAvailable", standing_in), values[b"MemTotal"]))


def parse_environ(text: bytes) -> dict[str, str]:
    """/proc/PID/environ: what the process was started with. Undecodable bytes become replacement characters."""
    pairs = (entry.partition(b"=") for entry in text.split(b"\0"))
    return {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, mark, value in pairs if mark}


def parse_cgroup(text: bytes) -> dict[str, str]:
    """/proc/PID/cgroup: path by controller; version 2 has one line, whose controller is `""`."""
    paths: dict[str, str] = {}
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and path.startswith("/"):
            for controller in controllers.split(","):
                paths[controller] = path
    return paths


def parse_pss(text: bytes) -> float:
    """/proc/PID/smaps_rollup: the proportional set size in bytes, in which shared pages are divided by their users."""
    for line in text.split(b"\n"):
        key, _, rest = line.partition(b":")
        if key == b"Pss":
            return int((rest.split() or [b""])[0]) * 1024.0
    raise ValueError("no Pss")
