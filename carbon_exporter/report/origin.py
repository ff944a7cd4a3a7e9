"""Where the numbers come from: the devices that a job used, how each is measured, how its electricity was priced."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from carbon_exporter.carbon import tables
from carbon_exporter.report.client import PrometheusClient, Series
from carbon_exporter.report.counters import ENERGY, Selection, any_of, gained
from carbon_exporter.report.course import DeviceKey
from carbon_exporter.report.facts import Device, Price, QualityShare, RegionShare, worst
from carbon_exporter.report.stretch import Stretch, in_parts

__all__ = ["Origin"]

_INFO = ("vendor", "model", "uuid", "sensor", "quality")
_PLACE = ("cluster", "instance", "device")
_PRICE = ("region", "provider", "quality", "source", "year", "located_by")
_LONGEST_PATTERN = 1000
"""Characters of a pattern of nodes, which stands four times in a question: some proxies take no address of more than
8 kB. For a job on more nodes those of the whole fleet are read."""
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
        nodes = _on_nodes(energy)
        whole = Stretch(stretch.begin, stretch.end, stretch.seconds)
        today: dict[Place, set[str]] = defaultdict(set)
        for _, rows in in_parts(whole, lambda part: self._ask(client, part, nodes)):
            for row in rows:
                place = (row.label("cluster"), row.label("instance"), row.label("device"))
                today[place].add(row.label("quality"))
                self._qualities[place].add(row.label("quality"))
                self._infos[place] = dict(row.labels)
        for (cluster, instance, device, _, _), kwh in energy.items():
            self._by_quality[worst(today[cluster, instance, device])].append(kwh)

    def _ask(self, client: PrometheusClient, part: Stretch, nodes: str) -> list[Series]:
        """All that is asked of a part; returns its devices."""
        devices = self._seen(client, f"carbon_device_info{nodes}", part, _PLACE, (*_PLACE, *_INFO, "kind"))
        self._grid(client, part, nodes)
        # Last, because it adds up: where a question is too large, all of them are asked again of each half.
        self._gaps(client, part, nodes)
        return devices

    def _gaps(self, client: PrometheusClient, part: Stretch, nodes: str) -> None:
        gap = self._used(gained(f"carbon_energy_gap_seconds_total{nodes}", part.seconds), part, _PLACE)
        for row in client.instant(f"sum({gap})", part.end):
            self.missing_seconds += row.points[0][1]

    def _grid(self, client: PrometheusClient, part: Stretch, nodes: str) -> None:
        place = ("cluster", "instance", "region")
        for row in self._seen(client, f"carbon_grid_intensity_info{nodes}", part, place, _PRICE):
            self._prices[tuple(map(row.label, _PRICE))] = None
        for function in ("min", "max"):
            over = f"{function}_over_time"
            level = self._used(f"{over}(carbon_grid_intensity_grams_per_kwh{nodes}[{part.seconds}s])", part, place)
            by = "region, provider, scope, basis"
            for row in client.instant(f"{function} by ({by}) ({level})", part.end):
                key = (row.label("region"), row.label("provider"), row.label("scope"), row.label("basis"))
                self._levels[key].append(row.points[0][1])
            pue = self._used(f"{over}(carbon_pue_ratio{nodes}[{part.seconds}s])", part, place)
            for row in client.instant(f"{function} by (region) ({pue})", part.end):
                self._pue[row.label("region")].append(row.points[0][1])

    def _seen(
        self, client: PrometheusClient, series: str, part: Stretch, on: tuple[str, ...], by: tuple[str, ...]
    ) -> list[Series]:
        used = self._used(f"last_over_time({series}[{part.seconds}s])", part, on)
        return client.instant(f"group by ({', '.join(by)}) ({used})", part.end)

    def _used(self, value: str, part: Stretch, on: tuple[str, ...]) -> str:
        """A value of the exporters' series, where the job used what it speaks of."""
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


def _on_nodes(energy: Mapping[DeviceKey, float]) -> str:
    """The matcher, in braces, of the nodes that the job used; empty where they are not known, or too many to name."""
    pattern = any_of(sorted({instance for _, instance, *_ in energy} - {""}))
    return f"{{instance=~{pattern}}}" if len('""') < len(pattern) < _LONGEST_PATTERN else ""


def zone_name(region: str) -> str:
    """A grid zone in words, by the shipped table; empty for one that is not in it."""
    rows = tables.grid()
    row = rows.get((region, "lifecycle")) or rows.get((region, "direct"))
    territory = tables.territories().get(region)
    return row.name if row else territory.name if territory else ""
