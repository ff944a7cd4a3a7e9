"""The crew: all sensors of a machine and their workers, read together once a tick.

A sensor's members (the boards of a maker) have workers of their own, made and ended as boards come and go; those that
answer at once are read in a round. To the outside they are one sensor with one health.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain

from carbon_exporter.errors import SensorError, SensorOutdated
from carbon_exporter.sensors.base import Device, Reading, Sample, Sensor
from carbon_exporter.sensors.fine import Watch
from carbon_exporter.sensors.round import Round
from carbon_exporter.sensors.worker import SensorWorker

__all__ = ["Crew", "CrewMember"]

CLOSING_SECONDS = 1.0
HEAD_START_SECONDS = 0.003
"""Before the next sensor is asked. Most answer in less: one after the other they cost a third of the CPU time that
they take together, when each waits for the interpreter; those that need longer still read side by side."""

_log = logging.getLogger(__name__)


class CrewMember:
    """One sensor, its worker, and those of its members."""

    def __init__(self, sensor: Sensor, wall: Callable[[], float], watch: Watch | None = None) -> None:
        """Starts the workers of the sensor and of its members; `watch` says what they do between readings."""
        self.sensor = sensor
        self._wall = wall
        self._watch = watch or Watch()
        self._worker = SensorWorker(sensor, wall, watch=self._watch)
        self._below: dict[Sensor, SensorWorker] = {}
        self._round: Round | None = None
        """Reads the prompt ones, once there is more than one board."""
        self.workers: tuple[SensorWorker, ...] = (self._worker,)
        """The sensor's own, then its members'."""
        self._errors_of_gone: dict[str, int] = {}
        self.muster()

    def muster(self) -> None:
        """Give each member a worker; end those of members that are gone."""
        before, members = self._below, self.sensor.members
        if members == tuple(before):
            return
        self._below = known = {member: before.get(member) or self._employ(member) for member in members}
        self.workers = (self._worker, *known.values())  # at once, for another thread may be about to go through them
        for gone in before.keys() - known.keys():
            _add(self._errors_of_gone, before[gone].errors)
            before[gone].close()
        if self._round is None and len(known) > 1:
            self._round = Round(self.sensor.name)

    def ask(self, head_start: float) -> None:
        """Start all readings; the next one after `head_start` seconds at most."""
        prompt = []
        for worker in self.workers:
            if self._round is not None and worker.is_prompt(head_start):
                prompt.append(worker)
            else:
                worker.ask(head_start)
        if self._round is not None:
            self._round.read(prompt, head_start)

    @property
    def devices(self) -> tuple[Device, ...]:
        """What it measures now, its members' devices too."""
        return tuple(chain.from_iterable([worker.sensor.devices for worker in self.workers]))

    @property
    def trouble(self) -> SensorError | None:
        """What is wrong now: the first worker's trouble, and how many more have one."""
        troubles = [worker.trouble for worker in self.workers if worker.trouble is not None]
        if len(troubles) <= 1:
            return troubles[0] if troubles else None
        return SensorError(f"{troubles[0].reason}, and {len(troubles) - 1} more", remedy=troubles[0].remedy)

    @property
    def outdated(self) -> SensorOutdated | None:
        """The trouble that only a fresh process can mend; None if there is none."""
        troubles = (worker.trouble for worker in self.workers)
        return next((trouble for trouble in troubles if isinstance(trouble, SensorOutdated)), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What it cannot give here and why."""
        return tuple(chain.from_iterable([worker.sensor.notes for worker in self.workers]))

    @property
    def seconds(self) -> float:
        """How long the slowest of the last readings took."""
        return max([worker.seconds for worker in self.workers])

    @property
    def last_sample(self) -> float | None:
        """Unix seconds of the newest reading that gave something."""
        return max([w.last_sample for w in self.workers if w.last_sample is not None], default=None)

    @property
    def errors(self) -> dict[str, int]:
        """Failed readings by reason, of members that are gone too."""
        total = dict(self._errors_of_gone)
        for worker in self.workers:
            if worker.errors:
                _add(total, worker.errors)
        return total

    def _employ(self, member: Sensor) -> SensorWorker:
        return SensorWorker(member, self._wall, _label(member), self._watch)

    def close(self) -> None:
        """End all its workers."""
        for worker in self.workers:
            worker.close()
        if self._round is not None:
            self._round.close()


class Crew:
    """All sensors of a machine. For one thread, but for `watch`, `rest`, `take_fine`, `fine_devices` and `news`."""

    def __init__(self, sensors: Iterable[Sensor], wall: Callable[[], float] = time.time) -> None:
        """Starts a worker for each; `wall` gives Unix seconds."""
        self._wall = wall
        self._watch = Watch()
        self.members: tuple[CrewMember, ...] = tuple(CrewMember(sensor, wall, self._watch) for sensor in sensors)
        self._disputed: set[str] = set()
        """Names that two sensors use, as the log has told."""
        self.devices = self._devices()
        """What was measured at the last look; of two devices of one name only the first, whose sensor comes first."""

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """Who is in it."""
        return tuple(member.sensor for member in self.members)

    def reform(self, sensors: Sequence[Sensor]) -> None:
        """Go on with these sensors: known ones keep their workers, others join or leave."""
        known = {member.sensor: member for member in self.members}
        for sensor, member in known.items():
            if sensor not in sensors:
                member.close()
        self.members = tuple(known.get(sensor) or CrewMember(sensor, self._wall, self._watch) for sensor in sensors)
        self.devices = self._devices()

    def gather(self, deadline: float) -> Sample:
        """Read all sensors at once, and wait for them until `deadline` seconds have passed."""
        for member in self.members:
            member.muster()
        workers = self._workers
        until = time.perf_counter() + deadline
        for member in self.members:
            member.ask(HEAD_START_SECONDS)
        samples = [worker.answer(max(0.0, until - time.perf_counter())) for worker in workers]
        self.devices = self._devices()
        return Sample(
            tuple(self._undisputed(chain.from_iterable(sample.readings for sample in samples))),
            tuple(chain.from_iterable(sample.failures for sample in samples)),
            tuple(chain.from_iterable(sample.vitals for sample in samples)),
            tuple(chain.from_iterable(sample.occupancies for sample in samples)),
        )

    # Fine readings

    def watch(self, on: bool, boards: Collection[str] | None = None) -> None:
        """Read the energy finely from now on, or not any more; of boards those named, by name or uuid (None: all)."""
        wanted = None if boards is None else frozenset(boards)
        if (on, wanted) != (self._watch.on, self._watch.boards):
            self._watch.on, self._watch.boards = on, wanted
            self._nudge()

    def rest(self, on: bool) -> None:
        """Do nothing at all between readings, or go on to sample meters that have no counter."""
        if on != self._watch.rests:
            self._watch.rests = on
            self._nudge()

    def take_fine(self) -> list[Reading]:
        """The fine readings since the last call, each device's in order of time."""
        return self._undisputed(chain.from_iterable(worker.fine.take() for worker in self._workers))

    @property
    def fine_devices(self) -> frozenset[str]:
        """Names of the devices that are read finely now."""
        return frozenset(device.name for worker in self._workers for device in worker.fine.devices)

    @property
    def news(self) -> float | None:
        """When the next fine reading will be there that tells something new (`time.monotonic`); None without any."""
        return min((news for worker in self._workers if (news := worker.fine.news) is not None), default=None)

    @property
    def _workers(self) -> list[SensorWorker]:
        return [worker for member in self.members for worker in member.workers]

    def _nudge(self) -> None:
        for worker in self._workers:
            worker.nudge()

    def _undisputed(self, readings: Iterable[Reading]) -> list[Reading]:
        """Without those of devices that another sensor measures."""
        owners = {device.name: device.sensor for device in self.devices}
        return [one for one in readings if owners.get(one.device.name, one.device.sensor) == one.device.sensor]

    def _devices(self) -> tuple[Device, ...]:
        named: dict[str, Device] = {}
        for device in chain.from_iterable(member.devices for member in self.members):
            first = named.setdefault(device.name, device)
            if first.sensor != device.sensor and device.name not in self._disputed:
                self._disputed.add(device.name)
                _log.warning(
                    "%s: %s measures it already, what %s says is left out", device.name, first.sensor, device.sensor
                )
        return tuple(named.values())

    def close(self) -> None:
        """End all workers; those that have something to give back get a second for it."""
        workers = self._workers
        for member in self.members:
            member.close()
        until = time.perf_counter() + CLOSING_SECONDS
        for worker in workers:
            worker.wait_closed(max(0.0, until - time.perf_counter()))


def _label(member: Sensor) -> str:
    """What the log calls a member: its sensor, and its device once that is known."""
    return f"{member.name} {member.devices[0].name}" if member.devices else member.name


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for reason, count in more.items():
        total[reason] = total.get(reason, 0) + count
