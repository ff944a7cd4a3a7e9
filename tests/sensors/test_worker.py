"""Workers and their crew: a sensor or a board that hangs or raises costs its own freshness and nothing else."""

from __future__ import annotations

import logging
import os
import threading
import time

import pytest

from carbon_exporter.errors import SensorOutdated, SensorReadError
from carbon_exporter.sensors.base import Device, Quality, Reading, Sample, Sensor
from carbon_exporter.sensors.crew import Crew
from carbon_exporter.units import Joules


class Meter(Sensor):
    """A sensor that does what the test says."""

    name = ""
    devices: tuple[Device, ...] = ()
    members: tuple[Sensor, ...] = ()
    sampling_period: float | None = None

    def __init__(self, name: str, device: str = "") -> None:
        self.name = name
        self.devices = (Device(device or f"{name}0", "cpu", name),)
        self.free = threading.Event()
        self.free.set()
        self.error: Exception | None = None
        self.reads = 0
        self.threads: set[int] = set()
        self.closed = threading.Event()
        self.moments: list[float] = []

    def sample(self) -> None:
        self.moments.append(time.monotonic())

    def read(self) -> Sample:
        self.reads += 1
        self.threads.add(threading.get_ident())
        assert self.free.wait(20)
        if self.error is not None:
            raise self.error
        now = time.monotonic()
        return Sample(tuple(Reading(device, now, Quality.MEASURED, energy=Joules(1.0)) for device in self.devices))

    def close(self) -> None:
        self.closed.set()


def names(sample: Sample) -> list[str]:
    return [reading.device.name for reading in sample.readings]


def test_a_sensor_that_hangs_is_waited_for_once_and_delays_no_other() -> None:
    good, bad = Meter("good"), Meter("bad")
    crew = Crew([bad, good])
    assert names(crew.gather(2)) == ["bad0", "good0"]
    bad.free.clear()
    assert names(crew.gather(0.2)) == ["good0"]
    for _ in range(5):
        began = time.perf_counter()
        assert names(crew.gather(2)) == ["good0"]
        assert time.perf_counter() - began < 1
    assert crew.members[0].errors == {"deadline": 6}
    assert bad.reads == 2, "no second reading is begun beside one that hangs"
    assert good.reads == 7
    bad.free.set()
    time.sleep(0.2)
    assert names(crew.gather(2)) == ["bad0", "good0"], "the late answer"
    assert names(crew.gather(2)) == ["bad0", "good0"]
    assert crew.members[0].trouble is None
    assert len(bad.threads) == 1


def test_an_error_is_counted_logged_once_and_forgotten_when_readings_come_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("carbon_exporter"), "propagate", True)
    caplog.set_level(logging.INFO, logger="carbon_exporter")
    meter = Meter("meter")
    crew = Crew([meter], lambda: 1234.5)
    (worker,) = crew.members
    meter.error = SensorReadError("the bus is down", device="meter0")
    for _ in range(3):
        assert names(crew.gather(2)) == []
    assert worker.errors == {"read": 3}
    assert worker.last_sample is None
    assert str(worker.trouble) == "the bus is down"
    meter.error = None
    assert names(crew.gather(2)) == ["meter0"]
    assert worker.trouble is None
    assert worker.last_sample == 1234.5
    assert [record.message for record in caplog.records] == ["meter: the bus is down", "meter gives readings again"]


def test_what_a_driver_should_never_raise_is_an_error_like_any_other() -> None:
    meter = Meter("meter")
    crew = Crew([meter])
    (worker,) = crew.members
    meter.error = ZeroDivisionError("vendor code")
    assert names(crew.gather(2)) == []
    assert worker.trouble is not None
    assert "ZeroDivisionError: vendor code" in str(worker.trouble)
    meter.error = None
    assert names(crew.gather(2)) == ["meter0"]


