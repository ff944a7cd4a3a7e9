"""Power and energy meters that Linux lists as hardware monitors (hwmon).

Three kinds of them. AMD's processors up to Linux 5.12 have an energy counter per socket (`amd_energy`). NVIDIA's Grace
has power meters per socket, through ACPI: `Grace Power Socket N` holds the processor and its memory, `CPU Power
Socket N` the cores' rail only, `Module Power Socket N` the GPU as well (NVIDIA Grace Performance Tuning Guide, Power
Telemetry). All others measure something that only the maker of the board knows (a rail, a power supply, a server): they
stand beside the devices, of kind `node`, and never in a sum with them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from carbon_exporter.errors import SensorError, SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Device, Host, Kind, Quality, Reading, Sample, Sensor
from carbon_exporter.sensors.cpuinfo import CpuInfo, read_cpuinfo
from carbon_exporter.sensors.hwmon_tree import Channel, Chip, find_chips, is_foreign, is_there
from carbon_exporter.sensors.integrator import PowerIntegrator
from carbon_exporter.sensors.powercap import read_count
from carbon_exporter.units import MICROJOULES_PER_JOULE, Joules, Watts

__all__ = ["READ_REMEDY", "Hwmon", "probe"]

MICROWATTS_PER_WATT = 1e6
SHORTEST_PERIOD_SECONDS = 0.05
LONGEST_PERIOD_SECONDS = 1.0
"""Drivers that do not tell their period renew their values about once a second."""
LONGEST_STEP_SECONDS = 10.0
"""What a meter drew while it did not answer for longer than this is not known."""

MOST_OF_A_PROCESSOR = Watts(2000.0)
MOST_OF_A_NODE = Watts(100_000.0)
"""Far above any, so that only nonsense exceeds them."""

GRACE = re.compile(r"(grace|cpu|module|sysio) power socket (\d{1,3})", re.ASCII | re.IGNORECASE)
SOCKET = re.compile(r"Esocket(\d{1,3})", re.ASCII)
NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.:+@-]+")

READ_REMEDY = "run as root, as `sudo setpriv --bounding-set=-all --inh-caps=-all carbon-exporter serve` does"

_Key = tuple[str, str]
"""Name and address of a chip."""


@dataclass(slots=True)
class _Meter:
    """A channel that is read, and where it is now."""

    device: Device
    chip: Chip
    channel: Channel
    covers: frozenset[Kind]
    integrator: PowerIntegrator | None
    """None for a counter."""
    place: Path
    due: float = 0.0

    @property
    def period(self) -> float:
        """Seconds between two samples."""
        known = self.device.period or LONGEST_PERIOD_SECONDS
        return min(max(known, SHORTEST_PERIOD_SECONDS), LONGEST_PERIOD_SECONDS)


def probe(host: Host, covered: frozenset[Kind]) -> Hwmon:
    """The processors' meters whose kinds are not `covered`, and all meters of other things.

    Raises `SensorUnavailable` if there are none, `SensorPermission` if none of them may be read.
    """
    directory = host.sysfs / "class" / "hwmon"
    try:
        chips = [chip for chip in find_chips(directory) if not is_foreign(chip)]
    except PermissionError as error:
        raise SensorPermission(f"{directory} may not be read", remedy=READ_REMEDY) from error
    except OSError as error:
        raise SensorUnavailable(f"{directory} cannot be read: {error.strerror}") from error
    found = (*_processors(chips, covered, read_cpuinfo(host)), *_others(chips))
    if not found:
        raise SensorUnavailable("no hwmon chip has a meter of power or energy that is not yet covered")
    meters, troubles = _working(found)
    if not meters:
        raise troubles[0]
    return Hwmon(host, meters, tuple(map(str, troubles)))


class Hwmon(Sensor):
    """The sensor. Each read opens its files anew; a chip that got another number is found again."""

    name = "hwmon"
    notes: tuple[str, ...] = ()
    covers: frozenset[Kind] = frozenset()
    sampling_period: float | None = None

    def __init__(self, host: Host, meters: Sequence[_Meter], notes: tuple[str, ...]) -> None:
        """`notes` tell of the meters that are here but cannot be used."""
        self._host = host
        self._meters = tuple(meters)
        self.notes = notes
        self.covers = frozenset(chain.from_iterable(meter.covers for meter in meters))
        self.sampling_period = min((meter.period for meter in meters if meter.integrator), default=None)

    @property
    def devices(self) -> tuple[Device, ...]:
        """Processors, then the meters of other things."""
        return tuple(meter.device for meter in self._meters)

    @property
    def quality(self) -> Quality:
        """`measured` where all are counters."""
        return Quality.INTEGRATED if any(meter.integrator for meter in self._meters) else Quality.MEASURED

    def read(self) -> Sample:
        """All meters once. Raises `SensorReadError` if none of them can be read."""
        gone = [meter for meter in self._meters if not is_there(meter.chip, meter.place)]
        if gone:
            self._find_again(gone)
        readings: list[Reading] = []
        failures: list[SensorReadError] = []
        for meter in self._meters:
            taken, trouble = self._read(meter)
            readings += taken
            if trouble is not None:
                failures.append(trouble)
        if failures and not readings:
            raise failures[0]
        return Sample(tuple(readings), tuple(failures))

    def sample(self) -> None:
        """Look at each power meter that has a new value by now; one that fails is left to the next reading."""
        now = self._host.clock()
        for meter in self._meters:
            if meter.integrator is not None and now >= meter.due:
                self._add(meter, meter.integrator)

    def _read(self, meter: _Meter) -> tuple[tuple[Reading, ...], SensorReadError | None]:
        """What a meter says, and what is wrong with it; a power meter may have told something before it failed."""
        if meter.integrator is not None:
            trouble = self._add(meter, meter.integrator)
            taken = meter.integrator.take(meter.device)
            return (taken if trouble is None else tuple(one for one in taken if one.power is not None)), trouble
        at = self._host.clock()
        value = _value(meter)
        if isinstance(value, SensorReadError):
            return (), value
        energy = Joules(value / MICROJOULES_PER_JOULE)
        return (Reading(meter.device, at, Quality.MEASURED, energy=energy),), None

    def _add(self, meter: _Meter, integrator: PowerIntegrator) -> SensorReadError | None:
        """One sample of a power meter, or what prevented it."""
        at = self._host.clock()
        meter.due = at + meter.period - (self.sampling_period or 0.0) / 2
        value = _value(meter)
        if isinstance(value, SensorReadError):
            return value
        watts, most = value / MICROWATTS_PER_WATT, meter.device.max_power
        if most is not None and watts > most:
            return SensorReadError(f"{_files(meter)} says {watts:.0f} W, which cannot be", device=meter.device.name)
        integrator.add(at, watts)
        return None

    def _find_again(self, gone: Iterable[_Meter]) -> None:
        """Where the chips of these meters are by now."""
        try:
            chips = {_key(chip): chip for chip in find_chips(self._host.sysfs / "class" / "hwmon")}
        except OSError:
            return
        for meter in gone:
            chip = chips.get(_key(meter.chip))
            if chip is not None:
                meter.place = chip.place


def _processors(chips: Iterable[Chip], covered: frozenset[Kind], info: CpuInfo) -> tuple[_Meter, ...]:
    """One meter of each socket, that does not overlap with what is covered."""
    if "cpu" in covered:
        return ()
    sockets: dict[int, tuple[int, _Meter]] = {}
    for chip in chips:
        for channel in chip.channels:
            match = SOCKET.fullmatch(channel.label) if chip.name == "amd_energy" else None
            grace = GRACE.fullmatch(channel.label)
            if match is not None and channel.source == "energy":
                rank, socket, meter = 0, int(match[1]), _socket(chip, channel, int(match[1]), info)
            elif grace is not None and grace[1].lower() in {"grace", "cpu"}:
                whole = grace[1].lower() == "grace"
                if whole and "dram" in covered:
                    continue
                rank, socket = (1 if whole else 2), int(grace[2])
                meter = _grace(chip, channel, socket, whole=whole)
            else:
                continue
            if socket not in sockets or rank < sockets[socket][0]:
                sockets[socket] = rank, meter
    return tuple(sockets[number][1] for number in sorted(sockets))


def _socket(chip: Chip, channel: Channel, socket: int, info: CpuInfo) -> _Meter:
    device = Device(
        f"cpu{socket}",
        "cpu",
        "hwmon",
        vendor=info.vendor,
        model=info.model,
        max_power=MOST_OF_A_PROCESSOR,
        method=f"energy counter {chip.place / channel.files[0]} ({channel.label})",
    )
    return _Meter(device, chip, channel, frozenset({"cpu"}), None, chip.place)


def _grace(chip: Chip, channel: Channel, socket: int, *, whole: bool) -> _Meter:
    scope = "processor and memory in one number" if whole else "rail of the cores only, without memory"
    device = Device(
        f"cpu{socket}",
        "cpu",
        "hwmon",
        vendor="NVIDIA",
        model="Grace",
        max_power=MOST_OF_A_PROCESSOR,
        method=f"{_source(chip, channel)} ({channel.label}: {scope})",
        bound=_bound(chip, channel),
        period=_period(chip, channel),
    )
    covers: frozenset[Kind] = frozenset({"cpu", "dram"}) if whole else frozenset({"cpu"})
    return _Meter(device, chip, channel, covers, PowerIntegrator(LONGEST_STEP_SECONDS), chip.place)


def _others(chips: Iterable[Chip]) -> tuple[_Meter, ...]:
    """Meters of which nobody knows what they contain; parts of processors are left out."""
    found = [(chip, channel) for chip in chips for channel in chip.channels if not _is_part(chip, channel)]
    plain = [_name(chip, channel) for chip, channel in found]
    often = Counter(plain)
    names: list[str] = []
    for (chip, channel), name in zip(found, plain, strict=True):
        unique = name if often[name] == 1 else _name(chip, channel, Path(chip.address).name)
        more = (f"{unique}-{number}" for number in count(2))
        names.append(unique if unique not in names else next(one for one in more if one not in names))
    return tuple(_other(chip, channel, name) for (chip, channel), name in zip(found, names, strict=True))


def _is_part(chip: Chip, channel: Channel) -> bool:
    match = GRACE.fullmatch(channel.label)
    return chip.name == "amd_energy" or (match is not None and match[1].lower() != "module")


def _name(chip: Chip, channel: Channel, address: str = "") -> str:
    """`hwmon/ina3221/VDD_CPU`; with the address where several chips have the same."""
    match = GRACE.fullmatch(channel.label)
    if match is not None and not address:
        return f"hwmon/module{int(match[2])}"
    parts = (f"{chip.name}@{address}" if address else chip.name, channel.label or f"{channel.source}{channel.index}")
    return "/".join(("hwmon", *(NOT_IN_A_NAME.sub("_", part).strip("_") for part in parts)))


def _other(chip: Chip, channel: Channel, name: str) -> _Meter:
    counter = channel.source == "energy"
    device = Device(
        name,
        "node",
        "hwmon",
        max_power=MOST_OF_A_NODE,
        method=f"{_source(chip, channel)}{f' ({channel.label})' if channel.label else ''}",
        bound="" if counter else _bound(chip, channel),
        period=None if counter else _period(chip, channel),
    )
    integrator = None if counter else PowerIntegrator(LONGEST_STEP_SECONDS)
    return _Meter(device, chip, channel, frozenset(), integrator, chip.place)


def _working(found: Iterable[_Meter]) -> tuple[list[_Meter], list[SensorError]]:
    """The meters that can be read, and what is wrong with the others.

    A processor's that is broken now stays where another's works: a part of them alone would be less than all.
    """
    tried = [(meter, _trouble(meter)) for meter in found]
    alive = {meter.device.kind for meter, trouble in tried if trouble is None}
    kept, troubles = [], []
    for meter, trouble in tried:
        if trouble is not None:
            troubles.append(trouble)
        if trouble is None or (meter.device.kind == "cpu" and "cpu" in alive):
            kept.append(meter)
    troubles.sort(key=lambda trouble: not isinstance(trouble, SensorPermission))
    return kept, troubles


def _trouble(meter: _Meter) -> SensorError | None:
    value = _value(meter)
    if not isinstance(value, SensorReadError):
        return None
    if value.remedy:
        return SensorPermission(value.reason, remedy=value.remedy)
    return SensorUnavailable(value.reason)


def _value(meter: _Meter) -> float | SensorReadError:
    """Microjoules of a counter, microwatts of a power meter."""
    name, value = meter.device.name, 1.0
    for file in meter.channel.files:
        path = meter.place / file
        try:
            number = read_count(path)
        except PermissionError as error:
            return SensorReadError(f"{path} may not be read: {error.strerror}", device=name, remedy=READ_REMEDY)
        except OSError as error:
            return SensorReadError(f"{path} cannot be read: {error.strerror}", device=name)
        if number is None:
            return SensorReadError(f"{path} does not hold a whole number from 0 up", device=name)
        value *= number
    return value


def _source(chip: Chip, channel: Channel) -> str:
    files = " x ".join(str(chip.place / file) for file in channel.files)
    kinds = {"energy": "energy counter", "power": "power meter", "product": "voltage times current,"}
    return f"{kinds[channel.source]} {files}"


def _bound(chip: Chip, channel: Channel) -> str:
    """What the meter says of its own accuracy, as ACPI's do."""
    try:
        said = (chip.place / f"power{channel.index}_accuracy").read_text("utf-8", "replace").strip()
    except OSError:
        said = ""
    claim = f"its firmware claims {said[:20]} accuracy" if said and said.isprintable() else "no tolerance is known"
    return f"{claim}; between samples it is not seen"


def _period(chip: Chip, channel: Channel) -> float | None:
    """Seconds over which the meter averages, or after which its driver reads it anew; None if it does not say."""
    names = [f"power{channel.index}_average_interval"] if channel.source == "power" else []
    for file in (*names, "update_interval"):
        try:
            milliseconds = read_count(chip.place / file)
        except OSError:
            continue
        if milliseconds:
            return milliseconds / 1000
    return None


def _files(meter: _Meter) -> str:
    return " x ".join(str(meter.place / file) for file in meter.channel.files)


def _key(chip: Chip) -> _Key:
    return chip.name, chip.address
