"""Which runs the node's exporter has yet to be told: as told_rows.py has it for spans, and in the same messages.

An exporter takes a limited number of names of one session. So the first runs of a process are told by themselves, and
all further ones as one sum, in which no joule is lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from carbon_exporter.carbon.runs import RunKey, RunTotal
from carbon_exporter.publish.handoff_wire import RunRow, fit
from carbon_exporter.sdk.due import Due, Place
from carbon_exporter.sdk.run_record import MOST_KEPT
from carbon_exporter.units import Grams, Joules

__all__ = ["MOST_NAMED", "MOST_RUNS", "OTHER_RUNS", "ToldRuns"]

MOST_RUNS = 8
"""In one message."""
MOST_NAMED = 40
"""Told by themselves; with the sums and a full account of spans less than an exporter takes of one session."""
_MOST_PLACES = 48
"""With the sums of the others, one a job; then those of all jobs are the process's own."""
OTHER_RUNS = "_other_"
_MOST_AMOUNT = 1e15


class ToldRuns:
    """What is due, on its way, and safe at the exporter. Not for use from several threads."""

    def __init__(self) -> None:
        """Nothing is due yet."""
        self.due = Due()
        self._runs: dict[Place, RunTotal] = {}
        """The newest of each, those that were listed last at the end."""
        self._totals: dict[Place, RunTotal] = {}
        """What is told: of a run, or of all others together."""

    def note(self, totals: Mapping[RunKey, RunTotal], own_job: str) -> None:
        """The runs as they stand now."""
        for key, total in totals.items():
            run = (key.run, "" if key.job.name == own_job else key.job.name)
            before = self._runs.pop(run, None)
            self._runs[run] = total
            if before != total:
                place = self._place(run)
                self._totals[place] = total if place == run else _sum(self._totals.get(place), before, total)
                self.due.add(place)
        while len(self._runs) > max(2 * MOST_KEPT, len(totals)):  # the account has forgotten it before, and begins anew
            del self._runs[next(iter(self._runs))]

    def take(self, number: int) -> tuple[RunRow, ...]:
        """Rows for the message of this number; they count as sent."""
        places = self.due.first(MOST_RUNS)
        self.due.send(places, number)
        return tuple(_row(place, self._totals[place]) for place in places)

    def _place(self, run: Place) -> Place:
        """Where a run is told."""
        others = (OTHER_RUNS, run[1])
        if run in self._totals or len(self._totals) < MOST_NAMED:
            return run
        return others if others in self._totals or len(self._totals) < _MOST_PLACES - 1 else (OTHER_RUNS, "")


def _sum(told: RunTotal | None, before: RunTotal | None, now: RunTotal) -> RunTotal:
    """With what is new of one; nobody can tell what is ahead of many."""
    known, joules, grams = told or RunTotal(Joules(0.0), Grams(0.0)), now.joules, now.grams
    if before is not None and before.joules <= joules:
        joules, grams = Joules(joules - before.joules), Grams(max(0.0, grams - before.grams))
    return RunTotal(Joules(known.joules + joules), Grams(known.grams + grams))


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
