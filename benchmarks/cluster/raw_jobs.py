"""What jobs pay of each device of a modelled cluster, scrape by scrape, the reserved names too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from benchmarks.cluster.leaf import LINGER, RESERVED
from benchmarks.cluster.load import DEVICES, OF_A_BOARD, UNATTRIBUTED, Window, intensity
from benchmarks.cluster.names import Site, device_labels, labels, without
from benchmarks.cluster.schedule import BOARDS, Run
from benchmarks.cluster.week import BLOCK_MINUTES, Shelf, Week
from benchmarks.tsdb.chunks import Floats, Integers

__all__ = ["Jobs"]

_POWER: Final = "carbon_job_power_watts"
_ENERGY: Final = "carbon_job_energy_kwh_total"
_CO2E: Final = "carbon_job_co2e_grams_total"
_NAMES: Final = (_POWER, _ENERGY, _CO2E)


class _Holdings:
    """Each device that each run has a share of: one row for each pair, by run."""

    def __init__(self, runs: Sequence[Run], a_minute: int) -> None:
        shares = [_shares(run) for run in runs]
        counts = [len(devices) for devices, _ in shares]
        self.run = np.repeat(np.arange(len(runs)), counts)
        self.device: Integers = np.concatenate([np.zeros(0, int), *(devices for devices, _ in shares)])
        self.share: Floats = np.concatenate([np.zeros(0), *(share for _, share in shares)])
        self.since = np.repeat([max(run.start, 0) * a_minute for run in runs], counts).astype(int)
        self.until = np.repeat([run.end * a_minute for run in runs], counts).astype(int)
        self.last = self.until + LINGER * a_minute
        self.kwh = np.zeros(len(self.run))
        self.grams = np.zeros(len(self.run))


class Jobs:
    """Power, energy and grams of each job and device, and one fact of each job and node."""

    def __init__(self, site: Site, nodes: int, runs: Sequence[Run], week: Week, seconds: float) -> None:
        self._site = site
        self._runs = runs
        self._a_minute = int(60 / seconds)
        self._held = _Holdings(runs, self._a_minute)
        self._here = self._first = np.zeros(0, int)
        self._devices = [device_labels(site, node, device) for node in range(nodes) for device in DEVICES]
        self._paid = np.zeros((len(RESERVED), 2, len(self._devices)))
        """Kilowatt-hours and grams so far of the reserved names."""
        self._unattributed = np.tile([0.0] * BOARDS + [UNATTRIBUTED] * (len(DEVICES) - BOARDS), nodes)
        self._shelves = {name: Shelf(week, seconds) for name in (*_NAMES, "info", "reserved")}

    def begin(self, minute: int) -> None:
        """A block begins."""
        held, begin = self._held, minute * self._a_minute
        end = begin + BLOCK_MINUTES * self._a_minute
        self._here = np.flatnonzero((held.since < end) & (held.last + 1 >= begin))
        runs, devices = held.run[self._here], held.device[self._here]
        pairs = list(zip(runs.tolist(), devices.tolist(), strict=True))
        each = [self._devices[device] | self._site.job(self._runs[run]) for run, device in pairs]
        for name in _NAMES:
            self._shelves[name].name(minute, [labels(name, self._site.place, one) for one in each])
        self._first = np.unique(np.stack((runs, devices // len(DEVICES))), axis=1, return_index=True)[1]
        cluster = without(self._site.place, "region")
        facts = [(without(each[row], "device", "kind"), {"job_id": str(pairs[row][0])}) for row in self._first.tolist()]
        slurm = {"scheduler": "slurm"}
        self._shelves["info"].name(
            minute, [labels("carbon_job_info", cluster, one, fact, slurm) for one, fact in facts]
        )
        reserved = [
            labels(name, self._site.place, one, {"job_name": job})
            for job in RESERVED
            for name in _NAMES
            for one in self._devices
        ]
        self._shelves["reserved"].name(minute, reserved)

    def write(self, window: Window) -> None:
        """Write a window, the next one."""
        held, here = self._held, self._here
        all_watts = window.watts.reshape(window.steps, -1)
        prices = intensity(window.minutes, self._site.region)[:, None]
        steps = np.arange(window.first, window.first + window.steps)[:, None]
        working = (steps > held.since[here]) & (steps <= held.until[here])
        watts = all_watts[:, held.device[here]] * held.share[here] * working
        kwh = held.kwh[here] + np.cumsum(watts * window.kwh_of_a_watt, axis=0)
        grams = held.grams[here] + np.cumsum(watts * window.kwh_of_a_watt * prices, axis=0)
        held.kwh[here], held.grams[here] = kwh[-1], grams[-1]
        for name, values in zip(_NAMES, (watts, kwh, grams), strict=True):
            self._shelves[name].put(np.ascontiguousarray(values.T), window.first, held.since[here], held.last[here])
        once = here[self._first]
        ones = np.ones((len(once), window.steps))
        self._shelves["info"].put(ones, window.first, held.since[once], held.last[once])
        paid = np.zeros(all_watts.T.shape)
        np.add.at(paid, held.device[here], watts.T)
        self._write_reserved(window, all_watts, paid.T, prices)

    def _write_reserved(self, window: Window, watts: Floats, paid: Floats, prices: Floats) -> None:
        unattributed = watts * self._unattributed
        idle = np.maximum(watts - unattributed - paid, 0.0)
        rows = []
        for so_far, power in zip(self._paid, (idle, unattributed), strict=True):
            kwh = so_far[0] + np.cumsum(power * window.kwh_of_a_watt, axis=0)
            grams = so_far[1] + np.cumsum(power * window.kwh_of_a_watt * prices, axis=0)
            so_far[:] = kwh[-1], grams[-1]
            rows += [power, kwh, grams]
        self._shelves["reserved"].put(np.ascontiguousarray(np.concatenate(rows, axis=1).T), window.first)


def _shares(run: Run) -> tuple[Integers, Floats]:
    """Devices (node x 12 + device) of a run, and its share of each."""
    boards = run.slots // BOARDS * len(DEVICES) + run.slots % BOARDS
    nodes, held = np.unique(run.slots // BOARDS, return_counts=True)
    others = np.arange(BOARDS, len(DEVICES))
    shared = (nodes[:, None] * len(DEVICES) + others).ravel()
    shares = np.repeat(held * OF_A_BOARD, len(others))
    return np.concatenate((boards, shared)), np.concatenate((np.ones(len(boards)), shares))
