"""`CarbonRun` in a script: its epochs, its names, what it leaves behind, and that it stays a guest."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.exporter import parse
from support.span_engine import plain, tracked
from support.waiting import until

from carbon_exporter import CarbonRun, carbon_span
from carbon_exporter.carbon.runs import RunTotal
from carbon_exporter.errors import ConfigError
from carbon_exporter.sdk import tracing
from carbon_exporter.sdk.run_record import MOST_RUNS, run_totals
from carbon_exporter.sdk.tracker import Tracker
from carbon_exporter.units import JOULES_PER_KWH

DEVICES = 210.0
"""Watts of the board and the memory that `tracked` simulates."""


def told(tracker: Tracker) -> dict[str, RunTotal]:
    """The runs that are told of, by name."""
    return {key.run: one for key, one in run_totals(tracker.runs, plain(tracker).choice.identity()).items()}


def worked(run: CarbonRun, epochs: int, seconds: float = 0.03) -> CarbonRun:
    """The run after so many epochs."""
    with run:
        for epoch in run.epochs(range(epochs)):
            time.sleep(seconds)
            run.record(loss=1 / (epoch + 1))
    run.wait(5)
    return run


def test_epochs_and_the_time_outside_them_are_the_run() -> None:
    with tracked() as tracker:
        run = CarbonRun("r", devices=["gpu0"], summary="none")
        with run:
            time.sleep(0.1)
            for _ in run.epochs(range(4)):
                time.sleep(0.05)
        run.wait(5)
        until(lambda: not tracker.ended)
        totals = plain(tracker).account.totals
        joules = {key.span: sum(total.joules.values()) for key, total in totals.items()}
        counts = {key.span: total.count for key, total in totals.items()}
        seconds = {key.span: total.seconds for key, total in totals.items()}
        (told,) = run_totals(tracker.runs, plain(tracker).choice.identity()).values()
    assert counts == {"run": 1, "epoch": 4}
    assert joules["run"] == pytest.approx(run.energy_kwh * JOULES_PER_KWH)
    assert told.joules == pytest.approx(joules["run"])
    outside = (run.duration_seconds - seconds["epoch"]) * DEVICES
    assert joules["run"] - joules["epoch"] == pytest.approx(outside, rel=0.15)


def test_it_is_predicted_from_the_first_epoch_on_and_the_interval_closes() -> None:
    seen: list[float] = []
    with tracked(), CarbonRun(epochs=8, tariff="0.30 EUR", summary="none") as run:
        for _ in run.epochs(range(8)):
            time.sleep(0.03)
            if run.prediction is not None:
                seen.append(run.prediction.energy_kwh.high - run.prediction.energy_kwh.low)
    assert len(seen) == 7
    assert seen[-1] < seen[0]
    ahead = run.prediction
    assert ahead is not None
    assert (ahead.done, ahead.epochs, ahead.currency) == (8, 8, "EUR")
    assert ahead.energy_kwh.low == ahead.energy_kwh.high == pytest.approx(run.energy_kwh, rel=0.05)
    assert ahead.cost is not None
    assert ahead.cost.value == pytest.approx(run.energy_kwh * 1.5 * 0.30, rel=0.05), "with the site's overhead"
    assert ahead.end.value == pytest.approx(time.time(), abs=1)
    assert "8 of 8 epochs; in all" in str(ahead)
    assert json.dumps(run.to_dict())


def test_a_forecast_of_the_grid_is_what_grams_ahead_are_reckoned_with() -> None:
    with tracked(), CarbonRun(epochs=4, forecast=lambda _: 720.0, summary="none") as run:
        for epoch in run.epochs(range(4)):
            time.sleep(0.05)
            if epoch == 2:
                ahead = run.prediction
    assert ahead is not None
    mean = ahead.co2e_grams.value / ahead.energy_kwh.value
    assert mean == pytest.approx(1.5 * (360.0 + 720.0) / 2, rel=0.1), "half at 360, half at 720, PUE 1.5"


def test_a_range_that_goes_on_in_the_middle_is_a_run_that_was_started_again() -> None:
    with tracked(), CarbonRun(epochs=10, summary="none") as run:
        for _ in run.epochs(range(7, 10)):
            time.sleep(0.02)
    assert run.prediction is not None
    assert (run.prediction.done, run.prediction.epochs) == (3, 3)


def test_without_a_number_of_epochs_nothing_is_predicted() -> None:
    with tracked(), CarbonRun(summary="none") as run:
        for _ in run.epochs(iter(range(3))):
            time.sleep(0.02)
        with run.epoch(fold=2):
            time.sleep(0.02)
    assert run.epochs_done == 4
    assert run.prediction is None


class Stream:
    """What has an end, but cannot tell where: as a DataLoader of an IterableDataset."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))

    def __len__(self) -> int:
        raise TypeError("object of type 'IterableDataset' has no len()")


