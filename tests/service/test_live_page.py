"""The page of a real exporter in a real Chromium: it shows the numbers of /metrics, and it moves."""

from __future__ import annotations

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
        Exporter("--sample.interval=1s", f"--storage.path={tmp_path}", "--grid.region=FR") as exporter,
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
        assert console(browser) == []
        work.kill()
