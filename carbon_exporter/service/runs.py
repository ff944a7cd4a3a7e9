"""The book of runs: what scripts have told of whole trainings, and which of them are shown.

Of each job the newest `runs.max` are, all ranks of a run together; older ones leave the page, but their totals are kept
as long as the job's, and go on if there is room again. As with spans a run is announced at one tick, at zero, and
posted at the next, and what waits between is in the state file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated

import msgspec

from carbon_exporter.carbon.grid import Grid
from carbon_exporter.carbon.runs import RunFacts, RunKey, RunTotal
from carbon_exporter.jobs.base import Job, clean_name
from carbon_exporter.publish.handoff_wire import RunRow, RunSum
from carbon_exporter.units import Grams, Joules, grams_emitted

__all__ = ["RunBook", "SavedRuns"]

SERIES_OF_RUN = 5
_MOST_RESTING = 1024

Amount = Annotated[float, msgspec.Meta(ge=0)]


class SavedRun(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A run's total, or what waits to be added to it."""

    name: str
    namespace: str
    run: str
    rank: str
    joules: Amount
    grams: Amount
    remaining_joules: Amount | None
    remaining_grams: Amount | None
    model: str
    dataset: str
    batch_size: str


class SavedRuns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What survives of runs."""

    totals: list[SavedRun] = []
    resting: list[SavedRun] = []
    pending: list[SavedRun] = []


class RunBook:
    """The runs of one node. Not for use from several threads."""

    def __init__(self, per_job: int, series_max: int) -> None:
        """Empty; both limits may be set anew at any time."""
        self.per_job, self.series_max = per_job, series_max
        self.totals: dict[RunKey, RunTotal] = {}
        """The oldest first."""
        self._resting: dict[RunKey, RunTotal] = {}
        self._collected: dict[RunKey, RunTotal] = {}
        self._announced: dict[RunKey, RunTotal] = {}

    @property
    def series(self) -> int:
        """How many series the runs make."""
        return SERIES_OF_RUN * len(self.totals)

    def tell(self, key: RunKey, row: RunRow, more: float, grid: Grid) -> None:
        """Take what a script has told: `more` joules than before, at the price of now."""
        grams = grams_emitted(Joules(more), grid.intensity.grams_per_kwh, grid.pue)
        facts = RunFacts(clean_name(row.model), clean_name(row.dataset), clean_name(row.batch_size))
        ahead = _ahead(row.remaining_joules, row.remaining_grams)
        news = RunTotal(Joules(more), grams, *ahead, facts)
        self._collected[key] = _plus(self._collected.get(key), news)

    def turn(self, shown: Collection[Job], remembered: Collection[Job]) -> None:
        """Post what was announced, announce what was told since; only runs of these jobs are shown, or kept."""
        for key, news in self._announced.items():
            self._add(key, news)
        self._announced, self._collected = self._collected, {}
        for key in self._announced:
            self._add(key, None)
        self._rest([key for key in self.totals if key.job not in shown])
        while self.series > self.series_max:
            self._rest([next(iter(self.totals))])
        kept = {key: total for key, total in self._resting.items() if key.job in remembered}
        self._resting = dict(list(kept.items())[-_MOST_RESTING:])

    def shown(self, shows: Callable[[Job], bool]) -> Mapping[RunKey, RunTotal]:
        """The totals to publish."""
        return {key: total for key, total in self.totals.items() if shows(key.job)}

    def sums(self, job: Job, names: Iterable[str]) -> tuple[RunSum, ...]:
        """What all ranks have used, of those of these runs that have several."""
        found = []
        for name in names:
            ranks = [total for key, total in self.totals.items() if (key.job, key.run) == (job, name)]
            if len(ranks) > 1:
                joules, grams = sum(one.joules for one in ranks), sum(one.grams for one in ranks)
                found.append(RunSum(name, len(ranks), joules, grams))
        return tuple(found)

    def saved(self) -> SavedRuns:
        """For the state file."""
        pending = dict(self._announced)
        for key, news in self._collected.items():
            pending[key] = _plus(pending.get(key), news)
        return SavedRuns(_rows(self.totals), _rows(self._resting), _rows(pending))

    def restore(self, saved: SavedRuns) -> None:
        """Go on from an earlier life; what was pending is announced again at the first tick."""
        self.totals, self._resting = _totals(saved.totals), _totals(saved.resting)
        self._collected = _totals(saved.pending)

    def _add(self, key: RunKey, news: RunTotal | None) -> None:
        """Add to a run, or make it known at what it is; a new one takes the place of the oldest of its job.

        One that rests goes on resting while its job, or the book, is full: else those that run would take turns.
        """
        known = self.totals.get(key) or self._resting.get(key)
        total = known or RunTotal(Joules(0.0), Grams(0.0))
        if news is not None:
            total = _plus(known, news)
        runs = dict.fromkeys(one.run for one in self.totals if one.job == key.job)
        full = key.run not in runs and len(runs) >= self.per_job
        if key in self._resting and (full or self.series + SERIES_OF_RUN > self.series_max):
            self._resting[key] = total
            return
        if full:
            oldest = next(iter(runs))
            self._rest([one for one in self.totals if (one.job, one.run) == (key.job, oldest)])
        self._resting.pop(key, None)
        self.totals[key] = total

    def _rest(self, keys: Iterable[RunKey]) -> None:
        for key in keys:
            self._resting[key] = self.totals.pop(key)


def _plus(known: RunTotal | None, news: RunTotal) -> RunTotal:
    """Both together; what is ahead and what is said of the run is as the newer one has it."""
    if known is None:
        return news
    used = Joules(known.joules + news.joules), Grams(known.grams + news.grams)
    return RunTotal(*used, news.remaining_joules, news.remaining_grams, news.facts)


def _ahead(joules: float | None, grams: float | None) -> tuple[Joules | None, Grams | None]:
    return None if joules is None else Joules(joules), None if grams is None else Grams(grams)


def _rows(totals: Mapping[RunKey, RunTotal]) -> list[SavedRun]:
    rows = []
    for key, one in totals.items():
        used, ahead = (one.joules, one.grams), (one.remaining_joules, one.remaining_grams)
        rows.append(SavedRun(*key.job, key.run, key.rank, *used, *ahead, *one.facts))
    return rows


def _totals(rows: Iterable[SavedRun]) -> dict[RunKey, RunTotal]:
    return {
        RunKey(Job(row.name, row.namespace), row.run, row.rank): RunTotal(
            Joules(row.joules),
            Grams(row.grams),
            *_ahead(row.remaining_joules, row.remaining_grams),
            RunFacts(row.model, row.dataset, row.batch_size),
        )
        for row in rows
    }
