"""What a script may take of the exporter by its socket: how many, how much, how fast. Beyond that it pays itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["REASONS", "Bucket", "HandoffLimits"]

REASONS = (
    "peers",
    "calls",
    "deadline",
    "malformed",
    "too_long",
    "flood",
    "slow",
    "version",
    "namespace",
    "session",
    "spans",
)
"""Why somebody was turned away, as carbon_handoff_refused_total has it."""


@dataclass(frozen=True, slots=True)
class HandoffLimits:
    """Times are in seconds."""

    peers: int = 256
    per_user: int = 32
    per_root: int = 256
    """Of uid 0, as which most containers run."""
    calls_per_second: float = 100.0
    """New connections of one user; root may make eight times as many."""
    calls_at_once: float = 200.0
    hello_seconds: float = 5.0
    """From the connection to a complete `hello`."""
    messages_per_second: float = 50.0
    messages_at_once: float = 200.0
    bytes_per_second: float = 256 * 1024.0
    bytes_at_once: float = 1024 * 1024.0
    lag_bytes: int = 65536
    """A peer that has left so much unread is sent no energy."""
    most_lag_bytes: int = 262144
    """One that has left so much unread is cut off."""
    lag_seconds: float = 30.0
    """One that has read nothing for so long is cut off."""
    farewell_seconds: float = 1.0
    """For a peer that was turned away to take the reason."""
    spans: int = 320
    """Different names in one session; a script folds what is more than 256 itself."""


class Bucket:
    """A token bucket: so many at once, so many a second."""

    def __init__(self, rate: float, most: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Full at the start."""
        self._rate, self._most, self._clock = rate, most, clock
        self._level, self._at = most, clock()

    def take(self, amount: float = 1.0) -> bool:
        """Whether there was as much; then it is gone."""
        now = self._clock()
        self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now
        if amount > self._level:
            return False
        self._level -= amount
        return True

    @property
    def full(self) -> bool:
        """Whether nothing is missing from it now."""
        return self._level + (self._clock() - self._at) * self._rate >= self._most
