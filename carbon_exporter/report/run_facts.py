"""What is known of one run, as plain values: energy in kWh, CO2e in grams, time in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Run", "Value"]

Value = tuple[str, str]
"""What a script records: in which span, and under which name."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run, of all its ranks."""

    cluster: str
    namespace: str
    job: str
    name: str
    about: tuple[tuple[str, str], ...]
    """Model, dataset and batch size, where the script told them."""
    ranks: int
    began: float
    """Unix seconds, to the scrape."""
    ended: float
    energy_kwh: float
    co2e_grams: float
    values: tuple[tuple[Value, float], ...]
    """The newest of each span and name at the run's end: the mean over ranks."""
    goes_on: bool
    """Whether it may not have ended."""
    cut: bool
    """Whether it began before the stretch: what it used until then is not in it."""

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.ended - self.began

    @property
    def whole(self) -> bool:
        """Whether all of it is known, so that it may be compared."""
        return not (self.goes_on or self.cut)

    def value(self, which: Value) -> float | None:
        """What it recorded there; None if nothing."""
        return dict(self.values).get(which)

    def of_one(self, which: Value) -> tuple[float, float] | None:
        """Energy and CO2e of one unit of a value; None where it is not above 0, for then they mean nothing."""
        value = self.value(which)
        return (self.energy_kwh / value, self.co2e_grams / value) if value and 0 < value < math.inf else None
