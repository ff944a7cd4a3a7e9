"""Since when each counter is there, so that a receiver counts from zero what began at zero, and nothing else.

Totals survive restarts of the exporter and pushes are rare, so a counter that a receiver first sees may stand high. Its
first point says what it was when it was first seen, at that moment: all that came later is an increase, and what was
there before is not (OpenTelemetry's metrics data model, "cumulative streams: handling unknown start time").
"""

from __future__ import annotations

from typing import Any, NamedTuple

from carbon_exporter.publish.otlp_metrics import totals_of
from carbon_exporter.snapshot import Snapshot

__all__ = ["First", "Lives"]

_OLDEST_FIRST_SECONDS = 600.0
"""Receivers refuse a whole push for one point that is too old for them: Prometheus' head goes back half an hour at
least. A first point that could not be sent for that long is left out."""


class First(NamedTuple):
    """How a counter was when it was first seen."""

    at: float
    """Unix seconds."""
    total: Any
    """As its table has it."""


class Lives:
    """Looks at every snapshot. For one thread."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._since: dict[Any, float] = {}
        self._unsent: dict[Any, First] = {}
        self._last: dict[Any, Any] = {}
        self._pushed: dict[Any, Any] = {}

    def look(self, snapshot: Snapshot) -> bool:
        """Take note of the counters of a snapshot; True if some are gone whose last number was never pushed.

        The snapshot before this one then has to be pushed, before `forget`.
        """
        now = totals_of(snapshot)
        for key in now.keys() - self._since.keys():
            self._since[key] = snapshot.at
            self._unsent[key] = First(snapshot.at, now[key])
        gone = self._since.keys() - now.keys()
        parting = any(self._last.get(key) != self._pushed.get(key) for key in gone)
        self._last = now
        return parting

    def forget(self) -> None:
        """Let go of the counters that the newest snapshot does not have."""
        for key in self._since.keys() - self._last.keys():
            del self._since[key]
            self._unsent.pop(key, None)

    def since(self, key: Any) -> float:
        """When the counter was first seen, in Unix seconds."""
        return self._since[key]

    def first(self, key: Any, at: float) -> First | None:
        """The point to send before the one of `at`, if there is one that was not sent yet."""
        first = self._unsent.get(key)
        return first if first is not None and at - _OLDEST_FIRST_SECONDS <= first.at < at else None

    def pushed(self, snapshot: Snapshot, *, arrived: bool) -> None:
        """A snapshot was sent.

        First points are sent once, arrived or not: a receiver that took a later one refuses them, and all with them.
        """
        sent = totals_of(snapshot)
        for key in sent:
            self._unsent.pop(key, None)
        if arrived:
            self._pushed = sent
