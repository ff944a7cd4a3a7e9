"""The outlook of a run: its epochs so far, the grid and the tariff joined into what it will have taken in the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from carbon_exporter.sdk.base import Price
from carbon_exporter.sdk.epochs import EpochLog, Passed
from carbon_exporter.sdk.prediction import Forecast, Range, around, mean_intensity, product, rest_of, spread_of
from carbon_exporter.sdk.tariff import Tariff
from carbon_exporter.units import JOULES_PER_KWH

__all__ = ["Prediction", "Used", "predict"]


class Used(NamedTuple):
    """What the run has taken until now."""

    seconds: float
    joules: float
    grams: float
    cost: float
    """In the tariff's currency; 0 without one."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the run is likely to have taken in the end: each a value, and where it lies in 95 of 100 cases."""

    done: int
    """Epochs."""
    epochs: int
    energy_kwh: Range
    co2e_grams: Range
    cost: Range | None
    """None without a tariff."""
    currency: str
    end: Range
    """Unix seconds."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        ranges = {"energy_kwh": self.energy_kwh, "co2e_grams": self.co2e_grams, "cost": self.cost, "end": self.end}
        plain = {name: one._asdict() for name, one in ranges.items() if one is not None}
        return {"done": self.done, "epochs": self.epochs, **plain, "currency": self.currency}

    def attributes(self) -> dict[str, float]:
        """As attributes of an OpenTelemetry span: J, g, money, Unix seconds, each with `.low` and `.high`."""
        ranges = {"energy": self.energy_kwh.times(JOULES_PER_KWH), "co2e": self.co2e_grams, "end": self.end}
        if self.cost is not None:
            ranges["cost"] = self.cost
        found: dict[str, float] = {}
        for name, (value, low, high) in ranges.items():
            key = f"carbon.run.predicted.{name}"
            found |= {key: value, f"{key}.low": low, f"{key}.high": high}
        return found

    def __str__(self) -> str:
        """One line: `3 of 10 epochs; in all 0.12 kWh (0.11 to 0.13), 43 g (39 to 47), until 14:05 (14:01 to 14:09)`."""
        told = [f"{_range(self.energy_kwh)} kWh", f"{_range(self.co2e_grams)} g"]
        if self.cost is not None:
            told.append(f"{_range(self.cost)} {self.currency}".rstrip())
        return f"{self.done} of {self.epochs} epochs; in all {', '.join(told)}, until {_until(self.end)}"


def predict(
    log: EpochLog,
    used: Used,
    *,
    at: float,
    wall: float,
    price: Price,
    forecast: Forecast | None = None,
    tariff: Tariff | None = None,
) -> Prediction | None:
    """None where there is nothing to go by: no epoch has ended, nobody knows how many there are, or no meter has told.

    Args:
        log: the epochs so far.
        used: by the run until now.
        at: now, on the monotonic clock.
        wall: now, in Unix seconds.
        price: the grid's, as it is now.
        forecast: of the grid's intensity, g/kWh; without one that of now is taken to stay as much as it did so far.
        tariff: money per kWh.
    """
    left, passed = log.left, log.passed(at)
    if left is None or not passed or used.joules <= 0:
        return None
    seconds, joules = _ahead(log, passed, used, left)
    facility = joules.times(price.pue / JOULES_PER_KWH)
    grams = product(facility, _intensity(passed, price, forecast, wall, seconds.value))
    cost = None
    if tariff is not None:
        mean = mean_intensity(lambda moment: _exact(tariff.per_kwh(moment)), wall, seconds.value)
        cost = product(facility, mean).plus(used.cost)
    return Prediction(
        log.done,
        log.done + left,
        joules.plus(used.joules).times(1 / JOULES_PER_KWH),
        grams.plus(used.grams),
        cost,
        tariff.currency if tariff else "",
        seconds.plus(wall),
    )


def _ahead(log: EpochLog, passed: Sequence[Passed], used: Used, left: int) -> tuple[Range, Range]:
    """Seconds and joules of the epochs that are left, each with the time before it, at the mean power outside."""
    whole = log.together(passed)
    outside = max(0.0, used.seconds - whole.seconds)
    watts = max(0.0, used.joules - whole.joules) / outside if outside > 0 else 0.0
    seconds = rest_of([one.seconds + one.gap_seconds for one in passed], left)
    joules = rest_of([one.joules + watts * one.gap_seconds for one in passed], left)
    return seconds, joules


def _intensity(passed: Sequence[Passed], price: Price, forecast: Forecast | None, wall: float, seconds: float) -> Range:
    if forecast is not None:
        return mean_intensity(forecast, wall, seconds)
    share = spread_of([one.grams / one.joules for one in passed if one.joules > 0], seconds)
    return around(float(price.grams_per_kwh), share)


def _exact(value: float) -> Range:
    return Range(value, value, value)


def _range(one: Range) -> str:
    return f"{one.value:.3g} ({one.low:.3g} to {one.high:.3g})"


def _until(end: Range) -> str:
    same_day = time.localtime(end.low)[:3] == time.localtime(end.high)[:3] == time.localtime()[:3]
    form = "%H:%M" if same_day else "%d %b %H:%M"
    value, low, high = (time.strftime(form, time.localtime(moment)) for moment in end)
    return value if low == high else f"{value} ({low} to {high})"
