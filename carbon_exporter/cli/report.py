"""`carbon-exporter report`: what a job used and emitted, asked of a Prometheus and written as a document."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from carbon_exporter.cli.asking import ADDRESSES, TIMES, access, add_server, add_stretch, stretch, warn
from carbon_exporter.errors import CarbonExporterError
from carbon_exporter.report.model_card import TRAINING_TYPES

__all__ = ["register", "run"]

_EPILOG = f"""\
{TIMES}
Totals are differences of the job's counters, as the recording rules of grafana/rules make them: nothing is
extrapolated. A Prometheus that holds the recorded series alone will do, with less to say.

{ADDRESSES}
exit codes:
  0  written
  1  the server did not answer, or knows no such job
  2  the command line or the environment is wrong; nothing was asked

examples:
  carbon-exporter report --prometheus=http://localhost:9090 --job=train --from=now-7d
  carbon-exporter report --job=train --from=2026-03-01 --to=2026-03-08 --format=html --output=train.html
  carbon-exporter report --job=train --format=model-card --training-type=fine-tuning
"""


def register(commands: Any) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "report",
        help="write what a job used and emitted: Markdown, HTML, JSON or a model card's block",
        description="Ask a Prometheus what a job used and emitted, how that is known, and write it down.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--job", required=True, metavar="NAME", help="the job")
    parser.add_argument("--namespace", metavar="NAME", help="its namespace; needed if there are several of its name")
    add_stretch(parser)
    parser.add_argument("--format", choices=("markdown", "html", "json", "model-card"), default="markdown")
    parser.add_argument("--output", metavar="FILE", type=Path, help="where to; default: standard output")
    parser.add_argument("--training-type", choices=TRAINING_TYPES, default="", help="of a model card's block")
    add_server(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Ask and write. Raises `ConfigError`, or `QueryError` if there is nothing to write."""
    from carbon_exporter.report.client import PrometheusClient  # noqa: PLC0415 - --help needs none of the room
    from carbon_exporter.report.counters import Selection  # noqa: PLC0415
    from carbon_exporter.report.gather import gather  # noqa: PLC0415
    from carbon_exporter.report.search import the_only_namespace  # noqa: PLC0415

    begin, end = stretch(parsed)
    client = PrometheusClient(access(parsed))
    selection = Selection(parsed.job, parsed.namespace or "", parsed.cluster, parsed.job_label)
    if parsed.namespace is None:
        selection = replace(selection, namespace=the_only_namespace(client, selection, begin, end))
    facts = gather(client, selection, begin, end)
    _write(_formatted(facts, parsed), parsed.output)
    warn(client.warnings)
    return 0


def _formatted(facts: Any, parsed: argparse.Namespace) -> str:
    from carbon_exporter.report.document import as_json  # noqa: PLC0415
    from carbon_exporter.report.html import as_html  # noqa: PLC0415
    from carbon_exporter.report.markdown import as_markdown  # noqa: PLC0415
    from carbon_exporter.report.model_card import as_model_card  # noqa: PLC0415

    if parsed.format == "model-card":
        return as_model_card(facts, parsed.training_type)
    return {"markdown": as_markdown, "html": as_html, "json": as_json}[parsed.format](facts)


def _write(text: str, output: Path | None) -> None:
    """To the file, whole or not at all, or to standard output."""
    if output is None:
        sys.stdout.write(text)
        return
    part = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(output)
    except (OSError, ValueError) as error:
        part.unlink(missing_ok=True)
        why = getattr(error, "strerror", None) or str(error)
        raise CarbonExporterError(f"{output} cannot be written: {why}", remedy="--output is a file to make") from None
