"""Where the numbers come from: the devices that a job used, how each is measured, how its electricity was priced."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from carbon_exporter.carbon import tables
from carbon_exporter.report.client import PrometheusClient, Series
from carbon_exporter.report.counters import ENERGY, Selection
from carbon_exporter.report.course import DeviceKey
from carbon_exporter.report.facts import Device, Price, QualityShare, RegionShare, worst
from carbon_exporter.report.stretch import Stretch, in_parts

__all__ = ["Origin"]

_INFO = ("vendor", "model", "uuid", "sensor", "quality")
_PLACE = ("cluster", "instance", "device")
_PRICE = ("region", "provider", "quality", "source", "year", "located_by")
Place = tuple[str, str, str]


class _Model(NamedTuple):
    """What devices have in common that stand in one row."""

    kind: str
    vendor: str
    model: str
    sensor: str
    quality: str


@dataclass(slots=True)
class Origin:
    """Gathers it, stretch by stretch, for what the job used there and then."""

    selection: Selection
    missing_seconds: float = 0.0
    """Device-seconds for which the energy of its devices is not known."""
    _infos: dict[Place, dict[str, str]] = field(default_factory=dict)
    _qualities: dict[Place, set[str]] = field(default_factory=lambda: defaultdict(set))
    _by_quality: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _prices: dict[tuple[str, ...], None] = field(default_factory=dict)
    _levels: dict[tuple[str, str, str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    _pue: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, client: PrometheusClient, stretch: Stretch, energy: Mapping[DeviceKey, float]) -> None:
        """Ask about a stretch in which the job used so much of each device. Raises `QueryError`."""
        whole = Stretch(stretch.begin, stretch.end, stretch.seconds)
        for part, _ in in_parts(whole, lambda part: self._gaps(client, part)):
            self._grid(client, part)
        today: dict[Place, set[str]] = defaultdict(set)
        for row in self._seen(client, "carbon_device_info", whole, _PLACE, (*_PLACE, *_INFO, "kind")):
            place = (row.label("cluster"), row.label("instance"), row.label("device"))
            today[place].add(row.label("quality"))
            self._qualities[place].add(row.label("quality"))
            self._infos[place] = dict(row.labels)
        for (cluster, instance, device, _, _), kwh in energy.items():
            self._by_quality[worst(today[cluster, instance, device])].append(kwh)

    def _gaps(self, client: PrometheusClient, part: Stretch) -> None:
        gap = self._used("carbon_energy_gap_seconds_total", part, _PLACE, "last_over_time", "min_over_time")
        for row in client.instant(f"sum({gap})", part.end):
            self.missing_seconds += row.points[0][1]

    def _grid(self, client: PrometheusClient, part: Stretch) -> None:
        place = ("cluster", "instance", "region")
        for row in self._seen(client, "carbon_grid_intensity_info", part, place, _PRICE):
            self._prices[tuple(map(row.label, _PRICE))] = None
        for function in ("min", "max"):
            level = self._used("carbon_grid_intensity_grams_per_kwh", part, place, f"{function}_over_time")
            by = "region, provider, scope, basis"
            for row in client.instant(f"{function} by ({by}) ({level})", part.end):
                key = (row.label("region"), row.label("provider"), row.label("scope"), row.label("basis"))
                self._levels[key].append(row.points[0][1])
            pue = self._used("carbon_pue_ratio", part, place, f"{function}_over_time")
            for row in client.instant(f"{function} by (region) ({pue})", part.end):
                self._pue[row.label("region")].append(row.points[0][1])

    def _seen(
        self, client: PrometheusClient, metric: str, part: Stretch, on: tuple[str, ...], by: tuple[str, ...]
    ) -> list[Series]:
        used = self._used(metric, part, on, "last_over_time")
        return client.instant(f"group by ({', '.join(by)}) ({used})", part.end)

    def _used(self, metric: str, part: Stretch, on: tuple[str, ...], *functions: str) -> str:
        """A metric of the exporters, where the job used what it speaks of; of two functions the difference."""
        window = f"[{part.seconds}s]"
        value = " - ".join(f"{function}({metric}{window})" for function in functions)
        return f"({value}) and on ({', '.join(on)}) last_over_time({self.selection.of(ENERGY, part.seconds)})"

    def devices(self, energy: Mapping[DeviceKey, float]) -> tuple[Device, ...]:
        """The devices that the job used, by model, the hungriest first; a board that moved counts once by its uuid."""
        kwh: dict[_Model, list[float]] = defaultdict(list)
        boards: dict[_Model, set[object]] = defaultdict(set)
        for (cluster, instance, device, kind, _), used in energy.items():
            if not device:
                continue
            place = (cluster, instance, device)
            info = self._infos.get(place, {})
            vendor, model, sensor = (info.get(name, "") for name in ("vendor", "model", "sensor"))
            key = _Model(kind, vendor, model, sensor, worst(self._qualities[place]))
            kwh[key].append(used)
            boards[key].add(info.get("uuid") or place)
        rows = [
            Device(one.kind, one.vendor, one.model, one.sensor, one.quality, len(boards[one]), math.fsum(values))
            for one, values in kwh.items()
        ]
        return tuple(sorted(rows, key=lambda row: (-row.energy_kwh, row.kind, row.model)))

    def qualities(self) -> tuple[QualityShare, ...]:
        """The energy by how it was got, most first."""
        sums = {quality: math.fsum(values) for quality, values in self._by_quality.items()}
        whole = math.fsum(sums.values())
        rows = [QualityShare(quality, kwh, kwh / whole if whole else 0.0) for quality, kwh in sums.items()]
        return tuple(sorted(rows, key=lambda row: (-row.energy_kwh, row.quality)))

    def regions(self, energy: Mapping[str, float], grams: Mapping[str, float]) -> tuple[RegionShare, ...]:
        """The grid zones, the one with most energy first."""
        rows = [self._region(region, energy.get(region, 0.0), grams.get(region, 0.0)) for region in {*energy, *grams}]
        return tuple(sorted(rows, key=lambda row: (-row.energy_kwh, row.region)))

    def _region(self, region: str, kwh: float, grams: float) -> RegionShare:
        pue = self._pue.get(region)
        return RegionShare(
            region=region,
            name=zone_name(region),
            energy_kwh=kwh,
            co2e_grams=grams,
            realised_grams_per_kwh=grams / kwh if kwh > 0 else None,
            pue=(min(pue), max(pue)) if pue else None,
            prices=tuple(price for told in sorted(self._prices) if told[0] == region for price in self._price(told)),
        )

    def _price(self, told: tuple[str, ...]) -> list[Price]:
        region, provider, quality, source, year, located_by = told
        scopes = {(scope, basis) for zone, who, scope, basis in self._levels if (zone, who) == (region, provider)}
        rows = []
        for scope, basis in sorted(scopes) or [("", "")]:
            levels = self._levels.get((region, provider, scope, basis), [])
            low, high = (min(levels), max(levels)) if levels else (None, None)
            rows.append(Price(provider, quality, source, year, located_by, scope, basis, low, high))
        return rows


def zone_name(region: str) -> str:
    """A grid zone in words, by the shipped table; empty for one that is not in it."""
    rows = tables.grid()
    row = rows.get((region, "lifecycle")) or rows.get((region, "direct"))
    territory = tables.territories().get(region)
    return row.name if row else territory.name if territory else ""
