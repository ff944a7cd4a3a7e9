"""Builds hwmon trees as the kernel lays them out, in a directory that stands for /sys.

devices/platform/amd_energy.0/hwmon/hwmon3/energy1_input
devices/platform/amd_energy.0/hwmon/hwmon3/device -> ../..
class/hwmon/hwmon3 -> ../../devices/platform/amd_energy.0/hwmon/hwmon3
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.powercap import replace_text

__all__ = ["HwmonTree"]


@dataclass(frozen=True)
class HwmonTree:
    """A tree below `sysfs`. A chip goes by its number: 3 for hwmon3."""

    sysfs: Path

    def __post_init__(self) -> None:
        """Make the class directory, which exists even without chips."""
        self.links.mkdir(parents=True, exist_ok=True)

    @property
    def links(self) -> Path:
        """What programs look at."""
        return self.sysfs / "class" / "hwmon"

    def add(self, number: int, name: str, device: str, files: Mapping[str, object], *, in_device: bool = False) -> Path:
        """Make a chip of the `device`, a path below /sys/devices; empty for none.

        Old drivers have name and files `in_device`. Returns the directory of the files.
        """
        parent = self.sysfs / "devices" / (device or "virtual")
        home = parent / "hwmon" / f"hwmon{number}"
        home.mkdir(parents=True)
        if device:
            (home / "device").symlink_to("../..")
        place = parent if in_device else home
        for file, value in {"name": name, **files}.items():
            (place / file).write_text(f"{value}\n")
        link = self.links / home.name
        link.symlink_to(os.path.relpath(home, self.links))
        return place

    def add_grace(
        self, number: int, label: str, watts: float = 100.0, *, in_device: bool = True, interval_ms: int = 50
    ) -> Path:
        """One of Grace's power meters, as ACPI has them."""
        files = {
            "power1_average": round(watts * 1e6),
            "power1_average_interval": interval_ms,
            "power1_accuracy": "100.0%",
            "power1_oem_info": label,
            "power1_is_battery": 0,
        }
        device = f"LNXSYSTM:00/LNXSYBUS:00/ACPI000D:{number:02}"
        return self.add(number, "power_meter", device, files, in_device=in_device)

    def add_amd_energy(self, number: int, sockets: int = 2, cores: int = 2) -> Path:
        """AMD's counters: cores first, then sockets."""
        labels = [f"Ecore{core:03}" for core in range(cores)] + [f"Esocket{socket}" for socket in range(sockets)]
        files: dict[str, object] = {}
        for index, label in enumerate(labels, 1):
            files[f"energy{index}_label"] = label
            files[f"energy{index}_input"] = index * 1000
        return self.add(number, "amd_energy", "platform/amd_energy.0", files)

    def place(self, number: int) -> Path:
        """Where the files of a chip are."""
        home = (self.links / f"hwmon{number}").resolve()
        return home if (home / "name").exists() else (home / "device").resolve()

    def set(self, number: int, file: str, text: object) -> None:
        """Write anything into a file."""
        replace_text(self.place(number) / file, f"{text}\n")

    def remove(self, number: int) -> None:
        """Take a chip away, as a driver does that is unloaded."""
        link = self.links / f"hwmon{number}"
        home = link.resolve()
        link.unlink()
        shutil.rmtree(home)

    def renumber(self, numbers: Mapping[int, int]) -> None:
        """Give chips other numbers, as drivers do that are loaded again in another order."""
        homes = {new: (self.links / f"hwmon{old}").resolve() for old, new in numbers.items()}
        for old in numbers:
            (self.links / f"hwmon{old}").unlink()
        for new, home in homes.items():
            moved = home.rename(home.with_name(f"hwmon{new}"))
            (self.links / moved.name).symlink_to(os.path.relpath(moved, self.links))
