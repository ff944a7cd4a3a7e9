"""Energy counters of Intel's discrete GPUs through the hwmon files of the drivers `xe` and `i915`.

The drivers sum up the hardware's counter, so the file never wraps as long as somebody reads it: a 32-bit register
wraps after 262 kJ, a quarter of an hour at 300 W. An integrated GPU's energy lies in its processor's package.
Files: Documentation/ABI/testing/sysfs-driver-intel-xe-hwmon and -i915-hwmon of Linux. Of a `xe` card `energyN_label`
tells the channels apart: `card` is the whole board and contains `pkg`, the chip.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from carbon_exporter.errors import SensorError, SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Device, Host, Kind, Occupancy, Quality, Reading, Sample, Sensor, Vitals
from carbon_exporter.sensors.drm import Card, count_of, find_cards, find_chip, is_asleep, text_of
from carbon_exporter.sensors.powercap import read_count
from carbon_exporter.units import MICROJOULES_PER_JOULE, Joules, Watts

__all__ = ["IntelBoard", "IntelGpu", "probe"]

DRIVERS = frozenset({"xe", "i915"})
INTEGRATED = ":00:02.0"
"""Where the graphics of Intel's processors sit on the PCI bus, since there are any."""

EXCURSION = 2.0
"""A limit holds on average over its time window; for shorter a board exceeds it."""
UNLIMITED = Watts(3000.0)
"""A bound where no limit is published: far above any board, so that only nonsense exceeds it."""
MICROWATTS_PER_WATT = 1e6
MILLIDEGREES_PER_DEGREE = 1e3
LIMITS = ("max", "rated_max", "cap", "crit")
"""powerN_: sustained, as designed, burst and critical limit; 0 is one that is switched off."""
LOOK_EVERY = 12
"""Readings between two searches for boards that came or went."""

PERMISSION_REMEDY = "the kernel lets everyone read it: mount the host's /sys read-only and undo any chmod"
DRIVER_REMEDY = "load its driver: sudo modprobe xe, or i915 for older boards; energy counters need Linux 6.8, or 6.2"


@dataclass(frozen=True, slots=True)
class _Channel:
    """One energy counter of a card: `number` is that of its files."""

    chip: Path
    number: int
    label: str

    @property
    def energy(self) -> Path:
        return self.chip / f"energy{self.number}_input"

    @property
    def limits(self) -> tuple[int | None, ...]:
        """Microwatts, in the order of `LIMITS`."""
        return tuple(count_of(self.chip / f"power{self.number}_{limit}") for limit in LIMITS)


def probe(host: Host, covered: frozenset[Kind]) -> IntelGpu:
    """The discrete Intel GPUs of this machine that have an energy counter; what is `covered` says nothing of them.

    Raises `SensorUnavailable` if there are none, `SensorPermission` if this process may not read their counters.
    """
    del covered
    fleet = IntelGpu(host)
    try:
        fleet.look()
    except SensorReadError as error:
        raise SensorUnavailable(error.reason, remedy=error.remedy) from None
    refusals = [board.refusal() for board in fleet.members]
    if all(refusals):
        raise next(refusal for refusal in refusals if refusal)
    return fleet


class IntelGpu(Sensor):
    """All boards. Its own reading only looks for boards that came or went; each board is read by itself."""

    name = "intel_gpu"
    quality = Quality.MEASURED
    devices: tuple[Device, ...] = ()

    def __init__(self, host: Host) -> None:
        """Knows no board before the first `look`."""
        self._host = host
        self._boards: tuple[IntelBoard, ...] = ()
        self._left_out: tuple[str, ...] = ()
        self._readings = 0

    @property
    def members(self) -> tuple[IntelBoard, ...]:
        """A sensor for each board that is there."""
        return self._boards

    @property
    def notes(self) -> tuple[str, ...]:
        """Which cards it leaves out."""
        return self._left_out

    def read(self) -> Sample:
        """Look for boards if it is time or one of them fails. Raises `SensorReadError` if none is left."""
        if self._readings % LOOK_EVERY == 0 or not self._boards or any(board.failing for board in self._boards):
            self.look()
        self._readings += 1
        return Sample()

    def look(self) -> None:
        """Search for boards now. Raises `SensorReadError` if there are none."""
        try:
            cards = find_cards(self._host.sysfs, DRIVERS)
        except OSError as error:
            raise SensorReadError(f"{error.filename} cannot be listed: {error.strerror}") from None
        known = {board.card: board for board in self._boards}
        boards: list[IntelBoard] = []
        left_out: list[str] = []
        for index, card in enumerate(cards):
            reason = _reason_against(card)
            if reason:
                left_out.append(f"{card.address} is left out: {reason}")
            else:
                boards.append(known.get(card) or IntelBoard(self._host, card, index))
        self._boards, self._left_out = tuple(boards), tuple(left_out)
        if not boards:
            raise SensorReadError("; ".join(left_out) or "no Intel GPU", remedy=DRIVER_REMEDY if left_out else "")


