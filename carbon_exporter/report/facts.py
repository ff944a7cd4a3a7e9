"""What a report says, as plain values: made by `gather`, read by the writers.

Energy in kWh, CO2e in grams, time in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Device",
    "Facts",
    "JobIdentity",
    "KindShare",
    "Price",
    "QualityShare",
    "RegionShare",
    "Slice",
    "SpanFacts",
    "worst",
]

QUALITIES = ("measured", "integrated", "modelled", "default")
"""How the numbers of a device are got, from the best to the worst."""

BOUNDS = {
    "measured": "hardware energy counters; about ±5 to 10 %",
    "integrated": "power meters, integrated; as the meter, and what sampling may miss",
    "modelled": "a model of this hardware and its load; about ±50 %",
    "default": "a constant, because nothing is known of this hardware; worse than ±50 %",
    "unknown": "this server does not hold what its devices said of themselves",
}
"""How far off energy may be: docs/sensors.md#qualities."""
PRICE_BOUNDS = {
    "yearly": "the zone's mean of a year; about ±25 %, up to ±50 % where data are poor",
    "proxy": "another zone stands in; about ±60 %",
    "world": "region not known; countries lie between about 20 and 1,300 g/kWh",
}
"""How far off intensities may be: docs/carbon.md#how-sure-it-is."""


def worst(qualities: set[str]) -> str:
    """The worst of them; one that is not known is worse than all, `unknown` where there is none."""
    ranks = {quality: rank for rank, quality in enumerate(QUALITIES)}
    return max(qualities, key=lambda quality: (ranks.get(quality, len(ranks)), quality), default="unknown")


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """Whose report it is."""

    name: str
    namespace: str
    """Empty outside Kubernetes."""
    clusters: tuple[str, ...]
    details: tuple[tuple[str, str], ...]
    """What `carbon_job_info` knows more of it: id, scheduler, queue, user, where they are known."""


@dataclass(frozen=True, slots=True)
class KindShare:
    """The energy of one kind of device (`gpu`, `cpu`, `dram`, …)."""

    kind: str
    energy_kwh: float
    mean_watts: float
    """Over the job's duration."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a kilowatt-hour was priced with, and on whose word."""

    provider: str
    quality: str
    source: str
    year: str
    located_by: str
    scope: str
    basis: str
    lowest_grams_per_kwh: float | None
    highest_grams_per_kwh: float | None

    @property
    def bound(self) -> str:
        """How far off it may be; empty where its quality says nothing of that."""
        return PRICE_BOUNDS.get(self.quality, "")


@dataclass(frozen=True, slots=True)
class RegionShare:
    """What was used and emitted in one grid zone."""

    region: str
    name: str
    """In words; empty for a zone that is not in the shipped table."""
    energy_kwh: float
    co2e_grams: float
    realised_grams_per_kwh: float | None
    """Grams over energy: what the kilowatt-hours really cost, site overhead included; None without energy."""
    pue: tuple[float, float] | None
    """The lowest and the highest power usage effectiveness; None where it is not stored."""
    prices: tuple[Price, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """Devices of one model that the job used."""

    kind: str
    vendor: str
    model: str
    sensor: str
    quality: str
    count: int
    energy_kwh: float
    """The job's, not all that the devices used."""

    @property
    def title(self) -> str:
        """Vendor and model, the vendor once; the kind where neither is known."""
        starts = self.model.casefold().startswith(self.vendor.casefold())
        return (self.model if starts else f"{self.vendor} {self.model}".strip()) or self.kind


@dataclass(frozen=True, slots=True)
class QualityShare:
    """How much of the energy was got how, by the worst that its device said of itself in a day."""

    quality: str
    energy_kwh: float
    share: float
    """0 to 1."""

    @property
    def bound(self) -> str:
        """What the quality means and how far off it may be."""
        return BOUNDS.get(self.quality, "")


@dataclass(frozen=True, slots=True)
class SpanFacts:
    """All spans of one name, of all ranks. They contain their children and are within the job's energy."""

    name: str
    ranks: int
    ended: float
    """How many ended."""
    seconds: float
    energy_kwh: float
    co2e_grams: float
    values: tuple[tuple[str, float], ...]
    """The newest of what was recorded, by name: of the lowest rank."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One window of the job's course."""

    begin: float
    end: float
    energy_kwh: tuple[tuple[str, float], ...]
    """By kind."""
    co2e_grams: float


@dataclass(frozen=True, slots=True)
class Facts:
    """One job in a stretch of time."""

    job: JobIdentity
    asked: tuple[float, float]
    """Unix seconds, as they were asked for."""
    began: float
    """When the job was first seen, or the beginning of what was asked for."""
    ended: float
    """When its energy last grew."""
    before: bool
    """Whether it was there already when the stretch began."""
    method: str
    """How the totals were got."""
    precision: float
    """Seconds by which `began` and `ended` may be off, apart from the scrape interval."""
    kinds: tuple[KindShare, ...]
    regions: tuple[RegionShare, ...]
    devices: tuple[Device, ...]
    qualities: tuple[QualityShare, ...]
    spans: tuple[SpanFacts, ...]
    course: tuple[Slice, ...]
    energy_kwh: float
    co2e_grams: float
    peak_watts: float
    """The largest mean of a window of the course."""
    notes: tuple[str, ...]
    version: str

    @property
    def seconds(self) -> float:
        """The job's duration."""
        return self.ended - self.began

    @property
    def mean_watts(self) -> float:
        """Over the duration."""
        return sum(share.mean_watts for share in self.kinds)
