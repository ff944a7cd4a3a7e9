"""Energy counters of processors and memory: RAPL (Running Average Power Limit) through Linux's powercap class.

Intel's processors since Sandy Bridge have them and AMD's since Zen. The counter wraps at `max_energy_range_uj`; it is
handed on raw, and whoever counts takes care of that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from carbon_exporter.errors import SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Device, Host, Kind, Quality, Reading, Sample, Sensor
from carbon_exporter.sensors.cpuinfo import CpuInfo, read_cpuinfo
from carbon_exporter.sensors.powercap import MOST_BYTES, Meter, Zone, find_zones, meters, read_count
from carbon_exporter.units import MICROJOULES_PER_JOULE, Joules, Watts

__all__ = ["COUNTER_REMEDY", "MASKED_REMEDY", "Rapl", "probe"]

EXCURSION = 2.0
"""A limit holds on average over its time window, often 28 s for the long one; for shorter a processor exceeds it."""

UNLIMITED_PACKAGE = Watts(2000.0)
UNLIMITED_DRAM = Watts(400.0)
"""Bounds where no limit is published: far above any processor and its memory, so that only nonsense exceeds them."""

MICROWATTS_PER_WATT = 1e6

COUNTER_REMEDY = (
    "since Linux 5.10 only root may read it (PLATYPUS, CVE-2020-8694): run as root without any capability, "
    "`sudo setpriv --bounding-set=-all --inh-caps=-all carbon-exporter serve`, in a systemd unit `User=root` and "
    "`CapabilityBoundingSet=`, in Kubernetes `runAsUser: 0` and `capabilities: {drop: [ALL]}`; "
    "do not chmod the file, it protects every process of the host"
)
MASKED_REMEDY = (
    "container runtimes hide /sys/devices/virtual/powercap: "
    "mount the host's /sys read-only at /host/sys and pass --path.sysfs=/host/sys"
)


@dataclass(frozen=True, slots=True)
class _Counter:
    device: Device
    path: Path


def probe(host: Host, covered: frozenset[Kind]) -> Rapl:
    """The packages and memories of this machine that are not `covered`.

    Raises `SensorUnavailable` if there are none, `SensorPermission` if this process may not read their counters.
    """
    info = read_cpuinfo(host)
    found = tuple(meter for meter in meters(_zones(host, info)) if not _covers(meter) & covered)
    if not found:
        raise SensorUnavailable("powercap has no RAPL zone for processors or memory that are not yet covered")
    counters = tuple(_Counter(_device(meter, info), meter.zone.path / "energy_uj") for meter in found)
    _try_out(counters)
    covers: frozenset[Kind] = frozenset().union(*map(_covers, found))
    return Rapl(host, counters, covers)


class Rapl(Sensor):
    """The sensor. Each read opens its files anew, so a driver that was reloaded is read again, from any thread."""

    name = "rapl"
    quality = Quality.MEASURED
    covers: frozenset[Kind] = frozenset()

    def __init__(self, host: Host, counters: tuple[_Counter, ...], covers: frozenset[Kind]) -> None:
        """`covers` are the kinds whose energy its counters contain: with psys more than its device's own."""
        self._host = host
        self._counters = counters
        self._files = tuple((counter.device, str(counter.path)) for counter in counters)
        self._packages = tuple((device, path) for device, path in self._files if device.kind != "dram")
        self.covers = covers

    @property
    def devices(self) -> tuple[Device, ...]:
        """Packages, then memories."""
        return tuple(counter.device for counter in self._counters)

    def read(self) -> Sample:
        """The raw counters in joules. Raises `SensorReadError` if none of them can be read."""
        results = [self._read(counter) for counter in self._counters]
        failures = tuple(result for result in results if isinstance(result, SensorReadError))
        if len(failures) == len(results):
            raise failures[0]
        return Sample(tuple(result for result in results if isinstance(result, Reading)), failures)

    @property
    def offers_fine(self) -> bool:
        """Always."""
        return True

    def fine(self) -> tuple[Reading, ...]:
        """All counters, with as little ado as it takes to read a file. One that fails is left out."""
        return self._peeked(self._files)

    def glance(self) -> tuple[Reading, ...]:
        """The packages alone, if there are some: memory is a tenth of their power, and its power changes less."""
        return self._peeked(self._packages or self._files)

    def _peeked(self, files: Sequence[tuple[Device, str]]) -> tuple[Reading, ...]:
        readings, clock = [], self._host.clock
        for device, path in files:
            seen = _peek(path, clock)
            if seen is not None:
                at, microjoules = seen
                energy = Joules(microjoules / MICROJOULES_PER_JOULE)
                readings.append(Reading(device, at, Quality.MEASURED, energy))
        return tuple(readings)

    def close(self) -> None:
        """Nothing is held between reads."""

    def _read(self, counter: _Counter) -> Reading | SensorReadError:
        name, path = counter.device.name, counter.path
        try:
            at, microjoules = self._host.clock(), read_count(path)
        except PermissionError as error:
            return SensorReadError(f"{path} may not be read: {error.strerror}", device=name, remedy=COUNTER_REMEDY)
        except OSError as error:
            return SensorReadError(f"{path} cannot be read: {error.strerror}", device=name)
        if microjoules is None:
            return SensorReadError(f"{path} does not hold a whole number", device=name)
        energy = Joules(microjoules / MICROJOULES_PER_JOULE)
        return Reading(counter.device, at, Quality.MEASURED, energy=energy)


