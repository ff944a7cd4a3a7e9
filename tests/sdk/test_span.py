"""`with carbon_span(...)`: what a script writes and what it gets, and that nothing here gets in its way."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from support.span_engine import IDENTITY, SteadyOdometer, plain, tracked

from carbon_exporter import CarbonSpan, carbon_span
from carbon_exporter.sdk import tracker as tracker_module
from carbon_exporter.sdk import trouble as trouble_module


@pytest.fixture(autouse=True)
def _fresh_troubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble_module, "_seen", set())


def test_a_block_has_energy_by_device_and_kind_grams_and_power() -> None:
    with tracked():
        with carbon_span("epoch") as span:
            time.sleep(0.05)
        assert span.wait(10.0)
        seconds = span.duration_seconds
        assert span.energy_by_kind["gpu"] == span.energy_by_device["gpu0"] == pytest.approx(200 * seconds / 3.6e6)
        assert span.energy_kwh == pytest.approx(sum(span.energy_by_device.values()))
        assert span.co2e_grams == pytest.approx(span.energy_kwh * 360 * 1.5)
        assert span.power_watts == pytest.approx(span.energy_kwh * 3.6e6 / seconds)
        assert span.quality == "modelled", "the worst of its devices"
        assert span.uncertainty == pytest.approx(math.sqrt(6 * 0.3**2))
        assert not span.shared


def test_numbers_grow_while_the_block_runs_and_settle_after_it() -> None:
    with tracked(SteadyOdometer(lag=0.2)):
        with carbon_span("epoch") as span:
            first = span.energy_kwh
            time.sleep(0.02)
            second = span.energy_kwh
        known = span.energy_kwh
        assert not span.settled
        assert span.uncertainty > math.sqrt(6 * 0.3**2), "its end is drawn out"
        assert 0 <= first < second < known
        assert span.wait(10.0)
        assert span.settled
        assert span.energy_kwh == pytest.approx(known)


def test_what_is_recorded_stands_beside_the_energy(caplog: pytest.LogCaptureFixture) -> None:
    with tracked() as tracker:
        with carbon_span("epoch") as span:
            span.record(loss=0.5, accuracy=float("nan"))
            span.record(loss=0.25, text="high")  # type: ignore[arg-type]
            span.record(**{f"metric{number}": number for number in range(10)})
        span.wait(10.0)
        (total,) = plain(tracker).account.totals.values()
        assert span.to_dict()["values"] == total.values
        assert total.values["loss"] == 0.25
        assert len(total.values) == 8
    assert len([record for record in caplog.records if "recording values" in record.message]) == 1


def test_all_numbers_are_ready_for_json() -> None:
    with tracked():
        with carbon_span("epoch", attributes={"epoch": 3}) as span:
            span.record(loss=1.0)
        told = json.loads(json.dumps(span.to_dict()))
    assert {"name", "energy_kwh", "co2e_grams", "duration_seconds", "power_watts", "quality", "values"} <= told.keys()


def test_a_parent_covers_its_children() -> None:
    with tracked():
        with carbon_span("run") as run:
            with carbon_span("one") as one:
                time.sleep(0.02)
            with carbon_span("two") as two:
                time.sleep(0.02)
        assert run.wait(10.0)
        assert one.wait(10.0)
        assert two.wait(10.0)
        assert run.energy_kwh >= one.energy_kwh + two.energy_kwh > 0
        assert not run.shared


def test_blocks_of_threads_share_the_boards_and_say_so() -> None:
    gate = threading.Barrier(2)
    spans = [carbon_span("left"), carbon_span("right")]

    def work(span: CarbonSpan) -> None:
        gate.wait()
        with span:
            gate.wait()
            time.sleep(0.05)
            gate.wait()

    with tracked():
        began = time.monotonic()
        threads = [threading.Thread(target=work, args=[span]) for span in spans]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - began
        assert all(span.wait(10.0) and span.shared for span in spans)
        gpu = [span.energy_by_kind["gpu"] * 3.6e6 for span in spans]
    assert sum(gpu) <= 200 * took * 1.001
    assert gpu[0] == pytest.approx(gpu[1], rel=0.5)


def test_tasks_have_parents_of_their_own() -> None:
    async def one(name: str) -> CarbonSpan:
        async with carbon_span(name) as outer:
            await asyncio.sleep(0.01)
            with carbon_span("inner"):
                await asyncio.sleep(0.01)
        return outer

    async def both() -> list[CarbonSpan]:
        return list(await asyncio.gather(one("left"), one("right")))

    with tracked():
        began = time.monotonic()
        spans = asyncio.run(both())
        took = time.monotonic() - began
        assert all(span.wait(10.0) and span.shared for span in spans)
        assert sum(span.energy_by_kind["gpu"] for span in spans) * 3.6e6 <= 200 * took * 1.001


def test_the_same_span_may_be_entered_while_it_is_open() -> None:
    span = carbon_span("step")
    with tracked() as tracker:
        with span:
            with span:
                time.sleep(0.01)
                inner = span.duration_seconds
            outer = span.duration_seconds
        thread = threading.Thread(target=span(lambda: None))
        thread.start()
        thread.join()
        assert inner <= outer
        tracker.finish()
        (total,) = plain(tracker).account.totals.values()
        assert total.count == 3


def test_functions_are_measured_call_by_call() -> None:
    span = carbon_span("call")

    @span
    def double(number: int) -> int:
        """Twice."""
        return 2 * number

    @carbon_span("wait")
    async def later(number: int) -> int:
        await asyncio.sleep(0)
        return number

    with tracked() as tracker:
        assert [double(number) for number in range(3)] == [0, 2, 4]
        assert asyncio.run(later(5)) == 5
        assert double.__doc__ == "Twice."
        tracker.finish()
        assert {key.span: total.count for key, total in plain(tracker).account.totals.items()} == {"call": 3, "wait": 1}


def test_what_cannot_be_measured_as_a_function_is_refused_when_it_is_decorated() -> None:
    def pieces() -> Any:
        yield 1

    async def more_pieces() -> Any:
        yield 1

    for generator in (pieces, more_pieces):
        with pytest.raises(TypeError, match=r"write `with carbon_span\('x'\):`"):
            carbon_span("x")(generator)
    with pytest.raises(TypeError, match="decorates functions"):
        carbon_span("x")(SimpleNamespace)


def test_an_exception_goes_on_untouched() -> None:
    error = KeyError("mine")
    with tracked(), pytest.raises(KeyError) as caught, carbon_span("epoch"):
        raise error
    assert caught.value is error
    assert len(caught.traceback) == 1


def test_wrong_use_never_raises_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with tracked():
        span = carbon_span("epoch")
        for _ in range(2):
            span.__exit__(None, None, None)
            span.record(loss=1.0)
        assert (span.energy_kwh, span.quality, span.settled, span.wait(0.0)) == (0.0, "none", False, False)
        assert span.to_dict()["energy_by_kind"] == {}
        with span:
            span.__exit__(None, None, None)
    assert [record.message for record in caplog.records] == [
        "leaving a span: 'epoch' was left and is not open",
        "recording values of 'epoch': the span was not entered",
    ]


def test_blocks_that_do_not_nest_are_measured_all_the_same() -> None:
    with tracked() as tracker:
        spans = [carbon_span(f"hand-{number}").__enter__() for number in range(3)]
        for span in spans:
            span.__exit__(None, None, None)
        with carbon_span("after") as after:
            pass
        assert all(span.wait(10.0) for span in [*spans, after])
        assert not tracker.lanes.crowded
        assert after.energy_kwh > 0
        assert not after.shared


def test_a_block_may_be_left_on_another_thread() -> None:
    with tracked():
        span = carbon_span("epoch").__enter__()
        thread = threading.Thread(target=span.__exit__, args=(None, None, None))
        thread.start()
        thread.join()
        assert span.wait(10.0)
        assert span.energy_kwh > 0


def test_a_copy_of_a_span_was_never_entered() -> None:
    with tracked(), carbon_span("epoch", job="mine") as span:
        other = copy.deepcopy(span)
        assert other.name == "epoch"
        assert other.duration_seconds == 0.0


def test_spans_of_another_job_and_of_named_boards() -> None:
    with tracked() as tracker:
        with carbon_span("epoch", job="other", devices=["gpu1"]) as span:
            time.sleep(0.01)
        assert span.wait(10.0)
        assert span.energy_by_kind.keys() == {"cpu", "dram"}, "gpu0 is not what it uses"
        (key,) = plain(tracker).account.totals
        assert (key.job.name, key.region, key.rank) == ("other", "FR", IDENTITY.rank)


def test_sync_waits_for_the_boards_at_both_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    cuda = SimpleNamespace(is_initialized=lambda: True, synchronize=lambda: calls.append("torch"))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(effects_barrier=lambda: calls.append("jax")))
    with tracked():
        with carbon_span("step", sync=True):
            assert calls == ["torch", "jax"]
        with carbon_span("step", sync=lambda: calls.append("mine")):
            pass
        with carbon_span("step", sync=lambda: 1 / 0) as span:
            pass
        assert calls == ["torch", "jax"] * 2 + ["mine"] * 2
        assert span.duration_seconds > 0


def test_a_signal_handler_may_open_a_span_while_its_thread_opens_one() -> None:
    ran: list[None] = []  # no lock, which a handler might find held by its own thread
    done: list[None] = []

    def handler(*_: object) -> None:
        with carbon_span("checkpoint"):
            ran.append(None)

    def disturb() -> None:
        for number in range(50):
            os.kill(os.getpid(), signal.SIGUSR1)
            while len(ran) <= number:
                time.sleep(0.0001)
        done.append(None)

    with tracked():
        before = signal.signal(signal.SIGUSR1, handler)
        thread = threading.Thread(target=disturb)
        thread.start()
        while not done:
            with carbon_span("step"):
                pass
        thread.join()
        signal.signal(signal.SIGUSR1, before)
        assert not tracker_module.current().lanes.crowded


def test_importing_it_loads_nothing_that_takes_time() -> None:
    heavy = ["typing", "dataclasses", "logging", "inspect", "asyncio", "opentelemetry", "carbon_exporter.sensors"]
    script = (
        "import sys; before = set(sys.modules); from carbon_exporter import carbon_span; "
        f"print([name for name in {heavy!r} if name in set(sys.modules) - before])"
    )
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}  # noqa: PTH109 - for -S leaves out what is installed
    assert subprocess.check_output([sys.executable, "-S", "-c", script], text=True, env=environ).strip() == "[]"


def test_trouble_is_logged_once_each_kind_with_its_remedy(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="carbon_exporter.sdk"):
        for _ in range(3):
            trouble_module.trouble("doing", ValueError("so"), "mend it")
    assert [record.message for record in caplog.records] == ["doing: so; mend it", "doing"]
