"""A recording of many devices, so that one exporter has as many series as a question asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from carbon_exporter.sensors.base import Device, Quality, Reading, Sample
from carbon_exporter.sensors.replay import write_recording
from carbon_exporter.units import Joules

__all__ = ["SERIES_BY_DEVICE", "record_fleet"]

SERIES_BY_DEVICE = 9
"""A device that no job holds: power, energy, info and gap; its idle's power, energy and grams; `_unattributed_`'s
energy and grams. What there really is is counted on the page."""
_STEP_SECONDS = 2.5
"""Half the default interval, so that every tick finds news of every device."""


def record_fleet(path: Path, devices: int, seconds: float) -> None:
    """Write a recording in which every device's counter moves at every step."""
    fleet = [
        Device(f"gpu{number}", "gpu", "replay", "NVIDIA", "NVIDIA H100 80GB HBM3", f"GPU-{number:08x}-0000-0000")
        for number in range(devices)
    ]
    write_recording(path, fleet, _samples(fleet, seconds))


def _samples(fleet: list[Device], seconds: float) -> Iterator[Sample]:
    for step in range(int(seconds / _STEP_SECONDS) + 1):
        at = step * _STEP_SECONDS
        counters = (Joules(at * (60.0 + number * 0.37)) for number in range(len(fleet)))
        yield Sample(
            tuple(
                Reading(device, at, Quality.MEASURED, energy=energy)
                for device, energy in zip(fleet, counters, strict=True)
            )
        )