def test_a_loader_that_cannot_tell_its_length_is_gone_through_without_a_prediction() -> None:
    with tracked(), CarbonRun(summary="none") as run:
        assert [item for item in run.epochs(Stream())] == [0, 1, 2]  # noqa: C416 - list() would ask for the length
    assert run.epochs_done == 3
    assert run.prediction is None


def test_a_loop_that_is_left_leaves_no_epoch_open_and_an_error_is_the_scripts() -> None:
    def fail(run: CarbonRun) -> None:
        with run:
            for epoch in run.epochs(range(5)):
                if epoch == 1:
                    raise ZeroDivisionError

    with tracked() as tracker:
        with CarbonRun(summary="none") as left:
            for epoch in left.epochs(range(5)):
                if epoch == 1:
                    break
        failed = CarbonRun(summary="none")
        with pytest.raises(ZeroDivisionError):
            fail(failed)
        assert not tracker.laps
    assert left.epochs_done == failed.epochs_done == 1


def test_spans_inside_carry_the_runs_name_and_what_is_predicted() -> None:
    finished = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(finished))
    tracing._provider, tracing._tracer = None, None
    before = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER = provider
    try:
        with tracked(), CarbonRun("r-5", epochs=2, model="m", batch_size=8, seed=3, summary="none") as run:
            child = {"TRACEPARENT": os.environ["TRACEPARENT"], "BAGGAGE": os.environ["BAGGAGE"]}
            for _ in run.epochs(range(2)):
                with carbon_span("step"):
                    time.sleep(0.02)
    finally:
        trace._TRACER_PROVIDER = before
        tracing._provider, tracing._tracer = None, None
    spans = {span.name: span for span in finished.get_finished_spans()}
    assert {dict(span.attributes or {})["carbon.run"] for span in spans.values()} == {"r-5"}
    whole, epoch = dict(spans["run"].attributes or {}), dict(spans["epoch"].attributes or {})
    assert (whole["carbon.run.model"], whole["carbon.run.batch_size"], whole["carbon.run.seed"]) == ("m", 8, 3)
    assert whole["carbon.run.predicted.energy"] == pytest.approx(float(str(whole["carbon.energy"])), rel=0.2)
    assert {f"carbon.run.predicted.{name}" for name in ("energy.low", "co2e.high", "end")} <= set(epoch)
    assert epoch["carbon.epoch"] == 1
    assert spans["run"].context is not None
    ids = f"{spans['run'].context.trace_id:032x}-{spans['run'].context.span_id:016x}"
    assert child["TRACEPARENT"].rpartition("-")[0] == f"00-{ids}"
    assert "carbon.run=r-5" in child["BAGGAGE"].split(",")


