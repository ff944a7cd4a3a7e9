"""PromQL, taken apart: which series an expression reads and how, and in which unit its result is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser

__all__ = ["ONE", "Read", "Unit", "grams", "joules", "reads", "seconds", "unit_of", "unit_of_series"]


class Read(NamedTuple):
    """One series selector of an expression."""

    name: str
    calls: tuple[str, ...]
    """Functions and aggregations around it, the innermost last."""
    window: str
    """The range or subquery that it stands in directly, as PromQL spells it; empty for the newest sample."""


class Unit(NamedTuple):
    """A unit as so much of base units: joules, grams, seconds, and others by name."""

    factor: float
    powers: tuple[tuple[str, int], ...] = ()

    def __mul__(self, other: object) -> Unit:
        """The unit of a product."""
        assert isinstance(other, Unit)
        powers = dict(self.powers)
        for base, power in other.powers:
            powers[base] = powers.get(base, 0) + power
        return Unit(self.factor * other.factor, tuple(sorted((b, p) for b, p in powers.items() if p)))

    def inverse(self) -> Unit:
        """The unit of one over it."""
        return Unit(1 / self.factor, tuple((base, -power) for base, power in self.powers))

    def same(self, other: Unit) -> bool:
        """Whether numbers in the two may be compared and added."""
        return self.powers == other.powers and math.isclose(self.factor, other.factor)


ONE = Unit(1)
joules, grams, seconds = (Unit(1, ((base, 1),)) for base in ("joule", "gram", "second"))
_KWH = Unit(3.6e6) * joules
_SUFFIXES = {
    "_grams_per_kwh": grams * _KWH.inverse(),
    "_joules_per_span": joules,
    "_joules_per_value": joules,
    "_grams_per_gain": grams,
    "_kwh": _KWH,
    "_grams": grams,
    "_watts": joules * seconds.inverse(),
    "_seconds": seconds,
    "_bytes": Unit(1, (("byte", 1),)),
    "_celsius": Unit(1, (("celsius", 1),)),
}
_COMPARISONS = {">", "<", ">=", "<=", "==", "!="}


def unit_of_series(name: str) -> Unit:
    """The unit that the metric's name ends with: a counter's before `_total`, a record's before its operation."""
    metric = name.split(":")[1] if name.count(":") == 2 else name
    if name.count(":") == 2 and name.split(":")[2].startswith("ratio") and "_per_" not in metric:
        return ONE
    metric = metric.removesuffix("_total")
    return next((unit for suffix, unit in _SUFFIXES.items() if metric.endswith(suffix)), ONE)


def reads(expr: str) -> list[Read]:
    """Every series that the expression reads; a ValueError says where it is no PromQL."""
    return list(_reads(promql_parser.parse(expr), (), ""))


def unit_of(expr: str) -> Unit:
    """The unit of the expression's result; an AssertionError says which parts do not fit together."""
    return _unit(promql_parser.parse(expr)) or ONE


def _reads(node: Any, calls: tuple[str, ...], window: str) -> Iterator[Read]:
    kind = type(node).__name__
    if kind == "VectorSelector":
        yield Read(node.name, calls, window)
    elif kind == "MatrixSelector":
        yield Read(node.vector_selector.name, calls, _seconds(node.range))
    elif kind == "SubqueryExpr":
        yield from _reads(node.expr, calls, f"{_seconds(node.range)}:{_seconds(node.step)}")
    elif kind == "Call":
        for argument in node.args:
            yield from _reads(argument, (*calls, node.func.name), window)
    elif kind == "AggregateExpr":
        yield from _reads(node.expr, (*calls, str(node.op)), window)
    elif kind == "BinaryExpr":
        yield from _reads(node.lhs, calls, window)
        yield from _reads(node.rhs, calls, window)
    elif kind in {"ParenExpr", "UnaryExpr"}:
        yield from _reads(node.expr, calls, window)


def _seconds(span: Any) -> str:
    return f"{span.total_seconds():g}s" if span is not None else ""


def _unit(node: Any) -> Unit | None:
    """None stands for a bare number, which fits to any unit."""
    kind = type(node).__name__
    if kind == "VectorSelector":
        return unit_of_series(node.name)
    if kind == "MatrixSelector":
        return unit_of_series(node.vector_selector.name)
    if kind in {"ParenExpr", "SubqueryExpr", "UnaryExpr", "AggregateExpr"}:
        counted = kind == "AggregateExpr" and str(node.op) == "count"
        return ONE if counted else _unit(node.expr)
    if kind == "Call":
        return _of_call(node)
    if kind == "BinaryExpr":
        return _of_pair(node)
    assert kind == "NumberLiteral", kind
    return None


def _of_call(node: Any) -> Unit | None:
    name = node.func.name
    if name == "time":
        return seconds
    inner = _unit(node.args[0 if name == "label_replace" else -1])
    if name == "rate":
        return (inner or ONE) * seconds.inverse()
    assert name in {"increase", "label_replace", "vector"} or name.endswith("_over_time"), name
    return inner


def _of_pair(node: Any) -> Unit | None:
    sign, left, right = str(node.op), _unit(node.lhs), _unit(node.rhs)
    if sign in {"*", "/"}:
        over = sign == "/"
        left = left or _scale(node.lhs)
        right = right or _scale(node.rhs)
        return left * (right.inverse() if over else right)
    if sign in {"and", "unless"} or sign in _COMPARISONS:
        assert left is None or right is None or sign not in _COMPARISONS or left.same(right), str(node)
        return left
    assert left is None or right is None or left.same(right), str(node)
    return left or right


def _scale(literal: Any) -> Unit:
    """A factor of 1000 makes grams of kilograms: its unit is one thousandth."""
    return Unit(1 / literal.val) if literal.val else ONE
