"""Who has to go when the server is full: one of a crowd, and never a client that is being answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Protocol, TypeVar

__all__ = ["Guest", "first_to_go"]

_STUCK_SECONDS = 1.0
"""An honest reader takes a response in milliseconds; one that has not by then may be closed for somebody else."""
_STRANGERS_SHARE = 8


class Guest(Protocol):
    """A connection, as far as the choice needs to know it."""

    peer: str
    """Whose it is."""
    is_known: bool
    """It has been answered before."""
    is_idle: bool
    """It waits for its client to say something, rather than for it to take a response."""
    since: float
    """When it began to wait, in seconds of some clock."""


_G = TypeVar("_G", bound=Guest)


def first_to_go(guests: Collection[_G], now: float) -> _G | None:
    """Whom to close for a newcomer; None if all are being answered.

    Connections that were never answered may take an eighth of the room, and beyond that they close one another: a
    thousand silent ones take no place of scrapers that are known. Of each kind the address goes first that has most,
    so that a crowd closes its own, and of its connections the one idle for longest, else the one stuck for longest.
    """
    closable = [guest for guest in guests if guest.is_idle or now - guest.since > _STUCK_SECONDS]
    strangers = sum(not guest.is_known for guest in guests)
    spared = strangers * _STRANGERS_SHARE <= len(guests)
    crowd = Counter((guest.peer, guest.is_known) for guest in guests)

    def order(guest: _G) -> tuple[bool, int, bool, float]:
        return guest.is_known != spared, -crowd[guest.peer, guest.is_known], not guest.is_idle, guest.since

    return min(closable, key=order, default=None)
