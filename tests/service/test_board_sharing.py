"""Whose energy a board's is: the real exporter, boards at NVML's ABI, and real processes that say whose they are."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.exporter import Exporter, Series
from support.fakenvml import FakeNvml, Process, Slice, environment

JOULES_PER_KWH = 3.6e6


@contextmanager
def sleeper(job: str) -> Iterator[int]:
    """A process of a job that does nothing; its pid."""
    command = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env={"CARBON_JOB": job}) as process:
        yield process.pid
        process.kill()


def energy(series: Series, device: str) -> tuple[float, dict[str, float]]:
    """Joules of a board's counter, and of the jobs on it."""
    whole, jobs = 0.0, dict[str, float]()
    for (name, labels), value in series.items():
        of = dict(labels)
        if of.get("device") == device and name == "carbon_device_energy_kwh_total":
            whole += value * JOULES_PER_KWH
        elif of.get("device") == device and name == "carbon_job_energy_kwh_total":
            jobs[of["job_name"]] = value * JOULES_PER_KWH
    return whole, jobs


def assert_conserved(exporter: Exporter, boards: int) -> Series:
    series = exporter.series()
    for number in range(boards):
        whole, jobs = energy(series, f"gpu{number}")
        assert math.fsum(jobs.values()) == pytest.approx(whole, rel=1e-9, abs=1e-9), f"gpu{number}: {jobs}"
    return series


def shares(before: Series, after: Series, device: str) -> dict[str, float]:
    """Each job's part of what the board used between two scrapes; jobs without one are left out."""
    (whole_before, jobs_before), (whole, jobs) = energy(before, device), energy(after, device)
    parts = {job: (joules - jobs_before.get(job, 0.0)) / (whole - whole_before) for job, joules in jobs.items()}
    return {job: part for job, part in parts.items() if part > 1e-6}


def watch(exporter: Exporter, boards: int, seconds: float) -> Series:
    """Scrape for so long; every scrape is conserved."""
    until = time.monotonic() + seconds
    while True:
        series = assert_conserved(exporter, boards)
        if time.monotonic() >= until:
            return series
        time.sleep(0.2)


@pytest.mark.usefixtures("boards_turn")
def test_in_every_mode_the_jobs_of_a_board_are_the_board(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path / "nvml", boards=10)
    for number, board in enumerate(fake.boards):
        board.square(100 + 20 * number, 500, 1.3)
    with ExitStack() as stack:
        a, b, c = (stack.enter_context(sleeper(job)) for job in ("a", "b", "c"))
        fake.boards[0].processes([Process(a, sm=90)])
        fake.boards[1].processes([Process(b)])
        fake.boards[2].processes([Process(a, sm=60), Process(b, sm=20)])
        fake.boards[3].processes([Process(a, sm=30, kind="mps"), Process(b, sm=30, kind="mps"), Process(c, kind="mps")])
        fake.boards[4].mig([Slice(gi=gi) for gi in range(7)])
        fake.boards[4].processes([Process(a if gi < 4 else b, gi=gi) for gi in range(7)])
        fake.boards[5].mig([Slice(gi=1, profile="3g.40gb", slices=3, sm=48), Slice(gi=2), Slice(gi=3)])
        fake.boards[5].processes([Process(a, gi=1), Process(b, gi=2)])
        fake.boards[6].processes([Process(c, sm=80)])
        leaving = stack.enter_context(ExitStack())
        fake.boards[8].processes([Process(leaving.enter_context(sleeper("short")), sm=50)])
        alone = "--jobs.naming=environment"  # jobs of a Slurm that runs on this machine meanwhile hold none of these
        flags = (alone, "--sample.interval=500ms", f"--storage.path={tmp_path / 'state'}", f"--path.sysfs={tmp_path}")
        exporter = stack.enter_context(Exporter(*flags, environ=environment(fake)))
        exporter.wait_for_samples(4)
        before = watch(exporter, 10, 1)
        settled = watch(exporter, 10, 4)
        expected = {
            "gpu0": {"a": 1.0},
            "gpu1": {"b": 1.0},
            "gpu2": {"a": 0.7, "b": 0.3},
            "gpu3": {"a": 0.3 + 0.4 / 3, "b": 0.3 + 0.4 / 3, "c": 0.4 / 3},
            "gpu4": {"a": 4 / 7, "b": 3 / 7},
            "gpu5": {"a": 3 / 7, "b": 1 / 7, "_idle_": 3 / 7},
            "gpu6": {"c": 1.0},
            "gpu7": {"_idle_": 1.0},
            "gpu8": {"short": 1.0},
            "gpu9": {"_idle_": 1.0},
        }
        for device, parts in expected.items():
            assert shares(before, settled, device) == pytest.approx(parts, abs=0.02), device
        fake.boards[6].processes([])
        fake.boards[7].processes([Process(c, sm=80)])
        leaving.close()
        fake.boards[8].processes([])
        appearing = stack.enter_context(sleeper("late"))
        fake.boards[9].processes([Process(appearing, sm=10)])
        watch(exporter, 10, 2)
        moved = watch(exporter, 10, 0)
        last = watch(exporter, 10, 3)
        assert shares(settled, moved, "gpu8").keys() <= {"short", "_idle_"}
        for device, parts in {
            "gpu6": {"_idle_": 1.0},
            "gpu7": {"c": 1.0},
            "gpu8": {"_idle_": 1.0},
            "gpu9": {"late": 1.0},
        }.items():
            assert shares(moved, last, device) == pytest.approx(parts, abs=0.02), device
        slices = {tuple(sorted(dict(labels).items())) for name, labels in last if name == "carbon_job_slice_info"}
        assert (("device", "gpu5"), ("job_name", "a"), ("profile", "3g.40gb"), ("slice", "gi1")) in slices
