"""Due: which of a script's totals the node's exporter has yet to be told, and which are safe with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["Due", "Place"]

Place: TypeAlias = tuple[str, str]
"""A span's or run's name, and the job that it is said to be of; empty for the process's own."""


class Due:
    """Places whose newest total is to be sent, is on its way, or is safe. Not for use from several threads."""

    def __init__(self) -> None:
        """Nothing is due yet."""
        self._waiting: dict[Place, None] = {}
        """Those that waited longest first."""
        self._sent: dict[Place, int] = {}
        """The last message that each was in, until that is safe."""

    def __bool__(self) -> bool:
        """Whether there is something to send."""
        return bool(self._waiting)

    @property
    def unsafe(self) -> frozenset[Place]:
        """Those with a total that the exporter may not have yet."""
        return frozenset(self._waiting) | frozenset(self._sent)

    def add(self, place: Place) -> None:
        """Its total has changed."""
        self._waiting[place] = None

    def first(self, most: int) -> list[Place]:
        """So many that are next."""
        return list(self._waiting)[:most]

    def send(self, places: Iterable[Place], number: int) -> None:
        """They go in the message of this number."""
        for place in places:
            del self._waiting[place]
            self._sent[place] = number

    def seen(self, number: int) -> None:
        """The exporter holds the message of this number, and all before."""
        self._sent = {place: sent for place, sent in self._sent.items() if sent > number}

    def lost(self) -> None:
        """The connection has broken: what was not seen is due again."""
        self._waiting.update(dict.fromkeys(self._sent))
        self._sent.clear()

    def trust(self) -> None:
        """The session ends: what the kernel has taken must do."""
        self._sent.clear()
