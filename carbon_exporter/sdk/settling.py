"""Settling: on the sampler's thread, laps get their final figures and the account its entries.

Once a second the account is told what open laps have used so far, so that a process that is killed has lost little.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from carbon_exporter.carbon.spans import SpanAccount, SpanEntry, SpanKey, Trace
from carbon_exporter.jobs.base import Job
from carbon_exporter.sdk.base import Edge, Identity, Outlet, Price, Sum, Tally
from carbon_exporter.sdk.lanes import Lanes, Moment, Part
from carbon_exporter.sdk.laps import Lap
from carbon_exporter.sdk.reckoning import Figures, Fold, Meter, figures_of
from carbon_exporter.sensors.base import Kind
from carbon_exporter.units import Grams, Joules, grams_emitted

__all__ = ["Odometer", "Settler"]

PROGRESS_SECONDS = 0.85
"""Open laps are told of when so much has passed: at every second tick of two a second, none of which is on the dot."""
PATIENCE_SECONDS = 12.0
"""A lap whose readings have not come this long after its end is settled with what there is."""


class Odometer(Protocol):
    """What is asked of the odometer here."""

    def tally(self, edge: Edge) -> Tally:
        """The process's energy until an edge."""

    def between(self, start: Moment, end: Moment) -> Sum:
        """The same from one edge to another."""

    @property
    def settled_until(self) -> float:
        """Edges before it are final."""

    def settled_edge(self) -> Edge:
        """The newest settled moment."""


