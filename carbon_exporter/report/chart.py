"""The course of a job as inline SVG: power by kind in windows, and CO2e as it adds up. Shapes only; words are HTML."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

from carbon_exporter.report import figures
from carbon_exporter.report.facts import Slice
from carbon_exporter.units import JOULES_PER_KWH

__all__ = ["KIND_ORDER", "co2e_chart", "power_chart"]

WIDTH, HEIGHT = 1000, 300
MOST_BARS = 240
KIND_ORDER = ("gpu", "cpu", "dram", "accelerator", "other")
"""From the bottom to the top of a bar."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """From Unix seconds and a value to the drawing's own units."""

    begin: float
    end: float
    top: float

    def x(self, at: float) -> str:
        return f"{(at - self.begin) / max(self.end - self.begin, 1) * WIDTH:.1f}"

    def y(self, value: float) -> str:
        return f"{HEIGHT - value / self.top * HEIGHT:.1f}"


def power_chart(course: Sequence[Slice]) -> str:
    """Mean power of each window, the kinds on top of each other."""
    bars = _merged(course)
    watts = [_watts(bar) for bar in bars]
    scale = _Scale(course[0].begin, course[-1].end, _nice(max(sum(one.values()) for one in watts)))
    paths: dict[str, list[str]] = defaultdict(list)
    for bar, kinds in zip(bars, watts, strict=True):
        below = 0.0
        for kind in sorted(kinds, key=_order):
            left, right = scale.x(bar.begin), scale.x(bar.end)
            paths[kind].append(f"M{left} {scale.y(below)}V{scale.y(below + kinds[kind])}H{right}V{scale.y(below)}Z")
            below += kinds[kind]
    shapes = [f'<path class="{_ink(kind)}" d="{"".join(paths[kind])}"/>' for kind in sorted(paths, key=_order)]
    legend = "".join(
        f'<li><i class="{_ink(kind)}"></i>{escape(kind or "unknown")}</li>' for kind in sorted(paths, key=_order)
    )
    most = figures.power(max(sum(one.values()) for one in watts)).text
    words = _Words("Power", f"Power by kind of device: at most {most}", figures.power(scale.top).text)
    return _figure(replace(words, legend=f'<ul class="legend">{legend}</ul>'), scale, "".join(shapes))


def co2e_chart(course: Sequence[Slice]) -> str:
    """Grams since the beginning."""
    bars, sums, total = _merged(course), [], 0.0
    for bar in bars:
        total += bar.co2e_grams
        sums.append(total)
    scale = _Scale(course[0].begin, course[-1].end, _nice(total))
    steps = "".join(f"L{scale.x(bar.end)} {scale.y(value)}" for bar, value in zip(bars, sums, strict=True))
    line = f'<path class="sum" d="M0 {HEIGHT}{steps}"/>'
    summary = f"CO2e since the beginning, up to {figures.mass(total).text}"
    return _figure(_Words("CO2e since the beginning", summary, figures.mass(scale.top).text), scale, line)


@dataclass(frozen=True, slots=True)
class _Words:
    """What stands around a drawing."""

    name: str
    summary: str
    top: str
    legend: str = ""


def _figure(words: _Words, scale: _Scale, shapes: str) -> str:
    middle = f'<path class="grid" d="M0 {HEIGHT / 2}H{WIDTH}"/>'
    times = f"<span>{figures.moment(scale.begin)}</span><span>{figures.moment(scale.end)}</span>"
    return (
        f"<figure><figcaption><strong>{words.name}</strong>{words.legend}</figcaption>"
        f'<div class="plot"><span class="top">{words.top}</span>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(words.summary)}">{middle}{shapes}</svg></div><p class="times">{times}</p></figure>'
    )


def _merged(course: Sequence[Slice]) -> list[Slice]:
    """At most some hundred bars: neighbours that touch are joined, so that areas stay energy."""
    many = math.ceil(len(course) / MOST_BARS)
    bars: list[list[Slice]] = []
    for one in course:
        if bars and len(bars[-1]) < many and bars[-1][-1].end == one.begin:
            bars[-1].append(one)
        else:
            bars.append([one])
    return [_joined(bar) for bar in bars]


def _joined(bar: list[Slice]) -> Slice:
    kinds: dict[str, float] = defaultdict(float)
    for one in bar:
        for kind, kwh in one.energy_kwh:
            kinds[kind] += kwh
    return Slice(bar[0].begin, bar[-1].end, tuple(kinds.items()), math.fsum(one.co2e_grams for one in bar))


def _watts(bar: Slice) -> dict[str, float]:
    return {kind: max(kwh, 0.0) * JOULES_PER_KWH / (bar.end - bar.begin) for kind, kwh in bar.energy_kwh}


def _nice(value: float) -> float:
    """The next of a few round numbers, so that an axis ends at a number that is read at a glance."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * 0.999_999)


def _order(kind: str) -> tuple[int, str]:
    return (KIND_ORDER.index(kind) if kind in KIND_ORDER else len(KIND_ORDER), kind)


def _ink(kind: str) -> str:
    return kind if kind in KIND_ORDER else "other"
