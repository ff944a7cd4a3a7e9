"""Redfish: sessions, passwords and certificates, and that no secret is seen."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import bmc
from support.bmc import PASSWORD, USER, BmcServer, Certificate, tree_of
from support.machine import Clock
from support.redfish import ONE, POWER, SESSIONS, sensor_of, status, trouble, watts_after

from carbon_exporter.errors import SensorReadError
from carbon_exporter.sensors.base import Bmc, Host
from carbon_exporter.sensors.redfish import probe


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    return file


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return bmc.make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server() -> Iterator[BmcServer]:
    with BmcServer(tree_of(*ONE)) as running:
        yield running


def html(handler: Any) -> None:
    handler.send(200, b"<!DOCTYPE html><html><body>Login</body></html>", {"Content-Type": "text/html"})


def raw(body: bytes) -> bmc.Answer:
    return lambda handler: handler.send(200, body)


def test_a_session_is_made_once_and_ended_at_close(server: BmcServer, password_file: Path) -> None:
    clock = Clock()
    sensor = sensor_of(server, password_file, clock)
    for _ in range(3):
        clock.now += 5
        sensor.read()
    assert (server.logins, len(server.tokens)) == (1, 1)
    sensor.close()
    assert server.tokens == {}
    sensor.close()


def test_a_session_that_has_ended_is_renewed_at_once(server: BmcServer, password_file: Path) -> None:
    clock = Clock()
    sensor = sensor_of(server, password_file, clock)
    sensor.read()
    server.tokens.clear()
    clock.now += 5
    (reading,) = sensor.read().readings
    assert (reading.power, server.logins) == (400.0, 2)


def test_basic_authentication_makes_no_session(server: BmcServer, password_file: Path) -> None:
    clock = Clock()
    sensor = sensor_of(server, password_file, clock, authentication="basic")
    assert watts_after(sensor, clock) == {"redfish": 400.0}
    sensor.close()
    assert server.logins == 0


def test_without_sessions_the_remedy_is_basic(server: BmcServer, password_file: Path) -> None:
    server.sessions_enabled = False
    assert trouble(sensor_of(server, password_file)).remedy == "set redfish.authentication=basic"


def test_a_controller_that_asks_for_no_login_gets_none(server: BmcServer) -> None:
    clock = Clock()
    server.answers.update(
        {path: raw(json.dumps(value).replace('"@watts"', "7").encode()) for path, value in server.tree.items()}
    )
    assert watts_after(sensor_of(server, None, clock), clock) == {"redfish": 7.0}


@pytest.mark.parametrize("authentication", ["session", "basic"])
def test_a_wrong_password_is_tried_with_growing_pauses_so_that_no_account_is_locked(
    server: BmcServer, password_file: Path, authentication: str
) -> None:
    clock = Clock()
    password_file.write_text("wrong")
    sensor = sensor_of(server, password_file, clock, authentication=authentication)
    tries, asked = [], f"POST {SESSIONS}" if authentication == "session" else "GET /redfish/v1/Chassis"
    for _ in range(360):
        before = server.requests.count((*asked.split(),))  # type: ignore[arg-type]
        error = trouble(sensor)
        assert "does not accept the user or the password" in error.reason
        assert "redfish.password-file" in error.remedy
        if server.requests.count((*asked.split(),)) > before:  # type: ignore[arg-type]
            tries.append(clock.now)
        clock.now += 5
    assert [after - before for before, after in itertools.pairwise(tries)][:6] == [30, 60, 120, 240, 300, 300]


def test_a_new_password_is_tried_at_once(server: BmcServer, password_file: Path) -> None:
    clock = Clock()
    password_file.write_text("wrong")
    sensor = sensor_of(server, password_file, clock)
    trouble(sensor)
    password_file.write_text(PASSWORD)
    clock.now += 5
    assert sensor.read().failures == ()


def test_a_session_that_is_refused_right_after_login_is_not_made_again_and_again(
    server: BmcServer, password_file: Path
) -> None:
    clock = Clock()
    server.answers["/redfish/v1/Chassis"] = status(401)
    sensor = sensor_of(server, password_file, clock)
    for _ in range(12):
        trouble(sensor)
        clock.now += 5
    assert server.logins <= 3


@pytest.mark.parametrize(
    ("token", "code"), [("", 201), ("two words", 201), ("x" * 5000, 201), ("fine", 202), ("fine", 500)]
)
def test_a_login_without_a_usable_token_is_a_failure(
    server: BmcServer, password_file: Path, token: str, code: int
) -> None:
    server.answers[f"POST {SESSIONS}"] = status(code, **{"X-Auth-Token": token})
    sensor = sensor_of(server, password_file)
    if code == 202:
        assert "does not accept" in trouble(sensor).reason
    else:
        assert f"HTTP {code}" in trouble(sensor).reason


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "empty"), (b"\n", "empty"), (b"\xff\xfe", "not UTF-8"), (b"x" * 9000, "too long")]
)
def test_a_password_file_that_holds_none_is_named(
    server: BmcServer, password_file: Path, content: bytes, says: str
) -> None:
    password_file.write_bytes(content)
    error = trouble(sensor_of(server, password_file))
    assert says in error.reason
    assert str(password_file) in error.reason
    assert server.logins == 0


def test_a_password_file_that_is_missing_is_named(server: BmcServer, tmp_path: Path) -> None:
    for file in (tmp_path / "none", tmp_path, Path("/nul\0l")):
        assert "cannot be read" in trouble(sensor_of(server, file)).reason


def test_the_password_is_not_given_to_what_does_not_speak_redfish(server: BmcServer, password_file: Path) -> None:
    server.answers["/redfish/v1/"] = html
    assert "a web page" in trouble(sensor_of(server, password_file)).reason
    assert all(method == "GET" for method, _ in server.requests)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_has_a_session_of_its_own(server: BmcServer, password_file: Path) -> None:
    sensor = sensor_of(server, password_file)
    sensor.read()
    child = os.fork()
    if child == 0:
        sensor.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert len(server.tokens) == 1


def test_a_certificate_that_is_named_in_ca_file_is_trusted(certificate: Certificate, password_file: Path) -> None:
    clock = Clock()
    with BmcServer(tree_of(*ONE), certificate) as server:
        sensor = sensor_of(server, password_file, clock, ca_file=certificate.certificate)
        assert watts_after(sensor, clock) == {"redfish": 400.0}
        assert sensor.notes == ()
        sensor.close()
        assert server.tokens == {}


def test_a_self_signed_certificate_is_not_trusted_and_the_remedy_says_how(
    certificate: Certificate, password_file: Path
) -> None:
    with BmcServer(tree_of(*ONE), certificate) as server:
        error = trouble(sensor_of(server, password_file))
        assert "the certificate of 127.0.0.1 is not trusted: self-signed" in error.reason.replace(
            "self signed", "self-signed"
        )
        assert "redfish.ca-file" in error.remedy
        assert "redfish.insecure-skip-verify=true" in error.remedy
        assert server.requests == []


def test_without_the_check_it_works_and_is_noted(certificate: Certificate, password_file: Path) -> None:
    clock = Clock()
    with BmcServer(tree_of(*ONE), certificate) as server:
        sensor = sensor_of(server, password_file, clock, verify=False)
        assert watts_after(sensor, clock) == {"redfish": 400.0}
        assert "not checked" in sensor.notes[0]


def test_a_certificate_for_another_name_is_told_from_an_unknown_one(tmp_path: Path, password_file: Path) -> None:
    other = bmc.make_certificate(tmp_path, "DNS:bmc7.example")
    with BmcServer(tree_of(*ONE), other) as server:
        error = trouble(sensor_of(server, password_file, ca_file=other.certificate))
        assert "not trusted" in error.reason
        assert "name that stands in the certificate" in error.remedy


def test_plain_http_behind_https_is_said(server: BmcServer, password_file: Path) -> None:
    how = Bmc(server.url.replace("http:", "https:"), USER, password_file)
    error = trouble(probe(Host(clock=Clock(), bmc=how), frozenset()))
    assert "does not speak usable TLS" in error.reason


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_ca_file_that_is_none_is_named(
    certificate: Certificate, password_file: Path, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with BmcServer(tree_of(*ONE), certificate) as server:
        error = trouble(sensor_of(server, password_file, ca_file=file))
        assert f"{file} cannot be used" in error.reason
        assert "redfish.ca-file" in error.remedy


def test_no_secret_is_logged_shown_or_recorded(
    certificate: Certificate, password_file: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def oddly(handler: Any) -> None:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Auth-Token t0ken-echo\r\nContent-Length: 2\r\n\r\n{}")

    told: list[object] = []
    clock = Clock()
    with caplog.at_level(logging.DEBUG), BmcServer(tree_of(*ONE), certificate) as server:
        for authentication in ("session", "basic"):
            for verify in (True, False):
                sensor = sensor_of(server, password_file, clock, verify=verify, authentication=authentication)
                for answer in (None, oddly, status(401), status(403), html):
                    server.answers = {} if answer is None else {POWER: answer, "/redfish/v1/Chassis": answer}
                    clock.now += 400
                    try:
                        told += [repr(sensor.read())]
                    except SensorReadError as error:
                        told += [str(error), repr(error), repr(error.__cause__), repr(error.__dict__)]
                told += [repr(sensor), repr(sensor.devices), repr(sensor.notes), repr(sensor._bmc)]
                sensor.close()
    seen = "".join([*map(str, told), caplog.text, *capfd.readouterr()])
    assert len(seen) > 1000
    for secret in (PASSWORD, "s3cret", "t0ken", "d2F0Y2hlcj", "Authorization"):
        assert secret not in seen


def test_other_users_of_the_http_library_keep_their_log(
    server: BmcServer, password_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import requests  # noqa: PLC0415

    sensor_of(server, password_file).read()
    with caplog.at_level(logging.DEBUG, "urllib3"), requests.get(server.url, timeout=5):
        assert "GET / HTTP" in caplog.text
