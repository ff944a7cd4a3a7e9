"""Experiments: a run's numbers for the runs of MLflow and Weights & Biases that are active meanwhile.

    with mlflow.start_run(), CarbonRun(log_to="mlflow") as run:
        for epoch in run.epochs(range(90)):
            ...

A tracker's own file in `carbon_exporter.integrations` is loaded by its name, only where it is asked for. None of this
starts a run of theirs, and no trouble of theirs reaches the training: it is logged, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from carbon_exporter.errors import ConfigError
from carbon_exporter.sdk.tracker import current
from carbon_exporter.sdk.trouble import trouble
from carbon_exporter.units import JOULES_PER_KWH

if TYPE_CHECKING:
    from carbon_exporter.sdk.run import CarbonRun
    from carbon_exporter.sdk.span import CarbonSpan

__all__ = ["EXPERIMENTS", "Experiment", "Experiments", "numbers_of"]

EXPERIMENTS = ("mlflow", "wandb")
"""Files of `carbon_exporter.integrations`, each with an `ActiveRun`."""
HAND_OVER_SECONDS = 1.0
"""What the end of a run may wait for a server of theirs, at the most."""


class Experiment(Protocol):
    """Whatever run of a tracker is active when something is logged; if none is, nothing happens. May raise anything."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers by name, at the end of epoch `step`. Must not wait for a network."""

    def describe(self, facts: Mapping[str, str]) -> None:
        """What is said of them: names of run and job, quality, region. Likewise."""

    def close(self, patience: float) -> None:
        """Hand over what is left, within `patience` seconds."""


class Experiments:
    """Those that one run tells."""

    def __init__(self, log_to: str | Sequence[str]) -> None:
        """`log_to` is a name of `EXPERIMENTS`, or several.

        Raises:
            ConfigError: there is no such tracker.
            ImportError: it is not installed.
        """
        names = (log_to,) if isinstance(log_to, str) else tuple(log_to)
        self._open = {name: _active_run(name) for name in dict.fromkeys(names) if name}
        self._described: Mapping[str, str] = {}

    def epoch(self, run: CarbonRun, epoch: CarbonSpan) -> None:
        """An epoch is about to end. Never raises."""
        if self._open:
            own = {"epoch_energy_kwh": epoch.energy_kwh} if epoch.quality != "none" else {}
            self._tell(run, run.epochs_done - 1, own)

    def end(self, run: CarbonRun, patience: float) -> None:
        """The run has ended; wait for its last readings, and for theirs, if there is any patience. Never raises."""
        if not self._open:
            return
        run.wait(patience)
        self._tell(run, run.epochs_done, {})
        self._each(lambda one: one.close(HAND_OVER_SECONDS if patience else 0.0))

    def _tell(self, run: CarbonRun, step: int, more: Mapping[str, float]) -> None:
        numbers = {f"carbon/{name}": value for name, value in {**numbers_of(run), **more}.items()}
        facts = _facts_of(run)
        changed, self._described = facts != self._described, facts
        self._each(lambda one: one.log(numbers, step))
        if changed:
            self._each(lambda one: one.describe(facts))

    def _each(self, do: Callable[[Experiment], object]) -> None:
        for name, one in self._open.items():
            try:
                do(one)
            except Exception as error:  # noqa: BLE001, PERF203 - theirs, whatever it is; a few times an epoch
                trouble(f"logging to {name}", error)


def numbers_of(run: CarbonRun) -> dict[str, float]:
    """The run until now, in kWh, g, W, s and money; without energy as long as no meter has told anything."""
    span = run.span
    found = {"duration_seconds": run.duration_seconds}
    if span.quality == "none":
        return found
    found |= {"energy_kwh": span.energy_kwh, "co2e_grams": span.co2e_grams, "power_watts": span.power_watts}
    found["uncertainty_kwh"] = span.uncertainty / JOULES_PER_KWH
    if (cost := run.cost) is not None:
        found["cost"] = cost
    if (ahead := run.prediction) is not None:
        found["predicted_energy_kwh"] = ahead.energy_kwh.value
        found["predicted_co2e_grams"] = ahead.co2e_grams.value
    if (every := run.all_ranks) is not None:
        found["all_ranks_energy_kwh"], found["all_ranks_co2e_grams"] = every.energy_kwh, every.co2e_grams
    return found


def _facts_of(run: CarbonRun) -> dict[str, str]:
    engine = current().engine
    price = engine.choice.price() if engine else None
    facts = {"run": run.name, "job": run.to_dict()["job"], "rank": run.rank, "quality": run.span.quality}
    facts["currency"] = run.currency
    if price is not None:
        facts |= {"region": price.region, "intensity": f"{price.grams_per_kwh:g} g/kWh ({price.source})"}
    return {name: value for name, value in facts.items() if value}


def _active_run(name: str) -> Experiment:
    if name not in EXPERIMENTS:
        raise ConfigError("CarbonRun", "log_to", name, ", ".join(EXPERIMENTS))
    return cast("Experiment", import_module(f"carbon_exporter.integrations.{name}").ActiveRun())
