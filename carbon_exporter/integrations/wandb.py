"""Weights & Biases: a run's numbers in the history of the W&B run that is active: `CarbonRun(log_to="wandb")`.

`log` of W&B hands over to a process of its own and does not wait for a network. Its rows are numbered by steps that
only grow, and a row that comes with an older step is lost. So ours stand in whatever row is open and leave it open for
the script's own numbers; only if nobody else has logged since the last epoch is that row closed, lest ours overwrite
each other.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from carbon_exporter.integrations.missing import missing

__all__ = ["ActiveRun"]

if getattr(find_spec("wandb"), "origin", None) is None:  # W&B's own directory `wandb` is no package
    raise missing(__name__, "wandb", ModuleNotFoundError("No module named 'wandb'"))


class ActiveRun:
    """`wandb.run`, as it is when something is logged; after its end W&B takes nothing."""

    def __init__(self) -> None:
        """Loads nothing: while W&B is not loaded, no run of it is active."""
        self._run: Any = None
        self._left_open_at: int | None = None

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """In the open row, with `carbon/epoch`, over which charts draw them. Raises what W&B raises."""
        run = self._active()
        if run is None:
            return
        if self._left_open_at == run.step:
            run.log({}, commit=True)
        run.log({**numbers, "carbon/epoch": step}, commit=False)
        self._left_open_at = run.step

    def describe(self, facts: Mapping[str, str]) -> None:
        """In the run's configuration, under `carbon`; likewise."""
        run = self._active()
        if run is not None:
            run.config.update({"carbon": dict(facts)}, allow_val_change=True)

    def close(self, patience: float) -> None:
        """Nothing is kept here."""

    def _active(self) -> Any:
        wandb: Any = sys.modules.get("wandb")
        run = getattr(wandb, "run", None)
        if run is not None and run is not self._run:
            self._run, self._left_open_at = run, None
            run.define_metric("carbon/epoch", hidden=True)
            run.define_metric("carbon/*", step_metric="carbon/epoch")
        return run
