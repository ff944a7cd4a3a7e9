"""What this process knows of its runs, for whoever publishes them: read from their laps whenever it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from carbon_exporter.carbon.runs import RunFacts, RunKey, RunTotal
from carbon_exporter.jobs.base import Job
from carbon_exporter.sdk.base import Identity
from carbon_exporter.sdk.laps import Lap
from carbon_exporter.units import Grams, Joules

__all__ = ["MOST_RUNS", "AllRanks", "RunRecord", "record_of", "run_totals"]

MOST_RUNS = 8
"""Of a process: the newest, and all that are open."""


class AllRanks(NamedTuple):
    """What all ranks of a run have used on this node, by the exporter's last tick."""

    ranks: int
    energy_kwh: float
    co2e_grams: float


class RunRecord:
    """A run of one name, perhaps entered several times. The script's thread writes, any may read `total`."""

    __slots__ = ("_state", "facts", "is_open", "job", "name", "predicted")

    def __init__(self, name: str, job: str, facts: RunFacts) -> None:
        """An empty `job` is the process's."""
        self.name, self.job, self.facts = name, job, facts
        self.is_open = False
        self.predicted: tuple[float, float] | None = None
        """Joules and grams in the end, by the last epoch."""
        self._state: tuple[float, float, tuple[Lap, ...]] = (0.0, 0.0, ())
        """Joules and grams of laps that are settled, and the others; replaced as a whole."""

    def begin(self, lap: Lap) -> None:
        """One more passage; those that are settled are added up."""
        joules, grams, laps = self._state
        rest = []
        for one in laps:
            if one.figures is None:
                rest.append(one)
            else:
                more = _used((one,))
                joules, grams = joules + more[0], grams + more[1]
        self._state = (joules, grams, (*rest, lap))
        self.predicted, self.is_open = None, True

    def used(self) -> tuple[float, float]:
        """Joules and grams, as the account of spans has them."""
        joules, grams, laps = self._state
        more = _used(laps)
        return joules + more[0], grams + more[1]

    def total(self) -> RunTotal:
        """The same with what is ahead."""
        joules, grams = self.used()
        left = self.predicted
        if left is None:
            return RunTotal(Joules(joules), Grams(grams), facts=self.facts)
        ahead = (max(0.0, left[0] - joules), max(0.0, left[1] - grams)) if self.is_open else (0.0, 0.0)
        return RunTotal(Joules(joules), Grams(grams), Joules(ahead[0]), Grams(ahead[1]), self.facts)


def record_of(records: list[RunRecord], name: str, job: str, facts: RunFacts) -> RunRecord:
    """The record of a run: one that is known, or a new one in place of the oldest that has ended."""
    for known in records:
        if (known.name, known.job) == (name, job):
            known.facts = facts
            return known
    ended = [one for one in records if not one.is_open]
    if len(records) >= MOST_RUNS and ended:
        records.remove(ended[0])
    record = RunRecord(name, job, facts)
    records.append(record)
    return record


def run_totals(records: Iterable[RunRecord], identity: Identity) -> Mapping[RunKey, RunTotal]:
    """What they stand at now, by the labels of their series."""
    return {
        RunKey(Job(one.job or identity.job, identity.namespace), one.name, identity.rank): one.total()
        for one in tuple(records)
    }


def _used(laps: Iterable[Lap]) -> tuple[float, float]:
    return sum(sum(dict(lap.posted).values()) for lap in laps), sum(lap.grams for lap in laps)
