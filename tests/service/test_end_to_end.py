"""From this machine's meter to PromQL: a real exporter, a real Prometheus, two programs of known CPU share."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import burner
from support.exporter import Exporter
from support.prometheus import Prometheus, prometheus
from support.tools import need

TARGET_LABELS = dict.fromkeys(("namespace", "pod", "container", "service", "node"), "of-the-target")


@contextmanager
def job(name: str, file: Path, *flags: str) -> Iterator[Path]:
    """A burner that runs as a job."""
    command = [sys.executable, burner.__file__, str(file), *flags]
    with subprocess.Popen(command, env={**os.environ, "CARBON_JOB": name}) as process:
        try:
            yield file
        finally:
            process.kill()


@dataclass(frozen=True)
class Run:
    """What a while gave: a short one, and three minutes by `make soak`."""

    seconds: float

    server: Prometheus
    first: float
    """Unix time from which every series was there and not zero one scrape before."""
    last: float
    page: str
    clock: float
    """Unix time less CLOCK_MONOTONIC."""
    files: dict[str, Path]


_ROOM = ("--jobs.max=1000", "--series.max=100000")
"""Other tests make groups on this machine meanwhile: none of them is to push a job off the page."""


@pytest.fixture(scope="module", params=[90.0, pytest.param(180.0, marks=pytest.mark.soak)])
def run(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Run]:
    seconds = float(request.param)
    place = tmp_path_factory.mktemp("end-to-end")
    with (
        Exporter(f"--storage.path={place / 'state'}", "--grid.region=FR", "--site.pue=1.2", *_ROOM) as exporter,
        prometheus(place, exporter.port, labels=TARGET_LABELS) as server,
        job("a", place / "a", "--duty=0.6") as a,
        job("b", place / "b", "--duty=0.3", "--children") as b,
    ):
        began = time.time()
        while time.time() < began + seconds:
            time.sleep(1)
        page = exporter.get("/metrics").decode()
        first = began + 20
        yield Run(seconds, server, first, time.time(), page, time.time() - time.monotonic(), {"a": a, "b": b})


def steps(run: Run, expression: str) -> dict[float, float]:
    """The sum of the series of `expression` at every scrape of the run."""
    sums: dict[float, list[float]] = {}
    span = math.ceil(run.last - run.first)
    for series in run.server.query(f"{expression}[{span}s]", run.last):
        for at, value in series["values"]:
            sums.setdefault(at, []).append(float(value))
    return {at: math.fsum(values) for at, values in sums.items()}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["a", "b"])
def test_a_job_is_charged_what_its_own_rusage_and_the_policy_say(run: Run, name: str) -> None:
    sampled = steps(run, "carbon_sensor_last_sample_timestamp_seconds")
    device = steps(run, 'carbon_device_energy_kwh_total{device="cpu0"}')
    mine = steps(run, f'carbon_job_energy_kwh_total{{device="cpu0",job_name="{name}"}}')
    by_sample = {sampled[at]: (device[at], mine[at]) for at in sampled}
    moments = sorted(by_sample)
    expected = 0.0
    for before, start, end in zip(moments, moments[1:], moments[2:], strict=False):
        joules = by_sample[end][0] - by_sample[start][0]  # posted at a sample: the interval before the last one
        used = burner.cpu_seconds_between(run.files[name], before - run.clock, start - run.clock)
        expected += joules * used / ((os.cpu_count() or 1) * (start - before))
    paid = by_sample[moments[-1]][1] - by_sample[moments[1]][1]
    assert len(moments) >= (run.seconds - 30) / 6
    assert paid == pytest.approx(expected, rel=0.03)


def test_between_any_two_scrapes_the_jobs_add_up_to_the_device(run: Run) -> None:
    compared = 0
    for device in ("cpu0", "dram0"):
        whole = steps(run, f'carbon_device_energy_kwh_total{{device="{device}"}}')
        parts = steps(run, f'carbon_job_energy_kwh_total{{device="{device}"}}')
        assert whole.keys() == parts.keys()
        moments = sorted(whole)
        for index, earlier in enumerate(moments):
            for later in moments[index + 1 :: 7]:
                grown = whole[later] - whole[earlier]
                assert parts[later] - parts[earlier] == pytest.approx(grown, rel=1e-6, abs=1e-15)
                compared += grown > 0
    assert compared > run.seconds * 3


def test_increase_agrees_over_any_window_in_which_all_series_were_there(run: Run) -> None:
    for window in (30, run.seconds / 3, run.seconds * 2 / 3):
        for end in (run.first + window + 5, run.last - 1):
            ratio = run.server.query(
                f"sum by (device) (increase(carbon_job_energy_kwh_total[{window:.0f}s]))"
                f" / sum by (device) (increase(carbon_device_energy_kwh_total[{window:.0f}s]))",
                end,
            )
            assert {series["metric"]["device"] for series in ratio} == {"cpu0", "dram0"}
            for series in ratio:
                assert float(series["value"][1]) == pytest.approx(1.0, rel=1e-3)


def test_grams_are_energy_times_intensity_times_pue(run: Run) -> None:
    ratio = run.server.query(
        "sum(increase(carbon_job_co2e_grams_total[1m])) / sum(increase(carbon_job_energy_kwh_total[1m]))", run.last
    )
    price = run.server.query("carbon_grid_intensity_grams_per_kwh * on (region) carbon_pue_ratio", run.last)
    assert float(ratio[0]["value"][1]) == pytest.approx(float(price[0]["value"][1]), rel=1e-6)


def test_promtool_finds_nothing_to_complain_about(run: Run) -> None:
    checked = subprocess.run(
        [need("promtool"), "check", "metrics"], input=run.page, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_no_label_of_ours_is_renamed_on_a_target_with_every_usual_label(run: Run) -> None:
    series: list[Any] = run.server.query('{__name__=~"carbon_.*"}', run.last)
    assert len(series) > 30
    for one in series:
        assert not [label for label in one["metric"] if label.startswith("exported_")]
        assert one["metric"]["job"] == "carbon-exporter"
        assert one["metric"]["namespace"] == "of-the-target"
    names = run.server.query("count by (job_name) (carbon_job_energy_kwh_total)", run.last)
    assert {"a", "b", "_idle_", "_unattributed_"} <= {one["metric"]["job_name"] for one in names}
