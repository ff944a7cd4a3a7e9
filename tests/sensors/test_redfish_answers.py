"""Redfish: every answer that is none, each a clear state and never a power."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import bmc
from support.bmc import PASSWORD, USER, BmcServer, chassis, power, tree_of
from support.machine import Clock
from support.redfish import ONE, POWER, sensor_of, status, trouble, watts_after

from carbon_exporter.errors import SensorReadError
from carbon_exporter.sensors.base import Bmc, Host
from carbon_exporter.sensors.redfish import probe
from carbon_exporter.sensors.redfish_client import parse_object, resource_path
from carbon_exporter.sensors.redfish_tree import Source, choose, members, next_page, parse_chassis, watts_of


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    return file


@pytest.fixture
def server() -> Iterator[BmcServer]:
    with BmcServer(tree_of(*ONE)) as running:
        yield running


def html(handler: Any) -> None:
    handler.send(200, b"<!DOCTYPE html><html><body>Login</body></html>", {"Content-Type": "text/html"})


def raw(body: bytes) -> bmc.Answer:
    return lambda handler: handler.send(200, body)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (html, "a web page"),
        (raw(b'{"PowerControl": [{"Power'), "not JSON, or half of it"),
        (raw(b""), "not JSON"),
        (raw(b"\xff\xfe\x00"), "not JSON"),
        (raw(b"[" * 200_000), "not JSON"),
        (raw(b"[400]"), "not JSON"),
        (raw(b'{"a":' * 100_000), "not JSON"),
        (raw(b'{"PowerControl": {}}'), "no power"),
        (raw(b'{"PowerControl": [7, {"Name": 3}, {}]}'), "no power"),
        (raw(b"{}" + b" " * (1 << 20)), "more than 1 MiB"),
        (lambda handler: handler.break_off(b'{"PowerControl": ['), "breaks off"),
        (status(403), "forbids it"),
        (status(404), "no such resource"),
        (status(500), "HTTP 500"),
        (status(503), "busy or starting"),
        (status(418), "HTTP 418"),
        (lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n"), "does not speak HTTP"),
        (status(302, Location="https://elsewhere.example/redfish"), "redirects elsewhere"),
        (status(302, Location="//elsewhere.example/redfish"), "redirects elsewhere"),
        (status(302, Location="https://[bad"), "redirects elsewhere"),
        (status(307, Location=POWER), "redirects elsewhere, or in a circle"),
    ],
)
def test_an_answer_that_is_none_is_named_and_passes(
    server: BmcServer, password_file: Path, answer: bmc.Answer, says: str
) -> None:
    clock = Clock()
    sensor = sensor_of(server, password_file, clock)
    sensor.read()
    server.answers[POWER] = answer
    clock.now += 5
    error = trouble(sensor)
    assert (error.device, says in error.reason) == ("redfish", True), error
    server.answers.clear()
    clock.now += 5
    assert sensor.read().failures == ()


def test_a_redirect_within_the_controller_is_followed(server: BmcServer, password_file: Path) -> None:
    clock = Clock()
    server.answers[POWER] = status(308, Location=f"{server.url}/redfish/v1/elsewhere")
    server.tree["/redfish/v1/elsewhere"] = power()
    assert watts_after(sensor_of(server, password_file, clock), clock) == {"redfish": 400.0}


def test_a_busy_controller_is_left_alone_as_long_as_it_asks_for(server: BmcServer, password_file: Path) -> None:
    clock = Clock()
    sensor = sensor_of(server, password_file, clock)
    sensor.read()
    server.answers[POWER] = status(503, **{"Retry-After": "12"})
    server.requests.clear()
    for _ in range(3):
        clock.now += 5
        assert "busy" in trouble(sensor).reason
    assert len(server.requests) == 1
    server.answers.clear()
    clock.now += 5
    assert sensor.read().failures == ()


def test_a_body_that_comes_in_drips_ends_after_ten_seconds(
    server: BmcServer, password_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carbon_exporter.sensors.redfish_client.ANSWER_SECONDS", 0.5)
    clock = Clock()
    sensor = sensor_of(server, password_file, clock)
    sensor.read()
    server.answers[POWER] = lambda handler: handler.drip(20)
    clock.now += 5
    assert "takes longer than" in trouble(sensor).reason


def _wait(over: threading.Event) -> None:
    over.wait(20)


def test_silence_ends_after_the_time_out(
    server: BmcServer, password_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carbon_exporter.sensors.redfish_client.READ_SECONDS", 0.3)
    clock, over = Clock(), threading.Event()
    sensor = sensor_of(server, password_file, clock)
    sensor.read()
    server.answers[POWER] = lambda _: _wait(over)
    clock.now += 5
    assert "does not answer in time" in trouble(sensor).reason
    over.set()


def test_a_controller_that_is_not_there_does_not_hold_up_the_start(password_file: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        sensor = probe(
            Host(clock=Clock(), bmc=Bmc(f"http://127.0.0.1:{held.getsockname()[1]}", USER, password_file)), frozenset()
        )
        assert sensor.devices == ()
        assert "Connection refused" in trouble(sensor).reason


def test_a_name_that_is_not_known_is_said(password_file: Path) -> None:
    how = Bmc("https://bmc.invalid", USER, password_file)
    error = trouble(probe(Host(clock=Clock(), bmc=how), frozenset()))
    assert "bmc.invalid cannot be resolved" in error.reason
    assert "redfish.url" in error.remedy


def test_a_connection_closed_while_idle_is_opened_again(server: BmcServer, password_file: Path) -> None:
    clock = Clock()
    sensor = sensor_of(server, password_file, clock)

    def last(handler: Any) -> None:
        handler.close_connection = True
        handler.send(200, power(400))

    sensor.read()
    server.answers[POWER] = last
    for _ in range(3):
        clock.now += 5
        assert sensor.read().failures == ()
    assert server.logins == 1


def test_a_question_that_was_lost_is_asked_once_more_and_not_for_ever(server: BmcServer, password_file: Path) -> None:
    clock = Clock()
    sensor = sensor_of(server, password_file, clock)
    sensor.read()

    lost: list[str] = []

    def lose_the_first(handler: Any) -> None:
        if lost:
            handler.send(200, power(400))
        else:
            lost.append(handler.path)
            handler.close_connection = True

    server.answers[POWER] = lose_the_first
    for _ in range(3):
        lost.clear()
        clock.now += 5
        assert sensor.read().failures == ()
        assert lost == [POWER]
    server.answers[POWER] = lambda handler: setattr(handler, "close_connection", True)
    server.requests.clear()
    clock.now += 5
    assert "middle of an answer" in trouble(sensor).reason
    assert len(server.requests) == 2


def test_a_controller_without_power_says_what_it_may_need(password_file: Path) -> None:
    trees: list[dict[str, Any]] = [tree_of(chassis("1", meter="")), tree_of(), {"/redfish/v1": {}}]
    for tree in trees:
        with BmcServer(tree) as server:
            error = trouble(sensor_of(server, password_file))
            assert "no chassis' power" in error.reason
            assert "licence" in error.remedy


def test_a_broken_chassis_beside_the_machine_costs_nothing(server: BmcServer, password_file: Path) -> None:
    clock = Clock()
    server.tree["/redfish/v1/Chassis"] = bmc.collection(
        *(f"/redfish/v1/Chassis/{name}" for name in ("x", "y", "1", "z"))
    )
    assert watts_after(sensor_of(server, password_file, clock), clock) == {"redfish": 400.0}


def test_a_dead_controller_is_not_asked_for_each_of_its_chassis(password_file: Path) -> None:
    listed = [chassis(str(number)) for number in range(40)]
    with BmcServer(tree_of(*listed)) as server:
        for one in listed:
            server.answers[one["@odata.id"]] = status(500)
        assert "HTTP 500" in trouble(sensor_of(server, password_file)).reason
        assert len(server.requests) < 10


KEYS = [
    *("@odata.id", "Members", "Members@odata.nextLink", "Links", "Contains", "ContainedBy", "Power", "Id", "Name"),
    *("PowerControl", "PowerConsumedWatts", "PowerWatts", "Reading", "ChassisType", "EnvironmentMetrics", "Status"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("/redfish/v1/x"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)
OBJECTS = JSON.filter(lambda value: isinstance(value, dict))


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_an_object_or_our_error(body: bytes) -> None:
    with contextlib.suppress(SensorReadError):
        assert isinstance(parse_object(body, "here"), dict)


@given(OBJECTS, st.sampled_from(["Power", "EnvironmentMetrics"]))
def test_any_object_gives_a_possible_power_or_our_error(resource: Any, schema: Any) -> None:
    with contextlib.suppress(SensorReadError):
        assert 0 < watts_of(Source("/p", schema), resource) <= 100_000


@given(st.lists(st.tuples(st.sampled_from(["/a", "/b", "/c", "/redfish/v1/x"]), OBJECTS), max_size=5))
def test_any_tree_gives_machines_or_our_error(listed: list[tuple[str, Any]]) -> None:
    found = [parse_chassis(path, resource) for path, resource in listed]
    try:
        chosen = choose(found, frozenset(one.path for one in found))
    except SensorReadError:
        return
    assert set(chosen) <= set(found)


@given(JSON)
def test_any_link_leads_nowhere_but_to_this_controller(link: Any) -> None:
    for path in (resource_path(link), *(members(link) if isinstance(link, dict) else ())):
        assert path == "" or (path.startswith("/") and not path.startswith("//"))
    assert isinstance(next_page(link if isinstance(link, dict) else {}), str)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_a_controller_answers_it_is_a_sample_or_our_error(data: st.DataObject) -> None:
    tree = {path: data.draw(OBJECTS) if data.draw(st.booleans()) else value for path, value in tree_of(*ONE).items()}
    clock = Clock()
    with BmcServer(tree) as server:
        sensor = sensor_of(server, None, clock)
        server.answers["*"] = lambda handler: handler.send(200, tree.get(handler.path.rstrip("/"), {}))
        for _ in range(2):
            clock.now += 5
            try:
                sample = sensor.read()
            except SensorReadError:
                continue
            assert all(one.power is None or one.power > 0 for one in sample.readings)
