"""A recording that is played back gives the series of the live run: power, energy, vitals and whole-node meters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.machine import Clock

from carbon_exporter.carbon.grid import locate_grid
from carbon_exporter.carbon.static import StaticProvider
from carbon_exporter.config import Settings
from carbon_exporter.errors import SensorReadError
from carbon_exporter.sensors.base import Device, Host, Quality, Reading, Sample, Sensor, Vitals
from carbon_exporter.sensors.crew import Crew
from carbon_exporter.sensors.recorder import Recorder
from carbon_exporter.sensors.replay import Replay
from carbon_exporter.service.keeper import Keeper
from carbon_exporter.service.pipeline import Pipeline
from carbon_exporter.snapshot import Snapshot
from carbon_exporter.units import Joules, Watts

STEPS = (5.0, 5.0, 4.5, 5.5, 5.0, 5.0, 5.0)
FAILS_AT = 4
"""The reading at which the board is silent for once."""
BOARD = Device("gpu0", "gpu", "live", max_power=Watts(1400.0))
SAMPLED = Device("gpu1", "gpu", "live")
PLUG = Device("plug", "node", "live")


class Live(Sensor):
    """A board with a counter, one that is sampled, and a whole-node meter."""

    name = "live"
    devices: tuple[Device, ...] = (BOARD, SAMPLED, PLUG)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._joules = 1e6
        self._last = clock.now
        self._reads = 0

    def read(self) -> Sample:
        now, before = self._clock.now, self._last
        self._joules += (now - before) * (300 + 40 * self._reads)
        self._last, self._reads = now, self._reads + 1
        half, more = (now + before) / 2, 10.0 * self._reads
        means = [
            Reading(SAMPLED, end, Quality.INTEGRATED, power=Watts(watts), since=start, uncertainty=Watts(2.0))
            for start, end, watts in ((before, half, 100.0 + more), (half, now, 150.0 + more))
            if end > start
        ] or [Reading(SAMPLED, now, Quality.INTEGRATED)]
        plug = Reading(PLUG, now, Quality.INTEGRATED, power=Watts(900.0 + more), since=before if now > before else None)
        vitals = Vitals("gpu1", Watts(400.0), 0.1 * self._reads, 2**30 + self._reads, 50.0 + self._reads, -0.01)
        if self._reads == FAILS_AT:
            return Sample((*means, plug), (SensorReadError("lost", device="gpu0"),), (vitals,))
        counter = Reading(BOARD, now, Quality.MEASURED, energy=Joules(self._joules))
        return Sample((counter, *means, plug), vitals=(vitals,))


class RecordingCrew(Crew):
    """Writes what it gathers, as `sensors --record` does."""

    def __init__(self, sensors: Sequence[Sensor], clock: Clock, file: Path) -> None:
        super().__init__(sensors)
        self._clock, self._recorder, self._file = clock, Recorder(5.0), file.open("wb")
        self._file.write(self._recorder.header(self.devices))

    def gather(self, deadline: float) -> Sample:
        sample = super().gather(deadline)
        self._file.write(self._recorder.record(self._clock.now, self.devices, sample))
        self._file.flush()
        return sample

    def close(self) -> None:
        super().close()
        self._file.close()


def pipeline_of(host: Host, sensors: Sequence[Sensor]) -> Pipeline:
    grid = locate_grid("FR", StaticProvider("lifecycle"), 1.0, {})
    settings = replace(Settings(), remainder="plug")
    return Pipeline(settings, host=host, grid=grid, keeper=Keeper(None), sensors=sensors, findings=())


def series(snapshot: Snapshot) -> dict[tuple[str, ...], float | None]:
    """All that is published of devices and whole-node meters."""
    found: dict[tuple[str, ...], float | None] = {}
    for state in snapshot.devices:
        vitals = state.vitals or Vitals(state.device.name)
        told = (vitals.power_limit, vitals.utilization, vitals.memory_used, vitals.temperature, vitals.divergence)
        found.update({("vital", state.device.name, str(number)): value for number, value in enumerate(told)})
        found["power", state.device.name] = state.power
        found["gap", state.device.name] = state.gap_seconds
    found.update({("energy", key.device, key.kind): joules for key, joules in snapshot.device_totals.items()})
    for node in snapshot.nodes:
        found.update({("node power", node.source): node.power, ("node energy", node.source): node.joules})
    return found


def test_a_recording_gives_the_series_of_the_live_run_at_the_same_ticks(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "readings.jsonl"
    host = Host(sysfs=tmp_path / "sys", clock=clock)
    live = pipeline_of(host, ())
    live.crew = RecordingCrew([Live(clock)], clock, file)
    told = [series(live.tick())]
    for step in STEPS:
        clock.now += step
        told.append(series(live.tick()))
    live.close()
    clock.now += 1000
    replayed = pipeline_of(host, [Replay(file, clock)])
    for number, step in enumerate((0.0, *STEPS)):
        clock.now += step
        again = series(replayed.tick())
        assert again.keys() == told[number].keys()
        for key, value in told[number].items():
            assert again[key] == (None if value is None else pytest.approx(value, rel=1e-9, abs=1e-6)), (number, key)
    replayed.close()
    last = told[-1]
    energies = [last[key] for key in (("energy", "gpu0", "gpu"), ("energy", "gpu1", "gpu"), ("node energy", "plug"))]
    assert all(value is not None and math.isfinite(value) and value > 1000 for value in energies), "not all of nothing"
    assert ("energy", "other0", "other") in last
    assert last["vital", "gpu1", "1"] == pytest.approx(0.8)
