"""What a Prometheus scrapes of the first nodes of a cluster: every series that exporters show, every 15 seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from benchmarks.cluster.load import Load, Window
from benchmarks.cluster.names import Site, labels
from benchmarks.cluster.raw_devices import Devices
from benchmarks.cluster.raw_jobs import Jobs
from benchmarks.cluster.schedule import BOARDS, schedule
from benchmarks.cluster.week import BLOCK_MINUTES, Shelf, Week

__all__ = ["SECONDS", "scrape"]

SECONDS: Final = 15.0
"""Between two scrapes; sample.interval is as long on these nodes (docs/fleet.md)."""
_WINDOW: Final = 120
"""Samples of a chunk, as Prometheus makes them."""
_STEADY: Final = 26
"""Series of an exporter and of its target that do not change: success, counts, errors, the grid, `up`."""
_MOVING: Final = 12
"""Those that do: durations, timestamps, `scrape_duration_seconds`."""


def scrape(site: Site, cluster: int, nodes: int, week: Week, seconds: float = SECONDS) -> None:
    """Write the raw series of the first `nodes` of a site of `cluster` nodes, scraped every so many seconds."""
    everywhere = schedule(cluster, week.minutes, np.random.default_rng([site.number, 1]))
    runs = [replace(run, slots=here) for run in everywhere if (here := run.slots[run.slots < nodes * BOARDS]).size]
    load = Load(runs, nodes, np.random.default_rng([site.number, 2]), seconds, lead=0)
    families = (
        Devices(site, nodes, week, seconds),
        Jobs(site, nodes, runs, week, seconds),
        _Exporters(site, nodes, week, seconds),
    )
    a_minute = int(60 / seconds)
    for first in range(0, week.minutes * a_minute, _WINDOW):
        if first % (BLOCK_MINUTES * a_minute) == 0:
            for family in families:
                family.begin(first // a_minute)
        window = load.window(_WINDOW)
        for family in families:
            family.write(window)


class _Exporters:
    """What exporters say of themselves, and Prometheus of its targets; two names stand for all."""

    def __init__(self, site: Site, nodes: int, week: Week, seconds: float) -> None:
        self._site = site
        self._nodes = nodes
        self._shelf = Shelf(week, seconds)
        self._source = np.random.default_rng([site.number, 5])

    def begin(self, minute: int) -> None:
        cluster = {"cluster": self._site.place["cluster"], "job": "carbon-exporter"}
        named = [
            labels(f"{kind}_{number:02d}", cluster, {"instance": self._site.instance(node)})
            for kind, count in (("carbon_steady", _STEADY), ("carbon_moving", _MOVING))
            for number in range(count)
            for node in range(self._nodes)
        ]
        self._shelf.name(minute, named)

    def write(self, window: Window) -> None:
        steady = np.ones((_STEADY * self._nodes, window.steps))
        moving = self._source.gamma(4, 0.001, (_MOVING * self._nodes, window.steps))
        self._shelf.put(np.concatenate((steady, moving)), window.first)
