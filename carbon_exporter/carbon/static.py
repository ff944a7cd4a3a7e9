"""The provider that needs no network: yearly intensities from the shipped tables, and which zones they know.

The lifecycle and the direct view are kept apart: a zone without a value in the chosen scope is priced by a stand-in of
the same scope, labelled `proxy`, or not at all; never by the other view.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from types import MappingProxyType

from carbon_exporter.carbon.base import Intensity, IntensityQuality, Scope
from carbon_exporter.carbon.tables import GridRow, aliases, grid, territories
from carbon_exporter.errors import IntensityError, RegionUnknown

__all__ = ["WORLD", "StaticProvider", "checked_zone", "is_known", "known_zones", "nearest_zones"]

WORLD = "world"
"""The zone that stands for the whole world: for a node whose place nobody knows."""

_NAME = "static"
_OTHER: Mapping[Scope, Scope] = {"lifecycle": "direct", "direct": "lifecycle"}
_SUBDIVISION = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}")
"""The form of an ISO 3166-2 code."""
_SUGGESTIONS = 5
_ALIKE = 0.6
"""From this ratio on (0..1, `difflib.SequenceMatcher.ratio`) two names are alike: `Frnace` and `France` have 0.83."""
_COMPARED = 64
"""No name is longer; the ratio's cost grows with the product of the lengths."""


@dataclass(frozen=True, slots=True)
class StaticProvider:
    """Yearly means of one scope from the shipped grid table."""

    scope: Scope

    @property
    def name(self) -> str:
        """The value of the `provider` label."""
        return _NAME

    def latest(self, zone: str) -> Intensity:
        """The table's intensity for `zone`, in gCO2e/kWh of this scope.

        Quality is `yearly` for a zone's own row, `proxy` for a stand-in's (the note names it), `world` for `world`.

        Raises:
            RegionUnknown: no table knows such a zone; the remedy names the nearest ones.
            IntensityError: the zone is known and has no value in this scope.
        """
        zone = checked_zone(zone)
        row = grid().get((zone, self.scope))
        if row:
            return _intensity(zone, row, "world" if zone == WORLD else "yearly")
        for stand_in, reason in _stand_ins(zone):
            row = grid().get((stand_in, self.scope))
            if row:
                return _intensity(zone, row, "proxy", self._proxy_note(zone, row, reason))
        raise self._no_value(zone)

    def _proxy_note(self, zone: str, row: GridRow, reason: str) -> str:
        note = f"no {self.scope} value for {zone}; the one of {row.zone} ({row.name}) stands in: {reason}"
        other = _OTHER[self.scope]
        if (zone, other) in grid():
            note += f"; set grid.scope: {other} for {zone}'s own value"
        return note

    def _no_value(self, zone: str) -> IntensityError:
        other = _OTHER[self.scope]
        return IntensityError(
            f"the shipped table has no {self.scope} intensity for {zone}",
            remedy=f"it has a {other} one: set grid.scope: {other} (--grid.scope={other})",
        )


def known_zones(scope: Scope) -> tuple[tuple[str, str], ...]:
    """Zone and name of every zone that has a value of its own in `scope`, by zone."""
    return tuple(sorted((row.zone, row.name) for row in grid().values() if row.scope == scope))


def is_known(zone: str) -> bool:
    """Whether a normalised zone has a value, a stand-in or a country with one, in either scope.

    Where the table has subdivisions of a country (`US-CA`), one that it lacks (`US-ZZ`) is a mistake; where it has
    none, any code of the right form (`DE-BY`) is taken for a part of its country.
    """
    if zone in _names():
        return True
    return bool(_SUBDIVISION.fullmatch(zone)) and zone[:2] in _names().keys() - _divided() and zone not in aliases()


def checked_zone(text: str, key: str = "") -> str:
    """The zone that `text` means: trimmed, in capitals (`world` stays as it is).

    Raises:
        RegionUnknown: no such zone; it names `key`, the setting or variable that held the text, and the nearest zones.
    """
    zone = text.strip()
    zone = WORLD if zone.casefold() == WORLD else zone.upper()
    if is_known(zone):
        return zone
    near = ", ".join(f"{code} ({name})" for code, name in nearest_zones(text))
    accepted = "an ISO 3166-1 code (FR), an ISO 3166-2 code (US-CA) or world"
    where = f"{key}: " if key else ""
    raise RegionUnknown(
        f"{where}{text!r} is not a known grid zone",
        remedy=f"nearest: {near}; accepted: {accepted}" if near else f"accepted: {accepted}",
    )


def nearest_zones(text: str) -> tuple[tuple[str, str], ...]:
    """Up to five zones whose code, name or alias is most like `text`, with their names, best first.

    If one of them is `text` itself, there is nothing else to suggest.
    """
    wanted = _folded(text)[:_COMPARED]
    best: dict[str, float] = {}
    for label, zone in _labels():
        ratio = SequenceMatcher(None, label, wanted).ratio()
        if ratio >= _ALIKE:
            best[zone] = max(ratio, best.get(zone, 0.0))
    exact = [zone for zone, ratio in best.items() if ratio == 1.0]
    ranked = exact or sorted(best, key=lambda zone: (-best[zone], zone))
    return tuple((zone, _names()[zone]) for zone in ranked[:_SUGGESTIONS])


def _stand_ins(zone: str) -> Iterator[tuple[str, str]]:
    """The zones that may stand in for one without a value, best first, each with the reason."""
    territory = territories().get(zone)
    if territory:
        yield territory.proxy_zone, f"{territory.reason} (our own judgement)"
    whole = territory.proxy_zone if territory else zone
    country, _, part = whole.partition("-")
    if part:
        yield country, f"{whole} is {'' if whole in _names() else 'taken for '}a part of it"


def _intensity(zone: str, row: GridRow, quality: IntensityQuality, note: str = "") -> Intensity:
    unverified = "not verified" if row.source.verified == "no" else ""
    notes = (note, row.note, row.source.note, unverified)
    return Intensity(
        zone=zone,
        grams_per_kwh=row.grams_per_kwh,
        provider=_NAME,
        scope=row.scope,
        basis="average",
        quality=quality,
        source=f"{row.source.citation} ({row.source.licence})",
        year=row.year,
        note="; ".join(filter(None, notes)),
    )


@cache
def _names() -> Mapping[str, str]:
    """Every zone that the tables name, in either scope or as a territory, with its name."""
    names = {row.zone: row.name for row in grid().values()}
    return MappingProxyType(names | {place.zone: place.name for place in territories().values()})


@cache
def _divided() -> frozenset[str]:
    """The countries of which the grid table has subdivisions."""
    return frozenset(zone[:2] for zone, _ in grid() if "-" in zone)


@cache
def _labels() -> tuple[tuple[str, str], ...]:
    """Code, name and aliases of every zone, folded for comparison, each with its zone."""
    pairs = [*((zone, zone) for zone in _names()), *((name, zone) for zone, name in _names().items())]
    return tuple((_folded(label), zone) for label, zone in (*pairs, *aliases().items()))


def _folded(text: str) -> str:
    """Without case, surrounding space and accents: `Réunion` and `reunion` are the same word."""
    plain = unicodedata.normalize("NFKD", text.strip().casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter))
