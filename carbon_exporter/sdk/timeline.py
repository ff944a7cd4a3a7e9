"""One device's energy that is mine, as a function of where an edge stands: inside, beyond the newest point, before all.

The abscissa is own CPU seconds for the own part of a processor, monotonic seconds for all else.

*Inside* an interval the energy is a straight line, with a knee where a step of the load shows: if the power was level
before it, and that of the interval lies between those before and after, it stepped where the energy says. *Beyond* the
newest point the last slope is drawn out, or the level to which the load is stepping, if it has been there before and
such guesses were good lately.

The bounds hold in 95 of 100 cases, and assume nothing of the shape of the load but that it goes on as it has been:

- Inside, at the fraction `v`: `2·√(v·(1-v))` times the smaller one of the changes of slope before and after, times the
  interval. What happens within is seen from both sides; a short pulse may be anywhere in it.
- Beyond: how wrong this same guess was over the last 300 intervals about as long, at 1/16 to 15/16 of an interval and
  over two, is counted; what 96 of 100 stayed under, times the distance. Until there are 30, a change as large as the
  slope itself is thought possible.
- Everywhere: the slope times the meter's slack, by which the points themselves may stand off.

The two edges of a span are wrong independently of each other: their bounds add up as squares. For 60 and 300 W in turns
of 0.95 s, and a counter that is renewed every 0.1 s and known to within 5 ms, the median over 20 runs of 200 spans is
(benchmarks/spans_accuracy.py, where a processor's figures are too):

| span  | off at exit, 50 and 95 of 100 | settled, 95 of 100 | beyond bound | bound over error of 95 of 100 |
|-------|-------------------------------|--------------------|--------------|-------------------------------|
| 5 s   | 0.09 %, 0.5 %                 | 0.18 %             | 2.0 %, 0 %   | 1.9, settled 1.7              |
| 1 s   | 0.5 %, 3.3 %                  | 1.2 %              | 1.5 %, 0 %   | 1.4, settled 1.2              |
| 0.3 s | 1.5 %, 8.5 %                  | 3.0 %              | 2.5 %, 0 %   | 1.7, settled 1.4              |
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from math import frexp, sqrt
from typing import NamedTuple

from carbon_exporter.sdk.lately import Lately

__all__ = ["Known", "Timeline"]

KEEP_POINTS = 600
"""A minute at ten points a second."""
HORIZONS = 8
"""At so many distances within an interval guesses are judged, one an interval."""
LEVEL = 0.25
"""Two slopes are level if they differ by less than this part of the step that follows."""
DOUBT = 3.0
"""Changes of slope of less than so many times what the slack makes of it are no steps."""
ROUNDING = 1e-6
"""Seconds by which the start of an interval may differ from the end of the last one without there being a gap."""
FADING = 0.9
"""How much of the trust in guessed levels is left at the next guess."""


Known = tuple[float, float, float]
"""What is known of one moment, in joules.

- The energy since the timeline's zero; negative before its first point, where the first slope was drawn backwards.
- How far off that is, in 95 of 100 cases.
- What may have been used until then and is not in the first, for nobody measured or whose it was is not sure.

