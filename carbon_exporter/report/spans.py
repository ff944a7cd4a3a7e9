"""The spans of a job: what its scripts say of their blocks, added up over the stretches and over the ranks."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass, field

from carbon_exporter.report.client import PrometheusClient
from carbon_exporter.report.counters import Counters, Selection
from carbon_exporter.report.facts import SpanFacts
from carbon_exporter.report.stretch import Stretch, in_parts

__all__ = ["Spans"]


@dataclass(slots=True)
class Spans:
    """Gathers them, stretch by stretch."""

    selection: Selection
    _sums: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    _ranks: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _values: dict[tuple[str, str], dict[str, float]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, client: PrometheusClient, counters: Counters, stretch: Stretch) -> None:
        """Ask about a stretch. Raises `QueryError`."""
        for name in counters.spans(stretch.step):
            for _, rows in in_parts(
                stretch,
                lambda part, name=name: client.windows(  # type: ignore[misc]  # mypy sees no default in a lambda
                    counters.spans(part.step)[name], part.begin, part.end, part.step
                ),
            ):
                for row in rows:
                    span = row.label("span")
                    self._sums.setdefault(span, defaultdict(list))[name] += [value for _, value in row.points]
                    self._ranks[span].add(row.label("rank"))
        whole = Stretch(stretch.begin, stretch.end, stretch.seconds)
        for part, rows in in_parts(whole, lambda part: client.instant(self._newest(part), part.end)):
            del part
            for row in rows:
                self._values[row.label("span"), row.label("rank")][row.label("name")] = row.points[0][1]

    def _newest(self, part: Stretch) -> str:
        # What several instances say of one rank, the one that is newest cannot be told from: the largest, as any.
        values = self.selection.of("carbon_span_value", part.seconds)
        return f"max by (span, rank, name) (last_over_time({values}))"

    def facts(self) -> tuple[SpanFacts, ...]:
        """Every span, the one with most energy first."""
        rows = [self._one(span, sums) for span, sums in self._sums.items()]
        return tuple(sorted(rows, key=lambda row: (-row.energy_kwh, row.name)))

    def _one(self, span: str, sums: dict[str, list[float]]) -> SpanFacts:
        told = sorted((rank for name, rank in self._values if name == span), key=_in_order)
        values = self._values[span, told[0]] if told else {}
        return SpanFacts(
            name=span,
            ranks=len(self._ranks[span]),
            ended=math.fsum(sums["ended"]),
            seconds=math.fsum(sums["seconds"]),
            energy_kwh=math.fsum(sums["energy_kwh"]),
            co2e_grams=math.fsum(sums["co2e_grams"]),
            values=tuple(sorted(values.items())),
        )


def _in_order(rank: str) -> tuple[int, str]:
    """Ranks are numbers: 2 comes before 10."""
    return (int(rank), "") if re.fullmatch(r"[0-9]{1,9}", rank) else (-1, rank)
