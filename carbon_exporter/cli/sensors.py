"""`carbon-exporter sensors`: what can be measured here, how good it is, what is missing, and what would mend that."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from carbon_exporter.cli.sensor_view import Seen, Source, as_text, terminal_width
from carbon_exporter.cli.settings import add_flags, load_settings
from carbon_exporter.config import duration, settings_table
from carbon_exporter.errors import ConfigError
from carbon_exporter.sensors.registry import Finding

__all__ = ["findings_table", "register", "run"]

_SHORTEST, _LONGEST = 0.1, 30 * 86400.0
_SETTINGS = frozenset(
    {
        "procfs",
        "sysfs",
        "devfs",
        "replay",
        "interval",
        "redfish_url",
        "redfish_username",
        "redfish_password_file",
        "redfish_ca_file",
        "redfish_insecure",
        "redfish_authentication",
    }
)

_EPILOG = """\
columns:
  POWER    mean over the last second, with --watch over the last interval
  ±        W by which sampling alone may have missed that mean, in 95 of 100 cases
  QUALITY  measured (a counter), integrated (a power meter), modelled, default (a constant)
  bound    how far off the meter itself may be, and why

a recording holds:
  of each device its name, kind, vendor, model, method, bound, period and limits; of each look the readings, what
  devices said of themselves (load, memory, temperature, power limit) and the reasons of failures. Times count from its
  start. It holds no serial number, host name, address, URL, user, process or job, and no path but the kernel's.
  Look at it before you send it: it is text, a line for each look. The file is readable for you alone.

exit codes:
  0  done, or stopped by SIGTERM or SIGINT
  1  the recording cannot be written
  2  the command line, a setting or the environment is wrong; nothing was done

examples:
  carbon-exporter sensors --watch --sample.interval=1s
  carbon-exporter sensors --record readings.jsonl --for 10m
  carbon-exporter --replay.file=readings.jsonl --storage.path=
"""


def register(commands: Any) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "sensors",
        help="list what can be measured here, how well, and what would make it better",
        description="Look for every source of readings, read it for a second, and say what it gives, how good that is\n"
        "and why, and for what is missing or denied the remedy.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--json", action="store_true", help="machine-readable: a list of sources; with --watch one a line"
    )
    parser.add_argument("--watch", action="store_true", help="again every sample.interval, until Ctrl-C")
    parser.add_argument(
        "--record", metavar="FILE", help="write raw readings every sample.interval until Ctrl-C, - for standard output"
    )
    parser.add_argument(
        "--for", dest="duration", metavar="DURATION", help="end --watch or --record after this time, such as 10m"
    )
    redfish = {field for field, setting in settings_table().items() if setting.key.startswith("redfish.")}
    add_flags(parser, only=_SETTINGS | redfish)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """List, watch or record. Raises `ConfigError` for flags that do not go together."""
    seconds = _checked(parsed)
    settings = load_settings(parsed)
    from carbon_exporter.cli.sensor_look import Stop  # noqa: PLC0415 - --help needs none of the rooms
    from carbon_exporter.cli.sensor_record import record  # noqa: PLC0415
    from carbon_exporter.cli.sensor_watch import show  # noqa: PLC0415

    try:
        with Stop() as stop:
            if parsed.record is not None:
                record(settings, parsed.record, seconds, stop, os.environ)
            else:
                show(settings, stop, watch=parsed.watch, as_values=parsed.json, seconds=seconds)
    except BrokenPipeError:
        # Whoever read has had enough; what is still buffered must not fail when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def findings_table(findings: Sequence[Finding], seen: Mapping[str, tuple[str | None, float | None]]) -> str:
    """The findings for people; `seen` gives a device's quality and watts, as far as they are known."""
    sources = [Source(one.sensor, one.state, one.devices, (), _some(one.reason), _some(one.remedy)) for one in findings]
    return as_text(sources, {name: Seen(*known) for name, known in seen.items()}, terminal_width())


def _checked(parsed: argparse.Namespace) -> float | None:
    """The seconds that --for says."""
    if parsed.record is not None:
        for flag, given in (("--watch", parsed.watch), ("--json", parsed.json)):
            if given:
                raise ConfigError("command line", flag, f"{flag} --record", "one of them: a recording shows nothing")
        if not parsed.record:
            raise ConfigError(
                "command line", "--record", "", "a file that does not exist yet, or - for standard output"
            )
    if parsed.duration is None:
        return None
    if parsed.record is None and not parsed.watch:
        raise ConfigError("command line", "--for", parsed.duration, "together with --watch or --record")
    try:
        return duration(_SHORTEST, _LONGEST)(parsed.duration)
    except ValueError:
        accepted = "a duration from 100ms to 30d"
        raise ConfigError("command line", "--for", parsed.duration, accepted) from None


def _some(text: str) -> tuple[str, ...]:
    return (text,) if text else ()
