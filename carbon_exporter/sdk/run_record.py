"""What this process knows of its runs, for whoever publishes them: read from their laps whenever it is asked for."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from carbon_exporter.carbon.runs import RunFacts, RunKey, RunTotal
from carbon_exporter.jobs.base import Job
from carbon_exporter.sdk.base import Identity
from carbon_exporter.sdk.laps import Lap
from carbon_exporter.units import Grams, Joules

__all__ = ["MOST_KEPT", "MOST_RUNS", "AllRanks", "RunRecord", "counted", "other_totals", "run_totals"]

MOST_RUNS = 8
"""Of a process: those that began last are published, and all that are open."""
MOST_KEPT = 1024
"""So many are remembered, so that one that is entered again goes on where it was."""


class AllRanks(NamedTuple):
    """What all ranks of a run have used on this node, by the exporter's last tick."""

    ranks: int
    energy_kwh: float
    co2e_grams: float


class RunRecord:
    """A run of one name, perhaps entered several times. Who writes holds the lanes' lock; any may read `total`."""

    __slots__ = ("_ahead", "_began", "_given", "_state", "facts", "job", "name")

    def __init__(self, name: str, job: str, facts: RunFacts) -> None:
        """An empty `job` is the process's."""
        self.name, self.job, self.facts = name, job, facts
        self._began = 0.0
        self._ahead: tuple[Lap, float, float] | None = None
        """Joules and grams of a passage in the end, by its last epoch."""
        self._state: tuple[float, float, tuple[Lap, ...]] = (0.0, 0.0, ())
        """Joules and grams of laps that are settled, and the others; replaced as a whole."""
        self._given: object = None
        """That, once its last total was given to who keeps them."""

    @property
    def began(self) -> float:
        """When it was entered last, in monotonic seconds."""
        return self._began

    @property
    def is_open(self) -> bool:
        """Whether a passage has not ended."""
        return any(lap.ended is None for lap in self._state[2])

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it is open, or waits for its readings."""
        return all(lap.figures is not None for lap in self._state[2])

    @property
    def is_safe(self) -> bool:
        """Whether its last total was given to who keeps them."""
        return self._given is self._state

    def covers(self, lap: Lap) -> bool:
        """Whether it is within a passage of this run, which counts it already."""
        open_laps, lane = self._state[2], lap.parent
        while lane is not None and lane not in open_laps:
            lane = lane.parent
        return lane is not None

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
        self._began = lap.began[0]
        if self._ahead is not None and self._ahead[0].ended is not None:
            self._ahead = None

    def expect(self, lap: Lap, joules: float, grams: float) -> None:
        """What a passage is likely to have used in the end."""
        self._ahead = (lap, joules, grams)

    def used(self) -> tuple[float, float]:
        """Joules and grams, as the account of spans has them."""
        joules, grams, laps = self._state
        more = _used(laps)
        return joules + more[0], grams + more[1]

    def total(self) -> RunTotal:
        """The same with what is ahead."""
        joules, grams = map(float, self.used())
        if self._ahead is None:
            return RunTotal(Joules(joules), Grams(grams), facts=self.facts)
        lap, *end = self._ahead
        left = [0.0, 0.0]
        if lap.ended is None:
            left = [max(0.0, whole - now) for whole, now in zip(end, _used((lap,)), strict=True)]
        return RunTotal(Joules(joules), Grams(grams), Joules(left[0]), Grams(left[1]), self.facts)

    def give(self) -> RunTotal:
        """The total, for who keeps it: if it is settled, that is the last one."""
        state, settled = self._state, self.is_settled
        total = self.total()
        if settled:
            self._given = state
        return total


def counted(lap: Lap, name: str, job: str, facts: RunFacts) -> RunRecord | None:
    """The record that a passage, which has just begun, is counted in.

    None within the run itself, which counts it already, and where nothing is measured.
    """
    tracker = lap.tracker
    if not tracker.started or (tracker.engine is None and tracker.ready.is_set()):
        return None
    with tracker.lanes.lock:
        record = _record_of(tracker.runs, name, job, facts)
        if record.covers(lap):
            return None
        record.begin(lap)
        return record


def _record_of(records: list[RunRecord], name: str, job: str, facts: RunFacts) -> RunRecord:
    """The record of a run: one that is known, or a new one in place of the oldest that is safe, or settled at least."""
    for known in records:
        if (known.name, known.job) == (name, job):
            known.facts = facts
            return known
    if len(records) >= MOST_KEPT:
        often = len(records) >= 2 * MOST_KEPT  # then nobody keeps totals
        oldest = next((one for one in records if (one.is_settled if often else one.is_safe)), None)
        if oldest is not None:
            records.remove(oldest)
    record = RunRecord(name, job, facts)
    records.append(record)
    return record


def run_totals(records: Iterable[RunRecord], identity: Identity) -> Mapping[RunKey, RunTotal]:
    """What the newest, and all that are open, stand at now, by the labels of their series."""
    return {_key(one, identity): one.total() for one in _published(tuple(records))}


def other_totals(records: Iterable[RunRecord], identity: Identity) -> Mapping[RunKey, RunTotal]:
    """Likewise of all others, each until its last total was given: once."""
    known = tuple(records)
    if len(known) <= MOST_RUNS:
        return {}
    published = _published(known)
    return {_key(one, identity): one.give() for one in known if not one.is_safe and one not in published}


def _published(known: Sequence[RunRecord]) -> Collection[RunRecord]:
    """In the order of their first passages."""
    newest = set(heapq.nlargest(MOST_RUNS, known, key=lambda one: one.began))
    return dict.fromkeys(one for one in known if one in newest or one.is_open)


def _key(one: RunRecord, identity: Identity) -> RunKey:
    return RunKey(Job(one.job or identity.job, identity.namespace), one.name, identity.rank)


def _used(laps: Iterable[Lap]) -> tuple[float, float]:
    return sum(sum(dict(lap.posted).values()) for lap in laps), sum(lap.grams for lap in laps)
