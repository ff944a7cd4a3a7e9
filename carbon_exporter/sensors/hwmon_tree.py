"""The tree of Linux's hwmon class: which chips there are, and which of their channels tell energy or power.

A chip is known by its name and by the device that it belongs to, never by the number of its directory: that one
changes whenever a driver is loaded again. Energy is worth more than power, and power more than voltage times current;
of one chip only the best of these is taken.
Layout: Documentation/hwmon/sysfs-interface.rst, ina3221.rst, ina2xx.rst and acpi_power_meter.rst of Linux.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Channel", "Chip", "Source", "channels", "find_chips", "is_foreign", "is_there"]

Source = Literal["energy", "power", "product"]
"""`energy`: microjoules; `power`: microwatts; `product`: millivolts times milliamperes."""

LABEL = re.compile(r"((?:energy|power|in|curr)\d{1,3})_(?:label|oem_info)", re.ASCII)
MOST_BYTES = 128
"""No label is as long."""

OF_OTHER_SENSORS = frozenset({"amdgpu", "i915", "nouveau", "radeon", "xe"})
OF_LITTLE_PARTS = frozenset({"drivetemp", "nvme", "sfp"})
"""Disks, and network modules, whose `power` is that of light."""
NO_METERS = frozenset({"k10temp"})
"""Up to Linux 5.9 it had voltages and currents of processors that were guesses."""
FOREIGN_PLACES = re.compile(r"/(?:power_supply|net|nvme|ata\d+|host\d+)/")
"""Batteries and their chargers, network cards, disks."""
FOREIGN_CLASSES = ("0x01", "0x02", "0x03")
"""PCI's base classes of storage, network and display."""

THREE_RAILS = frozenset({"ina3221"})
ONE_RAIL = frozenset({"ina209", "ina219", "ina220", "ina226", "ina230", "ina231", "ina234"})
"""Its first voltage and first current belong together. Of the ina3221's the others are voltages of the shunts."""
SIDE = re.compile(r"[vi]((?:in|out)\d*)", re.ASCII)
"""PMBus's labels of one side of a converter: `vin` and `iin`, `vout1` and `iout1`."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One meter of a chip."""

    source: Source
    index: int
    """As in `powerINDEX_input`."""
    files: tuple[str, ...]
    """One with energy or power; two of which the product is power."""
    label: str = ""
    """What the board calls it; empty if it has no name."""


@dataclass(frozen=True, slots=True)
class Chip:
    """One directory with channels."""

    name: str
    """Of its driver."""
    address: str
    """Path of its device below sysfs: tells it from others of its name, over restarts."""
    place: Path
    """Where its files are, without links: a number that another chip takes over does not lead to that one."""
    channels: tuple[Channel, ...]


def find_chips(directory: Path) -> tuple[Chip, ...]:
    """All chips below a hwmon class directory that have a name and a meter, by address.

    Raises `OSError` if the directory cannot be listed; a chip that cannot be read is left out.
    """
    chips: dict[tuple[str, str], Chip] = {}
    for home in sorted(directory.iterdir(), key=lambda path: (len(path.name), path.name)):
        chip = _chip(home, directory)
        if chip is None:
            continue
        address, number = chip.address, 1
        while (chip.name, address) in chips:
            number += 1
            address = f"{chip.address}#{number}"
        chips[chip.name, address] = Chip(chip.name, address, chip.place, chip.channels)
    return tuple(chips[key] for key in sorted(chips))


def channels(chip: str, files: AbstractSet[str], labels: Mapping[str, str]) -> tuple[Channel, ...]:
    """The best meters of a chip by its file names; `labels` are those of `energy1`, `power2`, `in1`, `curr3`."""
    energies = [Channel("energy", n, (f"energy{n}_input",)) for n in _numbers("energy", "_input", files)]
    averages = [Channel("power", n, (f"power{n}_average",)) for n in _numbers("power", "_average", files)]
    averaged = {channel.index for channel in averages}
    instants = [Channel("power", n, (f"power{n}_input",)) for n in _numbers("power", "_input", files)]
    powers = averages + [channel for channel in instants if channel.index not in averaged]
    best = energies or sorted(powers, key=lambda channel: channel.index)
    if best:
        return tuple(_labelled(channel, labels.get(f"{channel.source}{channel.index}", "")) for channel in best)
    return _products(chip, files, labels)


