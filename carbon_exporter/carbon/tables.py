"""The shipped tables of the carbon room, read from `carbon_exporter/data` on first use and kept.

`data/PROVENANCE.md` says where each table comes from. Every row names a key of `sources.csv`, where its citation and
licence stand.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

from carbon_exporter.carbon.base import Scope
from carbon_exporter.units import Grams, GramsPerKwh

__all__ = [
    "Equivalent",
    "GridRow",
    "Source",
    "Territory",
    "aliases",
    "equivalents",
    "grid",
    "sources",
    "territories",
    "time_zones",
]

_SCOPES: Mapping[str, Scope] = {"lifecycle": "lifecycle", "direct": "direct"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a row comes from and under which licence it may be passed on."""

    key: str
    citation: str
    """Publisher, title, edition."""
    licence: str
    """An SPDX identifier, or one of the words that PROVENANCE.md explains."""
    verified: str
    """`publisher`, `compared`, `transcribed` or `no`: how the value was checked (PROVENANCE.md)."""
    note: str
    """What a reader should know before believing any row of it."""


@dataclass(frozen=True, slots=True)
class GridRow:
    """The mean carbon intensity of one zone's electricity over one year, in one scope."""

    zone: str
    """ISO 3166-1 alpha-2 (`FR`), ISO 3166-2 (`US-CA`), or `world`."""
    name: str
    scope: Scope
    grams_per_kwh: GramsPerKwh
    year: int
    source: Source
    note: str
    """What concerns this row alone."""


@dataclass(frozen=True, slots=True)
class Territory:
    """A place without a value of its own, and the zone whose value stands in for it: our own judgement."""

    zone: str
    name: str
    proxy_zone: str
    reason: str


@dataclass(frozen=True, slots=True)
class Equivalent:
    """Something that everybody knows, and what one of it emits: for the imagination."""

    key: str
    what: str
    """In the plural, after a number."""
    grams: Grams
    year: str
    """Empty where the source does not say."""
    source: Source


@cache
def equivalents() -> tuple[Equivalent, ...]:
    """What emits as much, in the order of the table."""
    return tuple(
        Equivalent(row["key"], row["what"], Grams(float(row["grams"])), row["year"], sources()[row["source"]])
        for row in _rows("equivalents.csv")
    )


@cache
def sources() -> Mapping[str, Source]:
    """Citations and licences by key."""
    return MappingProxyType({row["key"]: Source(**row) for row in _rows("sources.csv")})


@cache
def grid() -> Mapping[tuple[str, Scope], GridRow]:
    """Yearly carbon intensities in gCO2e/kWh by zone and scope; a zone may have a row in one scope only."""
    rows = (_grid_row(row) for row in _rows("grid_intensity.csv"))
    return MappingProxyType({(row.zone, row.scope): row for row in rows})


@cache
def territories() -> Mapping[str, Territory]:
    """Places without a value of their own, by zone."""
    return MappingProxyType(
        {
            row["territory"]: Territory(row["territory"], row["name"], row["proxy_zone"], row["reason"])
            for row in _rows("territory_parent.csv")
        }
    )


@cache
def time_zones() -> Mapping[str, str]:
    """ISO 3166-1 country by IANA time zone; zones that name no country (`Etc/UTC`, `CET`) are not in it."""
    return MappingProxyType({row["timezone"]: row["country"] for row in _rows("timezones.csv")})


@cache
def aliases() -> Mapping[str, str]:
    """What people write, in capitals, for a zone that has another code (`UK`): to suggest it, never to price by it."""
    return MappingProxyType({row["alias"]: row["zone"] for row in _rows("zone_alias.csv")})


def _rows(table: str) -> Iterator[dict[str, str]]:
    text = (resources.files("carbon_exporter") / "data" / table).read_text(encoding="utf-8")
    return iter(csv.DictReader(text.splitlines()))


def _grid_row(row: dict[str, str]) -> GridRow:
    return GridRow(
        zone=row["zone"],
        name=row["name"],
        scope=_SCOPES[row["scope"]],
        grams_per_kwh=GramsPerKwh(float(row["g_co2e_per_kwh"])),
        year=int(row["year"]),
        source=sources()[row["source"]],
        note=row["note"],
    )
