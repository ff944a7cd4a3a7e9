"""Budget: so many grams, kilowatt-hours or so much money for a run, and what is done when it is used up."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from carbon_exporter.errors import BudgetExceeded, ConfigError
from carbon_exporter.sdk.tariff import Tariff
from carbon_exporter.sdk.trouble import trouble

__all__ = ["Budget", "BudgetWatch", "OnExceed", "action_of", "budget_of"]

OnExceed: TypeAlias = "Literal['warn', 'stop'] | Callable[[BudgetExceeded], object]"

_log = logging.getLogger("carbon_exporter.sdk")
_FACTORS = {"g": ("g", 1.0), "kg": ("g", 1e3), "t": ("g", 1e6), "kwh": ("kWh", 1.0), "wh": ("kWh", 1e-3)}
_FACTORS["mwh"] = ("kWh", 1e3)
_TEXT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9]+)\s*([A-Za-z]{1,8}|[^\w\s])\s*")
_ACCEPTED = "an amount with its unit: '500 g', '1.2 kg', '3 kWh', or money in the tariff's currency: '20 EUR'"


class Budget(NamedTuple):
    """What a run may use."""

    amount: float
    unit: str
    """g (of CO2e), kWh, or a currency."""

    def used(self, energy_kwh: float, co2e_grams: float, cost: float | None) -> float:
        """How much of it that is, in its unit."""
        return {"g": co2e_grams, "kWh": energy_kwh}.get(self.unit, cost or 0.0)


class BudgetWatch:
    """A run's budget: whether it is used up, and what is done about that between two epochs."""

    def __init__(
        self, budget: Budget, on_exceed: OnExceed, checkpoint: Callable[[BudgetExceeded], object] | None
    ) -> None:
        """`checkpoint` is called right before `BudgetExceeded` is raised."""
        self._budget, self._on_exceed, self._checkpoint = budget, on_exceed, checkpoint
        self._acted = False
        self.exceeded: BudgetExceeded | None = None
        """Once it is used up."""

    def look(self, run: str, energy_kwh: float, co2e_grams: float, cost: float | None) -> None:
        """Note and say once that it is used up. Never raises."""
        used = self._budget.used(energy_kwh, co2e_grams, cost)
        if self.exceeded is None and used > self._budget.amount:
            self.exceeded = BudgetExceeded(run, used, self._budget.amount, self._budget.unit)
            _log.warning("%s", self.exceeded.reason)

    def enforce(self) -> None:
        """Do what was asked for. Raises `BudgetExceeded` where that is to stop."""
        if self.exceeded is None or self._acted:
            return
        if self._on_exceed == "stop" or (callable(self._on_exceed) and self._called(self._on_exceed) == "stop"):
            raise self.exceeded from self._saved()
        self._acted = True

    def _called(self, action: Callable[[BudgetExceeded], object]) -> object:
        """What a user's function answers; trouble of its own does not end a training."""
        try:
            return action(self.exceeded) if self.exceeded else None
        except Exception as error:  # noqa: BLE001 - as said
            trouble("calling on_exceed", error)
            return None

    def _saved(self) -> Exception | None:
        """What went wrong when the checkpoint was saved, if anything: it becomes the cause of what is raised."""
        try:
            if self._checkpoint is not None and self.exceeded is not None:
                self._checkpoint(self.exceeded)
        except Exception as error:  # noqa: BLE001 - as said
            return error
        return None


def budget_of(told: str | Budget | None, tariff: Tariff | None) -> Budget | None:
    """What an argument says. Raises `ConfigError` for what is none, and for money without a tariff in its currency."""
    if told is None:
        return None
    amount, given = told if isinstance(told, Budget) else _parts(told)
    if not (isinstance(amount, (int, float)) and 0 <= amount < math.inf and isinstance(given, str)):
        raise ConfigError("CarbonRun", "budget", told, _ACCEPTED)
    unit, factor = _FACTORS.get(given.lower(), (given, 1.0))
    if unit not in {"g", "kWh"} and (tariff is None or tariff.currency != unit):
        raise ConfigError("CarbonRun", "budget", told, f"{_ACCEPTED}; money needs tariff='0.31 {unit}', per kWh")
    return Budget(float(amount) * factor, unit)


def _parts(told: str) -> tuple[float, str]:
    """Amount and unit of a text; not a number where there are none."""
    match = _TEXT.fullmatch(str(told))
    return (float(match[1]), match[2]) if match else (math.nan, "")


def action_of(told: OnExceed) -> OnExceed:
    """The same, if it is one. Raises `ConfigError`."""
    if callable(told) or told in {"warn", "stop"}:
        return told
    raise ConfigError("CarbonRun", "on_exceed", told, "warn, stop, or a function of the BudgetExceeded")
