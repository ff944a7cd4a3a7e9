"""One tracker a process: it starts by itself, ends in time, and never changes how the program ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from support.span_engine import SteadyOdometer, names, plain, tracked

from carbon_exporter import carbon_span, configure
from carbon_exporter.errors import ConfigError
from carbon_exporter.sdk import tracker as tracker_module
from carbon_exporter.sdk.engine import Engine
from carbon_exporter.sdk.options import Options
from carbon_exporter.sdk.tracker import Tracker

SPAN = "from carbon_exporter import carbon_span\n"


def run(script: str, seconds: float = 60.0, **environ: str) -> subprocess.CompletedProcess[str]:
    """A program in an environment that has no exporter."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", SPAN + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        env={**os.environ, "CARBON_SDK_SOCKET": "/nowhere", "CARBON_REGION": "FR", "CARBON_JOB": "t", **environ},
    )


def test_what_ended_before_anything_was_ready_is_measured_all_the_same() -> None:
    with tracked(delay=0.3, ready=False) as tracker:
        with carbon_span("first") as first:
            time.sleep(0.01)
        outer = carbon_span("outer").__enter__()
        assert first.energy_kwh == 0.0
        assert first.wait(10.0)
        assert first.energy_kwh > 0
        outer.__exit__(None, None, None)
        assert outer.wait(10.0)
        assert plain(tracker).held == 0
        assert plain(tracker).most_held >= 1


def test_spans_of_many_threads_are_all_counted() -> None:
    def work() -> None:
        for _ in range(200):
            with carbon_span("step"), carbon_span("part"):
                pass

    with tracked(delay=0.05, ready=False) as tracker:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tracker.ready.wait(10.0)
        tracker.finish()
        assert {key.span: total.count for key, total in plain(tracker).account.totals.items()} == {
            "step": 1600,
            "part": 1600,
        }
        assert plain(tracker).held == 0
        assert not tracker.lanes.crowded
        assert not tracker.laps


def test_an_engine_that_cannot_be_made_costs_the_numbers_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Tracker) -> Engine:
        raise RuntimeError("no such library")

    with tracked():
        tracker = tracker_module._tracker = Tracker(build=broken)
        with carbon_span("epoch") as span:
            pass
        assert not span.wait(10.0)
        assert span.duration_seconds > 0
        tracker.finish()
    assert "no such library" in caplog.text


def test_off_is_off() -> None:
    with tracked(options=Options(path="off")) as tracker:
        with carbon_span("epoch") as span:
            span.record(loss=1.0)
        assert not span.wait(0.0)
        assert span.duration_seconds > 0
        assert not tracker.started
        assert not tracker.ended


def test_options_that_cannot_be_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="accepted: auto, exporter"):
        configure(path="csv")
    with pytest.raises(ConfigError, match="from 1 to 10"):
        configure(pue=0.5)


def test_configuring_after_the_first_span_changes_nothing_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with tracked() as tracker:
        with carbon_span("epoch"):
            pass
        configure(job="late")
        assert tracker.options.job == ""
    tracker_module._options = None
    assert "spans have been opened already" in caplog.text


def test_a_short_script_is_measured_and_told_at_its_end(tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f"""
        import atexit, pathlib
        from carbon_exporter.sdk import tracker

        def tell():
            totals = tracker.current().engine.account.totals
            text = str([(key.job.name, key.region, key.span, total.count) for key, total in totals.items()])
            pathlib.Path({str(told)!r}).write_text(text)

        atexit.register(tell)  # before ours, so that it runs after it
        tracker.current().start()
        tracker.current().ready.wait(30.0)
        with carbon_span("epoch"):
            pass
        """
    done = run(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert told.read_text() == "[('t', 'FR', 'epoch', 1)]"


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("raise SystemExit(3)", 3),
        ("import os; os._exit(4)", 4),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("raise ValueError('mine')", 1),
        ("pass", 0),
    ],
)
def test_a_program_ends_as_it_would_have(ending: str, status: int) -> None:
    done = run(f"with carbon_span('epoch'):\n    {ending}\n")
    assert done.returncode == status
    assert ("ValueError: mine" in done.stderr) == (ending == "raise ValueError('mine')")
    assert "carbon" not in done.stderr.replace("carbon_span('epoch')", "")


def test_the_end_of_a_program_is_not_held_up_by_a_thread_of_ours_that_hangs() -> None:
    script = """
        import time
        from carbon_exporter.sdk import tracker
        tracker._tracker = tracker.Tracker(build=lambda _: time.sleep(60))
        tracker._hook()
        with carbon_span("epoch"):
            pass
        began = time.monotonic()
        tracker.finish()
        assert time.monotonic() - began < 5.0
        """
    done = run(script)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_child_leaves_its_parents_spans_alone_and_has_its_own() -> None:
    with tracked() as tracker, carbon_span("parent") as outer:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                outer.record(loss=1.0)
                mine = tracker_module.current()
                with carbon_span("child"):
                    fresh = tracker_module.current() is mine is not tracker and not tracker.engine
                outer.__exit__(None, None, None)
                status = 0 if fresh and tracker.laps and not mine.laps and outer.energy_kwh == 0 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert tracker.engine is not None
    assert outer.settled
    assert names(plain(tracker).account) == ["parent"]


def test_forks_while_everything_is_being_loaded_do_not_hang() -> None:
    script = """
        import os
        with carbon_span("epoch"):
            for _ in range(20):
                child = os.fork()
                if child == 0:
                    with carbon_span("child"):
                        import carbon_exporter.sdk.engine
                    os._exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """
    done = run(script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_multiprocessing_tell_before_they_end(method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(f"""
        import multiprocessing, sys, time
        from carbon_exporter import carbon_span
        from carbon_exporter.sdk import tracker

        def work(told):
            from multiprocessing.util import Finalize
            Finalize(None, lambda: told.put(tracker.current().engine.account.totals), exitpriority=-1)
            tracker.current().start()
            tracker.current().ready.wait(30.0)
            with carbon_span("worker"):
                time.sleep(0.01)

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            told = context.SimpleQueue()
            with carbon_span("main"):
                process = context.Process(target=work, args=[told])
                process.start()
                (key,) = told.get()
                process.join()
            print(key.span, process.exitcode)
        """)
    )
    environ = {**os.environ, "CARBON_SDK_SOCKET": "/nowhere", "CARBON_REGION": "FR"}
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, check=False, timeout=60, env=environ
    )
    assert (done.stdout, done.stderr) == ("worker 0\n", "")


def test_a_dead_odometer_does_not_keep_what_has_ended_for_ever() -> None:
    with tracked(SteadyOdometer(lag=1e9)) as tracker:
        with carbon_span("epoch") as span:
            pass
        assert span.wait(30.0)
        assert not tracker.ended
