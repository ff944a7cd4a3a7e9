"""Energy counters of HPE Cray compute nodes: the files of `/sys/cray/pm_counters`, filled by the node's controller.

A file holds one line, `VALUE UNIT TIMESTAMP us`: whole joules, and microseconds since 1970 of the last renewal, ten a
second. `energy` is the whole node; `cpu_energy`, `memory_energy` and `accelN_energy` are parts of it. `startup` counts
the starts of the controller, at each of which the counters begin anew. `generation` counts changes of the power cap,
which do nothing to the counters.
Source: HPE, User Access to Compute Node Power Data (Cray System Management documentation).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from carbon_exporter.errors import SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Device, Host, Kind, Quality, Reading, Sample, Sensor
from carbon_exporter.units import Joules, Watts

__all__ = ["Cray", "Line", "parse_line", "probe"]

LINE = re.compile(rb"\s*(\d{1,18})(?:\s+([A-Z]))?(?:\s+(\d{1,18})\s+us)?\s*")
FILE = re.compile(r"(cpu|accel)(\d{1,2})_energy", re.ASCII)
MOST_BYTES = 128

PERIOD_SECONDS = 0.1
STALE_SECONDS = 3.0
"""Counters that the controller has not renewed for so long stand still; by itself it renews them ten times a second."""

MOST: Mapping[Kind, Watts] = {
    "node": Watts(20_000.0),
    "cpu": Watts(4000.0),
    "dram": Watts(2000.0),
    "gpu": Watts(4000.0),
}
"""Far above any, so that only nonsense exceeds them; `cpu` and `dram` may be all sockets of a node in one number."""

READ_REMEDY = "run as a user who may read it; in a container mount the host's /sys read-only and pass --path.sysfs"


@dataclass(frozen=True, slots=True)
class Line:
    """What a file says: a number, and when it was renewed in microseconds since 1970; 0 if it does not tell."""

    value: int
    unit: str = ""
    renewed: int = 0


@dataclass(slots=True)
class _Counter:
    device: Device
    path: Path
    renewed: int = 0
    """The stamp of the last renewal that was seen, and when it was seen first."""
    seen: float = 0.0


def probe(host: Host, covered: frozenset[Kind]) -> Cray:
    """The whole node's counter, and those of its parts whose kinds are not `covered`.

    Raises `SensorUnavailable` if there are none, `SensorPermission` if this process may not read them.
    """
    directory = host.sysfs / "cray" / "pm_counters"
    try:
        files = {path.name for path in directory.iterdir()}
        startup = _startup(directory)
        lines = {name: _line(directory / name) for name in sorted(files) if name.endswith("energy")}
    except FileNotFoundError:
        raise SensorUnavailable(f"{directory} does not exist") from None
    except PermissionError as error:
        raise SensorPermission(f"{error.filename} may not be read: {error.strerror}", remedy=READ_REMEDY) from error
    except OSError as error:
        raise SensorUnavailable(f"{error.filename or directory} cannot be read: {error.strerror}") from error
    live = {name for name, line in lines.items() if line is not None and line.unit == "J" and line.value > 0}
    counters = [_Counter(device, directory / name) for device, name in _devices(host, directory, live, covered)]
    if not counters:
        raise SensorUnavailable(f"{directory} has no energy counter that moves and is not yet covered")
    notes = tuple(
        f"{directory / name} tells nothing: the node has no such meter" for name in sorted(lines.keys() - live)
    )
    return Cray(host, directory, counters, startup, notes)


class Cray(Sensor):
    """The sensor. Each read opens its files anew."""

    name = "cray"
    quality = Quality.MEASURED
    notes: tuple[str, ...] = ()

    def __init__(
        self, host: Host, directory: Path, counters: Sequence[_Counter], startup: int | None, notes: tuple[str, ...]
    ) -> None:
        """`startup` is the number of the controller's present start; None if it does not count them."""
        self._host = host
        self.notes = notes
        self._directory = directory
        self._counters = tuple(counters)
        self._take_startup(startup)

    @property
    def devices(self) -> tuple[Device, ...]:
        """The node, then its parts."""
        return tuple(counter.device for counter in self._counters)

    def read(self) -> Sample:
        """The raw counters in joules. Raises `SensorReadError` if none of them can be read."""
        startup = self._startup_now()
        if startup != self._startup:
            self._take_startup(startup)
        results = [self._read(counter) for counter in self._counters]
        if startup != self._startup_now():
            raise SensorReadError(f"{self._directory / 'startup'} changed while the counters were read")
        failures = tuple(result for result in results if isinstance(result, SensorReadError))
        if len(failures) == len(results):
            raise failures[0]
        return Sample(tuple(result for result in results if isinstance(result, Reading)), failures)

    def _take_startup(self, startup: int | None) -> None:
        """Give the counters the identity of this start: they are compared with their own past only."""
        self._startup = startup
        for counter in self._counters:
            uuid = "" if startup is None else f"startup-{startup}"
            counter.device = replace(counter.device, uuid=uuid)

    def _startup_now(self) -> int | None:
        """The number of the controller's present start; the known one where the file cannot be read."""
        try:
            startup = _startup(self._directory)
        except OSError:
            return self._startup
        return self._startup if startup is None else startup

    def _read(self, counter: _Counter) -> Reading | SensorReadError:
        name, path, at = counter.device.name, counter.path, self._host.clock()
        try:
            line = _line(path)
        except PermissionError as error:
            return SensorReadError(f"{path} may not be read: {error.strerror}", device=name, remedy=READ_REMEDY)
        except OSError as error:
            return SensorReadError(f"{path} cannot be read: {error.strerror}", device=name)
        if line is None or line.unit != "J":
            return SensorReadError(f"{path} does not hold a number of joules", device=name)
        if line.renewed == 0 or line.renewed != counter.renewed:
            counter.renewed, counter.seen = line.renewed, at
        elif at - counter.seen > STALE_SECONDS:
            return SensorReadError(f"{path} has not been renewed for {at - counter.seen:.0f} s", device=name)
        return Reading(counter.device, at, Quality.MEASURED, energy=Joules(float(line.value)))


