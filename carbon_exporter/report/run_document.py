"""Runs, and groups of runs, as JSON: exact, in the units that the keys name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from carbon_exporter import __version__
from carbon_exporter.report.comparison import Comparison, Contrast, Group, Quantity
from carbon_exporter.report.document import written
from carbon_exporter.report.figures import moment
from carbon_exporter.report.run_facts import Run

__all__ = ["FORMAT", "as_json"]

FORMAT = 1
"""Raised when a key changes its meaning or goes."""
_KEYS = {"duration": "duration_seconds", "energy": "energy_kwh", "co2e": "co2e_grams"}


def as_json(runs: Sequence[Run], comparison: Comparison | None, asked: tuple[int, int], notes: Sequence[str]) -> str:
    """One object: the runs, and the groups if there are any."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "made_by": f"carbon-exporter {__version__}",
        "from": moment(asked[0]),
        "to": moment(asked[1]),
        "runs": [_run(run) for run in runs],
    }
    if comparison:
        document["groups"] = [_group(group, comparison.quantities, runs) for group in comparison.groups]
        document["against"] = comparison.groups[0].name
        document["contrasts"] = [_contrast(one) for one in comparison.contrasts]
    document["notes"] = [*(comparison.notes if comparison else ()), *notes]
    return written(document)


def _run(run: Run) -> dict[str, Any]:
    told = asdict(run)
    told |= {"began": moment(run.began), "ended": moment(run.ended), "duration_seconds": run.seconds}
    told |= dict(told.pop("about"))
    told["values"] = [
        {"span": which[0], "name": which[1], "value": value, **_of_one(run, which)} for which, value in run.values
    ]
    return told


def _of_one(run: Run, which: tuple[str, str]) -> dict[str, Any]:
    energy, grams = run.of_one(which) or (None, None)
    return {"energy_kwh_for_one": energy, "co2e_grams_for_one": grams}


def _group(group: Group, quantities: Sequence[Quantity], runs: Sequence[Run]) -> dict[str, Any]:
    samples = {_KEYS.get(one.name, one.name): group.sample(one) for one in quantities}
    members = [number for number, run in enumerate(runs) if run in group.runs]
    return {
        "name": group.name,
        "runs": members,
        "quantities": {name: asdict(found) for name, found in samples.items() if found},
    }


def _contrast(one: Contrast) -> dict[str, Any]:
    return {**asdict(one), "quantity": _KEYS.get(one.quantity, one.quantity)}
