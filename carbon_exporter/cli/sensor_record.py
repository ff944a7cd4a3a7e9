"""`carbon-exporter sensors --record`: raw readings into a file, for a replay or a bug report, with nothing personal."""

from __future__ import annotations

import itertools
import os
import pwd
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from carbon_exporter.cli.sensor_look import Looker, Stop, troubles
from carbon_exporter.config import Settings
from carbon_exporter.errors import CarbonExporterError
from carbon_exporter.sensors.base import Bmc
from carbon_exporter.sensors.recorder import Recorder
from carbon_exporter.sensors.redaction import Redaction

__all__ = ["record"]

_STDOUT = "-"
_OWNER_ONLY = 0o600
"""Fine readings of a machine's power tell of its secrets (PLATYPUS, CVE-2020-8694): whoever records decides."""
_LONGEST_PATIENCE = 2.0
_PATIENCE_SHARE = 0.8
"""Of the interval, as `serve` has it."""


def record(settings: Settings, place: str, seconds: float | None, stop: Stop, environ: Mapping[str, str]) -> None:
    """Record to a new file, or to standard output if `place` is `-`, for so many seconds or until somebody stops it.

    Each record is written at once, so that whatever ends the recording, the records before it are there. Raises
    `ConfigError` for settings that cannot be, `CarbonExporterError` if the place cannot be written.
    """
    looker = Looker(settings, min(_PATIENCE_SHARE * settings.interval, _LONGEST_PATIENCE))
    recorder = Recorder(settings.interval, Redaction(_words(looker.host.bmc, environ)))
    clock = looker.host.clock
    try:
        with _opened(place) as descriptor:
            _write(descriptor, place, recorder.header(looker.crew.devices))
            _say(f"recording to {_shown(place)} every {settings.interval:g} s; Ctrl-C ends it")
            count, began = 0, clock()
            for _ in _ticks(looker, settings.interval, seconds, stop):
                sample = looker.look()
                wrong = itertools.chain.from_iterable(
                    troubles(member, sample.failures) for member in looker.crew.members
                )
                line = recorder.record(clock(), looker.crew.devices, sample, tuple(wrong))
                _write(descriptor, place, line)
                count += 1
            _say(f"{count} records of {clock() - began:.0f} s are in {_shown(place)}")
    finally:
        looker.close()


def _ticks(looker: Looker, interval: float, seconds: float | None, stop: Stop) -> Iterator[None]:
    """The moments to look: now, every interval, and the end."""
    clock = looker.host.clock
    due = clock()
    end = None if seconds is None else due + seconds
    while True:
        yield
        if end is not None and due >= end:
            return
        due = max(due + interval, clock())
        if end is not None:
            due = min(due, end)
        if stop.wait(due - clock()):
            return


def _shown(place: str) -> str:
    return "standard output" if place == _STDOUT else place


def _say(what: str) -> None:
    """To the one who records, beside the recording."""
    print(what, file=sys.stderr, flush=True)


@contextmanager
def _opened(place: str) -> Iterator[int]:
    """A descriptor to write to; never that of a file which was there before."""
    try:
        if place == _STDOUT:
            descriptor = os.dup(sys.stdout.fileno())
        else:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNER_ONLY)
    except FileExistsError as error:
        remedy = "name a file that does not exist yet: no recording is overwritten"
        raise CarbonExporterError(f"{place} exists already", remedy=remedy) from error
    except OSError as error:
        raise _cannot_write(place, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(descriptor: int, place: str, line: bytes) -> None:
    """All of a line, past every buffer of this process."""
    try:
        while line:
            line = line[os.write(descriptor, line) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _cannot_write(place, error) from error


def _cannot_write(place: str, error: OSError) -> CarbonExporterError:
    return CarbonExporterError(
        f"the recording cannot be written to {_shown(place)}: {error.strerror}",
        remedy="name a file in a directory that you may write, with room for it",
    )


def _words(bmc: Bmc | None, environ: Mapping[str, str]) -> set[str]:
    """Names of this machine and its people that no recording should hold."""
    node = os.uname().nodename
    words = {node, node.partition(".")[0], environ.get("USER", ""), environ.get("SUDO_USER", ""), _user_name()}
    if bmc is not None:
        host = urlsplit(bmc.url).hostname or ""
        words |= {host, host.partition(".")[0], bmc.username}
    return words - {"", "root", "localhost"}


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""
