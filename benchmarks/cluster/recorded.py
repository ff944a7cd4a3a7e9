"""The recorded series of a whole fleet, cluster by cluster, into the blocks of a week."""

from __future__ import annotations

from typing import Final

import numpy as np

from benchmarks.cluster.leaf import LINGER, Leaf
from benchmarks.cluster.load import Load
from benchmarks.cluster.names import Site
from benchmarks.cluster.rollup import Rollup
from benchmarks.cluster.schedule import schedule
from benchmarks.cluster.week import BLOCK_MINUTES, Week

__all__ = ["LEAD", "record"]

LEAD: Final = 5
"""Minutes of the window before that increase5m needs."""
_WINDOW: Final = 120
"""Samples of a chunk, as Prometheus makes them."""


def record(site: Site, nodes: int, week: Week) -> int:
    """Write what the leaf's and the global rules record of one cluster; the number of its runs."""
    runs = schedule(nodes, week.minutes, np.random.default_rng([site.number, 1]))
    load = Load(runs, nodes, np.random.default_rng([site.number, 2]), 60.0, lead=LEAD)
    leaf, rollup = Leaf(site, nodes, week), Rollup(site, runs, week)
    for minute in range(0, week.minutes, _WINDOW):
        if minute % BLOCK_MINUTES == 0:
            end = minute + BLOCK_MINUTES
            # A series that ended just before the block may have its last sample, that it has ended, in it.
            here = [run for run in runs if run.start < end and run.end + LINGER + LEAD + 1 >= minute]
            leaf.begin(minute, here)
            rollup.begin(minute, here)
        window = load.window(_WINDOW)
        rollup.write(window, leaf.write(window))
    return len(runs)
