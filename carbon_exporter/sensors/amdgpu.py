"""Power of AMD boards through the hwmon files of the driver `amdgpu`: no library, no privileges, and no counter.

Files: the section on hwmon in Documentation/gpu/amdgpu/thermal.rst of Linux: `power1_average` and `power1_input` are
microwatts of the whole socket, "on APUs this includes the CPU".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from carbon_exporter.errors import SensorError, SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.amd_board import EXCURSION, LONGEST_STEP_SECONDS, SAMPLING_SECONDS, UNLIMITED, Place
from carbon_exporter.sensors.base import Device, Host, Quality, Reading, Sample, Sensor, Vitals
from carbon_exporter.sensors.drm import Card, count_of, find_chip, is_asleep
from carbon_exporter.sensors.integrator import PowerIntegrator
from carbon_exporter.sensors.powercap import read_count
from carbon_exporter.units import Watts

__all__ = ["DRIVER", "PROCESSOR_ACCELERATORS", "HwmonBoard", "contains_processor", "is_measured", "packages"]

DRIVER = "amdgpu"
DUAL_DIE = frozenset({0x7408, 0x740C})
"""MI250X and MI250 (pci.ids): two dies on one board, and the first of them reports for both."""
PROCESSOR_ACCELERATORS = frozenset({0x74A0})
"""MI300A (pci.ids): an accelerator with processors and their memory in one package, which its power contains."""

POWER_FILES = ("power1_average", "power1_input")
"""The mean first, because samples of it miss less; some boards and kernels have only one of them."""
LIMIT_FILES = ("power1_cap", "power1_cap_max")
MICROWATTS_PER_WATT = 1e6
MILLIDEGREES_PER_DEGREE = 1e3

PERMISSION_REMEDY = "the kernel lets everyone read it: mount the host's /sys read-only and undo any chmod"


def packages(cards: Sequence[Card]) -> tuple[tuple[Card, ...], ...]:
    """Cards, by PCI address, that are one board: neighbouring dies of a dual-die part together, others alone."""
    found: list[tuple[Card, ...]] = []
    for card in cards:
        before = found[-1] if found else ()
        pair = len(before) == 1 and card.device_id in DUAL_DIE and before[0].device_id == card.device_id
        if pair:
            found[-1] = (*before, card)
        else:
            found.append((card,))
    return tuple(found)


def contains_processor(card: Card) -> bool:
    """Whether it is graphics inside a processor: only those have a voltage of the northbridge, `in1`."""
    chip = find_chip(card, DRIVER)
    return chip is not None and (chip / "in1_input").exists()


def is_measured(card: Card) -> bool:
    """Whether its hwmon files give its own power: those without any limit are of processors, or of no real board."""
    chip = find_chip(card, DRIVER)
    return chip is not None and (chip / "power1_cap").exists() and _power_file(card) is not None


class HwmonBoard(Sensor):
    """One board. Its files are found anew when they fail, so a driver that was loaded again is read again."""

    name = "amd"
    quality = Quality.INTEGRATED
    sampling_period = SAMPLING_SECONDS
    useless = False
    """There is nothing better than this."""

    def __init__(self, host: Host, card: Card, place: Place) -> None:
        """`card` is that of the die that reports for all of `place`."""
        self._host = host
        self._card = card
        self.place = place
        self.failing = False
        """Whether its last reading failed."""
        self._integrator = PowerIntegrator(LONGEST_STEP_SECONDS)
        self._file = _power_file(card)
        self._device = self._describe()

    @property
    def devices(self) -> tuple[Device, ...]:
        """The board, with all its dies."""
        return (self._device,)

    def identify(self) -> None:
        """There is nobody to ask."""

    def refusal(self) -> SensorError | None:
        """Why its power cannot be read now; None if it can."""
        try:
            self._power()
        except PermissionError as error:
            return SensorPermission(f"{error.filename} may not be read: {error.strerror}", remedy=PERMISSION_REMEDY)
        except OSError as error:
            return SensorUnavailable(f"{error.filename} cannot be read: {error.strerror}")
        return None

    def sample(self) -> None:
        """One sample of power."""
        self._look()

    def read(self) -> Sample:
        """Mean power since the last reading; only a mark of a board that sleeps. Raises `SensorReadError`."""
        self.failing = True
        failure = self._look()
        readings = self._integrator.take(self._device)
        if failure is not None and not any(reading.power is not None for reading in readings):
            raise failure
        self.failing = failure is not None
        if is_asleep(self._card):
            readings = readings or (Reading(self._device, self._host.clock(), Quality.INTEGRATED),)
            return Sample(readings)
        return Sample(readings, (failure,) if failure else (), (self._vitals(),))

    def _look(self) -> SensorReadError | None:
        """Add a sample; what is wrong, if there is none. A board that sleeps is let sleep: to ask would wake it."""
        name = self.place.name
        if is_asleep(self._card):
            return None
        try:
            began, microwatts, ended = self._host.clock(), self._power(), self._host.clock()
        except PermissionError as error:
            reason = f"{error.filename} may not be read: {error.strerror}"
            return SensorReadError(reason, device=name, remedy=PERMISSION_REMEDY)
        except OSError as error:
            self._file = None
            return SensorReadError(f"{error.filename} cannot be read: {error.strerror}", device=name)
        watts = None if microwatts is None else microwatts / MICROWATTS_PER_WATT
        if watts is None or watts > (self._device.max_power or UNLIMITED):
            return SensorReadError(f"{self._file} does not hold a power that can be", device=name)
        if ended - began <= LONGEST_STEP_SECONDS:
            self._integrator.add((began + ended) / 2, watts)
        return None

    def _power(self) -> int | None:
        if self._file is None:
            self._file = _power_file(self._card)
            self._device = self._describe()
        return read_count(self._file or self._card.path / "hwmon" / "power1_input")

    def _vitals(self) -> Vitals:
        chip = self._chip
        limit = count_of(chip / "power1_cap")
        degrees = count_of(chip / "temp2_input") or count_of(chip / "temp1_input")
        percent = count_of(self._card.path / "gpu_busy_percent")
        return Vitals(
            self.place.name,
            power_limit=Watts(limit / MICROWATTS_PER_WATT) if limit else None,
            utilization=percent / 100 if percent is not None and percent <= 100 else None,  # noqa: PLR2004 - percent
            memory_used=count_of(self._card.path / "mem_info_vram_used"),
            temperature=None if degrees is None else degrees / MILLIDEGREES_PER_DEGREE,
        )

    @property
    def _chip(self) -> Path:
        return self._file.parent if self._file else self._card.path

    def _describe(self) -> Device:
        limit = max((count_of(self._chip / name) or 0 for name in LIMIT_FILES), default=0)
        return Device(
            name=self.place.name,
            kind="gpu",
            sensor="amd",
            vendor="AMD",
            model=self.place.model,
            uuid=self.place.serial,
            max_power=Watts(EXCURSION * limit / MICROWATTS_PER_WATT) if limit else UNLIMITED,
            method=f"{self._file or POWER_FILES[0]} at about 20 Hz, by the trapezoid ({self.place.scope})",
            bound="sampling adds what each reading states; the maker states no tolerance",
        )


def _power_file(card: Card) -> Path | None:
    """The file that holds a number; else, as after a garbled line, the first that is there."""
    chip = find_chip(card, DRIVER)
    files = [chip / name for name in POWER_FILES if (chip / name).exists()] if chip else []
    return next((file for file in files if count_of(file) is not None), files[0] if files else None)
