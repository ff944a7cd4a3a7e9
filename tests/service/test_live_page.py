"""The page of a real exporter in a real Chromium: it shows the numbers of /metrics, it moves, and it has a memory."""

from __future__ import annotations

import http.client
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import burner
from support.browser import chromium, console, texts, until, values
from support.exporter import Exporter, Series


def total(series: Series, name: str) -> float:
    return math.fsum(value for (own, _), value in series.items() if own == name)


def test_the_page_shows_the_numbers_of_metrics_and_moves(tmp_path: Path) -> None:
    command = [sys.executable, burner.__file__, str(tmp_path / "burnt"), "--duty=0.4"]
    with (
        subprocess.Popen(command, env={**os.environ, "CARBON_JOB": "train <b>"}) as work,
        Exporter("--sample.interval=2s", f"--storage.path={tmp_path}", "--grid.region=FR") as exporter,
        chromium(1280, 900) as browser,
    ):
        exporter.wait_for_samples(4)
        browser.get(f"http://127.0.0.1:{exporter.port}/")

        def agrees() -> bool:
            before, shown, after = exporter.series(), values(browser, "#power, #energy, #co2e"), exporter.series()
            names = ("carbon_device_power_watts", "carbon_device_energy_kwh_total", "carbon_job_co2e_grams_total")
            return before == after and shown == pytest.approx([total(before, name) for name in names], rel=1e-9)

        until(browser, agrees)
        (earlier,) = values(browser, "#energy")
        until(browser, lambda: values(browser, "#energy") > [earlier] and agrees())
        assert any("train <b>" in text for text in texts(browser, "#jobs"))
        until(browser, lambda: "train <b>" in texts(browser, "#key dt"))
        assert console(browser) == []
        work.kill()


def test_the_exporter_remembers_its_power_and_says_when_a_client_knows_it_already(tmp_path: Path) -> None:
    with Exporter("--sample.interval=5s", f"--storage.path={tmp_path}", "--grid.region=FR") as exporter:
        exporter.wait_for_samples(2)
        connection = http.client.HTTPConnection("127.0.0.1", exporter.port, timeout=5)
        connection.request("GET", "/api/v1/history")
        answer = connection.getresponse()
        hour, tag = json.loads(answer.read()), answer.getheader("ETag", "")
        shown = exporter.series()
        connection.request("GET", "/api/v1/history", headers={"If-None-Match": tag})
        again = connection.getresponse()
        assert (again.status, again.read(), again.getheader("Content-Length")) == (304, b"", None)
        connection.request("GET", "/-/healthy")  # the connection goes on
        assert connection.getresponse().status == 200
        connection.close()
    watts = math.fsum(kind["power_watts"][-1] for kind in hour["kinds"])
    assert watts == pytest.approx(total(shown, "carbon_device_power_watts"), abs=0.002)
