"""Counters in closed form: what a job, or a device, had used and emitted at any moment of the history.

Closed forms need no state, so that each day of the history can be written alone. `truth` knows nothing of this module.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from deploy.demo.cluster import IDLE, UNATTRIBUTED, Scenario, Use, Window
from deploy.demo.grid import HALF_HOUR, intensity, zone

__all__ = ["JOULES_PER_KWH", "Account", "Life", "lives", "visible"]

JOULES_PER_KWH = 3.6e6
LINGER, RETAIN = 300.0, 86400.0
"""Seconds for which the exporter goes on to show a job that has ended, and for which it keeps its totals."""


class Account:
    """What one job used of one device. Its uses follow each other."""

    def __init__(self, uses: Iterable[Use], region: str, start: float) -> None:
        """`start` is the Unix time of the history's start."""
        self._uses = sorted(uses, key=lambda use: use.start)
        self._starts = [use.start for use in self._uses]
        self._joules_before = [0.0, *accumulate(use.joules(use.end) for use in self._uses)]
        self._region, self._start = region, start

    def joules(self, t: float) -> float:
        """Energy up to `t`."""
        use = bisect_right(self._starts, t) - 1
        return 0.0 if use < 0 else self._joules_before[use] + self._uses[use].joules(t)

    def grams(self, t: float) -> float:
        """CO2e up to `t`, priced half hour by half hour, the site's overhead included."""
        use = bisect_right(self._starts, t) - 1
        if use < 0:
            return 0.0
        grams, before = self._priced
        return before[use] + grams[use].at(t)

    @cached_property
    def _priced(self) -> tuple[list[_Grams], list[float]]:
        """The emissions of each use, and of all before it."""
        grams = [_Grams(use, self._region, self._start) for use in self._uses]
        return grams, [0.0, *accumulate(one.at(use.end) for use, one in zip(self._uses, grams, strict=True))]


class _Grams:
    """The emissions of one use, from a table of what they were at each full half hour."""

    def __init__(self, use: Use, region: str, start: float) -> None:
        self._use, self._shift = use, start % HALF_HOUR
        self._first = int((use.start + self._shift) // HALF_HOUR)
        count = int((use.end + self._shift) // HALF_HOUR) - self._first + 1
        self._edges = [use.joules(self._edge(n)) for n in range(count)]
        unix = (start - self._shift + (self._first + n) * HALF_HOUR for n in range(count))
        self._prices = [intensity(region, each) * zone(region).pue / JOULES_PER_KWH for each in unix]
        parts = (
            (after - before) * price
            for before, after, price in zip(self._edges, self._edges[1:], self._prices, strict=False)
        )
        self._before = [0.0, *accumulate(parts)]

    def at(self, t: float) -> float:
        n = int((min(max(t, self._use.start), self._use.end) + self._shift) // HALF_HOUR) - self._first
        return self._before[n] + (self._use.joules(t) - self._edges[n]) * self._prices[n]

    def _edge(self, n: int) -> float:
        return (self._first + n) * HALF_HOUR - self._shift


@dataclass(frozen=True, slots=True)
class Life:
    """A job on a node while the exporter remembers it: its counters begin at 0 once."""

    job: str
    namespace: str
    seen: tuple[Window, ...]
    """When it ran; a job that comes back within a day goes on."""
    accounts: dict[str, Account]
    """By device."""

    @property
    def reserved(self) -> bool:
        """Whether it is nobody's: always shown."""
        return self.job in {IDLE, UNATTRIBUTED}

    def touches(self, window: Window) -> bool:
        """Whether it is shown at any time in the window."""
        return self.reserved or any(start <= window[1] and end + LINGER >= window[0] for start, end in self.seen)


def lives(scenario: Scenario, node: str) -> list[Life]:
    """All lives of all jobs on a node."""
    region = next(each.region for each in scenario.nodes if each.name == node)
    uses: dict[tuple[str, str], list[Use]] = defaultdict(list)
    for use in scenario.uses:
        if use.node == node:
            uses[use.job, use.namespace].append(use)
    found: list[Life] = []
    for (job, namespace), its_uses in uses.items():
        ran = sorted((each.start, each.end) for each in scenario.jobs if each.name == job and node in each.nodes)
        for seen in _remembered(ran) if ran else [((0.0, scenario.seconds),)]:
            devices: dict[str, list[Use]] = defaultdict(list)
            for use in its_uses:
                if seen[0][0] <= use.start and use.end <= seen[-1][1]:
                    devices[use.device].append(use)
            accounts = {device: Account(one, region, scenario.start) for device, one in devices.items()}
            found.append(Life(job, namespace, seen, accounts))
    return found


def _remembered(ran: Sequence[Window]) -> list[tuple[Window, ...]]:
    """Appearances together that lie less than what totals are kept for apart."""
    groups: list[list[Window]] = []
    for window in ran:
        if groups and window[0] - groups[-1][-1][1] <= RETAIN:
            groups[-1].append(window)
        else:
            groups.append([window])
    return [tuple(group) for group in groups]


def visible(life: Life, t: float, step: float) -> float | None:
    """The moment whose totals a scrape at `t` shows of a life, None if it is not shown.

    That is `t`, but at the first look after the job began its start: a counter is seen at 0 before it grows.
    """
    if life.reserved:
        return t
    for start, end in life.seen:
        if start <= t <= end + LINGER:
            return start if t - start < step else t
    return None
