"""One AMD board that AMD's library sees: a sensor of its own, so that a board that hangs costs only itself.

While its energy counter is on trial (amd_counter.py) its power is sampled and integrated; afterwards the counter alone
is read, or power for good if the counter lies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from carbon_exporter.errors import SensorReadError
from carbon_exporter.sensors.amd_counter import CounterCheck
from carbon_exporter.sensors.amd_smi import Session, SourceRefused
from carbon_exporter.sensors.base import Device, Host, Occupancy, Occupant, Quality, Reading, Sample, Sensor, Vitals
from carbon_exporter.sensors.divergence import Divergence
from carbon_exporter.sensors.integrator import PowerIntegrator
from carbon_exporter.units import Joules, Watts

__all__ = ["SAMPLING_SECONDS", "UNLIMITED", "Place", "SmiBoard"]

_log = logging.getLogger(__name__)
Value = TypeVar("Value")

SAMPLING_SECONDS = 0.05
LONGEST_STEP_SECONDS = 1.0
"""Samples further apart say nothing of the time between them; a call that takes longer has no known time."""
SLOW_EVERY = 12
"""Readings between two looks at what hardly changes."""
SILENT_READINGS = 3
EXCURSION = 2.0
"""A limit holds on average; for shorter than its time window a board exceeds it."""
UNLIMITED = Watts(3000.0)
"""A bound where no limit is published: far above any board, so that only nonsense exceeds it."""

SIGHT_NOTE = (
    "who uses the AMD boards is not known: AMD's library finds them in /proc/PID/fdinfo, which this process may not "
    "read of others; run as root in the host's PID namespace, or with the capability SYS_PTRACE"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a board is: what a sensor needs to know of it before it asks it anything."""

    name: str
    """`gpu0`"""
    dies: tuple[str, ...]
    """Their PCI addresses. The first reports energy and power for all."""
    serial: str
    """Tells it from all others, where the library gives no uuid."""
    model: str = ""
    """As the kernel knows it; empty if it does not."""
    partitions: tuple[str, ...] = ()
    """PCI addresses of further parts of the first die, which share its meters."""
    scope: str = "the whole board"


