"""What each device of a modelled cluster says of itself, scrape by scrape."""

from __future__ import annotations

from typing import Final

import numpy as np

from benchmarks.cluster.load import DEVICES, KINDS, Window
from benchmarks.cluster.names import Site, device_labels, labels, without
from benchmarks.cluster.week import Shelf, Week
from benchmarks.tsdb.chunks import Floats

__all__ = ["Devices"]

_FACTS: Final = {
    "gpu": {"vendor": "NVIDIA", "model": "NVIDIA H100 80GB HBM3", "sensor": "nvidia"},
    "cpu": {"vendor": "Intel", "model": "Intel(R) Xeon(R) Platinum 8480C", "sensor": "rapl"},
    "dram": {"vendor": "Intel", "model": "DRAM", "sensor": "rapl"},
}
_LIMIT_WATTS: Final = 700.0
_MOST_WATTS: Final = 630.0
_DRIFT_STEPS: Final = 40
"""Scrapes for which the divergence of counter and power is published unchanged: ten minutes."""


class Devices:
    """Power, energy, vitals and facts."""

    def __init__(self, site: Site, nodes: int, week: Week, seconds: float) -> None:
        self._site = site
        self._each = [device_labels(site, node, device) for node in range(nodes) for device in DEVICES]
        self._boards = [one for one in self._each if one["kind"] == "gpu"]
        self._shelves = {name: Shelf(week, seconds) for name in ("power", "energy", "vitals", "facts")}
        self._source = np.random.default_rng([site.number, 4])
        self._kwh: Floats = self._source.uniform(500, 5000, (nodes, len(DEVICES)))
        counts = (len(self._boards), len(self._each), len(self._each))
        self._facts = np.repeat([_LIMIT_WATTS, 0.0, 1.0], counts)

    def begin(self, minute: int) -> None:
        """A block begins."""
        place, each, boards = self._site.place, self._each, self._boards
        cluster = without(place, "region")
        self._shelves["power"].name(minute, [labels("carbon_device_power_watts", place, one) for one in each])
        self._shelves["energy"].name(minute, [labels("carbon_device_energy_kwh_total", place, one) for one in each])
        vitals = ("utilization_ratio", "memory_used_bytes", "temperature_celsius")
        named = [labels(f"carbon_device_{vital}", cluster, one) for vital in vitals for one in boards]
        drift = "carbon_device_meter_divergence_ratio"
        named += [labels(drift, cluster, without(one, "kind")) for one in boards]
        self._shelves["vitals"].name(minute, named)
        facts = [labels("carbon_device_power_limit_watts", cluster, one) for one in boards]
        facts += [labels("carbon_energy_gap_seconds_total", cluster, without(one, "kind")) for one in each]
        facts += [labels("carbon_device_info", cluster, one, self._info(one)) for one in each]
        self._shelves["facts"].name(minute, facts)

    def write(self, window: Window) -> None:
        """Write a window, the next one."""
        totals = self._kwh + np.cumsum(window.energy, axis=0)
        self._kwh = totals[-1]
        self._shelves["power"].put(_rows(window.watts), window.first)
        self._shelves["energy"].put(_rows(totals), window.first)
        self._shelves["vitals"].put(_rows(self._vitals(window)), window.first)
        self._shelves["facts"].put(np.repeat(self._facts[:, None], window.steps, axis=1), window.first)

    def _vitals(self, window: Window) -> Floats:
        watts = window.watts[:, :, KINDS["gpu"]].reshape(window.steps, -1)
        busy = np.clip(watts / _MOST_WATTS, 0, 1).round(2)
        held = np.where(window.owner >= 0, 40e9 + window.owner % 997 * 32e6, 5e8)
        drawn = self._source.normal(0, 0.004, (window.steps // _DRIFT_STEPS, watts.shape[1])).round(6)
        drift = np.repeat(drawn, _DRIFT_STEPS, axis=0)
        return np.concatenate((busy, held, (30 + watts / 14).round(), drift), axis=1)

    @staticmethod
    def _info(one: dict[str, str]) -> dict[str, str]:
        facts = _FACTS[one["kind"]] | {"quality": "measured"}
        uuid = {"uuid": f"GPU-{one['instance'][5:12]}-0000-4000-8000-{one['device']}"} if one["kind"] == "gpu" else {}
        return facts | uuid


def _rows(values: Floats) -> Floats:
    return np.ascontiguousarray(values.reshape(len(values), -1).T)