def test_the_environment_is_as_it_was_when_a_run_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAGGAGE", "tenant=a%20b,carbon.run=old")
    before = dict(os.environ)
    with tracked(), CarbonRun("täglich 1", job="nightly", summary="none") as run:
        assert os.environ["CARBON_RUN"] == run.name
        entries = os.environ["BAGGAGE"].split(",")
        assert entries[:2] == ["tenant=a%20b", "carbon.job.name=nightly"]
        assert run.environment()["BAGGAGE"] == os.environ["BAGGAGE"]
    assert dict(os.environ) == before


def test_a_child_process_is_of_the_same_run_unless_it_is_told_another() -> None:
    script = "from carbon_exporter import CarbonRun; run = CarbonRun(summary='none').__enter__(); print(run.name)"

    def child(**environ: str) -> str:
        own = {**os.environ, "CARBON_SDK": "off", **environ}
        return subprocess.check_output([sys.executable, "-c", script], env=own, text=True).strip()

    with tracked(), CarbonRun("sweep-1", summary="none") as run:
        assert child() == child(CARBON_RUN="") == "sweep-1", "by its variable, and by the baggage alone"
        assert child(CARBON_RUN="other") == "other"
        assert run.current() is run
    assert CarbonRun.current() is None


def test_runs_have_names_of_their_own_and_one_of_the_same_name_goes_on() -> None:
    with tracked() as tracker:
        first, second = worked(CarbonRun(summary="none"), 1), worked(CarbonRun(summary="none"), 1)
        assert first.name != second.name
        for _ in range(3):
            again = worked(CarbonRun("same", summary="none"), 1)
        with CarbonRun("same", summary="none") as outer, CarbonRun("same", summary="none"):
            time.sleep(0.03)
        outer.wait(5)
        totals = told(tracker)
        assert set(totals) == {first.name, second.name, "same"}
        assert totals["same"].joules == pytest.approx(3 * again.energy_kwh * JOULES_PER_KWH, rel=0.6)
        for number in range(2 * MOST_RUNS):
            worked(CarbonRun(f"n{number}", summary="none"), 0)
        assert list(told(tracker)) == [f"n{number}" for number in range(MOST_RUNS, 2 * MOST_RUNS)]
        worked(CarbonRun("same", summary="none"), 1)
        assert told(tracker)["same"].joules > totals["same"].joules, "one that is entered again goes on where it was"


def test_what_a_run_that_goes_on_is_likely_to_take_is_what_it_had_and_this_passage() -> None:
    with tracked() as tracker:
        had = worked(CarbonRun("on", summary="none"), 8).energy_kwh * JOULES_PER_KWH
        with CarbonRun("on", summary="none") as run:
            assert told(tracker)["on"].predicted_joules is None, "nobody can tell yet"
            for _ in run.epochs(range(4)):
                time.sleep(0.03)
            assert run.prediction is not None
            likely = had + run.prediction.energy_kwh.value * JOULES_PER_KWH
            assert told(tracker)["on"].predicted_joules == pytest.approx(likely)
        run.wait(5)
        assert told(tracker)["on"].remaining_joules == 0.0


def test_the_summary_is_a_line_a_table_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with tracked():
        worked(CarbonRun("a", tariff="0.3 EUR"), 2)
        line = capsys.readouterr().err
        worked(CarbonRun("b", summary="table", model="m", learning_rate=0.1), 1)
        table = capsys.readouterr().err
        worked(CarbonRun("c", summary="none"), 1)
        assert capsys.readouterr().err == ""
    assert line.startswith("carbon-exporter: run a: ")
    assert line.count("\n") == 1
    assert " g CO2e, " in line
    assert " EUR, 2 epochs (modelled)" in line
    rows = dict(row.strip().split("  ", 1) for row in table.splitlines()[1:])
    assert {key: rows[key].strip() for key in ("run", "model", "learning rate", "epochs", "loss")} == {
        "run": "b",
        "model": "m",
        "learning rate": "0.1",
        "epochs": "1",
        "loss": "1",
    }


