"""The door of the carbon room: what a kilowatt-hour emits, where this node is, and who says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from carbon_exporter.units import GramsPerKwh

__all__ = ["Basis", "Intensity", "IntensityQuality", "LocatedBy", "Location", "Provider", "Scope"]

Scope = Literal["lifecycle", "direct"]
"""lifecycle: with fuel supply and construction of the plants; direct: what leaves the stack. Never mixed."""
Basis = Literal["average", "marginal"]
IntensityQuality = Literal["live", "forecast", "yearly", "proxy", "world"]
LocatedBy = Literal["setting", "environment", "timezone", "nothing"]


@dataclass(frozen=True, slots=True)
class Location:
    """Where the node is said to be, and on whose word."""

    zone: str
    """ISO 3166-1 (`FR`), 3166-2 (`US-CA`), or `world` when nothing is known."""
    located_by: LocatedBy
    note: str = ""
    """A sentence for people; with a guess or with nothing it says how to set the region."""


@dataclass(frozen=True, slots=True)
class Intensity:
    """The carbon intensity of one grid zone, and its provenance."""

    zone: str
    grams_per_kwh: GramsPerKwh
    provider: str
    scope: Scope
    basis: Basis
    quality: IntensityQuality
    source: str
    """A citation: publisher, edition, licence."""
    year: int | None = None
    """The year that a yearly value describes."""
    at: float | None = None
    """Unix seconds that a live value describes; None for yearly ones, which do not go stale by the hour."""
    note: str = ""
    """What a reader should know before believing it: a proxy's zone, a doubtful source."""


class Provider(Protocol):
    """A source of intensities."""

    @property
    def name(self) -> str:
        """The value of the `provider` label."""
        ...

    def latest(self, zone: str) -> Intensity:
        """The newest intensity of `zone`. Raises `RegionUnknown`."""
        ...
