"""What is said of a run beside its numbers: model, data set, batch size, learning rate and free fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carbon_exporter.carbon.runs import RunFacts
from carbon_exporter.jobs.base import clean_name

__all__ = ["attributes_of", "facts_of", "given"]


def given(**fields: object) -> dict[str, object]:
    """Without those that say nothing."""
    return {name: value for name, value in fields.items() if value is not None and str(value)}


def facts_of(fields: Mapping[str, object]) -> RunFacts:
    """Those that are labels of `carbon_run_info`, as labels may be."""
    return RunFacts(*(clean_name(str(fields.get(name, ""))) for name in RunFacts._fields))


def attributes_of(run: str, fields: Mapping[str, object]) -> dict[str, Any]:
    """All of them as attributes of an OpenTelemetry span, with the run's name."""
    return {"carbon.run": run, **{f"carbon.run.{name}": _plain(value) for name, value in fields.items()}}


def _plain(value: object) -> object:
    """As an attribute may be."""
    return value if isinstance(value, (str, bool, int, float)) else str(value)
