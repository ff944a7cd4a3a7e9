"""How much memory is installed: what draws power is the module, not what the kernel left over of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from carbon_exporter.sensors.base import Host

__all__ = ["MemorySize", "installed_memory"]

GIB = 2**30
MOST_DIGITS = 16


@dataclass(frozen=True, slots=True)
class MemorySize:
    """An amount of memory and the file that told it."""

    gib: float
    """Binary gigabytes, 2**30 bytes."""
    source: str


def installed_memory(host: Host) -> MemorySize | None:
    """Memory blocks that are online x their size; where the kernel has none, MemTotal, which is a few percent less.

    See Documentation/admin-guide/mm/memory-hotplug.rst of Linux for the blocks. None if neither can be read.
    """
    return _from_blocks(Path(host.sysfs, "devices", "system", "memory")) or _from_meminfo(Path(host.procfs, "meminfo"))


def _from_blocks(directory: Path) -> MemorySize | None:
    size = _text(directory / "block_size_bytes")
    online = sum(_text(state) == "online" for state in directory.glob("memory[0-9]*/state"))
    try:
        blocks = online * int(size, 16) if len(size) <= MOST_DIGITS else 0
    except ValueError:
        return None
    return MemorySize(blocks / GIB, f"{directory}/memory*") if blocks > 0 else None


def _from_meminfo(path: Path) -> MemorySize | None:
    for line in _text(path).splitlines():
        match line.split():
            case ["MemTotal:", kib, "kB"] if kib.isascii() and kib.isdigit() and 0 < len(kib) <= MOST_DIGITS:
                return MemorySize(int(kib) * 1024 / GIB, f"MemTotal in {path}") if int(kib) else None
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""
