"""What a question is given and what it answers with: the plan of runs, and a figure with its limit."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Figure", "Plan", "percentile"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How thoroughly to measure."""

    runs: int
    quick: bool = False
    """One short run: shows that the benchmark works, not how fast the exporter is."""

    def __post_init__(self) -> None:
        """A quick plan has one run."""
        if self.quick:
            object.__setattr__(self, "runs", 1)

    def seconds(self, thorough: float, quick: float) -> float:
        """How long a run lasts."""
        return quick if self.quick else thorough


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, measured in every run."""

    question: str
    values: tuple[float, ...]
    """One for each run."""
    unit: str
    limit: float | None = None
    """What the median must stay under; None for a figure that is shown for comparison only."""
    note: str = ""

    @property
    def median(self) -> float:
        """The figure."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """`ok`, `OVER`, or nothing where there is no limit."""
        if self.limit is None:
            return ""
        return "ok" if self.median < self.limit else "OVER"

    def cells(self) -> tuple[str, ...]:
        """The figure as a row of the table."""
        limit = "" if self.limit is None else f"< {self.limit:g} {self.unit}".rstrip()
        spread = f"{_digits(min(self.values))}-{_digits(max(self.values))}"
        return (self.question, f"{_digits(self.median)} {self.unit}".rstrip(), spread, limit, self.verdict, self.note)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _digits(value: float) -> str:
    """Three significant digits, without an exponent; whole numbers as they are."""
    return f"{value:.0f}" if abs(value) >= 100 or value.is_integer() else f"{value:#.3g}"