def parse_line(data: bytes) -> Line | None:
    """What a file of the directory says; None if it is not such a line."""
    match = LINE.fullmatch(data)
    if match is None:
        return None
    value, unit, renewed = match.groups()
    return Line(int(value), (unit or b"").decode(), int(renewed or 0))


def _devices(
    host: Host, directory: Path, live: Collection[str], covered: frozenset[Kind]
) -> Iterator[tuple[Device, str]]:
    """Device and file of each part that has a meter and is not covered; the counter of one without stays at 0."""
    if "energy" in live:
        yield _device("cray", "node", directory / "energy", "the whole node"), "energy"
    numbered = [(match[1], int(match[2]), match[0]) for match in map(FILE.fullmatch, live) if match]
    sockets = sorted((number, name) for part, number, name in numbered if part == "cpu")
    boards = sorted((number, name) for part, number, name in numbered if part == "accel")
    if "cpu" not in covered:
        for number, name in sockets:
            yield _device(f"cpu{number}", "cpu", directory / name, "one processor"), name
        if not sockets and "cpu_energy" in live:
            yield _device("cpu0", "cpu", directory / "cpu_energy", "all processors in one number"), "cpu_energy"
    if "dram" not in covered and "memory_energy" in live:
        yield _device("dram0", "dram", directory / "memory_energy", "all memory in one number"), "memory_energy"
    if "gpu" not in covered:
        for number, name in boards or ([(0, "accel_energy")] if "accel_energy" in live else []):
            label = host.names.name("gpu", f"cray/{name}", number)
            yield _device(label, "gpu", directory / name, f"accelerator {number}"), name


def _device(name: str, kind: Kind, path: Path, scope: str) -> Device:
    return Device(
        name,
        kind,
        "cray",
        vendor="HPE" if kind == "node" else "",
        max_power=MOST[kind],
        method=f"energy counter {path} ({scope})",
        bound="whole joules; no tolerance is known",
        period=PERIOD_SECONDS,
    )


def _startup(directory: Path) -> int | None:
    """The number of the controller's present start; None without a file that tells. Raises `OSError`."""
    try:
        line = _line(directory / "startup")
    except FileNotFoundError:
        return None
    return None if line is None else line.value


def _line(path: Path) -> Line | None:
    """Raises `OSError`."""
    with path.open("rb", buffering=0) as file:
        return parse_line(file.read(MOST_BYTES) or b"")
