"""Runs: what one training has used from its beginning to now, and what it is likely to use in all.

A run is a name within a job; each rank of it is counted by itself. The same shapes stand in a script (its own runs) and
in the exporter (those of all its scripts).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from carbon_exporter.jobs.base import Job
from carbon_exporter.units import Grams, Joules

__all__ = ["RunFacts", "RunKey", "RunTotal"]


class RunKey(NamedTuple):
    """What a run's series are labelled by."""

    job: Job
    run: str
    rank: str = ""
    """Empty outside distributed runs."""


class RunFacts(NamedTuple):
    """What is said of a run beside its numbers; empty where nothing is."""

    model: str = ""
    dataset: str = ""
    batch_size: str = ""


@dataclass(frozen=True, slots=True)
class RunTotal:
    """What a run has used. `joules` and `grams` only ever grow."""

    joules: Joules
    grams: Grams
    remaining_joules: Joules | None = None
    """What it is still likely to use; None without a prediction."""
    remaining_grams: Grams | None = None
    facts: RunFacts = field(default_factory=RunFacts)

    @property
    def predicted_joules(self) -> Joules | None:
        """What it is likely to have used in the end."""
        return None if self.remaining_joules is None else Joules(self.joules + self.remaining_joules)

    @property
    def predicted_grams(self) -> Grams | None:
        """Likewise."""
        return None if self.remaining_grams is None else Grams(self.grams + self.remaining_grams)
