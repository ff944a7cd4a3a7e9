"""The course of a job: when it was there, and what each window of that time used and emitted."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from carbon_exporter.report.client import PrometheusClient, Series
from carbon_exporter.report.counters import ENERGY, Counters, Selection
from carbon_exporter.report.facts import Slice
from carbon_exporter.report.stretch import DAY, Stretch, in_parts, pieces

__all__ = ["Course", "DeviceKey", "Presence", "first_and_last", "presence"]

DeviceKey = tuple[str, str, str, str, str]
"""Cluster, instance, device, kind, region; what is not known of it is empty."""
WINDOW = 300
CAUGHT_UP = 3600
"""Seconds of a pause whose energy the counters tell afterwards: the look-back of the rules."""
FINE_WINDOW = 60
FINE_UP_TO = 4 * 3600
"""Seconds up to which a job's course is drawn by the minute."""


@dataclass(frozen=True, slots=True)
class Presence:
    """When a job was there, to five minutes."""

    begin: int
    end: int
    unseen_seconds: int
    """In between, nothing was stored of it."""
    days: tuple[Stretch, ...]
    """Pieces of a day at most that cover the time when it was there."""


def presence(client: PrometheusClient, counters: Counters, begin: int, end: int) -> Presence | None:
    """When the job was there; None if it never was. Days first: a year without it costs one question."""
    busy = [window for day in pieces(begin, end, DAY, 3650 * DAY) for window in _present(client, counters, day)]
    parts = [piece for day in busy for piece in pieces(day.begin, day.end, WINDOW)]
    windows = sorted((one for piece in parts for one in _present(client, counters, piece)), key=_end)
    if not windows:
        return None
    first, last = windows[0].begin, windows[-1].end
    seconds = math.fsum(window.seconds for window in windows)
    step = counters.finest or (FINE_WINDOW if last - first <= FINE_UP_TO else WINDOW)
    days = tuple(piece for run in _runs(windows) for piece in pieces(run.begin, run.end, step))
    return Presence(first, last, int(last - first - seconds), days)


def _end(stretch: Stretch) -> int:
    return stretch.end


def _present(client: PrometheusClient, counters: Counters, stretch: Stretch) -> Iterator[Stretch]:
    def ask(part: Stretch) -> list[Series]:
        return client.windows(counters.presence(part.step), part.begin, part.end, part.step)

    for part, answer in in_parts(stretch, ask):
        for series in answer:
            for at, _ in series.points:
                yield Stretch(round(at) - part.step, round(at), part.step)


def _runs(windows: list[Stretch]) -> list[Stretch]:
    """Windows that touch, joined."""
    runs: list[Stretch] = []
    for window in windows:
        if runs and runs[-1].end == window.begin:
            runs[-1] = Stretch(runs[-1].begin, window.end, WINDOW)
        else:
            runs.append(window)
    return runs


@dataclass(slots=True)
class Course:
    """Adds up windows: by device, by region, and in order of time."""

    energy: dict[DeviceKey, list[float]] = field(default_factory=lambda: defaultdict(list))
    grams: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _slices: dict[tuple[int, int], tuple[dict[str, list[float]], list[float]]] = field(default_factory=dict)

    def add(self, client: PrometheusClient, counters: Counters, stretch: Stretch) -> dict[DeviceKey, float]:
        """Ask about a stretch; returns its energy by device."""
        new: dict[DeviceKey, list[float]] = defaultdict(list)
        for part, rows in in_parts(stretch, lambda part: _ask(client, counters.energy(part.step), part)):
            for series in rows:
                cluster, instance, device, kind, region = map(
                    series.label, ("cluster", "instance", "device", "kind", "region")
                )
                new[cluster, instance, device, kind, region] += [value for _, value in series.points]
                for at, value in series.points:
                    self._slice(at, part.step)[0][kind].append(value)
        for part, rows in in_parts(stretch, lambda part: _ask(client, counters.grams(part.step), part)):
            for series in rows:
                self.grams[series.label("region")] += [value for _, value in series.points]
                for at, value in series.points:
                    self._slice(at, part.step)[1].append(value)
        sums = {key: math.fsum(values) for key, values in new.items()}
        for key, value in sums.items():
            self.energy[key].append(value)
        return sums

    def slices(self) -> tuple[Slice, ...]:
        """In order of time. One after a pause that counters catch up is as long as the pause: so its power is true."""
        made: list[Slice] = []
        for (end, step), (kinds, grams) in sorted(self._slices.items()):
            begin = end - step
            if made and begin - made[-1].end < CAUGHT_UP:
                begin = round(made[-1].end)
            energy = tuple((kind, math.fsum(values)) for kind, values in sorted(kinds.items()))
            made.append(Slice(begin, end, energy, math.fsum(grams)))
        return tuple(made)

    def _slice(self, at: float, step: int) -> tuple[dict[str, list[float]], list[float]]:
        return self._slices.setdefault((round(at), step), (defaultdict(list), []))


def _ask(client: PrometheusClient, expression: str, part: Stretch) -> list[Series]:
    return client.windows(expression, part.begin, part.end, part.step)


def first_and_last(
    client: PrometheusClient, selection: Selection, slices: tuple[Slice, ...], begin: int
) -> tuple[float, float, bool]:
    """When the job was first seen, when its energy last grew, and whether it was there before `begin`.

    To the scrape: by the raw samples of the first and the last window.
    """
    first = slices[0]
    before = any(client.instant(f"count(last_over_time({selection.of(ENERGY, WINDOW)}))", begin))
    samples = _samples(client, selection, first.end, first.end - first.begin)
    began = min((at for series in samples for at, _ in series.points), default=first.begin)
    grew = [one for one in slices if any(kwh > 0 for _, kwh in one.energy_kwh)]
    if not grew:
        return (begin if before else began), slices[-1].end, before
    samples = _samples(client, selection, grew[-1].end, grew[-1].end - grew[-1].begin + WINDOW)
    ended = max((_last_growth(series) for series in samples), default=0.0) or grew[-1].end
    return (begin if before else began), ended, before


def _samples(client: PrometheusClient, selection: Selection, at: float, window: float) -> list[Series]:
    return client.instant(selection.of(ENERGY, window), at)


def _last_growth(series: Series) -> float:
    pairs = zip(series.points, series.points[1:], strict=False)
    return max((now[0] for before, now in pairs if now[1] > before[1]), default=0.0)
