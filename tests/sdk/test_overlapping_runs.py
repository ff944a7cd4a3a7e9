"""Runs that overlap, in threads, in tasks and by hand: each has its own energy and name, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from opentelemetry import baggage, trace
from support.span_engine import plain, tracked
from support.waiting import until

from carbon_exporter import CarbonRun, carbon_span, track
from carbon_exporter.sdk.run_record import run_totals
from carbon_exporter.sdk.tracker import Tracker
from carbon_exporter.units import JOULES_PER_KWH


def joules_of_runs(tracker: Tracker) -> Mapping[str, float]:
    """By name, once all is settled."""
    until(lambda: not tracker.ended)
    totals = run_totals(tracker.runs, plain(tracker).choice.identity())
    return {key.run: float(total.joules) for key, total in totals.items()}


def names_here() -> tuple[str, ...]:
    return tuple(os.environ.get(name, "") for name in ("CARBON_RUN", "BAGGAGE", "TRACEPARENT"))


@track(summary="none")
async def trial(seconds: float) -> str:
    await asyncio.sleep(seconds)
    run = CarbonRun.current()
    return run.name if run else ""


def test_tasks_that_are_tracked_at_once_are_runs_of_their_own_and_share_the_energy() -> None:
    async def sweep() -> list[str]:
        return await asyncio.gather(*(trial(0.1 + 0.05 * one) for one in range(3)))

    before = dict(os.environ)
    with tracked() as tracker:
        names = asyncio.run(sweep())
        joules = joules_of_runs(tracker)
        spans = plain(tracker).account.totals.values()
        assert set(joules) == set(names)
        assert len(joules) == 3, "each has a name of its own"
        assert sum(joules.values()) == pytest.approx(sum(sum(one.joules.values()) for one in spans))
    assert dict(os.environ) == before


def test_threads_with_runs_of_one_name_add_up_to_the_whole() -> None:
    together = Barrier(4)

    def work(_: int) -> CarbonRun:
        with CarbonRun("sweep", summary="none") as run:
            together.wait(10)
            time.sleep(0.1)
        run.wait(5)
        return run

    with tracked() as tracker, ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(work, range(4)))
        assert joules_of_runs(tracker)["sweep"] == pytest.approx(JOULES_PER_KWH * sum(run.energy_kwh for run in runs))


def test_a_run_in_a_thread_is_not_taken_for_the_one_that_another_thread_has_open() -> None:
    def unnamed() -> str:
        with CarbonRun(summary="none") as run:
            return run.name

    with tracked(), CarbonRun("mine", summary="none"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(unnamed).result() != "mine"
        assert unnamed() == "mine", "within it, one without a name is of it"


@pytest.mark.parametrize("order", ["first", "last"])
def test_in_whatever_order_runs_end_the_environment_is_as_before_and_tells_of_one_that_is_open(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAGGAGE", "tenant=a")
    monkeypatch.setenv("CARBON_RUN", "given")
    before, outside, span = names_here(), baggage.get_all(), trace.get_current_span()
    with tracked():
        runs = [CarbonRun(name, summary="none") for name in ("one", "two")]
        for run in runs:
            run.begin()
        assert os.environ["CARBON_RUN"] == "two"
        ended, other = runs if order == "first" else reversed(runs)
        ended.end()
        assert os.environ["CARBON_RUN"] == other.name
        assert os.environ["BAGGAGE"].split(",")[0] == "tenant=a"
        assert os.environ["BAGGAGE"].endswith(f"carbon.run={other.name}")
        assert CarbonRun.current() is other
        assert trace.get_current_span() is span, "its API is loaded, and nothing more"
        assert baggage.get_baggage("carbon.run") == other.name
        other.end()
        assert CarbonRun.current() is None
    assert names_here() == before
    assert baggage.get_all() == outside


def test_a_child_that_is_forked_from_a_run_is_of_it_in_all_its_threads() -> None:
    def child(told: multiprocessing.SimpleQueue[str]) -> None:
        with ThreadPoolExecutor(1) as pool:
            told.put(pool.submit(lambda: CarbonRun(summary="none").__enter__().name).result())

    fork = multiprocessing.get_context("fork")
    told = fork.SimpleQueue()
    with tracked(), CarbonRun("parent", summary="none"):
        process = fork.Process(target=child, args=(told,))
        process.start()
        assert told.get() == "parent"
        process.join(30)


def test_the_same_run_within_itself_is_counted_once_however_deep() -> None:
    with tracked() as tracker:
        with CarbonRun("same", summary="none") as outer, carbon_span("step"), CarbonRun("same", summary="none"):
            time.sleep(0.05)
        outer.wait(5)
        assert joules_of_runs(tracker) == {"same": pytest.approx(outer.energy_kwh * JOULES_PER_KWH)}


SWITCHED_OFF = """
import tracemalloc
from carbon_exporter import CarbonRun
def passages(number):
    for _ in range(number):
        with CarbonRun("same", summary="none"):
            pass
    return tracemalloc.get_traced_memory()[0]
tracemalloc.start()
passages(50)
print(-passages(50) + passages(500))
"""


def test_runs_that_nobody_measures_are_not_remembered() -> None:
    environ = {**os.environ, "CARBON_SDK": "off"}
    grown = subprocess.check_output([sys.executable, "-c", SWITCHED_OFF], env=environ, text=True, timeout=60)
    assert int(grown) < 50_000, "bytes, for 500 passages"
