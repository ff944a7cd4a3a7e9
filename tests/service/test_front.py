"""The front of a real exporter process: web configuration, renewed certificates, systemd's sockets, probes."""

from __future__ import annotations

import base64
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import bcrypt
import pytest
from support.authority import Authority
from support.exporter import Exporter, Series, parse
from support.prometheus import prometheus
from support.tools import need
from support.waiting import until

PASSWORD = "correct horse"  # noqa: S105 - of the test alone
MEMORY_ONLY = "--storage.path="
MUTUAL = "client_auth_type: RequireAndVerifyClientCert, client_ca_file: authority.crt"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Has signed for the server and for one client."""
    made = Authority(tmp_path)
    made.sign("server", "IP:127.0.0.1")
    made.sign("client", "DNS:prometheus.example")
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Mutual TLS and a password besides."""
    return protect(tmp_path / "web-config.yml", PASSWORD)


def protect(file: Path, password: str) -> Path:
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(8)).decode()
    tls = f"tls_server_config: {{cert_file: server.crt, key_file: server.key, {MUTUAL}}}"
    file.write_text(f"{tls}\nbasic_auth_users: {{prometheus: '{hashed}'}}\n")
    return file


def context(place: Path) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(place / "authority.crt"))
    made.load_cert_chain(place / "client.crt", place / "client.key")
    return made


def series(exporter: Exporter, place: Path) -> Series:
    """What /metrics says to a client with certificate and password."""
    token = base64.b64encode(f"prometheus:{PASSWORD}".encode()).decode()
    url = f"https://127.0.0.1:{exporter.port}/metrics"
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"})
    with urllib.request.urlopen(request, timeout=5, context=context(place)) as answer:
        return parse(answer.read().decode())


def well(exporter: Exporter, place: Path) -> float:
    return series(exporter, place)["carbon_web_config_success", frozenset()]


def serial(exporter: Exporter, place: Path) -> object:
    """Of the certificate that a new connection is shown."""
    plain = socket.create_connection(("127.0.0.1", exporter.port), 5)
    with context(place).wrap_socket(plain, server_hostname="127.0.0.1") as client:
        return (client.getpeercert() or {})["serialNumber"]


def test_prometheus_loses_no_scrape_while_the_certificate_is_renewed_twice_and_all_once_its_password_is_wrong(
    tmp_path: Path, authority: Authority, file: Path
) -> None:
    client = {
        "scheme": "https",
        "tls_config": {
            "ca_file": str(authority.certificate),
            "cert_file": str(tmp_path / "client.crt"),
            "key_file": str(tmp_path / "client.key"),
        },
        "basic_auth": {"username": "prometheus", "password": PASSWORD},
    }
    with Exporter(MEMORY_ONLY, f"--web.config.file={file}", "--sample.interval=200ms") as exporter:
        with prometheus(tmp_path, exporter.port, client=client) as server:
            first = serial(exporter, tmp_path)
            authority.sign("server", "IP:127.0.0.1")
            until(lambda: serial(exporter, tmp_path) != first)  # by itself
            second = serial(exporter, tmp_path)
            authority.sign("server", "IP:127.0.0.1")
            exporter.process.send_signal(signal.SIGHUP)
            exporter.wait_for_log("settings reloaded")
            until(lambda: serial(exporter, tmp_path) != second)
            until(lambda: server.query("count_over_time(up[1m]) >= 4"))
            assert server.query("min_over_time(up[1m])")[0]["value"][1] == "1"
            protect(file, "another password")
            until(lambda: server.query("up")[0]["value"][1] == "0")
            assert "401" in server.get("/api/v1/targets")["data"]["activeTargets"][0]["lastError"]
        assert exporter.stop() == 0


def test_a_broken_web_configuration_is_a_metric_and_a_log_line_and_the_old_one_stays_in_force(
    tmp_path: Path, authority: Authority, file: Path
) -> None:
    del authority
    good = file.read_text()
    with Exporter(MEMORY_ONLY, f"--web.config.file={file}", "--sample.interval=100ms") as exporter:
        assert well(exporter, tmp_path) == 1
        file.write_text(good + "basic_auth_user: {}\n")
        exporter.process.send_signal(signal.SIGHUP)
        assert "nearest: basic_auth_users" in exporter.wait_for_log("web configuration not reloaded")
        until(lambda: well(exporter, tmp_path) == 0)
        file.write_text(good)
        exporter.process.send_signal(signal.SIGHUP)
        until(lambda: well(exporter, tmp_path) == 1)


def test_under_client_certificates_probes_have_a_door_of_their_own_and_stop_is_quick(
    authority: Authority, file: Path
) -> None:
    del authority
    flags = (MEMORY_ONLY, f"--web.config.file={file}", "--web.health-address=127.0.0.1:0")
    with Exporter(*flags) as exporter:
        port = re.findall(r":(\d+)", exporter.wait_for_log("health alone, in the clear, on"))[-1].strip('"')
        for path in ("/-/healthy", "/-/ready"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)
        with (
            socket.create_connection(("127.0.0.1", exporter.port), 5),
            socket.create_connection(("127.0.0.1", exporter.port), 5) as half,
        ):
            half.sendall(b"\x16\x03\x01\x02\x00\x01")
            began = time.monotonic()
            assert exporter.stop() == 0
            assert time.monotonic() - began < 2


def test_a_web_configuration_that_cannot_be_used_is_exit_code_2_with_file_key_and_what_is_accepted(
    tmp_path: Path,
) -> None:
    file = tmp_path / "web-config.yml"
    file.write_text("tls_server_config: {cert_file: none.crt, key_file: none.key}")
    command = [sys.executable, "-m", "carbon_exporter", "serve", MEMORY_ONLY, f"--web.config.file={file}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    for part in (str(file), "tls_server_config.cert_file", str(tmp_path / "none.crt"), "a readable file"):
        assert part in done.stderr


def test_systemd_hands_over_its_socket_and_a_client_that_came_before_the_start_is_answered() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    activate = (need("systemd-socket-activate"), "-l", f"127.0.0.1:{port}")
    exporter = Exporter(MEMORY_ONLY, prefix=activate)
    client = patient(port)
    with client, exporter:
        client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert exporter.port == port
        assert exporter.stop() == 0


def patient(port: int) -> socket.socket:
    """A client's socket, as soon as somebody listens."""
    end = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 20)
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_of_two_sockets_of_systemd_the_one_named_health_answers_probes_alone(tmp_path: Path) -> None:
    web, health = tmp_path / "web.sock", tmp_path / "health.sock"
    listens = ("-l", str(web), "-l", str(health), "--fdname=web:health")
    exporter = Exporter(MEMORY_ONLY, prefix=(need("systemd-socket-activate"), *listens))
    until(health.is_socket)
    with socket.socket(socket.AF_UNIX) as waker:
        waker.settimeout(20)
        waker.connect(str(health))
        waker.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert waker.recv(4096).startswith(b"HTTP/1.1 404 ")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(web))
        client.sendall(b"GET /-/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 ")
    assert exporter.stop() == 0
    assert web.is_socket(), "it is systemd's, and stays"
