"""The report as JSON: all facts, exact, in the units that the keys name; and what each equivalent is based on."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from carbon_exporter.carbon import tables
from carbon_exporter.report.facts import Facts
from carbon_exporter.report.figures import moment

__all__ = ["FORMAT", "as_json", "written"]

FORMAT = 1
"""Raised when a key changes its meaning or goes."""


def as_json(facts: Facts) -> str:
    """One object."""
    told = asdict(facts)
    begin, end = told.pop("asked")
    version, pairs = told.pop("version"), told["job"].pop("details")
    for one in told["course"]:
        one["energy_kwh"] = dict(one["energy_kwh"])
    for one, share in zip(told["qualities"], facts.qualities, strict=True):
        one["bound"] = share.bound
    for one in told["spans"]:
        one["values"] = dict(one["values"])
    document = {
        "format": FORMAT,
        "made_by": f"carbon-exporter {version}",
        "from": moment(begin),
        "to": moment(end),
        **told,
        "began": moment(facts.began),
        "ended": moment(facts.ended),
        "duration_seconds": facts.seconds,
        "mean_watts": facts.mean_watts,
        "equivalents": _equivalents(facts),
    }
    document["job"] |= dict(pairs)
    return written(document)


def written(document: Any) -> str:
    """Values as JSON for people and programs."""
    return json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _equivalents(facts: Facts) -> list[dict[str, Any]]:
    return [
        {
            "amount": facts.co2e_grams / one.grams,
            "of": one.what,
            "grams_each": one.grams,
            "year": one.year,
            "source": one.source.citation,
        }
        for one in tables.equivalents()
    ]


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become the words that Prometheus has for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
