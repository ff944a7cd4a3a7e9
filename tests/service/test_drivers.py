"""Drivers that come, change and go while the exporter runs."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from support.exporter import Exporter, state_of
from support.fakenvml import LIBRARY, FakeNvml, build, environment


def wait_for_device(exporter: Exporter, name: str, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while name not in {device["device"] for device in exporter.status()["devices"]}:
        assert time.monotonic() < until, exporter.text
        time.sleep(0.05)


def test_a_driver_that_is_installed_later_is_found_and_at_once_on_a_reload(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path / "nvml", boards=1)
    libraries = tmp_path / "lib"
    libraries.mkdir()
    environ = {**environment(fake), "LD_LIBRARY_PATH": str(libraries)}
    flags = ("--sample.interval=200ms", f"--storage.path={tmp_path / 'state'}")
    with Exporter(*flags, environ=environ) as exporter:
        exporter.wait_for_samples(2)
        before = exporter.status()
        assert "gpu0" not in {device["device"] for device in before["devices"]}
        assert {row["sensor"]: row["state"] for row in before["sensors"]}["nvidia"] == "missing"
        shutil.copy(build() / LIBRARY, libraries)
        exporter.process.send_signal(signal.SIGHUP)
        wait_for_device(exporter, "gpu0")
        exporter.wait_for_log("sensor nvidia was missing and is active")
        exporter.wait_for_samples(3)
        assert {row["sensor"]: row["state"] for row in exporter.status()["sensors"]}["nvidia"] == "active"


def test_a_driver_that_is_replaced_ends_the_exporter_with_status_75_and_its_totals_kept(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path / "nvml", boards=2)
    fake.boards[0].constant(400)
    state = tmp_path / "state"
    flags = ("--sample.interval=200ms", f"--storage.path={state}")
    with Exporter(*flags, environ=environment(fake)) as exporter:
        wait_for_device(exporter, "gpu0")
        exporter.wait_for_samples(5)
        counted = sum(row[3] for row in state_of(state)["devices"] if row[0] == "gpu0")
        assert counted > 0
        fake.session_error(18)
        assert exporter.process.wait(20) == 75, exporter.text
        exporter.wait_for_log("ending with status 75")
    fake.session_error(0)
    with Exporter(*flags, environ=environment(fake)) as exporter:
        wait_for_device(exporter, "gpu0")
        exporter.wait_for_samples(3)
        assert sum(row[3] for row in state_of(state)["devices"] if row[0] == "gpu0") >= counted
        fake.boards[0].constant(100)


def test_a_mismatch_at_the_start_is_said_with_its_remedy_and_ends_nothing(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path / "nvml", boards=1)
    fake.session_error(18)
    with Exporter("--sample.interval=200ms", "--storage.path=", environ=environment(fake)) as exporter:
        exporter.wait_for_samples(5)
        (row,) = (row for row in exporter.status()["sensors"] if row["sensor"] == "nvidia")
        assert row["state"] == "failed"
        assert "restart" in row["remedy"]
