"""A real exporter with a management controller: whole-node energy, and no secret anywhere it speaks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.bmc import PASSWORD, USER, BmcServer, make_certificate, tree_of
from support.exporter import Exporter
from support.redfish import ONE

SECRETS = (PASSWORD, "s3cret", "t0ken", "wr0ng")


def flags(server: BmcServer, tmp_path: Path, password: str, *more: str) -> tuple[str, ...]:
    file = tmp_path / "password"
    file.write_text(password)
    account = (f"--redfish.url={server.url}", f"--redfish.username={USER}", f"--redfish.password-file={file}")
    paths = (f"--path.sysfs={tmp_path / 'sys'}", f"--storage.path={tmp_path / 'state'}")
    return ("--log.level=debug", "--sample.interval=1s", *account, *paths, *more)


def seen(exporter: Exporter) -> str:
    return exporter.text + exporter.get("/metrics").decode() + exporter.get("/api/v1/status").decode()


def test_the_whole_machine_is_counted_by_its_controller(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    ca = f"--redfish.ca-file={certificate.certificate}"
    with BmcServer(tree_of(*ONE), certificate) as server, Exporter(*flags(server, tmp_path, PASSWORD, ca)) as exporter:
        until = time.monotonic() + 40
        while not sum(v for (name, _), v in exporter.series().items() if name == "carbon_node_energy_kwh_total"):
            assert time.monotonic() < until, exporter.text
            time.sleep(0.5)
        told = seen(exporter)
        assert exporter.stop() == 0
        assert server.tokens == {}
    assert not [secret for secret in SECRETS if secret in told + exporter.text]


@pytest.mark.parametrize("authentication", ["session", "basic"])
def test_a_wrong_password_is_said_and_no_secret_is(tmp_path: Path, authentication: str) -> None:
    certificate = make_certificate(tmp_path)
    more = ("--redfish.insecure-skip-verify=true", f"--redfish.authentication={authentication}")
    with (
        BmcServer(tree_of(*ONE), certificate) as server,
        Exporter(*flags(server, tmp_path, "wr0ng-pass", *more)) as exporter,
    ):
        exporter.wait_for_log("does not accept the user or the password")
        told = seen(exporter)
        exporter.stop()
    assert not [secret for secret in SECRETS if secret in told + exporter.text]
