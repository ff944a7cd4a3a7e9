"""The grid as this node sees it: where it is, what its electricity emits, and the site's overhead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from carbon_exporter.carbon.base import Intensity, Location, Provider
from carbon_exporter.carbon.region import locate
from carbon_exporter.errors import IntensityError

__all__ = ["Grid", "locate_grid"]


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the node is, and what a kilowatt-hour costs the air there."""

    location: Location
    intensity: Intensity
    pue: float
    """Power usage effectiveness of the site, >= 1: facility energy over IT energy."""

    @property
    def region(self) -> str:
        """The value of the `region` label."""
        return self.location.zone

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should know before believing the grams."""
        return tuple(note for note in (self.location.note, self.intensity.note) if note)


def locate_grid(
    region: str, provider: Provider, pue: float, environ: Mapping[str, str], *, etc: Path = Path("/etc")
) -> Grid:
    """The grid for these settings. Raises `RegionUnknown`, or `IntensityError` if the provider has no value for it.

    A place that was only guessed and has no value falls back to the world's, and says so.
    """
    location = locate(region, environ, etc)
    try:
        return Grid(location, provider.latest(location.zone), pue)
    except IntensityError as error:
        if location.located_by != "timezone":
            raise
        world = Location("world", "nothing", f"{location.note}; {error}; priced at the world's average")
        return Grid(world, provider.latest(world.zone), pue)
