"""How many watts each device of a modelled cluster takes, step by step, and what its jobs pay of them.

A node has eight boards, two packages and their two memories. The noise is drawn anew for every step, as a meter that
gives milliwatts shows it: samples then take the bytes that they would take of real meters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.cluster.schedule import BOARDS, Run
from benchmarks.tsdb.chunks import Floats, Integers

__all__ = ["DEVICES", "KINDS", "OF_A_BOARD", "UNATTRIBUTED", "Load", "Window", "intensity"]

DEVICES: Final = (*(f"gpu{board}" for board in range(BOARDS)), "cpu0", "cpu1", "dram0", "dram1")
KINDS: Final = {"gpu": slice(0, 8), "cpu": slice(8, 10), "dram": slice(10, 12)}
OF_A_BOARD: Final = 0.9 / BOARDS
"""Share of its node's packages and memory that the holder of a board pays."""
UNATTRIBUTED: Final = 0.02
"""Share of packages and memory; the rest is idle."""
_IDLE: Final = np.array([70.0] * 8 + [90.0] * 2 + [12.0] * 2)
_BUSY: Final = np.array([560.0] * 8 + [210.0] * 2 + [30.0] * 2)
"""Watts, and watts more at full load."""
_NOISE: Final = 0.02
_JOULES_PER_KWH: Final = 3.6e6
_PUE: Final = 1.2


@dataclass(frozen=True, slots=True)
class Window:
    """Steps `first` to `first + steps`; arrays begin `lead` steps earlier, which are those of the window before."""

    first: int
    steps: int
    lead: int
    seconds: float
    """Of a step."""
    watts: Floats
    """[step, node, device], the mean of the step that ends there."""
    owner: NDArray[np.int32]
    """[step, slot]: the run that held the board in the step that ends there, -1 for none."""

    @property
    def kwh_of_a_watt(self) -> float:
        """Kilowatt-hours that a watt makes in a step."""
        return self.seconds / _JOULES_PER_KWH

    @property
    def energy(self) -> Floats:
        """Kilowatt-hours of each step, as watts."""
        return np.asarray(self.watts * self.kwh_of_a_watt)

    @property
    def minutes(self) -> Floats:
        """Of the week, at each step of the arrays."""
        return np.arange(self.first - self.lead, self.first + self.steps).astype(np.float64) * (self.seconds / 60)


class Load:
    """Asked for windows one after the other, from the beginning of the week on."""

    def __init__(
        self, runs: Sequence[Run], nodes: int, source: np.random.Generator, seconds: float, *, lead: int
    ) -> None:
        self._runs = {run.number: run for run in runs}
        self._ends = np.array([run.end for run in runs])
        self._starts = np.array([run.start for run in runs])
        self._order = runs
        self._nodes = nodes
        self._source = source
        self._seconds = seconds
        self._lead = lead
        self._busy = np.zeros(max(self._runs, default=0) + 2)
        self._busy[[run.number for run in runs]] = [run.load for run in runs]  # the last one stands for nobody, -1
        self._first = 0
        self._watts = np.zeros((lead, nodes, len(DEVICES)))
        self._owner = np.full((lead, nodes * BOARDS), -1, np.int32)

    def window(self, steps: int) -> Window:
        """The next `steps`. What was before the week is zero: its counters begin with it."""
        owner = self._owners(steps)
        watts = self._powers(owner)
        if self._first == 0:
            watts[0] = 0.0
        self._owner, self._watts = np.concatenate((self._owner, owner)), np.concatenate((self._watts, watts))
        made = Window(self._first, steps, self._lead, self._seconds, self._watts, self._owner)
        self._owner, self._watts = self._owner[steps:], self._watts[steps:]
        self._first += steps
        return made

    def _owners(self, steps: int) -> NDArray[np.int32]:
        """A run that starts at minute m holds its boards in the steps that end after m, up to that of its end."""
        a_minute = 60 / self._seconds
        owner = np.full((steps, self._nodes * BOARDS), -1, np.int32)
        since = np.floor(self._starts * a_minute).astype(int) + 1 - self._first
        until = np.floor(self._ends * a_minute).astype(int) + 1 - self._first
        for at in np.flatnonzero((since < steps) & (until > 0)).tolist():
            owner[max(since[at], 0) : until[at], self._order[at].slots] = self._order[at].number
        return owner

    def _powers(self, owner: NDArray[np.int32]) -> Floats:
        steps = len(owner)
        boards = self._busy[owner].reshape(steps, self._nodes, BOARDS)
        load = np.empty((steps, self._nodes, len(DEVICES)))
        load[:, :, KINDS["gpu"]] = boards
        load[:, :, BOARDS:] = boards.mean(axis=2, keepdims=True)
        noise = self._source.standard_normal(load.shape)
        noise *= _NOISE
        noise += 1.0
        load *= _BUSY
        load += _IDLE
        load *= noise
        return np.asarray(np.round(load, 3))


def intensity(minutes: Floats, region: int) -> Floats:
    """Grams that a kilowatt-hour emits at the site, its overhead included: by the hour, higher in the evening."""
    hours: Integers = np.floor(np.maximum(minutes - 1, 0) / 60).astype(int)
    base = 80.0 + 65.0 * region
    return np.asarray((base + 0.25 * base * np.sin((hours % 24 - 13) / 24 * 2 * np.pi)).round(1) * _PUE)
