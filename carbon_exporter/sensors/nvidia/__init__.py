"""NVIDIA's boards, through the driver's library NVML and its energy counters."""

from __future__ import annotations

from pathlib import Path

from carbon_exporter.errors import SensorError, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Host, Kind
from carbon_exporter.sensors.nvidia.fleet import MISMATCH_REMEDY, Nvidia
from carbon_exporter.sensors.nvidia.nvml import Code, Library, NvmlError

__all__ = ["LIBRARY_REMEDY", "MODULE_REMEDY", "Nvidia", "probe"]

PATIENCE_SECONDS = 3.0
"""How long the search for sensors waits for NVML to begin; a driver that hangs is waited for by the fleet itself."""
LIBRARY_REMEDY = (
    "NVIDIA hardware is here: install the driver's libraries (libnvidia-ml.so.1); in a container use the NVIDIA "
    "runtime with NVIDIA_VISIBLE_DEVICES=all and NVIDIA_DRIVER_CAPABILITIES=utility"
)
MODULE_REMEDY = "load NVIDIA's kernel module: sudo modprobe nvidia"

_VENDOR = "0x10de"
_DISPLAY = "0x03"


def probe(host: Host, covered: frozenset[Kind]) -> Nvidia:  # noqa: ARG001 - nobody else has these boards
    """The boards of this machine.

    Raises `SensorUnavailable` if there is no library or no board, `SensorReadError` if the driver fails.
    """
    try:
        library = Library()
    except SensorUnavailable as error:
        raise SensorUnavailable(error.reason, remedy=error.remedy or _remedy(host, LIBRARY_REMEDY)) from error
    worked = Library.worked
    fleet = Nvidia(host, library)
    try:
        fleet.begin(PATIENCE_SECONDS)
    except NvmlError as error:
        if error.code == Code.VERSION_MISMATCH and worked:
            return fleet  # whose first reading says that the process is outdated
        raise _explained(error, host) from error
    return fleet


def _explained(error: NvmlError, host: Host) -> SensorError:
    """Why NVML does not begin, with what mends it."""
    if error.code == Code.VERSION_MISMATCH:
        return SensorReadError(error.reason, remedy=MISMATCH_REMEDY)
    if error.code in (Code.DRIVER_NOT_LOADED, Code.LIBRARY_NOT_FOUND):
        remedy = _remedy(host, MODULE_REMEDY)
        return SensorReadError(error.reason, remedy=remedy) if remedy else SensorUnavailable(error.reason)
    return error


def _remedy(host: Host, remedy: str) -> str:
    """The remedy, if NVIDIA's hardware is here."""
    if (host.procfs / "driver" / "nvidia").is_dir():
        return remedy
    devices = (host.sysfs / "bus" / "pci" / "devices").glob("*/vendor")
    boards = (vendor.with_name("class") for vendor in devices if _text(vendor) == _VENDOR)
    return remedy if any(_text(kind).startswith(_DISPLAY) for kind in boards) else ""


def _text(file: Path) -> str:
    try:
        return file.read_text("ascii", "replace").strip()
    except OSError:
        return ""