def test_a_run_that_has_ended_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with tracked() as tracker:
        run = worked(CarbonRun("once"), 1)
        used = run.energy_kwh
        with CarbonRun("another", summary="none"):
            run.end()
            assert os.environ["CARBON_RUN"] == "another"
            assert len(tracker.laps) == 1
        run.end()
    assert capsys.readouterr().err.count("run once: ") == 1
    assert run.energy_kwh == used


def test_an_argument_that_cannot_be_is_said_where_it_stands() -> None:
    for wrong in ({"summary": "long"}, {"on_exceed": "kill"}, {"budget": "much"}, {"tariff": "dear"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            CarbonRun(**wrong)  # type: ignore[arg-type]


def test_a_framework_calls_back_from_whatever_context_it_likes() -> None:
    with tracked() as tracker:
        run = CarbonRun(epochs=3, summary="none")
        copy_context().run(run.begin)
        for _ in range(3):
            copy_context().run(run.begin_epoch)
            time.sleep(0.02)
        copy_context().run(run.end_epoch)
        run.end_epoch()
        run.end()
        assert not tracker.laps
    assert run.epochs_done == 3, "an epoch that begins ends the one before"
    assert run.prediction is not None


def test_a_run_may_be_awaited() -> None:
    async def train() -> CarbonRun:
        async with CarbonRun("a", summary="none") as run:
            await asyncio.sleep(0)
        return run

    with tracked():
        assert asyncio.run(train()).duration_seconds > 0


SCRIPT = """
import os, sys, time
from carbon_exporter import CarbonRun, start_metrics_server
page = start_metrics_server(0, "127.0.0.1") if "page" in sys.argv else None
with CarbonRun("night", epochs=1000, model="m", summary="none") as run:
    for epoch in run.epochs(range(1000)):
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            sum(range(1000))
        if run.energy_kwh > 0 and epoch > int(sys.argv[1]):
            print(page.port if page else 0, run.energy_kwh, flush=True)
"""


def test_what_a_killed_script_has_used_is_published_by_the_next_one(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARBON_", "OTEL_"))}
    places = {"XDG_STATE_HOME": str(tmp_path), "CARBON_SDK_SOCKET": "/nonexistent", "CARBON_JOB": "train"}

    def script(*arguments: str) -> tuple[subprocess.Popen[str], int, float]:
        command = [sys.executable, "-c", SCRIPT, *arguments]
        process = subprocess.Popen(command, env={**kept, **places}, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        port, kwh = process.stdout.readline().split()
        return process, int(port), float(kwh)

    def kill(process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    killed, _, kwh = script("30")
    kill(killed)
    (left,) = (tmp_path / "carbon-exporter/runs").iterdir()
    assert left.parent.stat().st_mode & 0o77 == 0
    kept_kwh = json.loads(left.read_text())["rows"][0][4] / JOULES_PER_KWH
    assert 0.2 * kwh < kept_kwh < 1.01 * kwh, "about two seconds may be missing, of three or more"
    after, port, own = script("0", "page")
    try:
        page = parse(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
        labels = frozenset({("job_name", "train"), ("run", "night")})
        seen = page["carbon_run_energy_kwh_total", labels]
        assert kept_kwh <= seen < kept_kwh + 3 * own, "both lives are one run"
        assert page["carbon_run_info", labels | {("model", "m")}] == 1.0
    finally:
        kill(after)


def test_the_examples_of_the_page_run_and_are_true(tmp_path: Path) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CARBON_", "OTEL_"))}
    places = {"XDG_STATE_HOME": str(tmp_path), "CARBON_SDK_SOCKET": "/nonexistent"}
    command = [sys.executable, "-m", "doctest", str(Path(__file__).parents[2] / "docs/runs.md")]
    done = subprocess.run(command, env={**own, **places}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_tells_every_argument() -> None:
    page = (Path(__file__).parents[2] / "docs/runs.md").read_text()
    table = page.partition("| argument | means |")[2].partition("\n\n")[0]
    assert {name for name in inspect.signature(CarbonRun).parameters if f"`{name}`" not in table} == {"fields"}