class Settler:
    """`figures` is for any thread; all else for the sampler's, or for the last one when that has ended."""

    def __init__(
        self,
        *,
        lanes: Lanes,
        odometer: Odometer,
        account: SpanAccount,
        outlet: Outlet | None,
        identity: Callable[[], Identity],
        price: Callable[[], Price | None],
        meters: Callable[[], Mapping[str, Meter]],
        boards: Callable[[Lap], frozenset[str] | None] = lambda _: None,
        release: Callable[[Lap], None] = lambda _: None,
        now: Callable[[], Moment] = lambda: (time.monotonic(), time.process_time()),
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Settles nothing yet.

        Args:
            lanes: of the laps.
            odometer: what the process used.
            account: what is told of laps.
            outlet: told that the account has changed.
            identity: whose laps they are.
            price: what energy costs the air now.
            meters: kind and quality of each device.
            boards: which boards a lap counts; None for all.
            release: called with each settled lap that held the sampler.
            now: the process's clocks.
            wall: Unix seconds.
        """
        self._lanes, self._odometer, self._account, self._outlet = lanes, odometer, account, outlet
        self.identity, self.price, self._meters, self._boards = identity, price, meters, boards
        self._release, self._now, self._wall = release, now, wall
        self._due = 0.0
        self._entries: dict[SpanKey, SpanEntry] = {}

    def figures(self, lap: Lap) -> Figures:
        """What a lap has cost until now, or until its end. What is not measured yet is drawn out."""
        plain = lap.plain
        if lap.figures is not None:
            return lap.figures
        if plain is not None:
            begun, left = plain
            return self._reckoned(lap, self._odometer.between(begun, left), left[0] - lap.began[0])
        if lap.ended is None and self._lanes.crowded:
            self._lanes.cut()
        with self._lanes.lock:
            fold, parts, since, end = lap.fold, list(lap.parts), lap.since, lap.ended
            alone = end is None and not self._lanes.crowded
        if lap.figures is not None:
            return lap.figures  # settled just now, and its parts are gone
        if alone:
            parts.append((since, self._now(), 1.0, 1.0))
        seconds = (end or self._now())[0] - lap.began[0]
        return self._reckoned(lap, self._folded(fold, parts).total(self._meters()), seconds)

    def tick(self, laps: Iterable[Lap], ended: deque[Lap]) -> None:
        """Settle what can be; from time to time tell of what is still open."""
        now = self._now()[0]
        if not ended and now < self._due and not self._entries:
            return
        until = self._odometer.settled_until
        waiting = []
        while ended:
            lap = ended.popleft()
            end = lap.ended[0] if lap.ended else now
            if end <= until or end < now - PATIENCE_SECONDS:
                self._settle(lap)
            else:
                waiting.append(lap)
        ended.extend(waiting)
        if now >= self._due:
            self._due = now + PROGRESS_SECONDS
            self._lanes.cut()
            for lap in laps:
                self._progress(lap)
        self._tell()

    def finish(self, laps: Iterable[Lap], ended: deque[Lap]) -> None:
        """The process ends: all laps get what there is."""
        while ended:
            self._settle(ended.popleft())
        for lap in laps:
            self._post(lap, self.figures(lap), ended=0)
        self._tell()

    def _settle(self, lap: Lap) -> None:
        figures = self.figures(lap)
        self._post(lap, figures, ended=1)
        lap.figures = figures._replace(grams=Grams(lap.grams), settled=True)
        lap.parts.clear()
        lap.fold = None
        while lap.parent is not None and lap.parent.ended is not None:
            lap.parent = lap.parent.parent  # what has ended is not kept by what came after it
        if lap.event is not None:
            lap.event.set()
        if lap.sampled:
            lap.sampled = False
            self._release(lap)

    def _progress(self, lap: Lap) -> None:
        """Fold what is settled of an open lap, and tell of it."""
        edge = self._odometer.settled_edge()
        with self._lanes.lock:
            parts, since, is_open, crowded = list(lap.parts), lap.since, lap.ended is None, self._lanes.crowded
        whole = len(parts)
        done = [part for part in (parts[:-1] if is_open and crowded else parts) if part[1][0] <= edge.at]
        rest: list[Part] = []
        if is_open and not crowded and len(done) == whole and since[0] < edge.at:
            rest = [(since, (edge.at, edge.cpu_seconds), 1.0, 1.0)]
        if not done and not rest:
            return
        fold = self._folded(lap.fold, [*done, *rest])
        with self._lanes.lock:
            if len(done) == whole and (lap.since is not since or lap.ended is not None):
                return  # it changed meanwhile: the next time, then
            del lap.parts[: len(done)]
            lap.fold = fold
            if rest:
                lap.since = rest[0][1]
            seconds = (rest or done)[-1][1][0] - lap.began[0]
        self._post(lap, self._reckoned(lap, fold.total(self._meters()), seconds), ended=0)

    def _folded(self, fold: Fold | None, parts: Iterable[Part]) -> Fold:
        """A new fold with these parts added."""
        fold = fold.copy() if fold else Fold()
        meters = self._meters()
        for part in parts:
            fold.add(part, self._tally, meters)
        return fold

    def _tally(self, moment: Moment) -> Tally:
        return self._odometer.tally(Edge(*moment))

    def _reckoned(self, lap: Lap, used: Sum, seconds: float) -> Figures:
        """A sum as figures; what was not posted yet is priced with the grid of now."""
        if lap.devices is not None and lap.kept is None:
            kept = self._boards(lap)
            lap.kept = kept if self._meters() else None  # before the meters are open, boards have no names
        posted, price = sum(lap.posted.values()), self.price()

        def grams(energy: float) -> Grams:
            more = energy - posted
            if price is None or more <= 0.0:
                return Grams(lap.grams)
            return Grams(lap.grams + grams_emitted(Joules(more), price.grams_per_kwh, price.pue))

        shares = (lap.cpu_shared, lap.rest_shared)
        return figures_of(used, self._meters(), lap.kept, shares=shares, seconds=seconds, price=grams)

    def _grams(self, joules: Joules) -> Grams:
        price = self.price()
        return grams_emitted(joules, price.grams_per_kwh, price.pue) if price else Grams(0.0)

    def _post(self, lap: Lap, figures: Figures, *, ended: int) -> None:
        """Tell the account what is new of a lap; what it has is never taken back."""
        more: dict[Kind, Joules] = {}
        for kind, joules in figures.kinds.items():
            more[kind] = Joules(max(0.0, joules - lap.posted.get(kind, 0.0)))
            lap.posted[kind] = max(joules, lap.posted.get(kind, 0.0))
        grams = self._grams(Joules(sum(more.values())))
        lap.grams += grams
        seconds = max(0.0, figures.seconds - lap.posted_seconds)
        lap.posted_seconds += seconds
        values = dict(lap.values)
        news = values if values != lap.posted_values or ended else {}
        lap.posted_values = values
        entry = SpanEntry(self._key(lap), more, grams, seconds, ended, news, self._trace(lap, figures, ended))
        known = self._entries.get(entry.key)
        self._entries[entry.key] = entry if known is None else _together(known, entry)

    def _key(self, lap: Lap) -> SpanKey:
        who, price = self.identity(), self.price()
        return SpanKey(Job(lap.job or who.job, who.namespace), price.region if price else "", lap.name, who.rank)

    def _trace(self, lap: Lap, figures: Figures, ended: int) -> Trace | None:
        if not ended or lap.trail is None or not lap.trail.trace_id:
            return None
        return Trace(lap.trail.trace_id, lap.trail.span_id, figures.energy, self._wall())

    def _tell(self) -> None:
        entries, self._entries = self._entries, {}
        for entry in entries.values():
            self._account.post(entry)
        if entries and self._outlet is not None:
            self._outlet.tell()


def _together(one: SpanEntry, other: SpanEntry) -> SpanEntry:
    """Two entries of one key as one."""
    kinds = one.joules.keys() | other.joules.keys()
    joules = {kind: Joules(one.joules.get(kind, 0.0) + other.joules.get(kind, 0.0)) for kind in kinds}
    return SpanEntry(
        one.key,
        joules,
        Grams(one.grams + other.grams),
        one.seconds + other.seconds,
        one.ended + other.ended,
        {**one.values, **other.values},
        other.trace or one.trace,
    )
