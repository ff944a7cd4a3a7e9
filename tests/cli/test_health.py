"""`carbon-exporter health` against real exporters: what HEALTHCHECK of the image gets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from support.authority import Authority
from support.exporter import Exporter

QUICK = ("--storage.path=", "--sample.interval=1s")


def health(*flags: str, **variables: str) -> tuple[int, str]:
    """Exit code, and all that it prints."""
    command = [sys.executable, "-m", "carbon_exporter", "health", *flags]
    environ = {**os.environ, **variables}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20, env=environ)
    return ran.returncode, ran.stdout + ran.stderr


def test_an_exporter_that_answers_is_healthy_and_one_that_is_gone_is_not() -> None:
    with Exporter(*QUICK) as exporter:
        address = f":{exporter.port}"
        assert health(f"--web.listen-address={address}") == (0, "carbon-exporter is healthy\n")
        assert health(CARBON_EXPORTER_WEB_LISTEN_ADDRESS=address) == (0, "carbon-exporter is healthy\n")
    code, told = health(f"--web.listen-address={address}")
    assert code == 1
    assert f"no healthy exporter on {address}" in told


def test_an_exporter_that_hangs_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, told = health(f"--web.listen-address=127.0.0.1:{silent.getsockname()[1]}")
    assert code == 1
    assert "timed out" in told


def test_tls_is_spoken_where_the_web_configuration_says_so_and_a_listener_of_its_own_is_asked_first(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server", "DNS:localhost")
    web = tmp_path / "web-config.yml"
    server = f"tls_server_config: {{cert_file: {certificate}, key_file: {key}"
    web.write_text(f"{server}}}")
    with Exporter(*QUICK, f"--web.config.file={web}") as exporter:
        asked = (f"--web.listen-address=:{exporter.port}", f"--web.config.file={web}")
        assert health(*asked) == (0, "carbon-exporter is healthy\n")
    web.write_text(f"{server}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: {authority.certificate}}}")
    beside = f"--web.health-address=unix:{tmp_path}/health.sock"
    with Exporter(*QUICK, f"--web.config.file={web}", beside) as exporter:
        asked = (f"--web.listen-address=:{exporter.port}", f"--web.config.file={web}")
        code, told = health(*asked)
        assert code == 1
        assert "web.health-address" in told
        assert health(*asked, beside) == (0, "carbon-exporter is healthy\n")
