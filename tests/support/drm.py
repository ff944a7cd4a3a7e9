"""Graphics cards on a sysfs tree as the kernel lays it out, in a directory that stands for /sys.

devices/pci0000:00/0000:03:00.0/{uevent,hwmon/hwmon4/…,drm/card0/device -> ../..}
class/drm/card0 -> ../../devices/pci0000:00/0000:03:00.0/drm/card0
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.powercap import replace_text

__all__ = ["AMD_FILES", "XE_FILES", "DrmTree"]

AMD_FILES = {
    "power1_average": 100_000_000,
    "power1_cap": 300_000_000,
    "power1_cap_max": 330_000_000,
    "temp1_input": 41_000,
    "temp2_input": 52_000,
}
XE_FILES = {
    "energy1_input": 1_000_000,
    "energy1_label": "card",
    "energy2_input": 700_000,
    "energy2_label": "pkg",
    "power1_max": 190_000_000,
    "power1_rated_max": 200_000_000,
    "power2_max": 0,
    "temp2_input": 48_000,
}


@dataclass
class DrmTree:
    """A tree below `sysfs`. A card goes by its PCI address."""

    sysfs: Path
    cards: int = 0
    chips: int = 2

    def __post_init__(self) -> None:
        """Make the class directory, with what is in it beside cards."""
        self.links.mkdir(parents=True, exist_ok=True)
        (self.links / "version").write_text("drm 1.1.0 20060810\n")

    @property
    def links(self) -> Path:
        """What programs look at."""
        return self.sysfs / "class" / "drm"

    def device(self, address: str) -> Path:
        """The directory of a PCI device."""
        return self.sysfs / "devices" / "pci0000:00" / address

    def add(
        self,
        address: str,
        driver: str,
        files: Mapping[str, object],
        *,
        device_id: int = 0x74A1,
        chip_name: str = "",
        vendor: int = 0x1002,
    ) -> Path:
        """Load a card's driver: `files` are in its hwmon directory, which is returned. Numbers are always new."""
        device = self.device(address)
        card = device / "drm" / f"card{self.cards}"
        card.mkdir(parents=True)
        (device / "uevent").write_text(
            f"DRIVER={driver}\nPCI_CLASS=38000\nPCI_ID={vendor:04X}:{device_id:04X}\nPCI_SLOT_NAME={address}\n"
        )
        (card / "device").symlink_to("../..")
        for name in (card.name, f"{card.name}-DP-1"):
            (self.links / name).symlink_to(os.path.relpath(card, self.links))
        self.cards += 1
        return self.add_chip(address, chip_name or driver, files)

    def add_chip(self, address: str, name: str, files: Mapping[str, object]) -> Path:
        """One more hwmon directory of a card."""
        chip = self.device(address) / "hwmon" / f"hwmon{self.chips}"
        self.chips += 1
        chip.mkdir(parents=True)
        for file, value in {"name": name, **files}.items():
            (chip / file).write_text(f"{value}\n")
        return chip

    def chip(self, address: str) -> Path:
        """A card's first hwmon directory now."""
        return min((self.device(address) / "hwmon").iterdir())

    def set(self, address: str, file: str, value: object) -> None:
        """Write a file of the card's first hwmon directory."""
        replace_text(self.chip(address) / file, f"{value}\n")

    def remove(self, address: str) -> None:
        """Unload the card's driver: the card and its files are gone."""
        device = self.device(address)
        for link in tuple(self.links.iterdir()):
            if link.is_symlink() and link.resolve().parent.parent == device.resolve():
                link.unlink()
        for link in tuple(self.links.iterdir()):
            if link.is_symlink() and not link.exists():
                link.unlink()
        shutil.rmtree(device)
