"""Looks at the jobs of a machine, again and again, until somebody says stop: the exporter without a server."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from carbon_exporter.cli.job_view import View, as_json, as_text
from carbon_exporter.cli.sensor_look import Stop
from carbon_exporter.cli.sensor_view import terminal_width
from carbon_exporter.config import Settings
from carbon_exporter.jobs.base import Job
from carbon_exporter.jobs.namer import Known, Namer
from carbon_exporter.jobs.places import Place
from carbon_exporter.jobs.workload import Directory
from carbon_exporter.service import Parts
from carbon_exporter.service.keeper import Keeper
from carbon_exporter.snapshot import Snapshot
from carbon_exporter.units import Watts

__all__ = ["FirstAnswers", "HastyNamer", "JobPicture", "latest_shares", "show"]

_DIRECTORIES_SECONDS = 2.0
"""How long API server, kubelet and engines have for their first answer."""
_POLL_SECONDS = 0.05
_LOOK_SECONDS = 1.0
"""Long enough for a model to see some load."""
_MOST_LOOKS = 3
"""Slow meters may need longer than one second for two readings, and directories for their first answer."""
_CLEAR = "\x1b[H\x1b[2J"


class HastyNamer(Namer):
    """Names a pod by what is known of it now: whoever looks on will see its better name when it comes."""

    def awaits(self, place: Place, known: Known) -> bool:  # noqa: ARG002 - of nobody
        """Never."""
        return False


class FirstAnswers:
    """Whether the directories have been answered since they were started.

    One that has not still says what it said before: a success of nothing in the same object, or the same trouble.
    """

    def __init__(self, directories: Iterable[Directory]) -> None:
        """Before they are started."""
        self._before = [(one, one.health()) for one in directories]

    @property
    def missing(self) -> tuple[str, ...]:
        """Who has not been answered, for good or bad."""
        return tuple(
            later.resolver
            for later, before in ((one.health(), before) for one, before in self._before)
            if later is before or (later == before and not later.success)
        )

    @property
    def all_well(self) -> bool:
        """Whether all know what they should; one in trouble may try again soon."""
        return not self.missing and all(one.health().success for one, _ in self._before)


class JobPicture:
    """What is known of the jobs, look by look. Nothing of it is stored."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        """Starts the directories. Raises `ConfigError` or `IntensityError` for settings that cannot be."""
        with _heard() as heard:
            self._parts = Parts(settings, environ)
        self._notes = tuple(heard)
        self._answers = FirstAnswers(self._parts.directories)
        self._parts.start()
        self._pipeline = self._parts.join(Keeper(None), HastyNamer)
        self._snapshot: Snapshot | None = None
        self._revisions: list[int] = []
        self._has_news = False
        self._shares: Mapping[str, Mapping[Job, Watts]] = {}

    def await_directories(self, stop: Stop) -> None:
        """Let them have their first answers, but not for long."""
        clock = self._parts.host.clock
        until = clock() + _DIRECTORIES_SECONDS
        while not self._answers.all_well and clock() < until and not stop.wait(_POLL_SECONDS):
            pass

    def look(self) -> View:
        """Look again."""
        known, self._revisions = self._revisions, [one.revision for one in self._parts.directories]
        self._has_news = known != self._revisions
        self._snapshot = self._pipeline.tick()
        self._shares = latest_shares(self._shares, self._snapshot)
        return View(self._snapshot, self._shares, self._answers.missing, self._notes)

    @property
    def waits(self) -> bool:
        """Whether the next look will tell more.

        It will if a device of a sensor that works has no power yet, as after a first reading, and if a directory has
        learnt something since the look before, so that half of the time between is under the names of before.
        """
        if self._snapshot is None or self._has_news:
            return True
        active = {name for one in self._snapshot.sensors if one.state == "active" for name in one.devices}
        return any(state.power is None and state.device.name in active for state in self._snapshot.devices)

    def close(self) -> None:
        """End all threads."""
        self._parts.close()
        self._pipeline.close()


def latest_shares(before: Mapping[str, Mapping[Job, Watts]], snapshot: Snapshot) -> dict[str, Mapping[Job, Watts]]:
    """Each job's share of each device's power: as at its last news, for as long as the device has a power."""
    news: dict[str, dict[Job, Watts]] = {}
    for (job, key), watts in snapshot.job_power.items():
        of_device = news.setdefault(key.device, {})
        of_device[job] = Watts(of_device.get(job, 0.0) + watts)
    known = {**before, **news}
    powered = (state.device.name for state in snapshot.devices if state.power is not None)
    return {device: known[device] for device in powered if device in known}


def show(settings: Settings, environ: Mapping[str, str], stop: Stop, *, watch: bool, as_values: bool) -> None:
    """Print who runs here, from a second of looking; with `watch` again every interval until stopped.

    Meters and directories that need longer for their first word are waited for, but not with `watch`.
    """
    picture = JobPicture(settings, environ)
    logging.getLogger("carbon_exporter").setLevel(logging.ERROR)  # what warnings would say stands below the jobs
    try:
        picture.await_directories(stop)
        picture.look()
        for _ in range(1 if watch else _MOST_LOOKS):
            stop.wait(min(_LOOK_SECONDS, settings.interval) if watch else _LOOK_SECONDS)
            view = picture.look()
            if stop.asked or not picture.waits:
                break
        _print(view, watch=watch, as_values=as_values)
        while watch and not stop.wait(settings.interval):
            _print(picture.look(), watch=watch, as_values=as_values)
    finally:
        picture.close()


def _print(view: View, *, watch: bool, as_values: bool) -> None:
    """One picture; of several each begins on a clear terminal, or is followed by an empty line."""
    if as_values:
        text = json.dumps(as_json(view, os.uname().nodename), indent=None if watch else 2, ensure_ascii=False)
    else:
        text = as_text(view, terminal_width())
        if watch:
            text = f"{_CLEAR}{text}" if sys.stdout.isatty() else f"{text}\n"
    print(text, flush=True)


class _Notes(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, told: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told.append(record.getMessage())


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Warnings of the start, which are nowhere else: they are to stand below the jobs."""
    told: list[str] = []
    logger, handler = logging.getLogger("carbon_exporter"), _Notes(told)
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)
