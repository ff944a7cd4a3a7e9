"""`carbon-exporter compare`: what runs used, emitted and reached, one beside the other or group by group."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from carbon_exporter.cli.asking import ADDRESSES, TIMES, access, add_server, add_stretch, stretch, warn
from carbon_exporter.cli.table import grid, printable

__all__ = ["register", "run"]

_EPILOG = f"""\
A group is a name of runs or jobs (*, ? and […] as in file names), or conditions with commas between: model=gelu*,
batch_size=4; also run=, job=, namespace=, cluster= and dataset=. Each group is held against the first.

{TIMES}
{ADDRESSES}
exit codes:
  0  compared
  1  the server did not answer, or knows no such run
  2  the command line or the environment is wrong; nothing was asked

examples:
  carbon-exporter compare --prometheus=http://localhost:9090
  carbon-exporter compare 'gelu-*' 'relu-*' --from=2026-03-01 --value=validation_loss
  carbon-exporter compare model=malevich model=kandinsky --format=markdown
"""


def register(commands: Any) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "compare",
        help="list runs with what they used and reached, or compare groups of runs",
        description="Ask a Prometheus about runs: each one, or mean, spread and Welch's test of groups.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="the first is what the others are held against")
    parser.add_argument("--job", action="append", default=[], metavar="NAME", help="runs of this job alone; repeatable")
    parser.add_argument("--namespace", metavar="NAME", help="of this namespace alone; --namespace= for none")
    add_stretch(parser)
    parser.add_argument(
        "--value", action="append", default=[], metavar="NAME", help="a recorded one to show; repeatable"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--format", choices=("table", "markdown", "json"), default="table", help="default: %(default)s")
    form.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format=json")
    add_server(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Ask and print. Raises `ConfigError`, or `QueryError` if there is nothing to print."""
    from carbon_exporter.report.client import PrometheusClient  # noqa: PLC0415 - --help needs none of the room
    from carbon_exporter.report.comparison import compare, values_of  # noqa: PLC0415
    from carbon_exporter.report.run_document import as_json  # noqa: PLC0415
    from carbon_exporter.report.run_tables import compared, listed  # noqa: PLC0415
    from carbon_exporter.report.runs import RunFilter, find_runs  # noqa: PLC0415

    asked = stretch(parsed)
    client = PrometheusClient(access(parsed))
    runs = find_runs(client, RunFilter(tuple(parsed.job), parsed.namespace, parsed.cluster, parsed.job_label), *asked)
    values, chosen = values_of(runs, parsed.value), bool(parsed.value)
    comparison = compare(runs, parsed.groups, values) if parsed.groups else None
    if parsed.format == "json":
        shown = comparison.runs if comparison else runs
        print(as_json(shown, comparison, asked, tuple(client.warnings)), end="")
        return 0
    sections = compared(comparison, values, chosen=chosen) if comparison else (listed(runs, values, chosen=chosen),)
    print(_markdown(sections) if parsed.format == "markdown" else _text(sections))
    warn(client.warnings)
    return 0


def _markdown(sections: Sequence[Any]) -> str:
    from carbon_exporter.report.markdown import section  # noqa: PLC0415

    return "\n\n".join(map(section, sections))


def _text(sections: Sequence[Any]) -> str:
    return "\n\n".join(map(_section, sections))


def _section(section: Any) -> str:
    """What a run or a group is called must not move the cursor, wherever it stands."""
    table = section.table
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    header = [_cell(name) for name in table.header]
    right = {name for name, numbers in zip(header, table.numbers, strict=True) if numbers}
    sentences = map(printable, section.sentences)
    return "\n".join([printable(section.heading), "", grid(header, rows, right), *("", *sentences)]).rstrip()


def _cell(cell: Any) -> str:
    return printable(str(getattr(cell, "text", cell)))
