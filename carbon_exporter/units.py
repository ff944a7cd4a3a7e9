"""Units of the quantities that flow through the house, as types, and the one place where they are converted.

A bare number says nothing about joules or kilowatt-hours; a `NewType` costs nothing at run time and lets mypy refuse
a sum of grams and watts.
"""

from __future__ import annotations

from typing import NewType

__all__ = [
    "JOULES_PER_KWH",
    "MICROJOULES_PER_JOULE",
    "Grams",
    "GramsPerKwh",
    "Joules",
    "KilowattHours",
    "Watts",
    "grams_emitted",
    "kilowatt_hours",
    "mean_watts",
]

Joules = NewType("Joules", float)
Watts = NewType("Watts", float)
KilowattHours = NewType("KilowattHours", float)
Grams = NewType("Grams", float)
"""Grams of CO2 equivalent."""
GramsPerKwh = NewType("GramsPerKwh", float)
"""Grams of CO2 equivalent per kilowatt-hour: the carbon intensity of electricity."""

JOULES_PER_KWH = 3.6e6
"""One kilowatt-hour is 1000 W for 3600 s, exactly (SI Brochure, 9th edition, table 8)."""

MICROJOULES_PER_JOULE = 1e6


def kilowatt_hours(joules: Joules) -> KilowattHours:
    """Energy in kWh."""
    return KilowattHours(joules / JOULES_PER_KWH)


def grams_emitted(joules: Joules, intensity: GramsPerKwh, pue: float) -> Grams:
    """Operational CO2e of IT energy: kWh x intensity x power usage effectiveness (dimensionless, >= 1)."""
    return Grams(joules / JOULES_PER_KWH * intensity * pue)


def mean_watts(joules: Joules, seconds: float) -> Watts:
    """Mean power over `seconds` (> 0) in which `joules` were used."""
    return Watts(joules / seconds)
