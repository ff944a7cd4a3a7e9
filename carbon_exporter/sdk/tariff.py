"""Tariff: what a kilowatt-hour costs in money, now and later."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from carbon_exporter.errors import ConfigError
from carbon_exporter.sdk.trouble import trouble
from carbon_exporter.units import Joules, kilowatt_hours

__all__ = ["Bill", "Tariff", "TariffLike", "own_tariff", "tariff_of"]

TariffLike: TypeAlias = "Tariff | str | float | Callable[[float], float] | None"
"""`0.31`, `"0.31 EUR"`, a function of Unix seconds, or a `Tariff`."""

_TEXT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]{1,8}|[^\w\s])?\s*(?:/\s*kWh)?\s*")
_ACCEPTED = "a price per kWh such as 0.31 or '0.31 EUR', or a function of Unix seconds that returns one"


class Tariff:
    """A price per kWh of the site's energy: a number, or a function of Unix seconds where it depends on the hour."""

    __slots__ = ("_price", "currency")

    def __init__(self, price: float | Callable[[float], float], currency: str = "") -> None:
        """`currency` is only shown: nothing is converted."""
        self._price, self.currency = price, currency

    def per_kwh(self, at: float) -> float:
        """The price at a moment in Unix seconds."""
        return float(self._price(at)) if callable(self._price) else self._price

    def cost(self, joules: float, pue: float, at: float) -> float:
        """Of this much IT energy with the site's overhead, at that moment's price."""
        return float(kilowatt_hours(Joules(joules))) * pue * self.per_kwh(at)


class Bill:
    """What a run has cost so far, each part at the price of when it was looked at."""

    __slots__ = ("_joules", "_tariff", "amount")

    def __init__(self, tariff: Tariff) -> None:
        """Nothing yet."""
        self._tariff, self._joules = tariff, 0.0
        self.amount = 0.0

    def until(self, joules: float, pue: float, at: float) -> float:
        """The amount, with what was used since the last look at the price of `at` (Unix seconds)."""
        self.amount += self._tariff.cost(max(0.0, joules - self._joules), pue, at)
        self._joules = max(joules, self._joules)
        return self.amount


def own_tariff(environ: Mapping[str, str]) -> Tariff | None:
    """The environment's; one that cannot be is said once, and is none: no script ends for it."""
    try:
        return tariff_of(environ.get("CARBON_TARIFF"), "environment")
    except ConfigError as error:
        trouble("reading CARBON_TARIFF", error)
        return None


def tariff_of(told: TariffLike, where: str = "CarbonRun") -> Tariff | None:
    """What an argument or a variable says; None for nothing. Raises `ConfigError` for what is no price."""
    if told is None or isinstance(told, Tariff):
        return told
    if told == "":
        return None
    if callable(told):
        return Tariff(told)
    match = _TEXT.fullmatch(str(told))
    if match is None:
        raise ConfigError(where, "tariff", told, _ACCEPTED)
    return Tariff(float(match[1]), match[2] or "")
