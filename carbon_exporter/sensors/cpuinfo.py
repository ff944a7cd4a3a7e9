"""What /proc/cpuinfo says of the processors: the socket of each CPU, their model, and whether they are virtual.

Layouts differ by architecture: ARM has neither `model name` nor `physical id`; whatever is not said is left empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from carbon_exporter.sensors.base import Host

__all__ = ["CpuInfo", "parse_cpuinfo", "read_cpuinfo"]

VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "HygonGenuine": "Hygon", "CentaurHauls": "VIA"}
"""CPUID vendor strings (arch/x86/kernel/cpu/*.c) and the names people use."""


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """The processors of one machine, as far as the kernel tells."""

    socket_of: Mapping[int, int] = field(default_factory=dict)
    """CPU number to physical package number; a CPU without `physical id` is in package 0."""
    vendor: str = ""
    model: str = ""
    """`model name` as the kernel prints it, empty on most ARM machines."""
    virtual: bool = False
    """The `hypervisor` flag of CPUID: this is a virtual machine."""


def parse_cpuinfo(text: str) -> CpuInfo:
    """Read the text of /proc/cpuinfo. Never raises: what cannot be understood is as if it were not there."""
    socket_of: dict[int, int] = {}
    facts: dict[str, str] = {}
    for block in text.split("\n\n"):
        entry = dict(_key_and_value(line) for line in block.splitlines())
        number = _number(entry.get("processor", ""))
        if number is not None:
            socket_of[number] = _number(entry.get("physical id", "")) or 0
        facts = {**entry, **facts}
    vendor_id = facts.get("vendor_id", "")
    return CpuInfo(
        socket_of=socket_of,
        vendor=VENDORS.get(vendor_id, vendor_id),
        model=" ".join(facts.get("model name", "").split()),
        virtual="hypervisor" in facts.get("flags", "").split(),
    )


def read_cpuinfo(host: Host) -> CpuInfo:
    """Read the host's cpuinfo; a missing or unreadable one says nothing, which is no error: only names are lost."""
    try:
        return parse_cpuinfo(Path(host.procfs, "cpuinfo").read_text("utf-8", "replace"))
    except OSError:
        return CpuInfo()


def _key_and_value(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None  # noqa: PLR2004
