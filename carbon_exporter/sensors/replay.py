"""Plays a recording of readings: for tests, demonstrations, and questions about a machine that is not at hand.

`recording` tells what a recording looks like, `recorder` writes one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from carbon_exporter.errors import SensorReadError
from carbon_exporter.sensors.base import Device, Occupancy, Reading, Sample, Sensor, Vitals
from carbon_exporter.sensors.recorder import recording_lines, write_recording
from carbon_exporter.sensors.recording import Moment, VitalsRow, load_recording
from carbon_exporter.units import Joules, Watts

__all__ = ["Replay", "recording_lines", "write_recording"]


class Replay(Sensor):
    """The sensor. Time starts with the first read."""

    name = "replay"

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """Read the whole recording. Raises `ConfigError` with file and line."""
        self._path = path
        self._clock = clock
        recording = load_recording(path)
        self._devices = recording.devices
        self._moments = recording.moments
        self._times = tuple(moment.record.t for moment in recording.moments)
        self._every = recording.interval is not None
        self._given = 0
        """How many moments were given already."""
        self._start: float | None = None

    @property
    def devices(self) -> tuple[Device, ...]:
        """Those of the moment that was read last; their sensor is `replay`, whatever once measured them."""
        return self._devices

    def read(self) -> Sample:
        """What the meters had said by now. Raises `SensorReadError` when the recording has ended.

        That is the newest record; if the recording says its interval, with all before it that were not given yet.
        Before the first record it is nothing. The recording ends one step, the time between the last two records,
        after the last; one of a single record with that.
        """
        now = self._clock()
        start = self._start = now if self._start is None else self._start
        times = self._times
        due = bisect_right(times, now - start)
        news = self._every and self._given < due
        step = times[-1] - times[-2] if len(times) > 1 else 0.0
        if now - start > times[-1] + step and not news:
            raise SensorReadError(f"the recording has ended: {self._path} is {times[-1]:g} s long")
        moments = self._moments[self._given if news else max(due - 1, 0) : due]
        self._given = due
        if moments:
            self._devices = tuple(moments[-1].devices.values())
        return _sample(moments, start)


def _sample(moments: tuple[Moment, ...], start: float) -> Sample:
    """All that was said, and of each device's vitals the newest."""
    vitals = {row.device: row for moment in moments for row in moment.record.vitals}
    return Sample(
        tuple(chain.from_iterable(_readings(moment, start) for moment in moments)),
        tuple(SensorReadError(row.reason, device=row.device) for moment in moments for row in moment.record.failures),
        tuple(_vitals(row) for row in vitals.values()),
        tuple(_boards(moments[-1], start)) if moments else (),
    )


def _boards(moment: Moment, start: float) -> Iterator[Occupancy]:
    """NVIDIA's boards: who is on them was not recorded, whom a scheduler gives them to now is known here."""
    for device in moment.devices.values():
        if device.kind == "gpu" and device.vendor == "NVIDIA":
            alias = f"nvidia{device.name.removeprefix('gpu')}"
            yield Occupancy(device.name, start + moment.record.t, None, uuid=device.uuid, aliases=(alias,))


def _readings(moment: Moment, start: float) -> Iterator[Reading]:
    for row in moment.record.readings:
        yield Reading(
            device=moment.devices[row.device],
            at=start + (moment.record.t if row.t is None else row.t),
            quality=row.quality,
            energy=None if row.energy is None else Joules(row.energy),
            power=None if row.power is None else Watts(row.power),
            since=None if row.since is None else start + row.since,
            uncertainty=Watts(row.uncertainty or 0.0),
        )


def _vitals(row: VitalsRow) -> Vitals:
    limit = None if row.power_limit is None else Watts(row.power_limit)
    return Vitals(row.device, limit, row.utilization, row.memory_used, row.temperature, row.divergence)