A bare tuple: five of them are made at each edge, on the thread that trains.
"""


class _Tail(NamedTuple):
    """The newest point, and how to go on from it. Replaced as a whole, so that readers see one state."""

    x: float
    joules: float
    missing: float
    slope: float
    noise: float
    interval: float
    change: float
    """Of the slope within one interval, at most, in 96 of 100 cases."""
    change_over_two: float
    reach: float
    """No further than here is the slope drawn out."""


class _Outlook:
    """The last slopes, what comes next, and how good that guess was lately."""

    __slots__ = ("_drawn", "_drawn_before", "_guess", "_lately", "_levels", "_slopes", "_trust", "_turn")

    def __init__(self) -> None:
        self._lately: dict[int, tuple[Lately, Lately]] = {}
        self._slopes: tuple[float, ...] = ()
        """The last three at most."""
        self._drawn = self._drawn_before = 0.0
        """What was drawn out after the last one, and after the one before."""
        self._levels: deque[float] = deque(maxlen=8)
        self._guess: float | None = None
        self._trust = 0.0
        self._turn = 0

    def lately(self, interval: float) -> tuple[Lately, Lately]:
        """How wrong guesses were within an interval about so long (as a power of two), and over two of them."""
        length = frexp(interval)[1]
        found = self._lately.get(length)
        if found is None:
            found = self._lately[length] = Lately(), Lately()
        return found

    def interrupt(self) -> None:
        """What follows is no continuation."""
        self._slopes = ()
        self._guess = None

    def learn(self, slope: float, doubt: float, interval: float) -> tuple[float, tuple[float, float] | None, float]:
        """The next slope, of which changes of less than `doubt` mean nothing.

        Returns how much it differs from the last one; where in the last interval, from 0 to 1, the load stepped, and
        the slope until there; and the slope to draw out.
        """
        slopes = self._slopes
        if not slopes:
            change, knee = self.lately(interval)[0].most(slope), None
        else:
            change, knee = abs(slope - slopes[-1]), self._knee(slope, doubt)
            if len(slopes) > 1:
                self._judge(slope, doubt, knee, interval)
        self._slopes = slopes = (*slopes[-2:], slope)
        self._drawn_before = self._drawn
        self._drawn = slope if len(slopes) < 3 else self._next(slopes[0], slopes[1], slope, doubt)  # noqa: PLR2004
        return change, knee, self._drawn

    def _knee(self, slope: float, doubt: float) -> tuple[float, float] | None:
        if len(self._slopes) < 3:  # noqa: PLR2004 - two that are level and the one that is mixed
            return None
        earlier, before, mixed = self._slopes
        if not _steps(earlier, before, slope, doubt) or not 0.0 < (slope - mixed) / (slope - before) < 1.0:
            return None
        return (slope - mixed) / (slope - before), before

    def _judge(self, slope: float, doubt: float, knee: tuple[float, float] | None, interval: float) -> None:
        """How wrong the slope drawn over the last interval was, as far as one of the horizons, and over two."""
        drawn, last = self._drawn_before, self._slopes[-1]
        self._turn = (self._turn + 3) % HORIZONS
        horizon = (self._turn + 0.5) / HORIZONS
        off = abs(last - drawn)
        if knee is not None:
            at, before = knee
            mean = before if horizon < at else (at * before + (horizon - at) * slope) / horizon
            off = abs(mean - drawn)
        elif off > doubt and abs(slope - drawn) < off / 2:
            off /= sqrt(horizon)  # a short pulse: all of it may have been before the horizon
        within, over_two = self.lately(interval)
        within.add(off)
        over_two.add(abs((slope + last) / 2 - drawn))

    def _next(self, earlier: float, before: float, slope: float, doubt: float) -> float:
        """The last slope; at the first sign of a step, the level seen lately beyond it, if that has proved right."""
        if self._guess is not None:
            self._trust = FADING * self._trust + abs(slope - before) - abs(slope - self._guess)
            self._guess = None
        if _steps(earlier, before, slope, doubt):
            beyond = (level for level in reversed(self._levels) if (level - slope) * (slope - before) > 0)
            self._guess = next(beyond, None)
            self._levels.append(before)
        return slope if self._guess is None or self._trust <= 0 else self._guess


def _steps(earlier: float, before: float, after: float, doubt: float) -> bool:
    """Whether the load was level and then stepped."""
    step = abs(after - before)
    return step > doubt and abs(before - earlier) < LEVEL * step


class _Point(NamedTuple):
    """What is known at the end of an interval."""

    joules: float
    missing: float
    noise: float
    hidden: float
    """How much more or less it would be with the slope of the last interval, or of the next if that is nearer."""
    knee: tuple[float, float] | None = None
    """Where in it, from 0 to 1, the load stepped, and the joules until then."""


class _Points:
    """Lists that only grow. `x` grows last, so that a reader finds the point of all it sees."""

    __slots__ = ("known", "x")

    def __init__(self, x: Iterable[float] = (), known: Iterable[_Point] = ()) -> None:
        self.x = list(x)
        self.known = list(known)

    def append(self, x: float, point: _Point) -> None:
        """One more."""
        self.known.append(point)
        self.x.append(x)

    def newest(self, count: int) -> _Points:
        """A copy of the last so many."""
        return _Points(self.x[-count:], self.known[-count:])

    def inside(self, i: int, x: float) -> Known:
        """What is known at `x` in the interval that ends at point `i`."""
        start = self.x[i - 1]
        begun, lost = self.known[i - 1][:2]
        joules, missing, noise, hidden, knee = self.known[i]
        v = (x - start) / (self.x[i] - start)
        more = joules - begun
        if knee is None:
            more *= v
        elif v < knee[0]:
            more = knee[1] * v / knee[0]
        else:
            more = knee[1] + (more - knee[1]) * (v - knee[0]) / (1.0 - knee[0])
        return begun + more, 2.0 * sqrt(v * (1.0 - v)) * hidden + noise, lost + v * (missing - lost)


class Timeline:
    """Points of energy. One writer; `at` may be called from any thread and takes no lock."""

    __slots__ = ("_cold", "_first_slope", "_linked", "_outlook", "_points", "_resumed", "_tail", "_zero")

    def __init__(self, *, cold: bool) -> None:
        """`cold`: nobody watched before the first point. Otherwise nothing was used before it."""
        self._cold = cold
        self._outlook = _Outlook()
        self._points = _Points()
        self._tail: _Tail | None = None
        self._zero = math.inf
        self._first_slope = 0.0
        self._linked = False
        self._resumed = False

    def at(self, x: float) -> Known:
        """What is known of the moment at `x`."""
        tail = self._tail
        if tail is None:
            return 0.0, 0.0, 0.0
        if x >= tail.x:
            return _beyond(tail, x)
        points = self._points
        i = bisect_right(points.x, x)
        if i == 0:
            return self._before(points, x)
        return points.inside(i, x) if i < len(points.x) else _back(tail, x)

    def between(self, start: float, end: float) -> tuple[float, float, float, float]:
        """Joules from `start` to `end`, how far off each of these is, and what may be missing between them."""
        tail = self._tail
        if tail is not None and start >= tail.x:  # nothing was read since, as of most short blocks
            x, _, _, slope, noise, interval, change, _, reach = tail
            if end - x <= interval and end <= reach:
                return slope * (end - start), change * (start - x) + noise, change * (end - x) + noise, 0.0
        before, off, lost = self.at(start)
        joules, bound, missing = self.at(end)
        return joules - before, off, bound, missing - lost

    def add(
        self,
        start: float,
        end: float,
        joules: float,
        *,
        slack: float,
        slope: float | None = None,
        interval: float = 0.0,
        unsure: float = 0.0,
    ) -> None:
        """What was used from `start` to `end`.

        Args:
            start: the last point; if it is later by more than `slack`, the energy between is missing.
            end: not before `start`; equal to it where the abscissa stood still.
            joules: at least 0.
            slack: how far `start` and `end` may be off, in units of the abscissa.
            slope: joules by unit, where that is better known than from `joules / (end - start)`.
            interval: how far the abscissa can go until the next point; `end - start` if 0.
            unsure: joules of these that may be somebody else's, or as many more that may be mine.
        """
        newest = self._points.x[-1] if self._points.x else start
        if start - newest <= slack + ROUNDING:
            start = min(newest, end)
        length = end - start
        if slope is None:
            slope = joules / length if length > 0 else 0.0
        if self._tail is None:
            self._zero, self._first_slope = start, slope
            self._points.append(start, _Point(0.0, 0.0, slope * slack, 0.0))
        elif start > newest:
            self._bridge(self._tail, start, slope, 2.0 * (interval or length))
        self._resumed = False
        self._append(end, joules, slope, slope * slack, interval or length, unsure=unsure)

    def wake(self, x: float) -> None:
        """Nobody has asked between the last point and `x`: energy until the next one is not missing but unknown.

        Edges around `x` are drawn out from the last slope, which may be wrong by all of it, until the next interval
        tells with what power the work began: it is then drawn backwards to the last point.
        """
        tail = self._tail
        if tail is not None and x >= tail.x:
            joules = tail.joules + tail.slope * (x - tail.x)
            self._tail = tail._replace(
                x=x, joules=joules, change=tail.slope, change_over_two=tail.slope, reach=math.inf
            )
            self._resumed = True

    def hold(self, reach: float) -> None:
        """The meter is silent: beyond `reach` the energy stays what it is there, and what is missing grows."""
        if self._tail is not None and self._tail.reach == math.inf:
            self._tail = self._tail._replace(reach=max(reach, self._tail.x))

    def _before(self, points: _Points, x: float) -> Known:
        """Before the first point that is kept: if it is the very first, the slope is drawn backwards."""
        if points.x[0] > self._zero:
            return points.known[0].joules, points.known[0].joules, points.known[0].missing
        drawn = self._first_slope * (self._zero - x) if self._cold else 0.0
        return -drawn, drawn + points.known[0].noise, 0.0

    def _bridge(self, tail: _Tail, start: float, slope: float, back: float) -> None:
        """From the last point to `start`, of which nothing was told; after a pause edges may lie `back` before it."""
        points = self._points
        total, missing, distance = points.known[-1].joules, points.known[-1].missing, start - points.x[-1]
        if self._resumed:
            drawn = slope * min(distance, back)
            total += slope * distance
            if back < distance:
                points.append(start - back, _Point(total - drawn, missing, 0.0, slope * distance))
            points.append(start, _Point(total, missing, 0.0, drawn / 2))
        else:
            missing += max(slope, tail.slope) * distance
            points.append(start, _Point(total, missing, 0.0, 0.0))
        self._outlook.interrupt()
        self._linked = False

    def _append(self, end: float, joules: float, slope: float, noise: float, interval: float, *, unsure: float) -> None:
        """One more interval, from the last point on; it tells more of the one before it."""
        points, outlook = self._points, self._outlook
        x, known = points.x, points.known
        passed = end - x[-1]  # of `interval`, a processor's own time passes as much of it as this process ran
        doubt = DOUBT * noise / passed if passed > 0 else math.inf
        change, knee, drawn = outlook.learn(slope, doubt, interval)
        total, missing, before, hidden, _ = known[-1]
        if self._linked:
            length = x[-1] - x[-2]
            bent = None if knee is None else (knee[0], min(total - known[-2].joules, knee[0] * knee[1] * length))
            if bent is not None or change * length < hidden:
                known[-1] = _Point(total, missing, before, min(hidden, change * length), bent)
        total += joules
        missing += unsure
        self._linked = passed > 0
        if self._linked or joules > 0:
            points.append(max(end, x[-1]), _Point(total, missing, noise, change * max(0.0, passed)))
        if len(x) > 2 * KEEP_POINTS:
            self._points = points = points.newest(KEEP_POINTS)
        within, over_two = outlook.lately(interval)
        self._tail = _Tail(
            points.x[-1], total, missing, drawn, noise, interval, within.most(slope), over_two.most(slope), math.inf
        )


def _back(tail: _Tail, x: float) -> Known:
    """Between the last point and where the work woke up again."""
    drawn = tail.slope * (tail.x - x)
    return tail.joules - drawn, drawn + tail.noise, tail.missing


def _beyond(tail: _Tail, x: float) -> Known:
    """The last slope, drawn out; beyond two intervals nothing is known of how it changes."""
    at, joules, missing, slope, noise, interval, change, over_two, reach = tail
    lost = 0.0
    if x > reach:
        lost, x = x - reach, reach
    ahead = x - at
    beyond = ahead - interval
    if beyond > 0.0:
        change += (over_two - change) * (beyond / interval if beyond < interval else 1.0)
        if beyond > interval:
            noise += slope * (beyond - interval)
    return joules + slope * ahead, change * ahead + noise, missing + slope * lost
