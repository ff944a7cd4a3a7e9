"""Workers: a sensor that hangs or raises costs its own freshness and nothing else."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from carbon_exporter.errors import SensorReadError
from carbon_exporter.sensors.base import Device, Quality, Reading, Sample
from carbon_exporter.sensors.worker import SensorWorker, gather
from carbon_exporter.units import Joules


class Meter:
    """A sensor that does what the test says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.devices = (Device(f"{name}0", "cpu", name),)
        self.free = threading.Event()
        self.free.set()
        self.error: Exception | None = None
        self.reads = 0
        self.threads: set[int] = set()
        self.closed = threading.Event()

    def read(self) -> Sample:
        self.reads += 1
        self.threads.add(threading.get_ident())
        assert self.free.wait(20)
        if self.error is not None:
            raise self.error
        return Sample((Reading(self.devices[0], time.monotonic(), Quality.MEASURED, energy=Joules(1.0)),))

    def close(self) -> None:
        self.closed.set()


def names(readings: list[Reading]) -> list[str]:
    return [reading.device.name for reading in readings]


def test_a_sensor_that_hangs_is_waited_for_once_and_delays_no_other() -> None:
    good, bad = Meter("good"), Meter("bad")
    workers = [SensorWorker(bad), SensorWorker(good)]
    assert names(gather(workers, 2)) == ["bad0", "good0"]
    bad.free.clear()
    assert names(gather(workers, 0.2)) == ["good0"]
    for _ in range(5):
        began = time.perf_counter()
        assert names(gather(workers, 2)) == ["good0"]
        assert time.perf_counter() - began < 1
    assert workers[0].errors == {"deadline": 6}
    assert bad.reads == 2, "no second reading is begun beside one that hangs"
    assert good.reads == 7
    bad.free.set()
    time.sleep(0.2)
    assert names(gather(workers, 2)) == ["bad0", "good0"], "the late answer"
    assert names(gather(workers, 2)) == ["bad0", "good0"]
    assert workers[0].trouble is None
    assert len(bad.threads) == 1


def test_an_error_is_counted_logged_once_and_forgotten_when_readings_come_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("carbon_exporter"), "propagate", True)
    caplog.set_level(logging.INFO, logger="carbon_exporter")
    meter = Meter("meter")
    worker = SensorWorker(meter, wall=lambda: 1234.5)
    meter.error = SensorReadError("the bus is down", device="meter0")
    for _ in range(3):
        assert gather([worker], 2) == []
    assert worker.errors == {"read": 3}
    assert worker.last_sample is None
    assert str(worker.trouble) == "the bus is down"
    meter.error = None
    assert names(gather([worker], 2)) == ["meter0"]
    assert worker.trouble is None
    assert worker.last_sample == 1234.5
    assert [record.message for record in caplog.records] == ["meter: the bus is down", "meter gives readings again"]


def test_what_a_driver_should_never_raise_is_an_error_like_any_other() -> None:
    meter = Meter("meter")
    worker = SensorWorker(meter)
    meter.error = ZeroDivisionError("vendor code")
    assert gather([worker], 2) == []
    assert worker.trouble is not None
    assert "ZeroDivisionError: vendor code" in str(worker.trouble)
    meter.error = None
    assert names(gather([worker], 2)) == ["meter0"]


def test_closing_ends_the_thread_and_closes_the_sensor() -> None:
    meter = Meter("meter")
    worker = SensorWorker(meter)
    gather([worker], 2)
    worker.close()
    assert meter.closed.wait(2)
