"""Does it hold at ten thousand nodes? A week of 10,000 nodes with 8 GPUs each, asked by a real Prometheus.

The recorded series of all nodes are there in full, as grafana/rules records them. The raw series, of 10,000 nodes too
many for one machine, are there for 75, 150 and 300 nodes, and the time of a raw query is extrapolated from these by a
straight line; over a day alone, for a week of raw samples is more than a Prometheus holds at once. Takes half an hour
and 25 GB of disk in the folder for temporary files; not asked unless it is named.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.cluster.names import Site
from benchmarks.cluster.raw import SECONDS, scrape
from benchmarks.cluster.recorded import record
from benchmarks.cluster.week import START, Week
from benchmarks.figure import Figure, Plan
from benchmarks.fleet_queries import Ask, fleet_board
from benchmarks.fleet_rules import groups
from benchmarks.stored import stored
from deploy.demo.server import Server

__all__ = ["Fit", "figures"]

_HOUR: Final = 60
_LIMIT_MS: Final = 1000.0
_NOBODY_REFUSED: Final = 2_000_000_000
"""Samples that a raw query may hold here, so that it is timed where Prometheus' default would refuse it."""
_BEYOND: Final = (1_000, 3_000, 10_000)


@dataclass(frozen=True, slots=True)
class _Size:
    clusters: int
    nodes: int
    """Of a cluster."""
    minutes: int
    raw: tuple[int, int, int]
    ranges: tuple[int, ...]
    """Seconds that the board shows."""

    @property
    def fleet(self) -> int:
        return self.clusters * self.nodes

    @property
    def end(self) -> float:
        """Unix time of the last minute."""
        return START + (self.minutes - 1) * 60


_FULL: Final = _Size(10, 1000, 168 * _HOUR, (75, 150, 300), (86_400, 604_800))
_QUICK: Final = _Size(2, 20, 8 * _HOUR, (5, 10, 20), (3_600,))


@dataclass(frozen=True, slots=True)
class Fit:
    """Seconds = fixed + each x nodes: a raw query reads every series, so this is a straight line."""

    fixed: float
    each: float
    off: float
    """By how much of a measured value the line misses it, at most."""

    @classmethod
    def of(cls, seconds: Mapping[int, float]) -> Fit:
        """Through seconds by nodes, by least squares; through 0 where it would begin below."""
        x, y = list(seconds), list(seconds.values())
        each, fixed = statistics.linear_regression(x, y)
        if fixed < 0 or each < 0:
            each, fixed = sum(a * b for a, b in seconds.items()) / sum(a * a for a in x), 0.0
        return cls(fixed, each, max(abs(fixed + each * a - b) / b for a, b in seconds.items()))

    def __call__(self, nodes: int) -> float:
        """Seconds at so many nodes."""
        return self.fixed + self.each * nodes


def figures(plan: Plan) -> Iterator[Figure]:
    """Series, samples and bytes of a node; the board's queries with rules and without; the rules themselves."""
    size = _QUICK if plan.quick else _FULL
    taken: dict[Ask, dict[int, float]] = {}
    rules: dict[str, dict[int, float]] = {}
    for nodes in size.raw:
        with _folder() as folder:
            with Week(folder, size.minutes) as week:
                scrape(Site(0), size.nodes, nodes, week)
            if nodes == size.raw[-1]:
                yield from _weight("raw", week, folder, nodes)
            with stored(folder, _NOBODY_REFUSED) as server:
                for ask in fleet_board(size.ranges[0]):
                    taken.setdefault(ask, {})[nodes] = _best(replace(ask, expression=ask.raw), server, size.end)
                for group in groups("leaf"):
                    rules.setdefault(group.name, {})[nodes] = _best(group, server, size.end)
    yield from _leaf_rules(rules, size)
    with _folder() as folder:
        with Week(folder, size.minutes) as week:
            runs = sum(record(Site(number), size.nodes, week) for number in range(size.clusters))
        yield from _weight("recorded", week, folder, size.fleet)
        yield Figure("runs in the time", (float(runs),), "", note=f"{size.fleet} nodes, {size.minutes // _HOUR} h")
        with stored(folder) as server:
            for ask in _asks(size):
                values = tuple(ask(server, size.end) * 1000 for _ in range(plan.runs))
                yield _answer(ask, values, taken.get(ask, {}), size)
            for group in groups("global"):
                values = tuple(group(server, size.end) for _ in range(plan.runs))
                yield Figure(f"rules {group.name}", values, "s", group.interval, f"{size.fleet} nodes, one evaluation")


def _best(asked: Callable[[Server, float], float], server: Server, at: float) -> float:
    """The quicker of two: what the machine does besides can only add to it."""
    return min(asked(server, at) for _ in range(2))


def _asks(size: _Size) -> list[Ask]:
    return [ask for seconds in size.ranges for ask in fleet_board(seconds)]


def _answer(ask: Ask, values: tuple[float, ...], raw: Mapping[int, float], size: _Size) -> Figure:
    name = f"{ask.panel}, {ask.seconds // 3600} h"
    if not raw:
        return Figure(name, values, "ms", _LIMIT_MS)
    fit = Fit.of(raw)
    measured = ", ".join(f"{nodes}: {_seconds(taken)}" for nodes, taken in raw.items())
    beyond = ", ".join(f"{nodes}: {_seconds(fit(nodes))}" for nodes in _BEYOND)
    ratio = fit(size.fleet) * 1000 / sorted(values)[len(values) // 2]
    note = f"raw {measured}; linear (off by {fit.off:.0%}) {beyond}; {ratio:.0f} times"
    return Figure(name, values, "ms", _LIMIT_MS, note)


def _leaf_rules(rules: Mapping[str, Mapping[int, float]], size: _Size) -> Iterator[Figure]:
    for group in groups("leaf"):
        taken = rules[group.name]
        fit = Fit.of(taken)
        measured = ", ".join(f"{nodes}: {_seconds(seconds)}" for nodes, seconds in taken.items())
        note = f"a leaf of {size.nodes} nodes, linear (off by {fit.off:.0%}) of {measured}"
        yield Figure(f"rules {group.name}", (fit(size.nodes),), "s", group.interval, note)


def _weight(what: str, week: Week, folder: Path, nodes: int) -> Iterator[Figure]:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    seconds = week.minutes * 60
    note = f"{nodes} nodes, {week.minutes // _HOUR} h" + (f", scraped every {SECONDS:.0f} s" if what == "raw" else "")
    yield Figure(f"{what} series of a node", (week.series / nodes,), "", note=f"{note}, in the fullest block of 18 h")
    yield Figure(f"{what} samples of a node", (week.samples / nodes / seconds,), "/s", note=note)
    yield Figure(f"{what} bytes of a sample", (size / week.samples,), "B", note=f"{note}, index included")
    yield Figure(f"{what} bytes of a node and day", (size / nodes / seconds * 86.4,), "kB", note=note)


def _seconds(taken: float) -> str:
    return f"{taken:.3g} s"


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fleet-scale-") as name:
        yield Path(name)
