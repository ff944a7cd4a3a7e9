"""The names of boards: `gpu0`, `gpu1` … are shared by sensors of several makers, and a board keeps its own."""

from __future__ import annotations

import itertools
import threading

__all__ = ["DeviceNames"]


class DeviceNames:
    """Gives out names, each to one board, for as long as the process lives. For any thread."""

    def __init__(self) -> None:
        """Nothing is named yet."""
        self._lock = threading.Lock()
        self._names: dict[tuple[str, str], str] = {}

    def name(self, prefix: str, identity: str, wanted: int) -> str:
        """The name of the board that `identity` (a uuid, a bus address) tells from all others.

        It is `prefix` and the `wanted` number, or the next that is free; asked again, it is the same.
        """
        with self._lock:
            known = self._names.get((prefix, identity))
            if known is not None:
                return known
            taken = set(self._names.values())
            free = next(name for n in itertools.count(wanted) if (name := f"{prefix}{n}") not in taken)
            self._names[prefix, identity] = free
            return free
