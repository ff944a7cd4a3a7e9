"""Redfish: which chassis is the machine on trees of several makers, and its energy from known traces."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import bmc
from support.bmc import PASSWORD, BmcServer, chassis, power, tree_of
from support.machine import Clock
from support.redfish import ONE, POWER, names, sensor_of, trouble, watts_after

from carbon_exporter.energy.ledger import Ledger
from carbon_exporter.errors import SensorUnavailable
from carbon_exporter.sensors.base import Bmc, Host, Quality, Sample
from carbon_exporter.sensors.redfish import Redfish, probe
from carbon_exporter.sensors.redfish_tree import Chassis, Source, choose


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    return file


@pytest.fixture
def server() -> Iterator[BmcServer]:
    with BmcServer(tree_of(*ONE)) as running:
        yield running


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        (bmc.idrac(), "/redfish/v1/Chassis/System.Embedded.1/Power"),
        (bmc.ilo(), "/redfish/v1/Chassis/1/Power/"),
        (bmc.supermicro(), "/redfish/v1/Chassis/1/Power"),
        (bmc.openbmc(), "/redfish/v1/Chassis/Tray_0/EnvironmentMetrics"),
    ],
    ids=["idrac", "ilo", "supermicro", "openbmc"],
)
def test_each_maker_s_tree_gives_one_machine(tree: dict[str, Any], path: str, password_file: Path) -> None:
    clock = Clock()
    with BmcServer(tree) as server:
        sensor = sensor_of(server, password_file, clock)
        assert watts_after(sensor, clock) == {"redfish": 400.0}
        (device,) = sensor.devices
        assert (device.kind, device.sensor, sensor.quality) == ("node", "redfish", Quality.INTEGRATED)
        assert path in device.method
        assert "tolerance" in device.bound
        server.requests.clear()
        clock.now += 5
        sensor.read()
        assert server.requests == [("GET", path)]


def test_a_first_reading_is_only_a_mark(server: BmcServer, password_file: Path) -> None:
    (reading,) = sensor_of(server, password_file).read().readings
    assert (reading.energy, reading.power, reading.quality) == (None, None, Quality.INTEGRATED)


def test_two_machines_are_called_by_their_chassis(password_file: Path) -> None:
    clock = Clock()
    with BmcServer(tree_of(chassis("1"), chassis("Expansion", "Expansion"), Expansion=power(90))) as server:
        sensor = sensor_of(server, password_file, clock)
        assert watts_after(sensor, clock) == {"redfish/1": 400.0, "redfish/Expansion": 90.0}


def test_a_chassis_within_another_is_not_counted_twice(password_file: Path) -> None:
    for outer, inner in [
        (chassis("box", holds=("board",)), chassis("board")),
        (chassis("box"), chassis("board", within="box")),
    ]:
        with BmcServer(tree_of(inner, outer, board=power(100))) as server:
            clock = Clock()
            assert watts_after(sensor_of(server, password_file, clock), clock) == {"redfish": 400.0}


def test_where_the_outer_tells_nothing_the_inner_one_counts(password_file: Path) -> None:
    clock = Clock()
    tree = tree_of(chassis("box", holds=("board",)), chassis("board"), board=power(100), box={"PowerControl": []})
    with BmcServer(tree) as server:
        assert watts_after(sensor_of(server, password_file, clock), clock) == {"redfish": 100.0}


def test_a_rack_is_no_machine_and_a_blade_pays_not_for_its_enclosure(password_file: Path) -> None:
    clock = Clock()
    listed = (chassis("Rack", "Rack", holds=("E",)), chassis("E", "Enclosure", holds=("B",)), chassis("B", "Blade"))
    with BmcServer(tree_of(*listed, Rack=power(9000), E=power(3000), B=power(250))) as server:
        assert watts_after(sensor_of(server, password_file, clock), clock) == {"redfish": 250.0}


@pytest.mark.parametrize("meter", ["Power", ""])
def test_of_several_sleds_none_is_guessed(password_file: Path, meter: str) -> None:
    sleds = tuple(chassis(f"s{number}", "Sled", meter=meter, within="E") for number in range(4))
    with BmcServer(tree_of(chassis("E", "Enclosure"), *sleds)) as server:
        sensor = sensor_of(server, password_file)
        assert "4 machines" in trouble(sensor).reason
        assert sensor.devices == ()


def test_chassis_that_contain_each_other_are_both_kept_rather_than_none() -> None:
    listed = [
        Chassis("/a", "a", contains=frozenset({"/b"}), sources=(Source("/a/Power", "Power"),)),
        Chassis("/b", "b", contains=frozenset({"/a"}), sources=(Source("/b/Power", "Power"),)),
    ]
    assert len(choose(listed, frozenset({"/a", "/b"}))) == 2


def test_the_newer_schema_comes_first_and_the_older_where_it_is_blank(password_file: Path) -> None:
    both = tree_of(chassis("1", meter="EnvironmentMetrics Power"))
    environment = "/redfish/v1/Chassis/1/EnvironmentMetrics"
    for reading, path in [(300.0, environment), (None, POWER), (0, POWER)]:
        both[environment], both[POWER] = {"PowerWatts": {"Reading": reading}}, power(300.0)
        with BmcServer(both) as server:
            clock = Clock()
            sensor = sensor_of(server, password_file, clock)
            assert watts_after(sensor, clock) == {"redfish": 300.0}
            assert path in sensor.devices[0].method


def test_a_collection_of_several_pages_is_seen_whole(password_file: Path) -> None:
    clock = Clock()
    tree = tree_of(chassis("x", "Component", meter=""), chassis("1"))
    tree["/redfish/v1/Chassis"] = {
        **bmc.collection("/redfish/v1/Chassis/x"),
        "Members@odata.nextLink": "/redfish/v1/c2",
    }
    tree["/redfish/v1/c2"] = bmc.collection("/redfish/v1/Chassis/1")
    with BmcServer(tree) as server:
        assert watts_after(sensor_of(server, password_file, clock), clock) == {"redfish": 400.0}


def test_a_machine_keeps_its_name_when_another_comes(server: BmcServer, password_file: Path) -> None:
    clock = Clock()
    sensor = sensor_of(server, password_file, clock)
    sensor.read()
    server.tree.update(tree_of(chassis("0"), chassis("1")))
    clock.now += 601
    sensor.read()
    assert names(sensor) == ["redfish/0", "redfish"]


def test_a_machine_that_fails_for_a_while_is_not_replaced_by_what_it_contains(password_file: Path) -> None:
    clock = Clock()
    with BmcServer(tree_of(chassis("1", holds=("board",)), chassis("board"), board=power(100))) as server:
        sensor = sensor_of(server, password_file, clock)
        sensor.read()
        server.watts = lambda: None
        for _ in range(20):
            clock.now += 40
            assert trouble(sensor).device == "redfish"
        assert names(sensor) == ["redfish"]


def test_the_tree_is_looked_at_rarely(server: BmcServer, password_file: Path) -> None:
    clock = Clock()
    sensor = sensor_of(server, password_file, clock)
    for _ in range(360):
        clock.now += 5
        sensor.read()
    assert server.count("GET", "/redfish/v1/Chassis") == 3
    assert server.logins == 1


def test_an_interval_of_a_tenth_of_a_second_does_not_load_the_controller(
    server: BmcServer, password_file: Path
) -> None:
    clock = Clock()
    sensor = sensor_of(server, password_file, clock)
    for _ in range(600):
        clock.now += 0.1
        sensor.read()
    assert server.count("GET", POWER) <= 17


def worker_like(sensor: Redfish, clock: Clock, seconds: float, interval: float) -> Iterator[Sample]:
    """Reads and samples as the worker does: a reading each interval, jittered samples between."""
    moments = random.Random(7)  # noqa: S311 - a test's own dice
    until, due = clock.now + seconds, clock.now
    while clock.now < until:
        yield sensor.read()
        due += interval
        while clock.now + (pause := 5 * moments.uniform(0.5, 1.5)) < due:
            clock.now += pause
            sensor.sample()
        clock.now = due


@pytest.mark.parametrize("interval", [1.0, 5.0, 60.0])
@pytest.mark.parametrize(
    "trace",
    [lambda _: 700.0, lambda t: 400 + 300 * math.sin(t / 60), lambda t: 900.0 if t % 97 < 41 else 250.0],
    ids=["constant", "waves", "steps"],
)
def test_a_known_trace_is_counted_within_three_per_cent(
    trace: Callable[[float], float], interval: float, password_file: Path
) -> None:
    clock, ledger, joules, missed = Clock(), Ledger(), 0.0, 0.0
    with BmcServer(tree_of(*ONE), watts=lambda: trace(clock.now)) as server:
        sensor = sensor_of(server, password_file, clock)
        start = end = clock.now
        for sample in worker_like(sensor, clock, 1800, interval):
            joules += sum(one.joules for one in ledger.post(sample.readings))
            end = max([end, *(one.at for one in sample.readings)])
            missed += sum((one.uncertainty * (one.at - (one.since or 0))) ** 2 for one in sample.readings if one.power)
    truth = sum(trace(start + moment / 100) for moment in range(int((end - start) * 100))) / 100
    assert joules == pytest.approx(truth, rel=0.03)
    assert abs(joules - truth) <= math.sqrt(missed) + 1e-3 * truth
    assert ledger.gap_seconds["redfish"] == pytest.approx(0)


@pytest.mark.parametrize(
    "value", [0, None, 65535, -1, -0.0, 1e300, 10**400, "250", "N/A", True, [250], {"Reading": 250}, math.nan, math.inf]
)
def test_what_cannot_be_a_power_is_a_failure_and_a_gap(server: BmcServer, password_file: Path, value: object) -> None:
    clock, ledger = Clock(), Ledger()
    sensor = sensor_of(server, password_file, clock)
    ledger.post(sensor.read().readings)
    server.watts = lambda: value
    for _ in range(8):
        clock.now += 5
        error = trouble(sensor)
        assert (error.device, "power" in error.reason) == ("redfish", True)
        assert "restart the controller" in error.remedy
    server.watts = lambda: 400.0
    clock.now += 5
    assert ledger.post(sensor.read().readings) == []
    clock.now += 5
    (after,) = ledger.post(sensor.read().readings)
    assert (after.joules, ledger.gap_seconds["redfish"]) == (2000.0, 45.0)


def test_what_was_counted_before_a_failure_is_not_lost(server: BmcServer, password_file: Path) -> None:
    clock = Clock()
    sensor = sensor_of(server, password_file, clock)
    sensor.read()
    clock.now += 3
    sensor.sample()
    server.watts = lambda: None
    clock.now += 5
    sample = sensor.read()
    assert [(one.power, one.since, one.at) for one in sample.readings] == [(400.0, 100.0, 103.0)]
    assert len(sample.failures) == 1


@pytest.mark.parametrize(
    "url",
    ["", "https://user:pass@bmc", "http://bmc.example", "https://bmc/redfish", "https://bmc:99999", "bmc", "https://"],
)
def test_a_url_that_cannot_be_is_no_controller(url: str) -> None:
    with pytest.raises(SensorUnavailable) as caught:
        probe(Host(bmc=Bmc(url)), frozenset())
    assert "pass" not in caught.value.reason


def test_without_a_controller_in_the_settings_there_is_no_sensor() -> None:
    with pytest.raises(SensorUnavailable, match=r"redfish\.url"):
        probe(Host(), frozenset())
