"""`carbon-exporter metrics`: the catalogue, as text, Markdown or JSON."""

from __future__ import annotations

import argparse
import json
import shutil
from typing import Any

from carbon_exporter.cli.table import table
from carbon_exporter.publish.catalogue import CATALOGUE, JOB_LABELS

__all__ = ["as_markdown", "register", "run"]

_INTRODUCTION = """\
# Metrics

<!-- Made by `carbon-exporter metrics --format=markdown`; a test fails if this page differs from the catalogue. -->

Names, labels and units are the product's public API: a change is announced in the changelog under **Measurement**.
Energy is in kWh, emissions are in grams of CO2 equivalent, power is in watts. Watts from a counter are
`rate(carbon_device_energy_kwh_total[5m]) * 3.6e6`. A label that is empty is absent. `job_name` can be spelt `job` or
`hpc_job` (`--labels.job`).
"""


def register(commands: Any) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "metrics",
        help="list every metric with its type, labels and meaning",
        description="List every metric that this version can expose.",
        allow_abbrev=False,
    )
    parser.add_argument("--format", choices=("text", "markdown", "json"), default="text", help="default: %(default)s")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print the catalogue."""
    print({"text": as_text, "markdown": as_markdown, "json": as_json}[parsed.format]())
    return 0


def as_text() -> str:
    """A table for terminals."""
    rows = [(metric.name, metric.type, ", ".join(metric.labels) or "-", metric.help) for metric in CATALOGUE]
    return table(("METRIC", "TYPE", "LABELS", "MEANING"), rows, max(160, shutil.get_terminal_size().columns))


def as_markdown() -> str:
    """The page docs/metrics.md."""
    rows = [
        f"| `{metric.name}` | {metric.type} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in CATALOGUE
    ]
    return "\n".join([_INTRODUCTION, "| metric | type | labels | meaning |", "|---|---|---|---|", *rows])


def as_json() -> str:
    """A list of objects."""
    from carbon_exporter.publish.metadata import described  # noqa: PLC0415 - the other formats do without msgspec

    return json.dumps(described(JOB_LABELS[0]), indent=2)
