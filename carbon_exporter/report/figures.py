"""Numbers as people read them: four digits and a unit that fits, with the exact value beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

__all__ = [
    "ENERGY",
    "MASS",
    "TIME",
    "Figure",
    "duration",
    "energy",
    "intensity",
    "mass",
    "moment",
    "number",
    "power",
    "share",
    "spread",
]

Units = Sequence[tuple[str, float]]
"""From the largest to the smallest, by how many of the unit of factor 1 each is."""
ENERGY: Units = (("GWh", 1e6), ("MWh", 1e3), ("kWh", 1), ("Wh", 1e-3), ("mWh", 1e-6))
MASS: Units = (("t", 1e6), ("kg", 1e3), ("g", 1), ("mg", 1e-3))
TIME: Units = (("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3))
"""Of means, which have a spread in the same unit."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number: what is shown, and its exact value in the unit of the metrics."""

    text: str
    value: float


def number(value: float) -> str:
    """Four digits; thousands are set apart."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "0"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:.3e}" if digits > 9 else f"{value:,.{digits}f}"  # noqa: PLR2004 - zeros that nobody counts
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def energy(kwh: float) -> Figure:
    """kWh, by the unit that fits."""
    return Figure(_scaled(kwh, ENERGY), kwh)


def mass(grams: float) -> Figure:
    """Grams of CO2e, by the unit that fits."""
    return Figure(_scaled(grams, MASS), grams)


def power(watts: float) -> Figure:
    """Watts, by the unit that fits."""
    return Figure(_scaled(watts, (("MW", 1e6), ("kW", 1e3), ("W", 1), ("mW", 1e-3))), watts)


def intensity(grams_per_kwh: float) -> Figure:
    """g/kWh."""
    return Figure(f"{number(grams_per_kwh)} g/kWh", grams_per_kwh)


def share(part: float) -> Figure:
    """A part of 1, as per cent."""
    return Figure(f"{number(100 * part)} %", part)


def duration(seconds: float) -> Figure:
    """Days, hours, minutes and seconds, from the largest that there is; below a minute with a fraction."""
    if seconds < 60:  # noqa: PLR2004
        return Figure(f"{number(seconds)} s", seconds)
    whole = round(seconds)
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count or parts:
            parts.append((count, unit))
    parts = parts[:3]
    while parts[-1][0] == 0:
        parts.pop()
    return Figure(" ".join(f"{count} {unit}" for count, unit in parts), seconds)


def moment(at: float) -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(round(at), timezone.utc).isoformat().replace("+00:00", "Z")


def spread(mean: float, deviation: float | None, units: Units = (("", 1),)) -> Figure:
    """A mean and its standard deviation in the unit that fits the mean: two digits of the deviation, and no more."""
    if not deviation or not math.isfinite(deviation):
        return Figure(_scaled(mean, units).strip() + (" ± 0" if deviation == 0 else ""), mean)
    unit, factor = _fitting(mean, units)
    decimals = min(max(0, 1 - math.floor(math.log10(deviation / factor))), 12)
    return Figure(f"{mean / factor:,.{decimals}f} ± {deviation / factor:,.{decimals}f} {unit}".strip(), mean)


def _scaled(value: float, units: Units) -> str:
    unit, factor = _fitting(value, units)
    return f"{number(value / factor)} {unit}"


def _fitting(value: float, units: Units) -> tuple[str, float]:
    """The largest unit of which it has one; for nothing at all the unit of factor 1."""
    plain = next(unit for unit in units if unit[1] == 1)
    return next((unit for unit in units if abs(value) >= unit[1]), units[-1] if value else plain)
