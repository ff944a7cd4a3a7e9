"""Synthetic runs with the watts and durations of a paper: nobody trained anything, and their data set says so.

"eco2AI: carbon emissions tracking of machine learning models as the first step towards sustainable AI" (2022) has two
models that were fine-tuned, and five runs of each of five activation functions, of which it prints means and spreads.
Energy is of constant power; CO2e is energy times the paper's intensity.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from support.stored import Store

__all__ = ["ACTIVATIONS", "BEGAN", "INTENSITY", "TUNED", "Course", "losses", "paper_runs", "training"]

INTENSITY = 240.56
"""g/kWh."""
BEGAN = 1_773_100_800
"""10 March 2026, midnight UTC."""
SYNTHETIC = "synthetic"
SHAPE = (-1.2, -0.5, 0.1, 0.2, 1.4)
"""How five runs lie about their mean."""


@dataclass(frozen=True, slots=True)
class Activation:
    """Mean and standard deviation of five runs, so that they round to what the paper prints."""

    hours: tuple[float, float]
    kwh: tuple[float, float]
    loss: tuple[float, float]
    printed: tuple[str, ...]
    """The paper's hours, kWh, kg and loss."""


ACTIVATIONS = {
    "GELU": Activation(
        (75.2, 1.3),
        (29.1, 1),
        (5.195, 0.002),
        ("75.2 ± 1.3", "29.1 ± 1", "7.0 ± 0.24", "5.195 ± 0.002"),
    ),
    "4-bit": Activation(
        (67.2, 1.5),
        (24.7, 0.5),
        (5.198, 0.005),
        ("67.2 ± 1.5", "24.7 ± 0.5", "5.94 ± 0.12", "5.198 ± 0.005"),
    ),
    "3-bit": Activation(
        (67.2, 1.5),
        (24.17, 0.7),
        (5.198, 0.008),
        ("67.2 ± 1.5", "24.2 ± 0.7", "5.81 ± 0.17", "5.198 ± 0.008"),
    ),
    "2-bit": Activation(
        (66.5, 0.3),
        (24.049, 0.26),
        (5.207, 0.006),
        ("66.5 ± 0.3", "24.0 ± 0.3", "5.79 ± 0.06", "5.207 ± 0.006"),
    ),
    "1-bit": Activation(
        (67.7, 0.73),
        (24, 0.36),
        (5.217, 0.003),
        ("67.7 ± 0.73", "24 ± 0.36", "5.77 ± 0.09", "5.217 ± 0.003"),
    ),
}


@dataclass(frozen=True, slots=True)
class Tuned:
    """A model that was fine-tuned."""

    boards: int
    seconds: int
    kwh: float
    batch_size: int


TUNED = {
    "Malevich": Tuned(1, 4 * 3600 + 19 * 60, 1.37, 4),
    "Kandinsky": Tuned(8, 9 * 3600 + 45 * 60, 24.50, 12),
}


def paper_runs(store: Store) -> None:
    """Store them, all beginning at once, each rank on a node of its own."""
    for model, tuned in TUNED.items():
        about = {"model": model, "dataset": SYNTHETIC, "batch_size": str(tuned.batch_size)}
        for rank in range(tuned.boards):
            run = {"job_name": f"{model.lower()}-tuning", "run": f"{model.lower()}-0"}
            seat = {"instance": f"{model.lower()}-{rank}:12011", "rank": str(rank) if tuned.boards > 1 else ""}
            training(store, {**run, **seat}, Course(BEGAN, tuned.seconds, tuned.kwh / tuned.boards), about)
    for name, activation in ACTIVATIONS.items():
        about = {"model": "Malevich", "dataset": SYNTHETIC, "batch_size": "4"}
        turns = (spread(pair, turn) for turn, pair in enumerate((activation.hours, activation.kwh, activation.loss)))
        for number, (hours, kwh, loss) in enumerate(zip(*turns, strict=True)):
            run = {"job_name": f"malevich-{name.lower()}", "run": f"{name.lower()}-{number}"}
            course = Course(BEGAN, round(hours * 3600), kwh)
            seat = {"instance": f"{name.lower()}-{number}:12011"}
            training(store, {**run, **seat}, course, about)
            losses(store, {**seat, "job_name": run["job_name"]}, course, loss)


def spread(pair: tuple[float, float], turn: int) -> Sequence[float]:
    """Five numbers of exactly this mean and standard deviation, in another order for each turn."""
    mean, deviation = pair
    centre, width = statistics.fmean(SHAPE), statistics.stdev(SHAPE)
    return [mean + deviation * (SHAPE[(turn + (1 + turn) * at) % 5] - centre) / width for at in range(5)]


@dataclass(frozen=True, slots=True)
class Course:
    """When a run begins, how long it goes on, what it uses at constant power, and how often it is scraped."""

    began: int
    seconds: int
    kwh: float
    scrape: int = 300

    @property
    def moments(self) -> list[int]:
        """The scrapes: there is one at its beginning and at its end, too, and others for a while after."""
        end = self.began + self.seconds
        return sorted({*range(self.began, end + 3 * self.scrape, self.scrape), end})

    def share(self, at: int) -> float:
        """How much of it is done, from 0 to 1."""
        return min(max(at - self.began, 0) / self.seconds, 1.0)


def training(store: Store, run: Mapping[str, str], course: Course, about: Mapping[str, str]) -> None:
    """The counters of one rank: they begin at 0, and stand still after its end."""
    used = [(at, course.kwh * course.share(at)) for at in course.moments]
    store.add("carbon_run_energy_kwh_total", run, used)
    store.add("carbon_run_co2e_grams_total", run, [(at, kwh * INTENSITY) for at, kwh in used])
    if about:
        store.add("carbon_run_info", {**run, **about}, [(at, 1.0) for at in course.moments])


def losses(store: Store, job: Mapping[str, str], course: Course, last: float) -> None:
    """A validation loss that falls; what is recorded is told with the scrape after it, as by an exporter."""
    span = {**job, "span": "epoch"}
    known = [(at, course.share(before)) for before, at in zip(course.moments, course.moments[1:], strict=False)]
    told = [(at, last + (3 * math.exp(-5 * share) if share < 1 else 0)) for at, share in known]
    store.add("carbon_span_value", {**span, "name": "validation_loss"}, told)
    lasted = [(at, course.seconds * course.share(at)) for at in course.moments]
    store.add("carbon_span_duration_seconds_total", span, lasted)
