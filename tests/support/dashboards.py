"""The boards as `grafana/build.py` makes them, their queries, and Grafana's substitution of variables in these."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import carbon_exporter

__all__ = ["ANYTHING", "BUILD", "DASHBOARDS", "Asked", "Json", "boards", "queries", "substitute"]

Json = dict[str, Any]
_GRAFANA = Path(carbon_exporter.__file__).parents[1] / "grafana"
BUILD = _GRAFANA / "build.py"
DASHBOARDS = _GRAFANA / "dashboards"

ANYTHING: Mapping[str, str] = {
    "datasource": "prometheus",
    "tempo_datasource": "tempo",
    "cluster": ".*",
    "region": ".*",
    "namespace": ".*",
    "job": ".+",
    "instance": ".+",
    "budget": ".*",
    "span": ".+",
    "value": "loss",
    "__from": "0",
    "__range": "1d",
    "__interval": "5m",
    "__rate_interval": "5m",
}
"""All of everything, for those variables that a test does not choose. `__from` is in Unix seconds."""
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::[^}]*)?\}|(\w+))")


class Asked(NamedTuple):
    """One query of one panel, with its variables still in it."""

    board: str
    """Its uid."""
    panel: str
    """Its title."""
    expr: str


@functools.cache
def boards(job_label: str = "job_name") -> tuple[Json, ...]:
    """All boards with the job's label spelt so, in their order."""
    with tempfile.TemporaryDirectory() as place:
        build = [sys.executable, str(BUILD), f"--job-label={job_label}", f"--out={place}"]
        written = subprocess.run(build, check=True, capture_output=True, text=True).stdout.split()
        return tuple(json.loads(Path(path).read_text()) for path in written)


def queries(job_label: str = "job_name") -> list[Asked]:
    """Every query of every panel."""
    return [
        Asked(board["uid"], panel["title"], target["expr"])
        for board in boards(job_label)
        for panel in board["panels"]
        for target in panel["targets"]
    ]


def substitute(expr: str, values: Mapping[str, str]) -> str:
    """The expression as Grafana would send it: `$name`, `${name}` and `${name:format}` replaced by these values.

    A variable that neither `values` nor `ANYTHING` has is a KeyError. Values stand as they are: where a variable may
    have several, Grafana makes a pattern such as `a|b` of them, and so must the caller.
    """
    known = {**ANYTHING, **values}
    return _VARIABLE.sub(lambda found: known[found[1] or found[2]], expr)
