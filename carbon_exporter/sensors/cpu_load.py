"""How busy the processors were between two looks at /proc/stat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from carbon_exporter.errors import SensorPermission, SensorReadError
from carbon_exporter.sensors.base import Host

__all__ = ["CpuTicks", "busy_share", "parse_ticks", "read_ticks"]

MOST_DIGITS = 20
"""Of a 64-bit number; anything longer is no counter."""


class CpuTicks(NamedTuple):
    """What one CPU did since boot, in clock ticks (1/100 s on Linux)."""

    busy: int
    """user, nice, system, irq and softirq. Guest time is already in user and nice, and is not added again."""
    idle: int
    """idle, iowait, and steal: time that a hypervisor gave to somebody else cost nothing here."""


def parse_ticks(text: str) -> dict[int, CpuTicks]:
    """The per-CPU lines of /proc/stat (proc_stat(5)); lines that are something else, or broken, are left out."""
    ticks = {}
    for line in text.splitlines():
        name, *words = line.split() or [""]
        number = name[3:]
        if not name.startswith("cpu") or not all(map(_is_count, [number, *words[:8]])) or len(words) < 4:  # noqa: PLR2004
            continue
        user, nice, system, idle, iowait, irq, softirq, steal = [*map(int, words[:8]), 0, 0, 0, 0][:8]
        ticks[int(number)] = CpuTicks(user + nice + system + irq + softirq, idle + iowait + steal)
    return ticks


def read_ticks(host: Host) -> dict[int, CpuTicks]:
    """The ticks of all CPUs that are online. Raises `SensorPermission` or `SensorReadError`."""
    path = Path(host.procfs, "stat")
    try:
        ticks = parse_ticks(path.read_text("ascii", "replace"))
    except PermissionError as error:
        raise SensorPermission(
            f"{path} may not be read: {error.strerror}", remedy=f"let this user read it: ls -l {path} shows who may"
        ) from None
    except OSError as error:
        raise SensorReadError(
            f"{path} cannot be read: {error.strerror}", remedy="pass the procfs of this machine with --path.procfs"
        ) from None
    if not ticks:
        raise SensorReadError(
            f"{path} has no line for any CPU", remedy="pass the procfs of this machine with --path.procfs"
        )
    return ticks


def busy_share(before: Mapping[int, CpuTicks], after: Mapping[int, CpuTicks], cpus: Iterable[int]) -> float | None:
    """Mean load of `cpus` between two looks, 0 to 1; None if no tick passed on any of them.

    A CPU that went offline did nothing. A counter that steps back (iowait does, idle after a hot plug) stood still.
    """
    numbers = tuple(cpus)
    shares = []
    for cpu in numbers:
        if cpu in before and cpu in after:
            busy = max(after[cpu].busy - before[cpu].busy, 0)
            idle = max(after[cpu].idle - before[cpu].idle, 0)
            if busy + idle:
                shares.append(busy / (busy + idle))
    return sum(shares) / len(numbers) if shares else None


def _is_count(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= MOST_DIGITS