def test_closing_ends_the_thread_and_closes_the_sensor() -> None:
    meter = Meter("meter")
    crew = Crew([meter])
    crew.gather(2)
    crew.close()
    assert meter.closed.wait(2)


def test_boards_have_threads_of_their_own_and_come_and_go() -> None:
    fleet, first, second = Meter("maker"), Meter("maker", "gpu0"), Meter("maker", "gpu1")
    fleet.devices = ()
    crew = Crew([fleet])
    fleet.members = (first, second)
    assert names(crew.gather(2)) == ["gpu0", "gpu1"]
    assert len({*first.threads, *second.threads, *fleet.threads}) == 3
    (member,) = crew.members
    assert [device.name for device in member.devices] == ["gpu0", "gpu1"]
    first.free.clear()
    assert "gpu1" in names(crew.gather(0.2))
    assert member.trouble is not None
    assert "maker gpu0 has not answered in time" in member.trouble.reason
    assert member.errors == {"deadline": 1}
    fleet.members = (second,)
    assert "gpu1" in names(crew.gather(2))
    assert member.trouble is None
    assert member.errors == {"deadline": 1}, "what went wrong stays counted"
    first.free.set()
    assert first.closed.wait(2)
    second.error = SensorOutdated("the driver is another", device="gpu1")
    crew.gather(2)
    assert member.outdated is second.error
    crew.close()


def test_of_two_sensors_that_call_a_device_the_same_the_first_is_heard() -> None:
    one, other = Meter("one", "gpu0"), Meter("other", "gpu0")
    crew = Crew([one, other])
    (reading,) = crew.gather(2).readings
    assert reading.device.sensor == "one"
    assert [device.sensor for device in crew.devices] == ["one"]
    crew.close()


def test_a_crew_that_is_formed_anew_keeps_who_was_in_it() -> None:
    old, stays, new = Meter("old"), Meter("stays"), Meter("new")
    crew = Crew([old, stays])
    crew.gather(2)
    crew.reform([stays, new])
    assert names(crew.gather(2)) == ["stays0", "new0"]
    assert old.closed.wait(2)
    assert len(stays.threads) == 1
    crew.close()


def test_a_meter_without_a_counter_is_sampled_between_readings_at_irregular_moments() -> None:
    meter = Meter("meter")
    meter.sampling_period = 0.02
    crew = Crew([meter])
    until = time.monotonic() + 10
    while len(meter.moments) < 40 and time.monotonic() < until:
        time.sleep(0.02)
    assert names(crew.gather(2)) == ["meter0"]
    crew.close()
    pauses = [after - before for before, after in zip(meter.moments, meter.moments[1:], strict=False)]
    assert len(pauses) >= 39
    assert min(pauses) >= 0.009
    assert max(pauses) - min(pauses) > 0.005, "jitter"


def test_a_forked_child_reads_on_threads_of_its_own() -> None:
    meter = Meter("meter")
    crew = Crew([meter])
    assert names(crew.gather(2)) == ["meter0"]
    child = os.fork()
    if child == 0:
        answered = names(crew.gather(5)) == ["meter0"]
        os._exit(0 if answered else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert names(crew.gather(2)) == ["meter0"]
    crew.close()


def test_each_reason_is_logged_once_until_readings_come_again_and_not_without_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("carbon_exporter"), "propagate", True)
    meter = Meter("meter")
    crew = Crew([meter])
    for reason in ("late", "refused", "late", "refused"):
        meter.error = SensorReadError(reason)
        crew.gather(2)
    assert [record.getMessage() for record in caplog.records] == ["meter: late", "meter: refused"]
    for number in range(100):
        meter.error = SensorReadError(f"{number} s")
        crew.gather(2)
    assert len(caplog.records) <= 5
    meter.error = None
    crew.gather(2)
    meter.error = SensorReadError("late")
    crew.gather(2)
    assert caplog.records[-1].getMessage() == "meter: late"
    crew.close()
