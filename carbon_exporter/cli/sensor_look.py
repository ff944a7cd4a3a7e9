"""Looks at all sensors of a machine, again and again, until somebody says stop."""

from __future__ import annotations

import contextlib
import math
import select
import signal
import socket
from collections.abc import Iterable
from types import FrameType
from typing import Any

from carbon_exporter.cli.sensor_view import Seen, Source
from carbon_exporter.config import Settings
from carbon_exporter.energy.ledger import Ledger
from carbon_exporter.errors import SensorError, SensorReadError
from carbon_exporter.sensors.base import Reading, Sample, Vitals
from carbon_exporter.sensors.crew import Crew, CrewMember
from carbon_exporter.sensors.lookout import Lookout
from carbon_exporter.sensors.registry import Finding
from carbon_exporter.service import find_sensors, host_of
from carbon_exporter.service.picture import Draw, draws

__all__ = ["Looker", "Picture", "Stop", "troubles"]

_PATIENCE_SECONDS = 2.0
_FRESH_INTERVALS = 3.0
"""A device that gave nothing for this many intervals has no power any more."""
_FRESH_SECONDS = 10.0
"""But slow meters may take this long."""


class Stop:
    """Waits that SIGINT and SIGTERM end, while the block runs. A second signal does what it always did."""

    def __enter__(self) -> Stop:  # noqa: PYI034 - Self is of Python 3.11
        self.asked = False
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        self._waker.close()
        self._wakened.close()

    def wait(self, seconds: float) -> bool:
        """Wait that long; True as soon as somebody asked to stop."""
        return self.asked or bool(select.select([self._wakened], [], [], max(0.0, seconds))[0])

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        self._restore()
        with contextlib.suppress(OSError):
            self._waker.send(b"!")

    def _restore(self) -> None:
        before: dict[signal.Signals, Any] = self._before
        for number, handler in before.items():
            signal.signal(number, handler)


class Looker:
    """The sensors that the settings choose, and those that come while it looks."""

    def __init__(self, settings: Settings, patience: float = _PATIENCE_SECONDS) -> None:
        """Finds the sensors; no look waits longer than `patience` seconds. Raises `ConfigError` for a bad recording."""
        self.host = host_of(settings)
        sensors, self.findings = find_sensors(settings, self.host)
        self.crew = Crew(sensors, self.host.wall)
        self._patience = patience
        self._lookout = None if settings.replay else Lookout(self.host)

    def look(self) -> Sample:
        """Read all sensors once."""
        found = self._lookout.poll(self.crew.sensors) if self._lookout else None
        if found is not None:
            sensors, self.findings = found
            self.crew.reform(sensors)
        return self.crew.gather(self._patience)

    def close(self) -> None:
        """End the sensors' workers."""
        self.crew.close()


class Picture:
    """What is known of sources and devices, look by look."""

    def __init__(self, looker: Looker, interval: float) -> None:
        """`interval` is the seconds between two looks."""
        self._looker = looker
        self._fresh = max(_FRESH_SECONDS, _FRESH_INTERVALS * interval)
        self._ledger = Ledger()
        self._drawn: dict[str, tuple[Draw, float]] = {}
        self.sources: tuple[Source, ...] = ()
        self.seen: dict[str, Seen] = {}

    @property
    def waits(self) -> bool:
        """Whether a device that has nothing wrong with it has no power yet, as after a first reading."""
        devices = (device for source in self.sources if not source.reasons for device in source.devices)
        return any(self.seen[device.name].watts is None for device in devices)

    def look(self) -> None:
        """Look again."""
        sample = self._looker.look()
        uncertain = _uncertainties(sample.readings)
        news = draws(self._ledger.post(sample.readings))
        self._drawn.update({name: (draw, uncertain.get(name, 0.0)) for name, draw in news.items()})
        members = {member.sensor.name: member for member in self._looker.crew.members}
        self.sources = tuple(_source(one, members.get(one.sensor), sample) for one in self._looker.findings)
        quality = {reading.device.name: reading.quality.value for reading in sample.readings}
        vitals = {one.device: one for one in sample.vitals}
        names = [device.name for source in self.sources for device in source.devices]
        self.seen = {name: self._seen(name, quality.get(name), vitals.get(name)) for name in names}

    def _seen(self, name: str, quality: str | None, vitals: Vitals | None) -> Seen:
        draw, uncertainty = self._drawn.get(name, (None, 0.0))
        if draw is None or draw.end < self._looker.host.clock() - self._fresh:
            return Seen(quality, vitals=vitals)
        return Seen(draw.quality.value, draw.power, uncertainty, vitals)


def troubles(member: CrewMember, told: Iterable[SensorError]) -> tuple[SensorError, ...]:
    """What is wrong with a sensor beside what is told already."""
    known = {id(error) for error in told}
    found = (worker.trouble for worker in member.workers)
    return tuple(trouble for trouble in found if trouble is not None and id(trouble) not in known)


def _source(finding: Finding, member: CrewMember | None, sample: Sample) -> Source:
    if member is None:
        return Source(finding.sensor, finding.state, (), (), _some(finding.reason), _some(finding.remedy))
    devices = member.devices
    names = {device.name for device in devices}
    failures = tuple(failure for failure in sample.failures if failure.device in names)
    wrong = (*failures, *troubles(member, failures))
    dead = bool(wrong) and not any(reading.device.name in names for reading in sample.readings)
    return Source(
        finding.sensor,
        "failed" if dead else "active",
        devices,
        (*_some(finding.reason), *member.notes),
        tuple(dict.fromkeys(_told(error) for error in wrong)),
        tuple(dict.fromkeys(error.remedy for error in wrong if error.remedy)) or _some(finding.remedy),
    )


def _told(error: SensorError) -> str:
    device = error.device if isinstance(error, SensorReadError) else ""
    return f"{device}: {error.reason}" if device and device not in error.reason else error.reason


def _some(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


def _uncertainties(readings: Iterable[Reading]) -> dict[str, float]:
    """By device: the uncertainty of its mean over all its readings; those of single readings are independent."""
    sums: dict[str, tuple[float, float]] = {}
    for reading in readings:
        if reading.since is not None and reading.power is not None:
            squares, seconds = sums.get(reading.device.name, (0.0, 0.0))
            elapsed = reading.at - reading.since
            sums[reading.device.name] = (squares + (reading.uncertainty * elapsed) ** 2, seconds + elapsed)
    return {name: math.sqrt(squares) / seconds for name, (squares, seconds) in sums.items() if seconds > 0}
