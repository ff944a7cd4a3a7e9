"""What a state file says of one device: its joules, and when it was last read."""

from __future__ import annotations

from typing import Any

__all__ = ["counted_joules", "devices_of", "gap_seconds", "marked_at"]


def counted_joules(state: Any, device: str) -> float:
    """All joules of a device, those that are announced and not yet posted too."""
    posted = sum(row[3] for row in state["devices"] if row[0] == device)
    return float(posted + sum(row[5] for row in state["pending"] if row[2] == device))


def devices_of(state: Any, prefix: str) -> list[str]:
    """Devices that were read, by the start of their names."""
    return sorted(name for name in state["marks"] if name.startswith(prefix))


def marked_at(state: Any, device: str) -> float:
    """Monotonic seconds of the last reading of a device."""
    return float(state["marks"][device]["at"])


def gap_seconds(state: Any, device: str) -> float:
    """Time of a device whose energy is not known."""
    return float(state["gap_seconds"].get(device, 0.0))