def _zones(host: Host, info: CpuInfo) -> tuple[Zone, ...]:
    """All zones of the host, or the error that says why there are none to be seen."""
    directory = host.sysfs / "class" / "powercap"
    try:
        zones = find_zones(directory)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not directory.is_dir():
            raise _absent(f"{directory} does not exist", info) from None
        raise SensorPermission(f"{error.filename} is a link to nothing", remedy=MASKED_REMEDY) from None
    except PermissionError as error:
        raise SensorPermission(f"{error.filename} may not be read", remedy=MASKED_REMEDY) from None
    except OSError as error:
        raise SensorUnavailable(f"{error.filename} cannot be read: {error.strerror}") from error
    if not zones:
        raise _absent(f"{directory} has no intel-rapl zone", info)
    return zones


def _absent(what: str, info: CpuInfo) -> SensorUnavailable:
    if info.virtual:
        return SensorUnavailable(f"{what}: virtual machines do not expose energy counters")
    return SensorUnavailable(what, remedy="on an Intel or AMD processor load the driver: sudo modprobe intel_rapl_msr")


def _try_out(counters: tuple[_Counter, ...]) -> None:
    """Read each counter once. A denied one is an error; a broken one is left to `read`, unless all of them are."""
    refusals = [(counter.path, _refusal(counter.path)) for counter in counters]
    for path, error in refusals:
        if isinstance(error, PermissionError):
            raise SensorPermission(f"{path} may not be read: {error.strerror}", remedy=COUNTER_REMEDY)
    path, error = refusals[0]
    if error is not None and all(error for _, error in refusals):
        raise SensorUnavailable(f"{path} cannot be read: {error.strerror}")


def _refusal(path: Path) -> OSError | None:
    try:
        read_count(path)
    except OSError as error:
        return error
    return None


def _peek(path: str, clock: Callable[[], float]) -> tuple[float, int] | None:
    """When a counter's file was read, and the number in it; None if it cannot be read, for whatever reason.

    Between clock and reading no other thread of this process runs. While the file is opened one may, for 5 ms or more.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            at = clock()
            text = os.read(file, MOST_BYTES).strip()
        finally:
            os.close(file)
    except OSError:
        return None
    return (at, int(text)) if text.isdigit() else None


def _covers(meter: Meter) -> frozenset[Kind]:
    if meter.is_platform:
        return frozenset({"cpu", "dram"})
    return frozenset({"dram"}) if meter.is_dram else frozenset({"cpu"})


def _device(meter: Meter, info: CpuInfo) -> Device:
    path = meter.zone.path
    scope = ", the whole platform: processors, memory and more in one number" if meter.is_platform else ""
    span = _count(path / "max_energy_range_uj")
    return Device(
        name=meter.device,
        kind="dram" if meter.is_dram else "cpu",
        sensor="rapl",
        vendor="" if meter.is_dram else info.vendor,
        model="" if meter.is_dram else info.model,
        counter_range=Joules(span / MICROJOULES_PER_JOULE) if span else None,
        max_power=_max_power(path) or (UNLIMITED_DRAM if meter.is_dram else UNLIMITED_PACKAGE),
        method=f"energy counter {path}/energy_uj ({meter.zone.name}{scope})",
    )


def _max_power(zone: Path) -> Watts | None:
    """Twice the largest limit that the zone publishes, None if it publishes none."""
    files = (*zone.glob("constraint_*_power_limit_uw"), *zone.glob("constraint_*_max_power_uw"))
    limit = max((_count(file) for file in files), default=0)
    return Watts(EXCURSION * limit / MICROWATTS_PER_WATT) if limit else None


def _count(file: Path) -> int:
    """The number in a file that may be missing, unreadable or empty: then 0."""
    try:
        return read_count(file) or 0
    except OSError:
        return 0
