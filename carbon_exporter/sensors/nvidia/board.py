"""One NVIDIA board: a sensor with a worker of its own, so that its hang or loss costs its own freshness only.

A tick is one call for power and energy, one each for utilisation, memory and temperature, three lists of processes
and their utilisation; what changes slowly (index, limits, division) is asked every twelfth tick. After a failure the
board is tried again at the next tick, and then at every second one, with a handle that is got anew by its uuid.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from carbon_exporter.errors import SensorOutdated, SensorReadError
from carbon_exporter.sensors.base import Device, Host, Occupancy, Quality, Reading, Sample, Sensor, Vitals
from carbon_exporter.sensors.divergence import Divergence
from carbon_exporter.sensors.integrator import PowerIntegrator
from carbon_exporter.sensors.nvidia.meter import Look, Meter
from carbon_exporter.sensors.nvidia.mig import Division
from carbon_exporter.sensors.nvidia.nvml import Code, Handle, Nvml, NvmlError
from carbon_exporter.sensors.nvidia.processes import Processes, occupants_of_parts, occupants_of_whole
from carbon_exporter.sensors.nvidia.refusals import Refusals
from carbon_exporter.sensors.nvidia.session import Session
from carbon_exporter.units import Watts

__all__ = ["OUTDATED_REMEDY", "SLOW_TICKS", "Board"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

SLOW_TICKS = 12
"""What changes slowly is asked once in so many ticks."""
OUTDATED_REMEDY = "NVIDIA's driver was replaced while the exporter ran: it must be started again"
LOST_REMEDY = "see dmesg for NVRM: Xid; the board needs a reset (nvidia-smi --gpu-reset) or the machine a restart"

_SAMPLING_SECONDS = 0.05
_LONGEST_STEP_SECONDS = 3.0
"""Two samples of power further apart say nothing of the time between them."""
_FORGOTTEN_SECONDS = 3.0
"""Who has not asked for fine readings of sampled power for so long does not want them any more."""
_LONGEST_CALL_SECONDS = 1.0
"""What a slower call says is of no known moment."""
_CALLS_A_TICK = 12
_HOTTEST = 200
LAYOUT = "layout of its partitions"
_COUNTER_BOUND = "±5 % (tolerance of the board's power meter)"
_SAMPLED_BOUND = "±5 % (tolerance of the board's power meter), and what sampling may miss"


@dataclass(slots=True)
class _Trouble:
    """The last failure, and when to try again."""

    error: NvmlError | None = None
    times: int = 0
    rests: bool = False
    generation: int = -1
    """The session in which it failed: in another one it may be over."""

    def note(self, error: NvmlError, generation: int) -> None:
        self.error, self.generation = error, generation
        self.times += 1
        self.rests = self.times > 1

    def over(self) -> None:
        self.error, self.times, self.rests = None, 0, False


@dataclass(slots=True)
class _Asked:
    """What a tick gathers."""

    readings: tuple[Reading, ...] = ()
    failure: SensorReadError | None = None
    """The first."""
    vitals: tuple[Vitals, ...] = ()
    occupancies: tuple[Occupancy, ...] = ()

    def sample(self) -> Sample:
        failures = () if self.failure is None else (self.failure,)
        return Sample(self.readings, failures, self.vitals, self.occupancies)


class Board(Sensor):
    """One board, known by its uuid. `read` and `sample` are for one thread at a time; all else for any."""

    name = "nvidia"

    def __init__(self, host: Host, session: Session, uuid: str, model: str, index: int) -> None:
        """`index` is where the driver lists it now."""
        self._host, self._session = host, session
        self.uuid = uuid
        self.index = index
        self._model = model
        self._label = host.names.name("gpu", uuid, index)
        self._nvml = Nvml(session.library)
        self._meter = Meter(self._nvml, model)
        self._refusals = Refusals(self._label)
        self._processes = Processes(self._nvml, self._refusals)
        self._division = Division(self._nvml, self._refusals)
        self._integrator = PowerIntegrator(_LONGEST_STEP_SECONDS)
        self._fine_power: tuple[PowerIntegrator, float] | None = None
        """The samples once more, for fine readings, and when they were last asked for."""
        self._divergence = Divergence()
        self._known: Device | None = None
        self._aliases: tuple[str, ...] = ()
        self._handle: Handle | None = None
        self._generation = -1
        self._trouble = _Trouble()
        self._divided: bool | None = None
        self._ticks = 0
        self._calls_before = 0
        self._sample_failed = False
        self._logged: set[str] = set()
        self.doubted = False
        """Set by who suspects that the driver lists it no more or elsewhere: it looks itself up at its next tick."""
        self.missing: int | None = None
        """The code with which the driver did not find it; None while it does."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """Itself."""
        return (self._device(),)

    @property
    def quality(self) -> Quality | None:
        """None before it is known whether it has a counter."""
        return self._meter.quality

    @property
    def notes(self) -> tuple[str, ...]:
        """What it cannot give and why."""
        return (*(f"{self._label}: {note}" for note in self._meter.notes), *self._refusals.notes)

    @property
    def sampling_period(self) -> float | None:
        """20 Hz without a counter."""
        well = self._trouble.error is None and not self._sample_failed
        return _SAMPLING_SECONDS if self._meter.samples and well else None

    @property
    def offers_fine(self) -> bool:
        """While it works: its counter, or what was sampled of its power."""
        return self._trouble.error is None and self._handle is not None and (self._meter.counts or self._meter.samples)

    @property
    def of_module(self) -> bool:
        """Whether its energy contains a processor's and its memory's."""
        return self._meter.of_module

    @property
    def fails(self) -> NvmlError | None:
        """Why it gives nothing now; None if it does."""
        return self._trouble.error

    def meet(self, handle: Handle, generation: int) -> None:
        """The first look, before it has a worker: what can it give? Trouble is left to the first tick."""
        self._handle, self._generation = handle, generation
        try:
            self._meter.resolve(handle)
            self._integrator = self._new_integrator()
        except NvmlError as error:
            self._trouble.note(error, generation)

    def read(self) -> Sample:
        """One tick. A board that rests after failures says so without a call."""
        trouble = self._trouble
        if trouble.rests and trouble.generation == self._session.generation and trouble.error is not None:
            trouble.rests = False
            return Sample(failures=(trouble.error,))
        asked = _Asked()
        self._calls_before, self._sample_failed = self._nvml.calls, False
        try:
            with self._session as generation:
                self._tick(self._reach(generation), asked)
        except NvmlError as error:
            trouble.note(error, self._session.generation)
            asked.failure = self._told(error)
        else:
            trouble.over()
        return asked.sample()

    def sample(self) -> None:
        """Power, between two ticks; whatever fails here fails at the next tick too."""
        if self.sampling_period is None or self._handle is None:
            return
        self._sample_failed = True
        with self._session as generation:
            if generation == self._generation:
                before = self._host.clock()
                power = self._meter.power(self._handle)
                at = self._moment(before)
                if at is not None and power is not None:
                    self._integrator.add(at, power)
                    self._add_fine(at, power)
        self._sample_failed = False

    def fine(self) -> tuple[Reading, ...]:
        """The counter, in one call; without a counter what was sampled since the last time, without any call."""
        handle = self._handle
        if handle is None or self._trouble.error is not None:
            return ()
        if not self._meter.counts:
            return self._take_fine() if self._meter.samples else ()
        with self._session as generation:
            if generation != self._generation:
                return ()
            before = self._host.clock()
            energy = self._meter.energy(handle)
            at = self._moment(before)
        if energy is None or at is None:
            return ()
        return (Reading(self._known or self._device(), at, Quality.MEASURED, energy, slack=at - before),)

    def _reach(self, generation: int) -> Handle:
        """Its handle, got anew where that of before is of no use."""
        failed = self._trouble.error is not None
        if self._handle is None or generation != self._generation or failed or self.doubted:
            if generation != self._generation:
                self._division.forget()
            self._handle = None
            try:
                self._handle = self._nvml.handle_of(self.uuid)
            except NvmlError as error:
                self.missing = error.code
                raise
            self.missing, self._generation = None, generation
        return self._handle

    def _tick(self, board: Handle, asked: _Asked) -> None:
        """Power and energy; then, each for itself, what the board says beside them and who is on it."""
        slow = self._ticks % SLOW_TICKS == 0
        if not self._meter.resolved:
            self._meter.resolve(board)
            self._integrator = self._new_integrator()
        before = self._host.clock()
        look = self._meter.look(board)
        at = self._moment(before)
        if at is None:
            slowness = f"the driver took {self._host.clock() - before:.1f} s to answer: the reading is left out"
            asked.failure = SensorReadError(slowness, device=self._label)
            return
        asked.readings = self._readings(look, at)
        self._ticks += 1
        self._tell_notes()
        if slow or self.doubted:
            self._attempt(asked, self._slow, board)
        asked.vitals = (self._vitals(board, look, at, asked),)
        asked.occupancies = self._attempt(asked, self._occupancies, board, slow) or ()

    def _attempt(self, asked: _Asked, call: Callable[..., _T], *arguments: object) -> _T | None:
        """What a call gives that costs no reading if it fails."""
        try:
            return call(*arguments)
        except NvmlError as error:
            asked.failure = asked.failure or self._told(error)
            return None

    def _tell_notes(self) -> None:
        """Log what the meter cannot give, each once."""
        for note in self._meter.notes:
            if note not in self._logged:
                self._logged.add(note)
                _log.info("%s: %s", self._label, note)

    def _slow(self, board: Handle) -> None:
        self.index = self._nvml.index(board)
        self.doubted = False
        self._meter.learn_limits(board)
        minor = self._refusals.ask("minor number", self._nvml.minor, board, quiet=True)
        self._aliases = () if minor is None else (f"nvidia{minor}",)
        divided = bool(self._refusals.ask("MIG mode", self._nvml.is_divided, board, quiet=True))
        if self._divided is not None and divided != self._divided:
            self._refusals.forget()
            self._division = Division(self._nvml, self._refusals)
        self._divided = divided

    def _readings(self, look: Look, at: float) -> tuple[Reading, ...]:
        if self._meter.samples:
            if look.power is not None:
                self._integrator.add(at, look.power)
                self._add_fine(at, look.power)
            return self._integrator.take(self._device())
        if look.energy is None:
            return ()
        return (Reading(self._device(), at, Quality.MEASURED, energy=look.energy),)

    def _take_fine(self) -> tuple[Reading, ...]:
        integrator = self._fine_power[0] if self._fine_power else self._new_integrator()
        self._fine_power = integrator, self._host.clock()
        return tuple(one for one in integrator.take(self._device()) if one.power is not None)

    def _add_fine(self, at: float, power: Watts) -> None:
        if self._fine_power is not None:
            integrator, asked = self._fine_power
            if at - asked > _FORGOTTEN_SECONDS:
                self._fine_power = None
            else:
                integrator.add(at, power)

    def _new_integrator(self) -> PowerIntegrator:
        return PowerIntegrator(_LONGEST_STEP_SECONDS, self._meter.window)

    def _moment(self, before: float) -> float | None:
        """When a call that began at `before` looked: in its middle; None if it took too long to say."""
        after = self._host.clock()
        return (before + after) / 2 if after - before <= _LONGEST_CALL_SECONDS else None

    def _vitals(self, board: Handle, look: Look, at: float, asked: _Asked) -> Vitals:
        attempt, ask, nvml = self._attempt, self._refusals.ask, self._nvml
        busy = None if self._divided else attempt(asked, ask, "utilisation", nvml.utilization, board)
        memory = attempt(asked, ask, "memory in use", nvml.memory_used, board)
        temperature = attempt(asked, ask, "temperature", nvml.temperature, board)
        divergence = None
        if look.energy is not None and look.average is not None:
            divergence = self._divergence.add(at, look.energy, look.average, self._meter.max_power)
        return Vitals(
            self._label,
            power_limit=look.limit or self._meter.limit,
            utilization=busy / 100 if busy is not None and busy <= 100 else None,  # noqa: PLR2004
            memory_used=memory if memory is not None and memory < 1 << 63 else None,
            temperature=float(temperature) if temperature is not None and abs(temperature) <= _HOTTEST else None,
            divergence=divergence,
        )

    def _occupancies(self, board: Handle, slow: bool) -> tuple[Occupancy, ...]:
        """Who is on it."""
        at = self._host.clock()
        entries = self._processes.entries(board)
        if entries is None:
            return (Occupancy(self._label, at, None, uuid=self.uuid, aliases=self._aliases),)
        if not self._divided:
            occupants = occupants_of_whole(entries, self._processes.utilization(board))
            return (Occupancy(self._label, at, occupants, uuid=self.uuid, aliases=self._aliases),)
        at_once = self._division.outdated(entry.instance for entry in entries if entry.placed)
        if not self._refusals.ask(LAYOUT, self._read_layout, board, at_once, slow):
            return ()
        self._division.look(board, self._calls_left)
        parts = self._division.partitions
        return (Occupancy(self._label, at, occupants_of_parts(entries), parts, self.uuid, self._aliases),)

    @property
    def _calls_left(self) -> int:
        """Of this tick."""
        return _CALLS_A_TICK - (self._nvml.calls - self._calls_before)

    def _read_layout(self, board: Handle, at_once: bool, begin: bool) -> bool:
        if at_once:
            self._division.read_at_once(board)
        else:
            self._division.read_on(board, self._calls_left, begin=begin)
        return True

    def _device(self) -> Device:
        """The same object as long as nothing about it changes."""
        meter, known = self._meter, self._known
        if known is None or known.max_power != meter.max_power or known.method != meter.method:
            self._known = known = Device(
                name=self._label,
                kind="gpu",
                sensor=self.name,
                vendor="NVIDIA",
                model=self._model,
                uuid=self.uuid,
                max_power=meter.max_power,
                method=meter.method,
                bound=_COUNTER_BOUND if meter.counts else _SAMPLED_BOUND if meter.samples else "",
                period=0.1,
            )
        return known

    def _told(self, error: NvmlError) -> SensorReadError:
        """The error as the outside knows it. Raises `SensorOutdated` where only a fresh process helps."""
        error.device = self._label
        if error.code == Code.VERSION_MISMATCH:
            raise SensorOutdated(error.reason, device=self._label, remedy=OUTDATED_REMEDY) from error
        if error.code in (Code.GPU_IS_LOST, Code.RESET_REQUIRED):
            error.remedy = LOST_REMEDY
        return error
