"""The command line. A command is a file with `register` and `run`, and one line in `COMMANDS`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from carbon_exporter import __version__
from carbon_exporter.cli.table import printable
from carbon_exporter.errors import CarbonExporterError, ConfigError, IntensityError

__all__ = ["COMMANDS", "EXIT_FAILED", "EXIT_OK", "EXIT_USAGE", "main"]

COMMANDS = ("serve", "run", "sensors", "jobs", "metrics", "budgets", "report", "compare", "health")
"""Modules of this package, in the order that `--help` shows them; the first is the default."""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2

_EPILOG = """\
without a command, serve is meant: "carbon-exporter --grid.region=FR" serves.

exit codes:
  0  done, or stopped by SIGTERM or SIGINT
  1  could not do it: the address is taken
  2  the command line, a setting or the environment is wrong; nothing was done
  run ends as its command ends
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in {"-h", "--help", "--version"}):
        arguments.insert(0, COMMANDS[0])
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except (ConfigError, IntensityError) as error:
        print(f"carbon-exporter: {printable(str(error))}", file=sys.stderr)
        return EXIT_USAGE
    except CarbonExporterError as error:
        print(f"carbon-exporter: {printable(str(error))}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="carbon-exporter",
        description="Watts, kilowatt-hours and CO2e of this machine, by job, for Prometheus.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"carbon-exporter {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"{__name__}.{name}").register(commands)
    return parser
