"""The NVIDIA sensor on the fake NVML: ticks without threads, and scripts in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.fakenvml import FakeNvml, environment, load_in_process

from carbon_exporter.errors import SensorReadError
from carbon_exporter.sensors.base import Host, Occupancy, Reading, Sample, Vitals
from carbon_exporter.sensors.nvidia import Nvidia, probe

__all__ = ["Told", "fleet_on", "run_script", "tick"]

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Told:
    """What a tick gave, by device."""

    readings: dict[str, Reading]
    failures: dict[str, SensorReadError]
    vitals: dict[str, Vitals]
    occupancies: dict[str, Occupancy]


def fleet_on(fake: FakeNvml, host: Host | None = None) -> Nvidia:
    """The sensor in this process, with `fake` as its NVML."""
    load_in_process(fake)
    return probe(host or Host(), frozenset())


def tick(fleet: Nvidia) -> Told:
    """Read the boards and the fleet once, one after the other."""
    samples = [_read(sensor) for sensor in (*fleet.members, fleet)]
    return Told(
        {reading.device.name: reading for sample in samples for reading in sample.readings},
        {failure.device: failure for sample in samples for failure in sample.failures},
        {vitals.device: vitals for sample in samples for vitals in sample.vitals},
        {occupancy.device: occupancy for sample in samples for occupancy in sample.occupancies},
    )


def run_script(script: str, fake: FakeNvml | None, without: Sequence[str] = ()) -> Any:
    """What a Python script prints as JSON, in a new process with `fake` as its NVML, or without any library."""
    environ = dict(os.environ, PYTHONPATH=str(TESTS))
    if fake is not None:
        environ.update(environment(fake, without))
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _read(sensor: Any) -> Sample:
    try:
        sample = sensor.read()
    except SensorReadError as error:
        return Sample(failures=(error,))
    assert isinstance(sample, Sample)
    return sample
