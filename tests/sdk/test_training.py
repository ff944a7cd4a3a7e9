"""A real training: two ranks, a small CNN, loaders in processes of their own; Prometheus and the trace agree."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.driven import driven_tree, two_sockets
from support.exporter import Exporter
from support.prometheus import Prometheus, prometheus

from carbon_exporter.units import JOULES_PER_KWH

EXAMPLE = Path(__file__).parents[2] / "examples/train_ddp.py"
EPOCHS = 3


@contextmanager
def watched_node(directory: Path, memory: Path) -> Iterator[tuple[str, Prometheus]]:
    """An exporter over moving RAPL counters, scraped by a real Prometheus; yields its socket for scripts too."""
    sysfs = memory / "sys"
    two_sockets(sysfs, range_uj=2_000_000_000, limit_watts=60)
    with tempfile.TemporaryDirectory(prefix="sdk") as short, driven_tree(sysfs, "40:100:3"):
        socket = f"{short}/sdk.sock"
        flags = ("--sample.interval=1s", "--grid.region=FR", "--containers.sockets=", f"--path.sysfs={sysfs}")
        with (
            Exporter(*flags, f"--sdk.socket={socket}", f"--storage.path={directory / 'state'}") as exporter,
            prometheus(directory, exporter.port) as server,
        ):
            yield socket, server


def train(socket: str, traces: Path) -> str:
    """Run the example as its docstring says; what it printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(EXAMPLE)]
    environ = {**os.environ, "CARBON_JOB": "train-cnn", "CARBON_SDK_SOCKET": socket, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, f"--epochs={EPOCHS}", "--images=8192", f"--traces={traces}"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_rank(server: Prometheus, expression: str) -> dict[str, float]:
    return {one["metric"]["rank"]: float(one["value"][1]) for one in server.query(expression)}


@pytest.mark.timeout(180)
def test_prometheus_shows_each_epochs_energy_by_rank_and_the_trace_shows_it_too(
    tmp_path: Path, in_memory: Path
) -> None:
    if importlib.util.find_spec("torch") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("torch is not installed")
    traces = tmp_path / "traces"
    traces.mkdir()
    with watched_node(tmp_path, in_memory) as (socket, server):
        printed = train(socket, traces)
        time.sleep(4)
        chosen = '{job_name="train-cnn",span="epoch",region="FR"}'
        joules = by_rank(server, f"sum by (rank) (carbon_span_energy_kwh_total{chosen}) * 3.6e6")
        per_epoch = by_rank(
            server,
            f"sum by (rank) (carbon_span_energy_kwh_total{chosen}) / "
            'on (rank) carbon_spans_total{job_name="train-cnn",span="epoch"} * 3.6e6',
        )
        seen_by_increase = by_rank(
            server, f"sum by (rank) (increase(carbon_span_energy_kwh_total{chosen}[2m])) * 3.6e6"
        )
        (whole,) = server.query(f"sum(carbon_span_energy_kwh_total{chosen}) * 3.6e6")
        grams = by_rank(server, f"carbon_span_co2e_grams_total{chosen}")
        losses = by_rank(server, 'carbon_span_value{job_name="train-cnn",span="epoch",name="loss"}')
        (job,) = server.query('sum(carbon_job_energy_kwh_total{job_name="train-cnn"}) * 3.6e6')
    spans = {
        path.stem.removeprefix("rank"): [json.loads(line) for line in path.read_text().splitlines()]
        for path in traces.iterdir()
    }
    assert set(joules) == set(spans) == {"0", "1"}
    for rank, traced in spans.items():
        told = [one["attributes"] for one in traced if one["name"] == "epoch"]
        assert [one["epoch"] for one in told] == list(range(EPOCHS))
        bound = sum(one["carbon.uncertainty"] for one in told)  # what was not known yet when each epoch ended
        assert joules[rank] == pytest.approx(sum(one["carbon.energy"] for one in told), rel=0.05, abs=bound)
        assert per_epoch[rank] == pytest.approx(joules[rank] / EPOCHS)
        assert seen_by_increase[rank] > 0
        assert grams[rank] == pytest.approx(joules[rank] / JOULES_PER_KWH * told[0]["carbon.intensity"], rel=0.01)
        last = re.findall(rf"rank {rank} epoch {EPOCHS - 1}: loss ([0-9.]+)", printed)
        assert losses[rank] == pytest.approx(float(last[0]), abs=1e-4)
        assert {one["carbon.rank"] for one in told} == {rank}
        assert {one["carbon.quality"] for one in told} == {"measured"}
    assert float(whole["value"][1]) == pytest.approx(sum(joules.values()))
    assert sum(joules.values()) < float(job["value"][1]), "the job has its start and its launcher beside its epochs"


def test_the_example_of_a_run_says_what_it_cost_and_a_budget_ends_it_after_a_checkpoint(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("torch is not installed")
    example = EXAMPLE.with_name("train_run.py")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CARBON_", "OTEL_"))}
    environ = {**own, "CARBON_SDK_SOCKET": "/nonexistent", "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(example), "--epochs=200", "--budget=0.00001 Wh", f"--checkpoint={tmp_path / 'last.pt'}"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"run \S+ has used \S+ kWh of its budget of 1e-08 kWh; .*last\.pt has what was learnt", done.stdout
    )
    assert (tmp_path / "last.pt").stat().st_size > 1000
    assert re.search(r"carbon-exporter: run \S+: [\d.]+ s, \S+ kWh, .* g CO2e, \d+ epochs \(\w+\)", done.stderr)
