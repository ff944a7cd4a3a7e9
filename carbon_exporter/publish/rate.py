"""A limit on requests: a bucket of tokens that fills at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable

from carbon_exporter.publish.web_config import RateLimit

__all__ = ["Bucket"]


class Bucket:
    """Full at first. One thread's."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        """`limit.interval` seconds bring one token, up to `limit.burst`."""
        self._limit = limit
        self._clock = clock
        self._tokens = float(limit.burst)
        self._at = clock()

    def takes_one(self) -> bool:
        """Whether there is a token for this request, which then has it."""
        now = self._clock()
        self._tokens = min(self._limit.burst, self._tokens + (now - self._at) / self._limit.interval)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
