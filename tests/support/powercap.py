"""Builds powercap trees as the kernel lays them out, in a directory that stands for /sys.

devices/virtual/powercap/intel-rapl/intel-rapl:0/intel-rapl:0:0/energy_uj
class/powercap/intel-rapl:0:0 -> ../../devices/virtual/powercap/intel-rapl/intel-rapl:0/intel-rapl:0:0
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["INTEL_RANGE_UJ", "PowercapTree", "replace_text"]

INTEL_RANGE_UJ = 262_143_328_850
"""max_energy_range_uj of most Intel processors: 2**32 steps of 2**-14 J."""


def replace_text(file: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never a part: write beside it, then rename."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text)
    if file.exists():
        beside.chmod(file.stat().st_mode)
    beside.replace(file)


@dataclass(frozen=True)
class PowercapTree:
    """A tree below `sysfs`. A zone goes by its directory: `intel-rapl:0`, `intel-rapl:0:1`, `intel-rapl-mmio:0`."""

    sysfs: Path

    def __post_init__(self) -> None:
        """Make the class directory, which exists even without zones."""
        self.links.mkdir(parents=True, exist_ok=True)

    @property
    def links(self) -> Path:
        """What programs look at."""
        return self.sysfs / "class" / "powercap"

    @property
    def hardware(self) -> Path:
        """What the links point to, and what container runtimes mask."""
        return self.sysfs / "devices" / "virtual" / "powercap"

    def add(
        self,
        zone: str,
        name: str,
        *,
        energy_uj: int = 0,
        range_uj: int = INTEL_RANGE_UJ,
        constraints: Mapping[str, int] | None = None,
    ) -> Path:
        """Make a zone; `constraints` are files such as `constraint_0_power_limit_uw`. Returns its real directory."""
        driver, *indices = zone.split(":")
        steps = [":".join([driver, *indices[: depth + 1]]) for depth in range(len(indices))]
        place = self.hardware.joinpath(driver, *steps)
        place.mkdir(parents=True)
        files = {
            "name": name,
            "energy_uj": energy_uj,
            "max_energy_range_uj": range_uj,
            "enabled": 1,
            **(constraints or {}),
        }
        for file, value in files.items():
            (place / file).write_text(f"{value}\n")
        for entry in (place.parent, place):
            link = self.links / entry.name
            if not link.is_symlink():
                link.symlink_to(os.path.relpath(entry, self.links))
        return place

    def add_socket(self, index: int, *, die: int | None = None, zone: str = "", dram: bool = True) -> str:
        """A package as a server has it, with core, uncore and dram inside. Returns its zone."""
        zone = zone or f"intel-rapl:{index}"
        self.add(
            zone,
            f"package-{index}" if die is None else f"package-{index}-die-{die}",
            constraints={
                "constraint_0_power_limit_uw": 205_000_000,
                "constraint_0_max_power_uw": 205_000_000,
                "constraint_1_power_limit_uw": 246_000_000,
                "constraint_1_max_power_uw": 0,
            },
        )
        self.add(f"{zone}:0", "core")
        self.add(f"{zone}:1", "uncore")
        if dram:
            self.add(f"{zone}:2", "dram", range_uj=65_712_999_613)
        return zone

    def add_amd_socket(self, index: int) -> str:
        """A package as AMD has it: no limits, no dram, one core zone."""
        zone = f"intel-rapl:{index}"
        self.add(zone, f"package-{index}", range_uj=65_532_610_987)
        self.add(f"{zone}:0", "core", range_uj=65_532_610_987)
        return zone

    def add_psys(self, zone: str = "intel-rapl:9") -> str:
        """The platform zone of laptops: everything in one number."""
        self.add(zone, "psys")
        return zone

    def add_mmio_mirror(self, index: int) -> str:
        """The same package once more, read through memory-mapped registers."""
        zone = f"intel-rapl-mmio:{index}"
        self.add(zone, f"package-{index}")
        return zone

    def directory(self, zone: str) -> Path:
        """The real directory of a zone."""
        return (self.links / zone).resolve(strict=True)

    def set_energy(self, zone: str, microjoules: int) -> None:
        """Move the counter of a zone."""
        replace_text(self.directory(zone) / "energy_uj", f"{microjoules}\n")

    def set_text(self, zone: str, file: str, text: str) -> None:
        """Write anything into a file of a zone."""
        replace_text(self.directory(zone) / file, text)

    def deny(self, zone: str) -> None:
        """Only the owner may read the counter, as Linux has it since 5.10."""
        (self.directory(zone) / "energy_uj").chmod(0o400)

    def remove(self, zone: str) -> None:
        """Take the zone away under the link, as a driver does that is unloaded."""
        shutil.rmtree(self.directory(zone))

    def mask(self) -> None:
        """Hide the hardware as container runtimes do: an empty directory, and links that lead nowhere."""
        shutil.rmtree(self.hardware)
        self.hardware.mkdir()