class SmiBoard(Sensor):
    """The board. `session` is shared with others."""

    name = "amd"

    def __init__(self, host: Host, session: Session, place: Place) -> None:
        """Asks nothing of the board yet."""
        self._host = host
        self._session = session
        self.place = place
        self.failing = False
        """Whether its last reading failed."""
        self._use: Literal["trial", "counter", "power"] = "trial"
        self._check = CounterCheck()
        self._integrator = PowerIntegrator(LONGEST_STEP_SECONDS)
        self._divergence = Divergence()
        self._diverged: float | None = None
        self._refused: dict[str, str] = {}
        self._uuid, self._model = "", place.model
        self._limit: Watts | None = None
        self._max_power = UNLIMITED
        self._readings = 0
        self._marked = False
        """Whether the counter has given a first reading."""
        self._silent = 0
        """Readings in a row without any power."""
        self._device = self._describe()

    @property
    def devices(self) -> tuple[Device, ...]:
        """The board, with all its dies."""
        return (self._device,)

    @property
    def quality(self) -> Quality | None:
        """None while its counter is on trial."""
        return {"trial": None, "counter": Quality.MEASURED, "power": Quality.INTEGRATED}[self._use]

    @property
    def sampling_period(self) -> float | None:
        """Nothing is sampled once the counter is believed."""
        return None if self._use == "counter" else SAMPLING_SECONDS

    @property
    def notes(self) -> tuple[str, ...]:
        """What the board does not give."""
        return tuple(self._refused.values())

    @property
    def useless(self) -> bool:
        """Whether it gives neither energy nor power to this library, and another meter would be better."""
        return self._use == "power" and ("power" in self._refused or self._silent >= SILENT_READINGS)

    def identify(self) -> None:
        """Ask it who it is, once; what it does not tell stays empty."""
        if self._uuid:
            return
        self._uuid = self._optional("uuid", self._session.uuid) or self.place.serial
        self._model = self._optional("model", self._session.model) or self.place.model
        self._look_at_limits()

    def sample(self) -> None:
        """One sample of power, where the counter is not believed."""
        if self._use != "counter":
            self._sample_power()

    def read(self) -> Sample:
        """Energy or mean power, vitals, and who is on it. Raises `SensorReadError`."""
        self.failing = True
        self.identify()
        if self._readings % SLOW_EVERY == SLOW_EVERY - 1:
            self._look_at_limits()
        self._readings += 1
        readings = self._counted() if self._use == "counter" else self._sampled()
        self.failing = False
        return Sample(readings, vitals=(self._vitals(),), occupancies=self._occupancies())

    def _counted(self) -> tuple[Reading, ...]:
        """From a counter that was believed at its last look."""
        at, joules = self._count()
        power = self._power_now()
        self._check.watch(at, joules, power)
        if power is not None:
            self._diverged = self._divergence.add(at, joules, power, self._max_power)
        if self._check.verdict == "refused":
            self._distrust(self._check.reason)
            return ()
        return () if self._check.in_doubt else (Reading(self._device, at, Quality.MEASURED, energy=joules),)

    def _sampled(self) -> tuple[Reading, ...]:
        """From sampled power; on trial also the counter's first reading, so that what it kept is caught up."""
        failure = self._sample_power()
        means = self._integrator.take(self._device)
        told = tuple(mean for mean in means if mean.power is not None)
        counted = self._try_counter(told) if self._use == "trial" else None
        if counted is not None:
            return (*told, counted)
        self._silent = 0 if told else self._silent + 1
        if failure is not None and not told:
            raise failure
        return means

    def _try_counter(self, means: Sequence[Reading]) -> Reading | None:
        """Its reading if it is the first, or believed, or all that there is."""
        try:
            at, joules = self._count()
        except SourceRefused as error:
            self._refused["energy"] = ""
            self._distrust(f"the board does not give it ({error.reason})")
            return None
        except SensorReadError:
            return None
        self._check.compare(at, joules, means)
        if self._check.verdict == "refused":
            self._distrust(self._check.reason)
            return None
        if self._check.verdict == "believed":
            self._believe()
        first, self._marked = not self._marked, True
        wanted = first or not means or self._check.verdict == "believed"
        return Reading(self._device, at, Quality.MEASURED, energy=joules) if wanted else None

    def _believe(self) -> None:
        self._use = "counter"
        if self._check.reason:
            self._refused["trial"] = f"{self.place.name}: its energy counter was not compared: {self._check.reason}"
        self._device = self._describe()

    def _distrust(self, reason: str) -> None:
        """Power from now on."""
        self._use = "power"
        note = f"{self.place.name}: its energy counter is not used, power is sampled instead: {reason}"
        self._refused["energy"] = note
        _log.warning("amd: %s", note)
        self._device = self._describe()

    def _count(self) -> tuple[float, Joules]:
        """The counter, and when it was read. Raises `SensorReadError`."""
        began = self._host.clock()
        joules = self._asked(self._session.energy)
        ended = self._host.clock()
        if ended - began > LONGEST_STEP_SECONDS:
            raise self._failure(f"the energy counter took {ended - began:.1f} s to answer")
        if joules is None:
            raise self._failure("the energy counter holds no number")
        return (began + ended) / 2, joules

    def _sample_power(self) -> SensorReadError | None:
        """Add a sample; what is wrong, if there is none."""
        began = self._host.clock()
        try:
            watts = self._asked(lambda address: self._session.power(address, self._max_power))
        except SourceRefused as error:
            self._refused.setdefault("power", f"{self.place.name}: no power: {error.reason}")
            return error
        except SensorReadError as error:
            return error
        ended = self._host.clock()
        if watts is None or ended - began > LONGEST_STEP_SECONDS:
            return self._failure("the board gives no power" if watts is None else "the power came too late")
        self._integrator.add((began + ended) / 2, watts)
        return None

    def _power_now(self) -> Watts | None:
        return self._optional("power", lambda address: self._session.power(address, self._max_power))

    def _look_at_limits(self) -> None:
        limits = self._optional("limit", self._session.limits)
        if limits is None:
            return
        self._limit, highest = limits
        largest = max((limit for limit in (self._limit, highest) if limit), default=None)
        self._max_power = Watts(EXCURSION * largest) if largest else UNLIMITED
        self._device = self._describe()

    def _vitals(self) -> Vitals:
        shares = self._of_all("utilization", self._session.activity)
        memory = self._of_all("memory", self._session.memory_used)
        degrees = self._of_all("temperature", self._session.temperature)
        return Vitals(
            self.place.name,
            power_limit=self._limit,
            utilization=sum(shares) / len(shares) if shares else None,
            memory_used=sum(memory) if memory else None,
            temperature=max(degrees, default=None),
            divergence=self._diverged if self._use == "counter" else None,
        )

    def _occupancies(self) -> tuple[Occupancy, ...]:
        """Who is on it; not known if this process cannot see everybody, because some are not all."""
        unseen = Occupancy(self.place.name, self._host.clock(), None, uuid=self._uuid, aliases=self.place.dies)
        if not _sees_everybody(self._host.procfs):
            self._refused["processes"] = SIGHT_NOTE
            return (unseen,)
        if self._refused.get("processes") == SIGHT_NOTE:
            del self._refused["processes"]
        lists = self._of_all("processes", self._session.pids, (*self.place.dies, *self.place.partitions))
        if not lists:
            return (unseen,)
        pids = dict.fromkeys(pid for pids in lists for pid in pids)
        occupants = tuple(Occupant(pid) for pid in pids)
        return (replace(unseen, occupants=occupants),)

    def _of_all(self, what: str, ask: Callable[[str], Value | None], addresses: Sequence[str] = ()) -> list[Value]:
        """Of each address, by default each die; empty unless all of them tell."""
        answers = [self._optional(what, ask, address) for address in addresses or self.place.dies]
        told = [answer for answer in answers if answer is not None]
        return told if len(told) == len(answers) else []

    def _optional(self, what: str, ask: Callable[[str], Value | None], address: str = "") -> Value | None:
        """None if it fails; what the board will never give is not asked for again."""
        if what in self._refused:
            return None
        try:
            return ask(address or self.place.dies[0])
        except SourceRefused as error:
            fix = f"; {error.remedy}" if error.remedy else ""
            self._refused[what] = f"{self.place.name}: no {what}: {error.reason}{fix}"
        except SensorReadError as error:
            _log.debug("amd: %s: no %s: %s", self.place.name, what, error.reason)
        return None

    def _asked(self, ask: Callable[[str], Value]) -> Value:
        """The answer of the die that reports for all, with the board's name on what goes wrong."""
        try:
            return ask(self.place.dies[0])
        except SensorReadError as error:
            raise type(error)(error.reason, device=self.place.name, remedy=error.remedy) from None

    def _failure(self, reason: str) -> SensorReadError:
        return SensorReadError(reason, device=self.place.name)

    def _describe(self) -> Device:
        counter = "energy accumulator x resolution of amdsmi_get_energy_count"
        power = "power of amdsmi_get_power_info at about 20 Hz, by the trapezoid"
        method, bound = {
            "trial": (
                f"{power}, until {counter} has agreed with it",
                "whole watts; sampling adds what each reading states",
            ),
            "counter": (counter, "the maker states none; it agreed with the board's power meter within 25 %"),
            "power": (power, "whole watts; sampling adds what each reading states; the maker states no tolerance"),
        }[self._use]
        return Device(
            name=self.place.name,
            kind="gpu",
            sensor="amd",
            vendor="AMD",
            model=self._model,
            uuid=self._uuid,
            max_power=self._max_power,
            method=f"{method} ({self.place.scope})",
            bound=bound,
        )


def _sees_everybody(procfs: Path) -> bool:
    """Whether this process may look into others, as AMD's library does, and shares the host's PID namespace."""
    try:
        next((procfs / "1" / "fdinfo").iterdir(), None)
        same = (procfs / "1" / "ns" / "pid", Path("/proc/self/ns/pid"))
        return len({link.readlink() for link in same if link.is_symlink()}) <= 1
    except OSError:
        return False
