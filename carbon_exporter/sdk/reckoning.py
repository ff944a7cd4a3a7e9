"""Reckoning: from a lap's parts and the odometer's tallies to joules by device, with their bounds. Pure.

A part's energy is its weight in what the process used from its one edge to the other. Edges within a lap appear in two
parts, so that what is not known of such an edge matters only by how much the weight changes there. Bounds of edges add
up as `odometer.span_bound` has it: as squares, with gaps on top.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from carbon_exporter.sdk.base import Sum, Tally
from carbon_exporter.sdk.lanes import Moment, Part
from carbon_exporter.sdk.odometer import EdgeTally
from carbon_exporter.sensors.base import Kind, Quality
from carbon_exporter.units import Grams, Joules

__all__ = ["NO_QUALITY", "Figures", "Fold", "Meter", "figures_of"]

NO_QUALITY = "none"
"""Where no meter told anything."""


class Meter(NamedTuple):
    """What is to be known of a device here."""

    kind: Kind
    quality: Quality


_UNKNOWN = Meter("other", Quality.DEFAULT)
_QUALITIES = tuple(Quality)
_NAMES = (*(quality.value for quality in _QUALITIES), NO_QUALITY)
"""By rank; the last, which is number -1 too, where there was nothing."""
_RANKS = {id(quality): rank for rank, quality in enumerate(_QUALITIES)}
"""By identity: a member's own hash takes longer than all else that is done with it here."""


class Figures(NamedTuple):
    """What a lap cost, as far as is known."""

    joules: Mapping[str, Joules]
    """By device name."""
    bound: Mapping[str, Joules]
    kinds: Mapping[Kind, Joules]
    seconds: float
    grams: Grams
    quality: str
    shared: bool
    settled: bool

    @property
    def energy(self) -> Joules:
        """All devices together."""
        return Joules(sum(self.joules.values()))

    @property
    def uncertainty(self) -> Joules:
        """How far off `energy` may be in 95 of 100 cases: devices' meters move independently of each other."""
        return Joules(math.hypot(*self.bound.values()))


class Fold:
    """A sum of parts, in the order of time."""

    __slots__ = ("_edge", "_gaps", "_joules", "_squares", "_tally", "_weights", "settled")

    def __init__(self) -> None:
        self._joules: dict[str, float] = {}
        self._squares: dict[str, float] = {}
        """Of the bounds of all edges but the last."""
        self._gaps: dict[str, float] = {}
        """What may have been used unmeasured."""
        self._edge: Moment | None = None
        self._tally = Tally({}, {}, settled=True)
        """At that edge."""
        self._weights = (0.0, 0.0)
        """Of the part before that edge."""
        self.settled = True

    def copy(self) -> Fold:
        """Another one, to go on with."""
        other = Fold()
        other._joules, other._squares, other._gaps = dict(self._joules), dict(self._squares), dict(self._gaps)
        other._edge, other._tally, other._weights = self._edge, self._tally, self._weights
        other.settled = self.settled
        return other

    def add(self, part: Part, tally: Callable[[Moment], Tally], kinds: Mapping[str, Meter]) -> None:
        """Add a part that begins where the last one ended, or later."""
        start, end, cpu, rest = part
        if start != self._edge:
            _leave(self._squares, self._tally, self._weights, (0.0, 0.0), kinds)
            self._tally, self._weights = tally(start), (0.0, 0.0)
        _leave(self._squares, self._tally, self._weights, (cpu, rest), kinds)
        before, self._tally = self._tally, tally(end)
        for device, joules in self._tally.joules.items():
            weight = cpu if _is_cpu(device, kinds) else rest
            self._joules[device] = self._joules.get(device, 0.0) + weight * (joules - before.joules.get(device, 0.0))
            self._gaps[device] = self._gaps.get(device, 0.0) + weight * _gap(before, self._tally, device)
        self.settled = self.settled and before.settled and self._tally.settled
        self._edge, self._weights = end, (cpu, rest)

    def total(self, kinds: Mapping[str, Meter]) -> Sum:
        """What the parts come to; never less than nothing."""
        squares = dict(self._squares)
        _leave(squares, self._tally, self._weights, (0.0, 0.0), kinds)
        joules = {device: Joules(max(0.0, own)) for device, own in self._joules.items()}
        bounds = {name: math.sqrt(squares.get(name, 0.0)) + self._gaps.get(name, 0.0) for name in joules}
        return Sum(joules, {name: Joules(bound) for name, bound in bounds.items()}, self.settled)


def figures_of(
    used: Sum,
    meters: Mapping[str, Meter],
    kept: frozenset[str] | None,
    *,
    shares: tuple[bool, bool],
    seconds: float,
    price: Callable[[float], Grams],
) -> Figures:
    """A sum as figures. `kept` are the boards that count, `shares` whether CPU and rest are shared, `price` for all."""
    joules, bound, settled = used
    if kept is not None:
        joules = {device: own for device, own in joules.items() if _is_ours(device, meters, kept)}
        bound = {device: bound[device] for device in joules}
    kinds: dict[Kind, Joules] = {}
    energy, worst, rest_shared = 0.0, -1, False
    for device, own in joules.items():
        kind, quality = meters.get(device, _UNKNOWN)
        kinds[kind] = kinds[kind] + own if kind in kinds else own  # type: ignore[assignment]
        if own > 0:
            energy += own
            worst = max(worst, _RANKS[id(quality)])
            rest_shared = rest_shared or kind != "cpu"
    shared = (shares[0] and kinds.get("cpu", 0.0) > 0) or (shares[1] and rest_shared)
    return Figures(joules, bound, kinds, seconds, price(energy), _NAMES[worst], shared, settled)


def _gap(before: Tally, after: Tally, device: str) -> float:
    """Joules between two tallies that may be in nobody's count, at the most."""
    if not isinstance(after, EdgeTally):
        return 0.0
    known = before.missing.get(device, 0.0) if isinstance(before, EdgeTally) else 0.0
    return max(0.0, after.missing.get(device, 0.0) - known)


def _leave(
    squares: dict[str, float],
    tally: Tally,
    before: tuple[float, float],
    after: tuple[float, float],
    kinds: Mapping[str, Meter],
) -> None:
    """Add the bound of an edge, by how much the weights change there."""
    cpu, rest = after[0] - before[0], after[1] - before[1]
    for device, bound in tally.bound.items():
        weight = cpu if _is_cpu(device, kinds) else rest
        if weight:
            squares[device] = squares.get(device, 0.0) + (weight * bound) ** 2


def _is_cpu(device: str, meters: Mapping[str, Meter]) -> bool:
    return device in meters and meters[device].kind == "cpu"


def _is_ours(device: str, meters: Mapping[str, Meter], kept: frozenset[str]) -> bool:
    return device in kept or (device in meters and meters[device].kind in {"cpu", "dram"})
