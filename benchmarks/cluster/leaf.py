"""What grafana/rules/leaf.yml records of a cluster, minute by minute, without the raw series below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.cluster.load import KINDS, OF_A_BOARD, UNATTRIBUTED, Window, intensity
from benchmarks.cluster.names import Site, labels
from benchmarks.cluster.schedule import BOARDS, Run
from benchmarks.cluster.week import Shelf, Week
from benchmarks.tsdb.chunks import Floats, Integers

__all__ = ["LINGER", "RESERVED", "Leaf", "Paid", "increase", "presence"]

LINGER: Final = 5
"""Minutes for which the exporter shows a job that has ended."""
RESERVED: Final = ("_idle_", "_unattributed_")
_FOREVER: Final = 1 << 40
_WINDOW: Final = 5
"""Minutes of increase5m; a rule sees a series that has ended for as long."""


@dataclass(frozen=True, slots=True)
class Paid:
    """What jobs paid in each minute of a window: [minute, job], the reserved names last; and who they are."""

    runs: Sequence[Run]
    watts: Mapping[str, Floats]
    """By kind, with the lead of the window."""
    grams: Floats

    @property
    def kwh(self) -> Floats:
        """Of all kinds together."""
        return np.asarray(np.sum(list(self.watts.values()), axis=0) * (60 / 3.6e6))


class Leaf:
    """Writes the leaf's series of one cluster into the week's blocks."""

    def __init__(self, site: Site, nodes: int, week: Week) -> None:
        self._site = site
        self._nodes = nodes
        self._shelves = {name: Shelf(week, 60) for name in ("node power", "node energy", "power", "energy", "grams")}
        self._runs: list[Run] = []

    def begin(self, minute: int, runs: Sequence[Run]) -> None:
        """A block begins, and these runs have samples in it."""
        self._runs = list(runs)
        where = self._site.place
        kinds = [{"kind": kind} for kind in KINDS]
        nodes = [{"instance": self._site.instance(node)} for node in range(self._nodes)]
        jobs = [*map(self._site.job, runs), *({"job_name": name} for name in RESERVED)]
        for shelf, name, whose in (
            ("node power", "node_kind:carbon_device_power_watts:sum", nodes),
            ("node energy", "node_kind:carbon_device_energy_kwh:increase5m", nodes),
            ("power", "job_kind:carbon_job_power_watts:sum", jobs),
            ("energy", "job_kind:carbon_job_energy_kwh:increase5m", jobs),
        ):
            self._shelves[shelf].name(minute, [labels(name, where, kind, one) for kind in kinds for one in whose])
        grams = "job:carbon_job_co2e_grams:increase5m"
        self._shelves["grams"].name(minute, [labels(grams, where, job) for job in jobs])

    def write(self, window: Window) -> Paid:
        """Write a window, and tell what jobs paid in it."""
        nodes = {kind: window.watts[:, :, devices].sum(axis=2) for kind, devices in KINDS.items()}
        paid = self._paid(window, nodes)
        lead, first = window.lead, window.first
        self._shelves["node power"].put(_rows([watts[lead:] for watts in nodes.values()]), first)
        self._shelves["node energy"].put(
            _rows([increase(watts * window.kwh_of_a_watt, lead) for watts in nodes.values()]), first
        )
        since, ended = presence(self._runs)
        for shelf, parts, after in (
            ("power", [watts[lead:] for watts in paid.watts.values()], LINGER),
            (
                "energy",
                [increase(watts * window.kwh_of_a_watt, lead) for watts in paid.watts.values()],
                LINGER + _WINDOW,
            ),
            ("grams", [increase(paid.grams, lead)], LINGER + _WINDOW),
        ):
            count = len(parts)
            self._shelves[shelf].put(_rows(parts), first, np.tile(since, count), np.tile(ended + after, count))
        return paid

    def _paid(self, window: Window, nodes: Mapping[str, Floats]) -> Paid:
        """Boards go to their holders whole, packages and memory by the boards held."""
        steps, slots = window.owner.shape
        place = np.full(max((run.number for run in self._runs), default=0) + 2, len(self._runs))
        place[[run.number for run in self._runs]] = np.arange(len(self._runs))
        cells = (
            np.arange(steps)[:, None] * (len(self._runs) + 1) + place[np.minimum(window.owner, len(place) - 1)]
        ).ravel()
        made = {}
        for kind, total in nodes.items():
            if kind == "gpu":
                of_slots, unattributed = window.watts[:, :, KINDS[kind]].reshape(steps, slots), 0.0
            else:
                of_slots, unattributed = np.repeat(total * OF_A_BOARD, BOARDS, axis=1), UNATTRIBUTED
            sums = np.bincount(cells, of_slots.ravel(), steps * (len(self._runs) + 1)).reshape(steps, -1)[:, :-1]
            unknown = total.sum(axis=1) * unattributed
            idle = np.maximum(total.sum(axis=1) - unknown - sums.sum(axis=1), 0.0)
            made[kind] = np.column_stack((sums, idle, unknown))
        grams = (
            np.sum(list(made.values()), axis=0) * (60 / 3.6e6) * intensity(window.minutes, self._site.region)[:, None]
        )
        return Paid(self._runs, made, grams)


def presence(runs: Sequence[Run]) -> tuple[Integers, Integers]:
    """The first and the last minute in which each has a share, the reserved names last."""
    since = [*(max(run.start, 0) for run in runs), *(0 for _ in RESERVED)]
    ended = [*(run.end for run in runs), *(_FOREVER for _ in RESERVED)]
    return np.array(since), np.array(ended)


def increase(energy: Floats, lead: int) -> Floats:
    """Of each minute and the four before it."""
    sums = np.concatenate((np.zeros((1, energy.shape[1])), np.cumsum(energy, axis=0)))
    return sums[lead + 1 :] - sums[lead + 1 - _WINDOW : -_WINDOW]


def _rows(parts: Sequence[Floats]) -> Floats:
    return np.ascontiguousarray(np.concatenate(parts, axis=1).T)
