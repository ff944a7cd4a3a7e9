"""Which runs the node's exporter has yet to be told: as told_rows.py has it for spans, and in the same messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

from carbon_exporter.carbon.runs import RunKey, RunTotal
from carbon_exporter.publish.handoff_wire import RunRow, fit

__all__ = ["MOST_RUNS", "ToldRuns"]

MOST_RUNS = 8
"""In one message."""
_MOST_AMOUNT = 1e15

Place: TypeAlias = tuple[str, str]
"""A run's name, and the job that it is said to be of; empty for the process's own."""


class ToldRuns:
    """What is due, on its way, and safe at the exporter. Not for use from several threads."""

    def __init__(self) -> None:
        """Nothing is due yet."""
        self._totals: dict[Place, RunTotal] = {}
        self._due: dict[Place, None] = {}
        self._sent: dict[Place, int] = {}
        """The last message that each was in, until that is safe."""

    @property
    def due(self) -> bool:
        """Whether there is something to send."""
        return bool(self._due)

    @property
    def unsafe(self) -> frozenset[Place]:
        """Those that the exporter may not have yet."""
        return frozenset(self._due) | frozenset(self._sent)

    def note(self, totals: Mapping[RunKey, RunTotal], own_job: str) -> None:
        """The runs as they stand now."""
        for key, total in totals.items():
            place = (key.run, "" if key.job.name == own_job else key.job.name)
            if self._totals.get(place) != total:
                self._totals[place] = total
                self._due[place] = None

    def take(self, number: int) -> tuple[RunRow, ...]:
        """Rows for the message of this number; they count as sent."""
        places = list(self._due)[:MOST_RUNS]
        for place in places:
            del self._due[place]
            self._sent[place] = number
        return tuple(_row(place, self._totals[place]) for place in places)

    def seen(self, number: int) -> None:
        """The exporter holds the message of this number, and all before."""
        self._sent = {place: sent for place, sent in self._sent.items() if sent > number}

    def lost(self) -> None:
        """The connection has broken: what was not seen is due again."""
        self._due.update(dict.fromkeys(self._sent))
        self._sent.clear()

    def trust(self) -> None:
        """The session ends: what the kernel has taken must do."""
        self._sent.clear()


def _row(place: Place, total: RunTotal) -> RunRow:
    model, dataset, batch_size = map(fit, total.facts)
    return RunRow(
        fit(place[0]),
        _amount(total.joules),
        _ahead(total.remaining_joules),
        _ahead(total.remaining_grams),
        model,
        dataset,
        batch_size,
        fit(place[1]),
    )


def _ahead(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else _amount(value)


def _amount(value: float) -> float:
    """Within what the wire accepts."""
    return min(max(value, 0.0), _MOST_AMOUNT)
