"""The meters of a process that measures by itself, because no exporter of its node offers it a socket.

It opens the same sensors as the exporter, but for those that a guest has no business with: management controllers and
whole nodes. Counters that have a rhythm are read just after they move, those that move every millisecond (RAPL) along
with them, all else once a second or so. A ledger of this process makes slices of energy of it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence

from carbon_exporter.energy.ledger import EnergySlice, Ledger
from carbon_exporter.errors import SensorUnavailable
from carbon_exporter.jobs.base import IdlePolicy
from carbon_exporter.jobs.procfs import parse_cpu_times, parse_memory
from carbon_exporter.sdk.base import BoardUse, Machine
from carbon_exporter.sdk.board_use import board_use
from carbon_exporter.sdk.own_source import Source
from carbon_exporter.sensors.base import Device, Host, Quality, Reading, Sensor
from carbon_exporter.sensors.pace import STEADY_SECONDS
from carbon_exporter.sensors.registry import SENSORS, Entry, Finding, discover

__all__ = ["LINUX", "PORTABLE", "OwnMeters"]

LINUX: tuple[Entry, ...] = tuple(
    entry for entry in SENSORS if entry.name in {"nvidia", "amd", "intel_gpu", "rapl", "hwmon", "model"}
)
PORTABLE: tuple[Entry, ...] = (Entry("model", "carbon_exporter.sdk.portable_meters"),)

CLOSEST_SECONDS = 0.04
"""Between two readings of counters that move all the time."""
TOGETHER_SECONDS = 0.03
"""Of several boards each has a rhythm of its own: so long one waits for another, to be read with it in one go."""
LONGEST_WAIT_SECONDS = 1.0
MOST_NOTED = 4096
PATIENCE_SECONDS = 1.0
"""With a full reading; a driver that took longer is not waited for again until it has answered."""
COUNTER_SLACK, LOAD_SLACK, REGISTER_PERIOD = 0.001, 0.01, 0.1
"""Seconds: of a counter that moves all the time, of clock ticks, and between two values of a register of power."""

_log = logging.getLogger("carbon_exporter.sdk")


def _own_pid() -> Collection[int]:
    return (os.getpid(),)


class OwnMeters:
    """`sdk.base.Meters` by this process's own sensors. `open` to `close` are for one thread; made anew after a fork."""

    name = "own"

    def __init__(
        self,
        host: Host | None = None,
        *,
        idle: IdlePolicy = "separate",
        table: Sequence[Entry] | None = None,
        pids: Callable[[], Collection[int]] = _own_pid,
        wanted: Callable[[], Collection[str] | None] = lambda: None,
    ) -> None:
        """Opens nothing yet.

        Args:
            host: where the machine's file systems are; its clock must be CLOCK_MONOTONIC.
            idle: who pays for idle processors and memory.
            table: the sensors to look for; by default what this operating system has.
            pids: this process and its descendants as the driver numbers them; empty if that is not known.
            wanted: names or uuids of the boards to measure; None for all.
        """
        self._host = host or Host()
        self._portable = table is PORTABLE or (table is None and not sys.platform.startswith("linux"))
        self._table = table or (PORTABLE if self._portable else LINUX)
        self._idle: IdlePolicy = idle
        self._pids, self._wanted = pids, wanted
        self._machine = Machine(os.cpu_count() or 1, 0.0, idle)
        self._sources: tuple[Source, ...] = ()
        self._direct: tuple[Sensor, ...] = ()
        self._devices: tuple[Device, ...] = ()
        self._names: frozenset[str] = frozenset()
        """Of those that are wanted."""
        self._boards: frozenset[str] | None = None
        self._heeded = False
        """Whether all sources know which boards are wanted."""
        self._slack: dict[str, tuple[float, float]] = {}
        self._ledger = Ledger()
        self._noted: deque[Reading] = deque(maxlen=MOST_NOTED)
        self._read_at = -STEADY_SECONDS
        """When counters that move all the time were read last."""
        self._grain = STEADY_SECONDS
        self._paused = False
        self._use: BoardUse | None = None
        self._use_known = False
        self._told: set[str] = set()
        self.findings: tuple[Finding, ...] = ()
        """What came of looking for each sensor: who is denied may be told the remedy."""

    def open(self) -> None:
        """Find the devices. Raises `SensorUnavailable` if there is none that can be measured or estimated."""
        self._machine = self._look_at_machine()
        found, self.findings = discover(self._host, self._table)
        for finding in self.findings:
            if finding.state in {"denied", "failed"}:
                _log.info("%s is not used: %s; %s", finding.sensor, finding.reason, finding.remedy)
        sensors = [sensor for sensor in found if not _is_node_only(sensor)]
        for sensor in set(found) - set(sensors):
            sensor.close()
        if not sensors:
            raise SensorUnavailable("this machine has nothing that can be measured or estimated")
        self._direct = tuple(sensor for sensor in sensors if _moves_all_the_time(sensor))
        self._sources = tuple(Source(one, self._host.clock) for one in sensors if one not in self._direct)
        self._heeded = False
        self._want()
        self._list_devices()
        self._post(self._full_readings())

    @property
    def devices(self) -> tuple[Device, ...]:
        """What can be measured now, boards that are not wanted too; no device of a whole node."""
        return self._devices

    @property
    def machine(self) -> Machine:
        """What CPU time and memory are shares of."""
        return self._machine

    def slack(self, device: str) -> float:
        """How far the ends of this device's newest slice may be off, in seconds."""
        begins, ends = self._slack.get(device, (0.0, 0.0))
        return max(begins, ends)

    def glance(self) -> bool:
        """Note what counters show that are due; whether there is more to be read."""
        try:
            return self._note(thoroughly=False) or self._paused
        except Exception:  # noqa: BLE001 - `read` meets it too, and says what it is
            return True

    def ease(self, grain: float) -> None:
        """Read counters every `grain` seconds; if that is finer than before, at the next `glance`."""
        self._grain = grain
        for source in self._sources:
            source.ease(grain)

    def take(self) -> Sequence[EnergySlice]:
        """Energy of whole devices by what was noted since the last call, in order of time."""
        return self._post(self._taken())

    def read(self) -> Sequence[EnergySlice]:
        """Energy of whole devices since the last call, in order of time. Never raises; what fails gives nothing."""
        try:
            return self._read()
        except Exception as error:  # noqa: BLE001 - a guest does not fall over its own meters
            reason = f"{type(error).__name__}: {error}"
            if reason not in self._told:
                self._told.add(reason)
                _log.warning("a reading failed in a way it should not: %s", reason, exc_info=True)
            return ()

    def wait(self) -> float:
        """Seconds until the next `read` is worth it: just after a counter is expected to have moved."""
        now, counters = self._host.clock(), 0
        for source in self._sources:
            counters += source.counters
        patience = TOGETHER_SECONDS if counters > 1 else 0.0
        moment = now + LONGEST_WAIT_SECONDS
        for source in self._sources:
            moment = min(moment, source.moment(now, patience))
        if self._direct and not counters:
            moment = min(moment, self._read_at + self._grain)
        return max(0.0, moment - now)

    def boards(self) -> BoardUse | None:
        """What this process tree pays of each board, as the driver listed it at most 5 s ago; None if it does not."""
        if not self._use_known:
            occupancies = [one for source in self._sources for one in source.occupancies.values()]
            self._use, self._use_known = board_use(occupancies, frozenset(self._pids())), True
        return self._use

    def pause(self) -> None:
        """Nothing is read and no thread wakes up until the next `read`, which begins with marks."""
        self._paused, self._heeded = True, False
        for source in self._sources:
            source.pause()

    def close(self) -> None:
        """Give back files, handles and threads; what another user of this process's libraries began goes on."""
        for source in self._sources:
            source.close()
        for sensor in self._direct:
            sensor.close()
        self._sources, self._direct = (), ()

    def _read(self) -> Sequence[EnergySlice]:
        if self._paused:
            self._paused, self._ledger = False, Ledger()
            self._taken()
        self._want()
        is_due = self._note(thoroughly=True)
        readings = self._taken()
        if is_due:
            readings += self._full_readings()
        return self._post(readings)

    def _note(self, *, thoroughly: bool) -> bool:
        """Read the counters that are due, thoroughly all of them; whether a full reading is due, too."""
        now, is_due = self._host.clock(), False
        for source in self._sources:
            source.read_finely(now)
            is_due = is_due or now >= source.due
        if now - self._read_at >= CLOSEST_SECONDS:
            self._read_at = now
            for sensor in self._direct:
                self._noted.extend(sensor.fine() if thoroughly else sensor.glance())
        return is_due

    def _taken(self) -> list[Reading]:
        """What was noted."""
        readings = [reading for source in self._sources for reading in source.take()]
        readings += [self._noted.popleft() for _ in range(len(self._noted))]
        return readings

    def _want(self) -> None:
        wanted = self._wanted()
        boards = None if wanted is None else frozenset(wanted)
        if self._heeded and boards == self._boards:
            return
        self._heeded = True
        for source in self._sources:
            source.want(boards)
        if boards != self._boards:
            self._boards = boards
            self._list_devices()

    def _full_readings(self) -> list[Reading]:
        """Of the sources whose time has come, those of devices that are not read finely."""
        readings: list[Reading] = []
        for source in self._sources:
            if self._host.clock() >= source.due:
                readings += source.read(PATIENCE_SECONDS)
                self._use_known = False
                self._list_devices()
        return readings

    def _post(self, readings: Iterable[Reading]) -> list[EnergySlice]:
        names, slacks = self._names, self._slack
        measured = []
        for reading in sorted(readings, key=_at):
            name = reading.device.name
            if name in names:
                measured.append(reading)
                before = slacks.get(name, (0.0, 0.0))
                slacks[name] = before[1], reading.slack or _slack_of(reading)
        return self._ledger.post(measured)  # each slice ends with its reading: they are in order

    def _list_devices(self) -> None:
        direct = [device for sensor in self._direct for device in sensor.devices]
        others = [(one, source.wants(one)) for source in self._sources for one in source.crew.devices]
        self._devices = (*(one for one, _ in others if one.kind != "node"), *direct)
        self._names = frozenset(one.name for one in [*(one for one, wanted in others if wanted), *direct])

    def _look_at_machine(self) -> Machine:
        if self._portable:
            from carbon_exporter.sdk.portable_meters import machine  # noqa: PLC0415 - psutil's world

            return machine(self._idle)
        try:
            cpus = parse_cpu_times((self._host.procfs / "stat").read_bytes()).cpus
            memory = parse_memory((self._host.procfs / "meminfo").read_bytes()).total
        except (OSError, ValueError) as error:
            raise SensorUnavailable(f"{self._host.procfs} does not tell CPUs and memory: {error}") from error
        return Machine(cpus, memory, self._idle)


def _is_node_only(sensor: Sensor) -> bool:
    return bool(sensor.devices) and not sensor.members and all(device.kind == "node" for device in sensor.devices)


def _moves_all_the_time(sensor: Sensor) -> bool:
    """Whether it can be read finely at any moment, and without waiting."""
    return sensor.offers_fine and not sensor.members and all(device.period is None for device in sensor.devices)


def _slack_of(reading: Reading) -> float:
    if reading.quality is Quality.INTEGRATED:
        return (reading.device.period or REGISTER_PERIOD) / 2
    return COUNTER_SLACK if reading.quality is Quality.MEASURED else LOAD_SLACK


def _at(reading: Reading) -> float:
    return reading.at
