"""Budgets: how much a fleet, a namespace, some jobs or a user may use in a window of days, as a file says it.

Whatever is not understood is an error: a budget that watches nothing would look like one that is kept.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from carbon_exporter.errors import ConfigError

__all__ = ["Budget", "budgets"]

_MOST_DAYS = 366
_LONGEST_TEXT = 128
_DAYS = {"d": 1, "w": 7}


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount that may be used in every window of that many days; empty selectors choose everything."""

    name: str
    unit: Literal["g", "kWh"]
    amount: float
    """In `unit`."""
    days: int
    cluster: str = ""
    namespace: str = ""
    job: str = ""
    """A pattern of names: `*` is any text, `?` any character, everything else itself."""
    user: str = ""


def budgets(content: object, where: str) -> list[Budget]:
    """The budgets of a parsed file that is called `where`. Raises `ConfigError` for the first thing that is wrong."""
    if not isinstance(content, dict):
        raise ConfigError(where, "(whole file)", type(content).__name__, "a mapping with the key budgets")
    for key in content:
        if key != "budgets":
            raise ConfigError(where, str(key), content[key], "the key budgets alone")
    rows = content.get("budgets")
    if not isinstance(rows, list) or not rows:
        raise ConfigError(where, "budgets", rows, "a list of at least one budget")
    found: list[Budget] = []
    for number, row in enumerate(rows):
        budget = _budget(row, where, f"budgets[{number}]")
        if budget.name in {other.name for other in found}:
            raise ConfigError(where, f"budgets[{number}].name", budget.name, "a name that no other budget has")
        found.append(budget)
    return found


def _budget(row: object, where: str, at: str) -> Budget:
    if not isinstance(row, dict):
        raise ConfigError(where, at, row, f"a mapping of {', '.join(_ACCEPTED)}")
    for key in row:
        if key not in _ACCEPTED:
            raise ConfigError(where, f"{at}.{key}", row[key], _nearest(str(key)))
    values: dict[str, Any] = {key: _value(row[key], key, where, at) for key in row}
    for key in ("name", "window"):
        if key not in values:
            raise ConfigError(where, f"{at}.{key}", None, _ACCEPTED[key][1])
    if ("grams" in values) == ("kwh" in values):
        given = {key: row[key] for key in ("grams", "kwh") if key in row} or None
        raise ConfigError(where, f"{at}.grams", given, "either grams or kwh")
    if "user" in values and {"namespace", "job"} & values.keys():
        raise ConfigError(where, f"{at}.user", row["user"], "a user without namespace and job")
    scope = {key: values[key] for key in ("cluster", "namespace", "job", "user") if key in values}
    unit: Literal["g", "kWh"] = "g" if "grams" in values else "kWh"
    amount = values["grams" if unit == "g" else "kwh"]
    return Budget(name=values["name"], unit=unit, amount=amount, days=values["window"], **scope)


def _value(value: object, key: str, where: str, at: str) -> str | float:
    parse, accepted = _ACCEPTED[key]
    try:
        return parse(value)
    except (ValueError, OverflowError):
        raise ConfigError(where, f"{at}.{key}", value, accepted) from None


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, _ACCEPTED, n=1, cutoff=0.5)
    return f"no such key; nearest: {near[0]}" if near else f"no such key; there are {', '.join(_ACCEPTED)}"


def _text(value: object) -> str:
    """A text that can be a label's value. Raises `ValueError`."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_TEXT:
        raise ValueError(value)
    value.encode()  # a lone surrogate has no UTF-8, and its error is a ValueError
    return value


def _amount(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(value)
    return float(value)


def _window(value: object) -> int:
    """Whole days of a window. Raises `ValueError`."""
    found = re.fullmatch(r"([0-9]{1,3})([dw])", value) if isinstance(value, str) else None
    days = int(found[1]) * _DAYS[found[2]] if found else 0
    if not 1 <= days <= _MOST_DAYS:
        raise ValueError(value)
    return days


_A_TEXT = f"a text of 1 to {_LONGEST_TEXT} characters"
_AN_AMOUNT = "a number above 0"
_ACCEPTED: dict[str, tuple[Callable[[object], str | float], str]] = {
    "name": (_text, _A_TEXT),
    "grams": (_amount, _AN_AMOUNT),
    "kwh": (_amount, _AN_AMOUNT),
    "window": (_window, f"whole days or weeks up to {_MOST_DAYS} days, such as 1d, 7d, 4w or 30d"),
    "cluster": (_text, _A_TEXT),
    "namespace": (_text, _A_TEXT),
    "job": (_text, f"{_A_TEXT}; * is any text, ? any character"),
    "user": (_text, _A_TEXT),
}
"""Every key of a budget, what reads it (raises `ValueError`), and what it accepts."""
