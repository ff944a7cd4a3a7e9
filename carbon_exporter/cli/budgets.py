"""`carbon-exporter budgets`: budgets of a YAML file as recording rules and alerts of Prometheus."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from carbon_exporter.carbon.budget import Budget, budgets
from carbon_exporter.carbon.budget_rules import rules
from carbon_exporter.publish.catalogue import JOB_LABELS

__all__ = ["register", "run"]

_EPILOG = """\
a file of budgets:
  budgets:
    - {name: fleet, grams: 2000000, window: 30d}                   # everything, idle machines too
    - {name: research, kwh: 400, window: 7d, namespace: research}
    - {name: training, grams: 50000, window: 1d, job: "train-*"}   # * is any text, ? any character
    - {name: alice, kwh: 100, window: 30d, user: alice}            # needs grafana/rules/users.yml
  cluster chooses one of several clusters, with any of these.

The rules read those of grafana/rules/leaf.yml and global.yml. A budget is meant to be spent: burning it at 1 is right.

exit codes:
  0  done
  2  the command line or the file is wrong; nothing was printed

example:
  carbon-exporter budgets budgets.yml > rules.yml && promtool check rules rules.yml
"""


def register(commands: Any) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "budgets",
        help="turn a file of carbon budgets into rules for Prometheus",
        description="Print recording rules (spent, left, burn over 1 h, 6 h and 1 d) and alerts for budgets.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, help="a YAML file of budgets")
    parser.add_argument(
        "--job-label",
        choices=JOB_LABELS,
        default=JOB_LABELS[0],
        help="the exporters' labels.job (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print the rules. Raises `ConfigError` for a file that is wrong."""
    import yaml  # noqa: PLC0415 - the other commands do without

    found = _read(parsed.file)
    print(f"# Made from {parsed.file.name} by `carbon-exporter budgets`: change that file, not this one.")
    print(yaml.safe_dump(rules(found, parsed.job_label), sort_keys=False, allow_unicode=True, width=1000), end="")
    return 0


def _read(file: Path) -> list[Budget]:
    from carbon_exporter.config.yaml_file import read_yaml  # noqa: PLC0415 - as above

    return budgets(read_yaml(file, "command line", "FILE"), str(file))