class IntelBoard(Sensor):
    """One board. Its files are found anew when they fail, so a driver that was loaded again is read again."""

    name = "intel_gpu"
    quality = Quality.MEASURED

    def __init__(self, host: Host, card: Card, index: int) -> None:
        """`index` is the board's number on the bus, for its name."""
        self._host = host
        self.card = card
        self.failing = False
        """Whether its last reading failed."""
        self._channel = _channel(card)
        self._name = host.names.name("gpu", card.address, index)
        self._cards = tuple(sorted(path.name for path in card.path.glob("drm/card[0-9]*")))
        """As device plugins know it."""
        self._device = self._describe()

    @property
    def devices(self) -> tuple[Device, ...]:
        """The board."""
        return (self._device,)

    def refusal(self) -> SensorError | None:
        """Why its counter cannot be read now; None if it can."""
        try:
            self._count()
        except PermissionError as error:
            return SensorPermission(f"{error.filename} may not be read: {error.strerror}", remedy=PERMISSION_REMEDY)
        except OSError as error:
            return SensorUnavailable(f"{error.filename} cannot be read: {error.strerror}")
        return None

    def read(self) -> Sample:
        """The raw counter in joules; of a board that sleeps only that it is here. Raises `SensorReadError`."""
        if is_asleep(self.card):
            return Sample((Reading(self._device, self._host.clock(), Quality.MEASURED),))
        self.failing = True
        try:
            at, microjoules = self._host.clock(), self._count()
        except PermissionError as error:
            reason = f"{error.filename} may not be read: {error.strerror}"
            raise SensorReadError(reason, device=self._name, remedy=PERMISSION_REMEDY) from None
        except OSError as error:
            self._channel = None
            raise SensorReadError(f"{error.filename} cannot be read: {error.strerror}", device=self._name) from None
        if microjoules is None:
            raise SensorReadError(f"{self._path} does not hold a whole number", device=self._name)
        self.failing = False
        energy = Joules(microjoules / MICROJOULES_PER_JOULE)
        unseen = Occupancy(self._name, at, None, aliases=(self.card.address, *self._cards))
        readings = (Reading(self._device, at, Quality.MEASURED, energy=energy),)
        return Sample(readings, vitals=(self._vitals(),), occupancies=(unseen,))

    @property
    def _path(self) -> Path:
        return self._channel.energy if self._channel else self.card.path / "hwmon"

    def _count(self) -> int | None:
        if self._channel is None:
            self._channel = _channel(self.card)
            self._device = self._describe()
        return read_count(self._path)

    def _describe(self) -> Device:
        channel = self._channel
        limit = max((limit or 0 for limit in channel.limits), default=0) if channel else 0
        part = "the chip alone, without the board's memory" if channel and channel.label == "pkg" else "the whole board"
        return Device(
            name=self._name,
            kind="gpu",
            sensor="intel_gpu",
            vendor="Intel",
            model=f"PCI device 8086:{self.card.device_id:04x}" if self.card.device_id else "",
            uuid=self.card.address,
            max_power=Watts(EXCURSION * limit / MICROWATTS_PER_WATT) if limit else UNLIMITED,
            method=f"energy counter {self._path} of the driver {self.card.driver} ({part})",
            bound="the maker states none" + ("; memory is missing" if "without" in part else ""),
        )

    def _vitals(self) -> Vitals:
        channel = self._channel
        limits = [limit for limit in channel.limits[:3] if limit] if channel else []
        degrees = count_of(channel.chip / "temp2_input") if channel else None
        return Vitals(
            self._name,
            power_limit=Watts(limits[0] / MICROWATTS_PER_WATT) if limits else None,
            temperature=None if degrees is None else degrees / MILLIDEGREES_PER_DEGREE,
        )


def _reason_against(card: Card) -> str:
    """Why a card has no counter to publish; empty if it has."""
    if card.address.endswith(INTEGRATED):
        return "it is a part of the processor, whose package counter contains it"
    if find_chip(card, card.driver) is None:
        return f"the driver {card.driver} gives it no meter"
    return "" if _channel(card) else f"the driver {card.driver} gives it no energy counter"


def _channel(card: Card) -> _Channel | None:
    """The counter of the whole board if there is one, else of its chip. Chips of tiles (`i915_gtN`) are parts."""
    chip = find_chip(card, card.driver)
    if chip is None:
        return None
    channels = [
        _Channel(chip, number, text_of(chip / f"energy{number}_label"))
        for number in (1, 2)
        if (chip / f"energy{number}_input").exists()
    ]
    return next((channel for channel in channels if channel.label == "card"), channels[0] if channels else None)