def is_foreign(chip: Chip) -> bool:
    """Whether other sensors measure this one, or what it measures has no part in a computation."""
    if chip.name in OF_OTHER_SENSORS | OF_LITTLE_PARTS | NO_METERS:
        return True
    if FOREIGN_PLACES.search(f"/{chip.address}/"):
        return True
    return any(_text(chip.place / way).startswith(FOREIGN_CLASSES) for way in ("class", "device/class"))


def is_there(chip: Chip, place: Path) -> bool:
    """Whether that chip still has its files at `place`."""
    return _text(place / "name") == chip.name


def _chip(home: Path, directory: Path) -> Chip | None:
    """What a directory of the class is; None without a name or a meter. Old drivers have their files in `device`."""
    name = _text(home / "name") or _text(home / "device" / "name")
    if not name:
        return None
    for place in (home, home / "device"):
        try:
            files = {path.name for path in place.iterdir()}
        except OSError:
            continue
        found = channels(name, files, _labels(place, files))
        if found:
            battery = any(_text(place / f"power{channel.index}_is_battery") == "1" for channel in found)
            return None if battery else Chip(name, _address(home, directory), _real(place), found)
    return None


def _address(home: Path, directory: Path) -> str:
    """Where the chip's device is below sysfs; empty for one that belongs to no device."""
    if not (home / "device").is_symlink():
        return ""
    device, sysfs = _real(home / "device"), _real(directory.parent.parent)
    return str(device.relative_to(sysfs)) if device.is_relative_to(sysfs) else str(device)


def _real(path: Path) -> Path:
    """Where links lead, also to places that do not exist."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return path


def _labels(place: Path, files: AbstractSet[str]) -> dict[str, str]:
    """Channel to label; a plain label goes before what the maker of the board wrote into ACPI."""
    named = [(match[1], file) for file in sorted(files, reverse=True) if (match := LABEL.fullmatch(file))]
    return {channel: _text(place / file) for channel, file in sorted(named, key=lambda one: one[1].endswith("_label"))}


def _products(chip: str, files: AbstractSet[str], labels: Mapping[str, str]) -> tuple[Channel, ...]:
    """Voltages and currents of which it is known that they belong together."""
    voltages, currents = _numbers("in", "_input", files), _numbers("curr", "_input", files)
    if chip in THREE_RAILS | ONE_RAIL:
        most = 3 if chip in THREE_RAILS else 1
        pairs = [(n, n) for n in voltages if n in currents and 1 <= n <= most]
    else:
        pairs = _pairs(
            {n: _side(labels.get(f"in{n}", ""), "v") for n in voltages},
            {n: _side(labels.get(f"curr{n}", ""), "i") for n in currents},
        )
    return tuple(
        _labelled(
            Channel("product", current, (f"in{voltage}_input", f"curr{current}_input")),
            labels.get(f"in{voltage}") or labels.get(f"curr{current}", ""),
        )
        for voltage, current in pairs
    )


def _pairs(voltages: Mapping[int, str], currents: Mapping[int, str]) -> list[tuple[int, int]]:
    """Numbers of voltage and current whose labels agree; a label that several have tells nothing."""
    volts, amperes = list(voltages.values()), list(currents.values())
    return [
        (v, c)
        for v, what in voltages.items()
        for c, other in currents.items()
        if what and what == other and volts.count(what) == 1 and amperes.count(what) == 1
    ]


def _side(label: str, initial: str) -> str:
    """What a label names: of PMBus's the side of the converter, else all of it."""
    match = SIDE.fullmatch(label)
    return f"{match[1]} side" if match and label.startswith(initial) else label


def _labelled(channel: Channel, label: str) -> Channel:
    return Channel(channel.source, channel.index, channel.files, label)


def _numbers(prefix: str, suffix: str, files: AbstractSet[str]) -> list[int]:
    """The N of all files `prefixNsuffix`, in order."""
    pattern = re.compile(f"{prefix}(0|[1-9][0-9]{{0,2}}){suffix}")
    return sorted(int(match[1]) for file in files if (match := pattern.fullmatch(file)))


def _text(path: Path) -> str:
    """The first line of a file that may be missing or unreadable: then nothing."""
    try:
        with path.open("rb", buffering=0) as file:
            data = file.read(MOST_BYTES) or b""
    except OSError:
        return ""
    return "".join(filter(str.isprintable, data.partition(b"\n")[0].decode("utf-8", "replace"))).strip()
