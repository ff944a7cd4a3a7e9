"""hwmon meters on known traces: what a ledger counts of them against the truth, with a clock that the test moves."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from support.hwmon import HwmonTree
from support.traces import Trace, burst, constant, square

from carbon_exporter.energy.ledger import Ledger
from carbon_exporter.sensors.base import Host, Kind, Sensor
from carbon_exporter.sensors.hwmon import probe

NOTHING: frozenset[Kind] = frozenset()


class Clock:
    """Monotonic seconds that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tree(tmp_path: Path) -> HwmonTree:
    return HwmonTree(tmp_path / "sys")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def host_of(tree: HwmonTree, clock: Clock) -> Host:
    return Host(procfs=tree.sysfs.parent, sysfs=tree.sysfs, clock=clock)


def drive(sensor: Sensor, clock: Clock, move: Callable[[float], None], seconds: float, interval: float = 5.0) -> float:
    """Joules that a ledger counts of the sensor's first device while it is read and sampled as its worker does."""
    ledger, counted, rng = Ledger(), 0.0, random.Random(7)  # noqa: S311 - moments, not secrets
    name, end, ticks = sensor.devices[0].name, clock.now + seconds, 0
    begun = clock.now
    while True:
        move(clock.now)
        if clock.now >= begun + ticks * interval:
            ticks += 1
            counted += sum(part.joules for part in ledger.post(sensor.read().readings) if part.device.name == name)
            if clock.now >= end:
                return counted
        else:
            sensor.sample()
        pause = (sensor.sampling_period or interval) * rng.uniform(0.5, 1.5)
        clock.now = min(clock.now + pause, begun + ticks * interval)


TRACES = [constant(250.0), square(80.0, 400.0, 0.7), burst(90.0, 450.0, 0.3, 2.0)]


@pytest.mark.parametrize("trace", TRACES)
def test_a_counter_is_counted_within_half_a_percent(tree: HwmonTree, clock: Clock, trace: Trace) -> None:
    tree.add_amd_energy(0, sockets=1, cores=0)

    def move(at: float) -> None:
        seen = at - at % 0.1  # a counter that moves every 100 ms
        tree.set(0, "energy1_input", round(trace.joules(0.0, seen) * 1e6))

    sensor = probe(host_of(tree, clock), NOTHING)
    truth = trace.joules(clock.now, clock.now + 60)
    assert drive(sensor, clock, move, 60) == pytest.approx(truth, rel=0.005)


@pytest.mark.parametrize("trace", TRACES)
def test_grace_is_integrated_within_three_percent(tree: HwmonTree, clock: Clock, trace: Trace) -> None:
    tree.add_grace(0, "Grace Power Socket 0")
    sensor = probe(host_of(tree, clock), NOTHING)
    place = tree.place(0)

    def move(at: float) -> None:
        (place / "power1_average").write_text(f"{round(trace.mean(at, 0.05) * 1e6)}\n")

    truth = trace.joules(clock.now, clock.now + 60)
    assert drive(sensor, clock, move, 60) == pytest.approx(truth, rel=0.03)


@pytest.mark.parametrize("trace", TRACES)
def test_voltage_times_current_is_integrated_within_three_percent(tree: HwmonTree, clock: Clock, trace: Trace) -> None:
    tree.add(0, "ina3221", "i2c/1-0040", {"in1_input": 12_000, "curr1_input": 1, "update_interval": 50})
    sensor = probe(host_of(tree, clock), NOTHING)
    place = tree.place(0)

    def move(at: float) -> None:
        (place / "curr1_input").write_text(f"{round(trace.mean(at, 0.05) / 12 * 1000)}\n")

    truth = trace.joules(clock.now, clock.now + 60)
    assert drive(sensor, clock, move, 60) == pytest.approx(truth, rel=0.03)
