"""`carbon-exporter run`: a command, and what it costs."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
from pathlib import PurePath
from typing import Any, Protocol

__all__ = ["Figures", "register", "run", "summary"]

_EXIT_FAILED = 1
_EXIT_USAGE = 2
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127
_NEXT_TO_NOTHING = 1e-6
_LIVE_SECONDS = 1.0
_SETTLE_SECONDS = 2.0
"""How long the end may wait for the last reading of the meters."""

_EPILOG = """\
The command gets standard input, output and errors, the terminal and all signals as without carbon-exporter, and its
exit code is passed on. Its energy is that of the process and all it starts: from the exporter of this node if there is
one (which knows it by its job, as CARBON_JOB and from us), else from this machine's meters. On a terminal a line shows
it once a second; when the command ends, a summary goes to standard error.

A command that uses the SDK has spans of its own under the same job; this one, which is called after the job, contains
them.

exit codes:
  126  the command cannot be executed
  127  there is no such command
  else the command's; death by a signal is passed on as that

examples:
  carbon-exporter run -- python train.py --epochs 3
  carbon-exporter run --job nightly --no-live -- make test
"""


class Figures(Protocol):
    """What is needed of a span."""

    @property
    def energy_kwh(self) -> float: ...  # noqa: D102 - as CarbonSpan has them
    @property
    def co2e_grams(self) -> float: ...  # noqa: D102
    @property
    def duration_seconds(self) -> float: ...  # noqa: D102
    @property
    def power_watts(self) -> float: ...  # noqa: D102
    @property
    def energy_by_kind(self) -> dict[str, float]: ...  # noqa: D102
    @property
    def quality(self) -> str: ...  # noqa: D102


def register(commands: Any) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "run",
        help="run a command and say what it cost",
        description="Run a command as if it ran alone, and say what it used and emitted.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage="carbon-exporter run [-h] [--job NAME] [--no-live] [--] COMMAND [ARGUMENT ...]",
    )
    parser.add_argument("--job", default="", help="whose energy it is (default: CARBON_JOB, else the command's name)")
    parser.add_argument(
        "--live", action=argparse.BooleanOptionalAction, default=True, help="the line on a terminal (default: on)"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run, with its arguments")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Run it; returns its exit code, or dies of the signal that it died of."""
    argv = parsed.command[1:] if parsed.command[:1] == ["--"] else parsed.command
    if not argv:
        print("carbon-exporter run: no command; see carbon-exporter run --help", file=sys.stderr)
        return _EXIT_USAGE
    if not hasattr(signal, "sigtimedwait"):
        print("carbon-exporter run: only on Linux", file=sys.stderr)
        return _EXIT_FAILED
    from carbon_exporter import carbon_span  # noqa: PLC0415 - --help needs none of it
    from carbon_exporter.cli.relay import Command, end_like  # noqa: PLC0415
    from carbon_exporter.sdk.tracker import configure, finish  # noqa: PLC0415

    job = parsed.job or os.environ.get("CARBON_JOB", "") or PurePath(argv[0]).name
    try:
        command = Command(argv, {**os.environ, "CARBON_JOB": job})
    except OSError as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        print(f"carbon-exporter run: {argv[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_FOUND if missing else _NOT_EXECUTABLE
    configure(job=job, whole_tree=True)
    line = _Line(job) if parsed.live else None
    with carbon_span(job) as span:
        status = command.wait(lambda: line.show(span) if line else None, _LIVE_SECONDS)
    span.wait(_SETTLE_SECONDS)
    with contextlib.suppress(OSError):  # nobody listens any more
        if line:
            line.clear()
        print(summary(job, span, _region()), file=sys.stderr, flush=True)
    finish()
    return end_like(status)


def summary(job: str, figures: Figures, region: str) -> str:
    """What it cost, in two lines."""
    kinds = sorted(figures.energy_by_kind.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{kind} {_number(kwh)} kWh" for kind, kwh in kinds) or "nothing could be measured"
    return (
        f"carbon-exporter: {job}: {_figures(figures)}{f' ({region})' if region else ''}\n"
        f"carbon-exporter: {parts}; quality: {figures.quality}"
    )


def _figures(figures: Figures) -> str:
    return (
        f"{_duration(figures.duration_seconds)}, {_number(figures.energy_kwh)} kWh, "
        f"{_number(figures.power_watts)} W, {_number(figures.co2e_grams)} g CO2e"
    )


def _duration(seconds: float) -> str:
    if seconds < 60:  # noqa: PLR2004 - of a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _number(value: float) -> str:
    """Three significant digits, with an exponent only for next to nothing."""
    if not math.isfinite(value) or value <= 0:
        return "0"
    if value < _NEXT_TO_NOTHING:
        return f"{value:.3g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def _region() -> str:
    """The grid zone that was reckoned with; empty where nothing was."""
    from carbon_exporter.sdk.tracker import current  # noqa: PLC0415 - as above

    engine = current().engine
    price = engine.choice.price() if engine is not None else None
    return price.region if price is not None else ""


class _Line:
    """One line on the terminal of standard error, which the command's own output writes over."""

    def __init__(self, job: str) -> None:
        self._job, self._shown = job, False

    def show(self, figures: Figures) -> None:
        """Show how it stands, where that disturbs nobody."""
        with contextlib.suppress(OSError):
            if _is_ours():
                room = os.get_terminal_size(sys.stderr.fileno()).columns - 1
                _write(f"\r\x1b[K{f'{self._job}: {_figures(figures)}'[: max(0, room)]}\r")
                self._shown = True

    def clear(self) -> None:
        """Take it away."""
        if self._shown and _is_ours():
            _write("\r\x1b[K")


def _is_ours() -> bool:
    """Whether standard error is a terminal with us in the foreground and no full-screen program on it."""
    import termios  # noqa: PLC0415 - not everywhere

    handle = sys.stderr.fileno()
    try:
        if not os.isatty(handle) or os.tcgetpgrp(handle) != os.getpgrp():
            return False
        return bool(termios.tcgetattr(handle)[3] & termios.ICANON)
    except (OSError, termios.error):
        return False


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
