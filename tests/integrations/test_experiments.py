"""`CarbonRun(log_to=…)`: what MLflow and Weights & Biases keep of a run, and that nothing of theirs stops it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.example_node import EXAMPLES, alone
from support.span_engine import tracked
from support.stuck_mlflow import stuck_mlflow
from support.tools import need_package
from support.wandb_file import rows, settings

from carbon_exporter import CarbonRun
from carbon_exporter.errors import ConfigError
from carbon_exporter.sdk import experiments

NUMBERS = {"duration_seconds", "energy_kwh", "co2e_grams", "power_watts", "uncertainty_kwh", "cost"}
LOADED = "sorted(name for name in sys.modules if name in {'mlflow', 'wandb', 'IPython', 'jax', 'sklearn', 'ray'})"
EXPERIMENTS = ("mlflow", "wandb")
EPOCHS = 20
"""Longer than it takes the meters to open."""


def script(text: str, environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script to its end."""
    command = [sys.executable, "-c", text, *arguments]
    return subprocess.run(command, env=dict(environ), capture_output=True, text=True, timeout=100, check=False)


def example(name: str, environ: Mapping[str, str], *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, env=dict(environ), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "logging to" not in done.stderr
    return done.stdout


def metric(run: Path, name: str) -> dict[int, float]:
    """The history of a metric in MLflow's file store, by step."""
    lines = (run / "metrics" / name).read_text().splitlines()
    return {int(step): float(value) for _, value, step in map(str.split, lines)}


@pytest.mark.soak
def test_mlflow_has_the_numbers_of_each_epoch_and_of_the_run(tmp_path: Path) -> None:
    need_package("mlflow")
    store = {"MLFLOW_TRACKING_URI": (tmp_path / "ml").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    printed = example("mlflow_train.py", {**alone(tmp_path), **store, "CARBON_JOB": "line"}, f"--epochs={EPOCHS}")
    told = re.fullmatch(r"MLflow run (\w+): (\S+) kWh\n", printed)
    assert told is not None
    (run,) = (tmp_path / "ml").glob(f"*/{told[1]}")
    assert {path.name for path in (run / "metrics/carbon").iterdir()} >= NUMBERS
    seconds, energy = metric(run, "carbon/duration_seconds"), metric(run, "carbon/energy_kwh")
    assert list(seconds) == list(range(EPOCHS + 1)), "the epochs, and the run"
    assert list(metric(run, "loss")) == list(range(EPOCHS))
    assert list(seconds.values()) == sorted(seconds.values())
    # The last readings come in after the end: the script prints later, and each number is of when it is asked for.
    assert energy[EPOCHS] == pytest.approx(float(told[2]), rel=0.1)
    assert metric(run, "carbon/cost")[EPOCHS] == pytest.approx(energy[EPOCHS] * 0.31, rel=0.1)
    assert metric(run, "carbon/co2e_grams")[EPOCHS] > 0
    tags = {path.name: path.read_text() for path in (run / "tags").iterdir() if path.name.startswith("carbon.")}
    assert tags["carbon.job"] == "line"
    assert tags["carbon.currency"] == "EUR"
    assert tags["carbon.quality"] in {"measured", "modelled", "default"}


@pytest.mark.soak
def test_wandb_has_the_numbers_of_each_epoch_and_of_the_run(tmp_path: Path) -> None:
    need_package("wandb")
    own = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true", "CARBON_JOB": "line"}
    printed = example("wandb_train.py", {**alone(tmp_path), **own}, f"--epochs={EPOCHS}")
    told = re.search(r"W&B run \w+: (\S+) kWh\n", printed)
    assert told is not None
    history = rows(tmp_path)
    assert [row["carbon/epoch"] for row in history if "carbon/epoch" in row] == list(range(EPOCHS + 1))
    assert len([row for row in history if "loss" in row]) == EPOCHS
    assert history[-1].keys() >= {f"carbon/{name}" for name in NUMBERS}
    assert history[-1]["carbon/energy_kwh"] == pytest.approx(float(told[1]), rel=0.1)
    assert history[-1]["carbon/cost"] == pytest.approx(history[-1]["carbon/energy_kwh"] * 0.31, rel=0.1)
    facts = settings(tmp_path)["carbon"]
    assert facts["job"] == "line"
    assert facts["quality"] in {"measured", "modelled", "default"}


WANDB_WAYS = """
import sys, wandb
from carbon_exporter import CarbonRun
for way in ("silent", "steps", "ends"):
    logged = wandb.init(project="p", dir=f"{sys.argv[1]}/{way}")
    with CarbonRun(log_to="wandb", summary="none") as run:
        for epoch in run.epochs(range(4)):
            if way == "steps":
                logged.log({"loss": epoch}, step=10 * epoch)
                logged.log({"accuracy": epoch}, step=10 * epoch)
            if way == "ends" and epoch == 1:
                logged.finish()
    logged.finish()
    assert run.epochs_done == 4
"""


@pytest.mark.soak
def test_wandb_loses_no_row_of_the_script_and_no_epoch_of_ours(tmp_path: Path) -> None:
    need_package("wandb")
    for way in ("silent", "steps", "ends"):
        (tmp_path / way).mkdir()
    done = script(WANDB_WAYS, {**alone(tmp_path), "WANDB_MODE": "offline", "WANDB_SILENT": "true"}, str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["carbon/epoch"] for row in rows(tmp_path / "silent")] == list(range(5))
    stepped = rows(tmp_path / "steps")
    assert [(row["_step"], row["loss"], row["accuracy"], row["carbon/epoch"]) for row in stepped[:4]] == [
        (10 * epoch, epoch, epoch, epoch) for epoch in range(4)
    ]
    assert [row["carbon/epoch"] for row in stepped[4:]] == [4]
    assert [row["carbon/epoch"] for row in rows(tmp_path / "ends")] == [0], "what has ended takes nothing"


IN_TROUBLE = """
import mlflow, time
from carbon_exporter import CarbonRun
mlflow.start_run(run_id="r1")
began = time.monotonic()
with CarbonRun(log_to="mlflow", summary="none") as run:
    for _ in run.epochs(range(400)):
        time.sleep(0.001)
took = time.monotonic() - began
mlflow.end_run()
print(run.epochs_done, took, time.time())
"""


@pytest.mark.soak
def test_a_server_in_trouble_is_logged_once_and_holds_up_nothing(tmp_path: Path) -> None:
    need_package("mlflow")
    with stuck_mlflow(refused=3) as server:
        environ = {**alone(tmp_path), "MLFLOW_TRACKING_URI": server.url, "MLFLOW_HTTP_REQUEST_TIMEOUT": "50"}
        done = script(IN_TROUBLE, environ)
        ended = time.time()
    assert done.returncode == 0, done.stderr
    epochs, seconds, left_at = done.stdout.splitlines()[-1].split()
    assert epochs == "400"
    assert server.asked == 4, "three were refused, and it has not answered since"
    refused, late = re.findall("logging to mlflow: (.*)", done.stderr)
    assert "not today" in refused
    assert "the oldest numbers are lost" in late
    assert float(seconds) < 20, "not its time-out, which is 50 s"
    assert ended - float(left_at) < 15, "nor at the end of the process"


WANDB_DIES = """
import os, sys, psutil, wandb
from carbon_exporter import CarbonRun
wandb.init(project="p", dir=sys.argv[1])
with CarbonRun(log_to="wandb", summary="none") as run:
    for epoch in run.epochs(range(6)):
        if epoch == 2:
            core = [one for one in psutil.Process().children(recursive=True) if "wandb-core" in " ".join(one.cmdline())]
            for one in core:
                one.kill()
                one.wait()
print(len(core), run.epochs_done, flush=True)
os._exit(0)  # what W&B itself does at the end of such a process is its own affair
"""


@pytest.mark.soak
def test_the_death_of_wandbs_own_process_is_logged_and_stops_nothing(tmp_path: Path) -> None:
    need_package("wandb")
    own = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = script(WANDB_DIES, {**alone(tmp_path), **own}, str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "1 6\n"), done.stderr
    assert 1 <= done.stderr.count("logging to wandb") <= 3, "each kind of error once"


@pytest.mark.soak
def test_no_run_of_theirs_is_started_and_nothing_of_theirs_is_loaded(tmp_path: Path) -> None:
    for name in EXPERIMENTS:
        need_package(name)
    text = f"""
import os, sys
import carbon_exporter
from carbon_exporter import CarbonRun, track
print({LOADED})
os.chdir(sys.argv[1])
with CarbonRun(log_to=("mlflow", "wandb"), summary="none") as run:
    for _ in run.epochs(range(2)):
        pass
print({LOADED})
"""
    (tmp_path / "here").mkdir()
    done = script(text, alone(tmp_path), str(tmp_path / "here"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n[]\n", "")
    assert not list((tmp_path / "here").iterdir())


def test_each_says_clearly_what_is_not_installed() -> None:
    text = """
import sys
sys.modules.update(dict.fromkeys(["mlflow", "wandb", "IPython"]))  # as where they are not
from carbon_exporter import CarbonRun
def jupyter():
    import carbon_exporter.integrations.jupyter
for way in (lambda: CarbonRun(log_to="mlflow"), lambda: CarbonRun(log_to=["wandb"]), jupyter):
    try:
        way()
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line, package in zip(lines, ("mlflow", "wandb", "ipython"), strict=True):
        assert line.startswith("carbon_exporter.integrations.")
        assert line.endswith(f"pip install {package}")


def test_there_are_two_and_no_third() -> None:
    assert experiments.EXPERIMENTS == EXPERIMENTS
    with pytest.raises(ConfigError, match=r"log_to.*'tensorboard'.*mlflow, wandb"):
        CarbonRun(log_to="tensorboard")


def test_energy_that_no_meter_has_told_of_is_no_zero() -> None:
    with tracked():
        run = CarbonRun(summary="none", tariff="0.30 EUR")
        assert experiments.numbers_of(run) == {"duration_seconds": 0.0}
        with run:
            assert CarbonRun.current() is run
        run.wait(5)
        found = experiments.numbers_of(run)
    assert set(found) == NUMBERS
    assert json.loads(json.dumps(found)) == found
