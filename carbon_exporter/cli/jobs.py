"""`carbon-exporter jobs`: who runs here now, why each has its name, what it draws, and what could not be read."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from carbon_exporter.cli.settings import add_flags, load_settings
from carbon_exporter.config import settings_table

__all__ = ["register", "run"]

_OF_THE_SERVER = ("web.", "storage.", "log.", "labels.", "grid.", "site.")
"""Settings that change nothing of what is shown."""
_OF_TOTALS = frozenset({"jobs.linger", "jobs.retain"})

_EPILOG = """\
columns:
  JOB      name, in Kubernetes NAMESPACE/NAME; below all others _idle_ (powered, nobody's), _unattributed_ (used, owner
           unknown) and _overflow_ (beyond jobs.max or series.max, or not to be named)
  POWER    mean over the last second, with --watch over the last interval
  RULE     of jobs.naming, the one that knew the name
  DETAILS  its devices with their power; what said its name, other rules that named parts of it, scheduler, queue, id
           and user; pods with their containers

It looks for itself, keeps nothing and does not disturb an exporter that runs: both see the same. Below the jobs stands
what could not be read, why, and what would mend it.

exit codes:
  0  done, or stopped by SIGTERM or SIGINT
  2  the command line, a setting or the environment is wrong; nothing was done

examples:
  CARBON_JOB=train python train.py &
  carbon-exporter jobs --watch --sample.interval=1s
  carbon-exporter jobs --json | jq -r '.jobs[] | [.job_name, .power_watts] | @tsv'
"""


def register(commands: Any) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "jobs",
        help="list who runs here now, why each has its name, and what it draws",
        description="List the jobs that run here now, by power: which rule named each and why, its pods and\n"
        "containers, its devices, and what could not be read.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="machine-readable: one document; with --watch one a line")
    parser.add_argument("--watch", action="store_true", help="again every sample.interval, until Ctrl-C")
    add_flags(
        parser,
        only={
            field
            for field, setting in settings_table().items()
            if not setting.key.startswith(_OF_THE_SERVER) and setting.key not in _OF_TOTALS
        },
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """List or watch. Raises `ConfigError` or `IntensityError` for settings that cannot be."""
    settings = load_settings(parsed)
    from carbon_exporter.cli.job_look import show  # noqa: PLC0415 - --help needs none of the rooms
    from carbon_exporter.cli.sensor_look import Stop  # noqa: PLC0415

    try:
        with Stop() as stop:
            show(settings, os.environ, stop, watch=parsed.watch, as_values=parsed.json)
    except BrokenPipeError:
        # Whoever read has had enough; what is still buffered must not fail when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
