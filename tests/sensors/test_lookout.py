"""The lookout: what comes after the start is found, and a driver that hangs when asked stops nobody."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.machine import Machine
from support.powercap import PowercapTree

from carbon_exporter.sensors.base import Sensor
from carbon_exporter.sensors.lookout import LOOK_PERIOD_SECONDS, Found, Lookout
from carbon_exporter.sensors.registry import SENSORS, Entry, discover


def poll_until_found(lookout: Lookout, sensors: tuple[Sensor, ...]) -> Found:
    """What the search finds that is under way."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        found = lookout.poll(sensors)
        if found is not None:
            return found
        time.sleep(0.01)
    raise AssertionError("no search ended")


def test_a_driver_that_is_loaded_later_takes_over_from_the_estimate(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m")
    sensors, _ = discover(machine.host)
    assert [sensor.name for sensor in sensors] == ["model"]
    lookout = Lookout(machine.host)
    assert lookout.poll(sensors) is None
    PowercapTree(machine.host.sysfs).add_socket(0)
    machine.clock.now += LOOK_PERIOD_SECONDS / 2
    assert lookout.poll(sensors) is None
    assert lookout.poll(sensors) is None, "not due"
    machine.clock.now += LOOK_PERIOD_SECONDS
    found, findings = poll_until_found(lookout, sensors)
    assert [sensor.name for sensor in found] == ["rapl"]
    assert {finding.sensor: finding.state for finding in findings}["model"] == "covered"


def test_sensors_that_work_are_not_probed_again_and_an_estimate_of_the_same_stays(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m")
    PowercapTree(machine.host.sysfs).add_amd_socket(0)
    sensors, _ = discover(machine.host)
    assert [sensor.name for sensor in sensors] == ["rapl", "model"]
    again, _ = discover(machine.host, SENSORS, {sensor.name: sensor for sensor in sensors})
    assert again == sensors
    assert all(one is other for one, other in zip(again, sensors, strict=True))


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """A sensor's file whose probe hangs until it is let go."""
    (tmp_path / "hanging_sensor.py").write_text(
        "import threading\n"
        "free = threading.Event()\n"
        "def probe(host, covered):\n"
        "    free.wait(20)\n"
        "    raise OSError('at last')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import hanging_sensor  # type: ignore[import-not-found]  # noqa: PLC0415

    yield hanging_sensor.free.set
    hanging_sensor.free.set()
    del sys.modules["hanging_sensor"]


def test_a_search_that_hangs_is_not_waited_for_and_not_begun_twice(tmp_path: Path, hanging: Callable[[], None]) -> None:
    machine = Machine(tmp_path / "m")
    lookout = Lookout(machine.host, [Entry("hanging", "hanging_sensor"), *SENSORS])
    for _ in range(5):
        machine.clock.now += LOOK_PERIOD_SECONDS
        assert lookout.poll(()) is None
    assert sum(thread.name == "sensor-lookout" for thread in threading.enumerate()) == 1
    hanging()
    _, findings = poll_until_found(lookout, ())
    assert findings[0].state == "failed"
    assert "at last" in findings[0].reason
