"""The tree of Linux's powercap class: which RAPL zones there are, and which of them never overlap.

A zone is known by its `name` file, not by its place: `package-N` contains `core` and `uncore` but not `dram`; `psys`
contains packages and more; `intel-rapl-mmio` mirrors the counters of `intel-rapl`.
Layout: Documentation/power/powercap/powercap.rst and drivers/powercap/intel_rapl_common.c of Linux.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Meter", "Zone", "find_zones", "meters", "read_count"]

ENTRY = re.compile(r"(intel-rapl(?:-mmio)?):([^:]+)(?::([^:]+))?")
PACKAGE = re.compile(r"package-(\d{1,4})(?:-die-(\d{1,4}))?", re.ASCII)
MOST_BYTES = 64
"""Enough for a 64-bit number and its newline; the sysfs file never says more."""
MOST_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Zone:
    """One directory with an energy counter."""

    path: Path
    driver: str
    """`intel-rapl` or `intel-rapl-mmio`."""
    index: str
    """As in `intel-rapl:INDEX`: digits as a rule, of any number."""
    sub: str
    """As in `intel-rapl:INDEX:SUB`, empty for a zone at the top."""
    name: str
    """What its `name` file says: `package-0`, `dram`."""


@dataclass(frozen=True, slots=True)
class Meter:
    """A zone to publish: the device that it measures."""

    zone: Zone
    device: str
    is_dram: bool = False
    is_platform: bool = False
    """psys: processors, memory and more in one counter."""


def find_zones(directory: Path) -> tuple[Zone, ...]:
    """All zones below a powercap class directory, whether its sub-zones are listed flat (as links), nested, or both.

    A zone without a readable name cannot be told from others and is left out.
    Raises `OSError` if the directory cannot be listed, or has zones and none of their names can be read.
    """
    places: dict[str, Path] = {}
    for top in sorted(directory.iterdir(), key=_natural):
        if ENTRY.fullmatch(top.name):
            for place in (top, *sorted(top.glob(f"{top.name}:*"), key=_natural)):
                places.setdefault(place.name, place)
    found = [_zone(place) for place in places.values()]
    zones = tuple(zone for zone in found if isinstance(zone, Zone))
    for trouble in found:
        if isinstance(trouble, OSError) and not zones:
            raise trouble
    return zones


def meters(zones: Sequence[Zone]) -> tuple[Meter, ...]:
    """The one set of zones that never overlap and say most: packages and their dram; psys only where it is alone."""
    own = [zone for zone in zones if zone.driver == "intel-rapl"]
    candidates = own if _packages(own) else [*own, *(zone for zone in zones if zone not in own)]
    packages = _packages(candidates)
    platform = [Meter(zone, "psys0", is_platform=True) for zone in candidates if zone.name == "psys"]
    return tuple(platform[:1]) if platform and not packages else _unique((*packages, *_drams(candidates)))


def read_count(path: Path) -> int | None:
    """The whole number in a sysfs file, None if it says something else. Raises `OSError`."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(file, MOST_BYTES).strip()
    finally:
        os.close(file)
    return int(text) if text.isdigit() and len(text) <= MOST_DIGITS else None


def _zone(place: Path) -> Zone | OSError | None:
    entry = ENTRY.fullmatch(place.name)
    if entry is None:
        return None
    try:
        name = place.joinpath("name").read_text("utf-8", "replace").strip()
    except OSError as error:
        return error
    return Zone(place, entry[1], entry[2], entry[3] or "", name)


def _packages(zones: Iterable[Zone]) -> tuple[Meter, ...]:
    named = [(PACKAGE.fullmatch(zone.name), zone) for zone in zones]
    return tuple(Meter(zone, "cpu" + _place(name)) for name, zone in named if name)


def _drams(zones: Sequence[Zone]) -> tuple[Meter, ...]:
    """Dram below a package is called after it; dram at the top counts only where no package has its own."""
    packages = {(zone.driver, zone.index): PACKAGE.fullmatch(zone.name) for zone in zones if not zone.sub}
    drams = [zone for zone in zones if zone.name == "dram"]
    owned = [(packages.get((zone.driver, zone.index)), zone) for zone in drams if zone.sub]
    below = [Meter(zone, "dram" + _place(package), is_dram=True) for package, zone in owned if package]
    return tuple(below) or tuple(Meter(zone, f"dram{number}", is_dram=True) for number, zone in enumerate(drams))


def _place(package: re.Match[str]) -> str:
    number, die = package.groups()
    return f"{int(number)}-die{int(die)}" if die else f"{int(number)}"


def _unique(found: Iterable[Meter]) -> tuple[Meter, ...]:
    """The first of each device: two zones of one name are two views of one counter."""
    first: dict[str, Meter] = {}
    for meter in found:
        first.setdefault(meter.device, meter)
    return tuple(first.values())


def _natural(path: Path) -> tuple[tuple[int, str], ...]:
    return tuple((len(part), part) for part in path.name.split(":"))
