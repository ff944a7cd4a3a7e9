"""What grafana/rules/global.yml records of a cluster: power every minute, the windows every two minutes.

The sums of windows that touch are differences of what a job had used by then, so they are computed as that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.cluster.leaf import LINGER, RESERVED, Paid, increase, presence
from benchmarks.cluster.load import KINDS, Window
from benchmarks.cluster.names import Site, labels
from benchmarks.cluster.schedule import Run
from benchmarks.cluster.week import BLOCK_MINUTES, Shelf, Week
from benchmarks.tsdb.chunks import Floats, Integers
from benchmarks.tsdb.index import Labels

__all__ = ["Rollup"]

_POINT: Final = 5
"""Minutes between the points of which windows are summed."""
_EVERY: Final = 2
"""Minutes between evaluations of windows."""
_HOUR: Final = 60
_LENGTHS: Final = {"sum1h": _HOUR, "sum6h": 6 * _HOUR, "sum1d": 24 * _HOUR}
"""Minutes of the windows."""
_MONTH: Final = "sum30d"
_HOURLY: Final = "hourly"
"""The window of an hour, once an hour."""
_TOP: Final = 100
"""Jobs of a cluster that are recorded as those that emitted most in an hour."""
_TOTALS: Final = {"sum1h": ("fleet", "region"), "sum1d": ("fleet", "region"), _MONTH: ("fleet",)}
"""Levels above the job that a window has."""
_VALUES: Final = {"carbon_job_energy_kwh": 0, "carbon_job_co2e_grams": 1}


class Rollup:
    """Writes the global series of one cluster into the week's blocks."""

    def __init__(self, site: Site, runs: Sequence[Run], week: Week) -> None:
        self._site = site
        self._runs = runs
        self._week = week
        self._row = {run.number: row for row, run in enumerate(runs)}
        self._teams = np.array([*(run.team for run in runs), *(-1 for _ in RESERVED)])
        self._used = np.zeros((2, len(runs) + len(RESERVED), week.minutes // _POINT))
        """Kilowatt-hours and grams of each job up to each point."""
        since, ended = presence(runs)
        self._first = -(-since // _POINT) * _POINT
        self._last = (ended + LINGER + _POINT) // _POINT * _POINT
        self._shelves: dict[str, Shelf] = {}
        self._there: dict[str, NDArray[np.int64]] = {}
        self._block_runs: list[Run] = []

    def begin(self, minute: int, runs: Sequence[Run]) -> None:
        """A block begins, and these runs have power in it."""
        self._block_runs = list(runs)
        place = self._site.place
        cluster = {"cluster": place["cluster"]}
        jobs = [*map(self._site.job, runs), *({"job_name": name} for name in RESERVED)]
        self._name("power", minute, [labels("job:carbon_job_power_watts:sum", place, job) for job in jobs])
        device = "region_kind:carbon_device_power_watts:sum"
        totals = [
            *(labels(device, place, {"kind": kind}) for kind in KINDS),
            labels("region:carbon_job_power_watts:sum", place),
            labels("fleet:carbon_job_power_watts:sum", cluster),
        ]
        self._name("total power", minute, totals)
        teams = [{"job_namespace": f"team-{team:02d}"} for team in self._some_teams()]
        for value in _VALUES:
            named = [labels(f"region:{value}:increase5m", place)]
            named += [labels(f"namespace:{value}:increase5m", place, team) for team in teams]
            self._name(f"{value} increase", minute, named)
        levels = {"fleet": cluster, "region": place}
        for value in _VALUES:
            self._begin_window(minute, value, _HOURLY)
            there = self._there[_HOURLY][self._teams[self._there[_HOURLY]] >= 0]
            names = [labels(f"job_top:{value}:{_HOURLY}", place, site_job) for site_job in self._jobs(there)]
            self._name(f"top {value}:{_HOURLY}", minute, names)
            for window in (*_LENGTHS, _MONTH):
                self._begin_window(minute, value, window)
                here = [labels(f"{level}:{value}:{window}", levels[level]) for level in _TOTALS.get(window, ())]
                self._name(f"total {value}:{window}", minute, here)
            spaces = [labels(f"namespace:{value}:sum1h", cluster, team) for team in [*teams, {}]]
            self._name(f"namespace {value}", minute, spaces)
        ratios = ("carbon_job_co2e_grams_per_kwh", "carbon_unattributed_energy", "carbon_idle_energy")
        self._name("ratios", minute, [labels(f"region:{ratio}:ratio1h", place) for ratio in ratios])

    def write(self, window: Window, paid: Paid) -> None:
        """Write a window of the leaf, a multiple of an hour."""
        self._write_power(window, paid)
        self._write_increases(window, paid)
        self._use(window, paid)
        minutes = np.arange(window.first, window.first + window.steps, _EVERY)
        hours: dict[str, Floats] = {}
        for value, at in _VALUES.items():
            for name in (*_LENGTHS, _MONTH):
                rows = self._window(at, name, minutes)
                self._write_window(value, name, rows, window.first)
                hours.setdefault(value, rows)  # the first is of an hour
            self._write_hourly(value, hours[value], window.first)
            self._write_spaces(value, hours[value], window.first)
        self._write_top(hours, window.first)
        kwh, grams = hours["carbon_job_energy_kwh"], hours["carbon_job_co2e_grams"]
        total = np.maximum(kwh.sum(axis=0), 1e-12)
        self._shelves["ratios"].put(
            np.stack((grams.sum(axis=0) / total, kwh[-1] / total, kwh[-2] / total)), window.first // _EVERY
        )

    def _write_power(self, window: Window, paid: Paid) -> None:
        jobs = np.sum(list(paid.watts.values()), axis=0)[window.lead :].T
        since, ended = presence(self._block_runs)
        self._shelves["power"].put(np.ascontiguousarray(jobs), window.first, since, ended + LINGER)
        kinds = [window.watts[window.lead :, :, devices].sum(axis=(1, 2)) for devices in KINDS.values()]
        total = jobs.sum(axis=0)
        self._shelves["total power"].put(np.stack((*kinds, total, total)), window.first)

    def _write_increases(self, window: Window, paid: Paid) -> None:
        """By region, and by namespace without the reserved names: totals of a range are read of these in no time."""
        teams = np.array([run.team for run in paid.runs])
        for value, spent in zip(_VALUES, (paid.kwh, paid.grams), strict=True):
            gained = increase(spent, window.lead)
            jobs = gained[:, : len(teams)]
            rows = [gained.sum(axis=1), *(jobs[:, teams == team].sum(axis=1) for team in self._some_teams())]
            self._shelves[f"{value} increase"].put(np.stack(rows), window.first)

    def _write_window(self, value: str, name: str, rows: Floats, first: int) -> None:
        there = self._there[name]
        since, last = self._bounds(name)
        self._shelves[f"{value}:{name}"].put(rows[there], first // _EVERY, since[there], last[there])
        if levels := len(_TOTALS.get(name, ())):
            self._shelves[f"total {value}:{name}"].put(np.tile(rows.sum(axis=0), (levels, 1)), first // _EVERY)

    def _write_hourly(self, value: str, hours: Floats, first: int) -> None:
        there = self._there[_HOURLY]
        since, last = self._bounds(_HOURLY)
        rows = np.ascontiguousarray(hours[there, :: _HOUR // _EVERY])
        self._shelves[f"{value}:{_HOURLY}"].put(rows, first // _HOUR, since[there], last[there])

    def _write_top(self, hours: dict[str, Floats], first: int) -> None:
        """Hour by hour, for it is others each time; without the reserved names."""
        there = self._there[_HOURLY][self._teams[self._there[_HOURLY]] >= 0]
        since, last = (bound[there] for bound in self._bounds(_HOURLY))
        grams = hours["carbon_job_co2e_grams"][there, :: _HOUR // _EVERY]
        for column in range(grams.shape[1]):
            hour = first // _HOUR + column
            ranked = np.where((since <= hour) & (hour <= last), grams[:, column], -np.inf)
            chosen = np.isin(np.arange(len(there)), np.argsort(-ranked)[:_TOP]) & np.isfinite(ranked)
            at = np.where(chosen, hour, hour + 9)  # beyond the one step that is written
            for value, rows in hours.items():
                row = np.ascontiguousarray(rows[there, column * (_HOUR // _EVERY)][:, None])
                self._shelves[f"top {value}:{_HOURLY}"].put(row, hour, at, at)

    def _write_spaces(self, value: str, hours: Floats, first: int) -> None:
        """By namespace; the reserved names have none."""
        teams = [*self._some_teams(), -1]
        rows = np.stack([hours[self._teams == team].sum(axis=0) for team in teams])
        self._shelves[f"namespace {value}"].put(rows, first // _EVERY)

    def _begin_window(self, minute: int, value: str, window: str) -> None:
        """Name the jobs that have a value of this window somewhere in the block."""
        since, last = self._bounds(window)
        every = _HOUR if window == _HOURLY else _EVERY
        begin = minute // every
        self._there[window] = there = np.flatnonzero((since < begin + BLOCK_MINUTES // every) & (last + 1 >= begin))
        named = [labels(f"job:{value}:{window}", self._site.place, job) for job in self._jobs(there)]
        self._name(f"{value}:{window}", minute, named)

    def _jobs(self, rows: Integers) -> list[dict[str, str]]:
        """Labels of the jobs in these rows."""
        jobs = [*map(self._site.job, self._runs), *({"job_name": name} for name in RESERVED)]
        return [jobs[row] for row in rows.tolist()]

    def _bounds(self, window: str) -> tuple[Integers, Integers]:
        """The first and the last evaluation that finds a point of each job in the window."""
        if window == _MONTH:  # of hours, of which a week forgets none
            return -(-self._first // _HOUR) * _HOUR // _EVERY, np.full(len(self._last), 1 << 40)
        if window == _HOURLY:
            return -(-self._first // _HOUR), (self._last + _HOUR - 1) // _HOUR
        return -(-self._first // _EVERY), (self._last + _LENGTHS[window] - 1) // _EVERY

    def _use(self, window: Window, paid: Paid) -> None:
        """Add to what was used by each point; that of minute 0 has nothing, for counters begin there."""
        rows = [*(self._row[run.number] for run in paid.runs), *range(len(self._runs), len(self._teams))]
        begin, points = window.first // _POINT, window.steps // _POINT
        first = window.lead + 1 - _POINT
        for used, values in zip(self._used, (paid.kwh, paid.grams), strict=True):
            spent = values[first : first + window.steps].reshape(points, _POINT, -1).sum(axis=1)
            used[:, begin : begin + points] = used[:, begin - 1 : begin] if begin else 0.0
            used[rows, begin : begin + points] += np.cumsum(spent, axis=0).T

    def _window(self, at: int, name: str, minutes: Integers) -> Floats:
        if name == _MONTH:
            return np.asarray(self._used[at][:, minutes // _HOUR * (_HOUR // _POINT)])
        points = minutes // _POINT
        return np.asarray(
            self._used[at][:, points] - self._used[at][:, np.maximum(points - _LENGTHS[name] // _POINT, 0)]
        )

    def _some_teams(self) -> list[int]:
        return sorted(set(self._teams.tolist()) - {-1})

    def _name(self, shelf: str, minute: int, named: Sequence[Labels]) -> None:
        minutes = _HOUR if shelf.endswith(_HOURLY) else 1 if shelf.endswith(("power", "increase")) else _EVERY
        self._shelves.setdefault(shelf, Shelf(self._week, 60 * minutes)).name(minute, named)
