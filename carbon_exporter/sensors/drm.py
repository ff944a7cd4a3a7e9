"""Graphics cards as Linux's DRM class shows them: their driver, their PCI address, and their hwmon directory.

A card is known by its PCI address: `cardN` and `hwmonN` are counted anew whenever a driver is loaded.
Layout: Documentation/ABI/testing/sysfs-bus-pci and drivers/gpu/drm/drm_sysfs.c of Linux.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from carbon_exporter.sensors.powercap import read_count

__all__ = ["Card", "count_of", "find_cards", "find_chip", "is_asleep", "parse_uevent", "text_of"]

CARD = re.compile(r"card\d{1,6}", re.ASCII)
ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)
IDENTITY = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})", re.ASCII | re.IGNORECASE)
MOST_BYTES = 4096
"""A sysfs file is one page at most."""


@dataclass(frozen=True, slots=True)
class Card:
    """One graphics card on the PCI bus."""

    path: Path
    """The directory of its PCI device, which is the same after its driver was loaded again."""
    address: str
    """`0000:03:00.0`"""
    driver: str
    """`amdgpu`, `xe`, `i915` …"""
    device_id: int = 0
    """Of PCI; 0 if not known."""


def parse_uevent(text: str) -> dict[str, str]:
    """The `KEY=value` lines of a device's `uevent` file; other lines are passed over."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value for key, equals, value in pairs if equals}


def find_cards(sysfs: Path, drivers: Collection[str]) -> tuple[Card, ...]:
    """The cards of these drivers, by PCI address; none if there is no DRM class.

    A card that cannot be told from others is left out, and so is a virtual function, which is a part of another card.
    Raises `OSError` if the class cannot be listed.
    """
    directory = sysfs / "class" / "drm"
    try:
        entries = sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return ()
    cards = (_card(entry / "device") for entry in entries if CARD.fullmatch(entry.name))
    found = {card.address: card for card in cards if card is not None and card.driver in drivers}
    return tuple(found[address] for address in sorted(found))


def find_chip(card: Card, name: str) -> Path | None:
    """The card's hwmon directory whose `name` file says exactly `name`; None if there is none now."""
    try:
        chips = sorted((card.path / "hwmon").iterdir())
    except OSError:
        return None
    return next((chip for chip in chips if text_of(chip / "name") == name), None)


def is_asleep(card: Card) -> bool:
    """Whether its driver has suspended it: to read its meters would wake it."""
    return text_of(card.path / "power" / "runtime_status") in {"suspended", "suspending"}


def count_of(file: Path) -> int | None:
    """The whole number in a file, None if it says something else or cannot be read."""
    try:
        return read_count(file)
    except OSError:
        return None


def text_of(file: Path) -> str:
    """What a sysfs file says, without its newline; empty if it cannot be read."""
    try:
        with file.open("rb", buffering=0) as stream:
            return (stream.read(MOST_BYTES) or b"").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _card(device: Path) -> Card | None:
    facts = parse_uevent(text_of(device / "uevent"))
    address = facts.get("PCI_SLOT_NAME", "").lower()
    if not ADDRESS.fullmatch(address) or (device / "physfn").exists():
        return None
    try:
        path = device.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
        return None
    identity = IDENTITY.fullmatch(facts.get("PCI_ID", ""))
    return Card(path, address, facts.get("DRIVER", ""), int(identity[2], 16) if identity else 0)
