"""What a kilowatt-hour emits: an invented intensity that changes each half hour, as a live provider's does.

The curves have the height and the daily swing of their region (more sun at noon, more gas in the evening) and are not
data of anybody.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

__all__ = ["HALF_HOUR", "HORIZONS", "PROVIDER", "SOURCE", "Zone", "forecast", "intensity", "zone"]

HALF_HOUR = 1800.0
PROVIDER, SOURCE = "synthetic", "invented for the demonstration"
HORIZONS = {"1h": 3600.0, "6h": 21600.0, "24h": 86400.0}
"""Label of a forecast, and seconds ahead."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A grid and the site on it."""

    mean: float
    """g/kWh, life cycle."""
    swing: float
    """Of the day, as a share of the mean."""
    pue: float


_ZONES = {"DE": Zone(360.0, 0.35, 1.25), "SE": Zone(28.0, 0.15, 1.1)}


def zone(region: str) -> Zone:
    """The grid of a region. Raises `KeyError` for one that the scenario has not."""
    return _ZONES[region]


def intensity(region: str, unix: float) -> float:
    """Grams per kilowatt-hour in the half hour of `unix`, without the site's overhead."""
    return _in_half_hour(region, math.floor(unix / HALF_HOUR))


@cache
def _in_half_hour(region: str, half_hour: int) -> float:
    grid, hour = _ZONES[region], half_hour / 2 % 24
    sun = math.cos(2 * math.pi * (hour - 19.5) / 24)
    weather = math.sin(2 * math.pi * half_hour / 171) + 0.5 * math.sin(2 * math.pi * half_hour / 37)
    return round(grid.mean * (1 + grid.swing * (0.8 * sun + 0.2 * weather)), 1)


def forecast(region: str, unix: float, ahead: float) -> float:
    """What was foretold at `unix` for `ahead` seconds later: the truth, a few percent off."""
    return round(intensity(region, unix + ahead) * (1 + 0.04 * math.sin(unix / 7777.0 + ahead)), 1)
