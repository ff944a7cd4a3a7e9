"""The sampler in real time: it reads while somebody measures, rests when nobody does, and survives its meters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.sdk_meters import CountedMeters, device
from support.traces import constant

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.sdk import trouble
from carbon_exporter.sdk.base import BoardUse, Edge
from carbon_exporter.sdk.own_use import UsePoint
from carbon_exporter.sdk.sampler import LINGER_SECONDS, Sampler

GPU, CPU = device("gpu0", period=0.1), device("cpu0", "cpu")
ROOT = Path(__file__).parents[2]


class Look:
    """What this process used: its CPU time, nothing else; or an error."""

    failing = False

    def look(self) -> UsePoint:
        if self.failing:
            raise PermissionError(13, "Permission denied")
        return UsePoint(time.monotonic(), time.process_time(), 0.0, 1e9, 0.0)


@dataclass
class Noting(CountedMeters):
    """Keeps what it reads until somebody takes it."""

    noted: deque[EnergySlice] = field(default_factory=deque)

    def glance(self) -> bool:
        self.noted.extend(CountedMeters.read(self))
        return False

    def take(self) -> Sequence[EnergySlice]:
        return [self.noted.popleft() for _ in range(len(self.noted))]

    def read(self) -> Sequence[EnergySlice]:
        self.glance()
        return self.take()


class Ticks:
    """Counts the times that readings were added."""

    count = 0
    failing = False

    def __call__(self) -> None:
        self.count += 1
        if self.failing:
            raise ValueError("no such span")


def metered(**changes: object) -> CountedMeters:
    return CountedMeters({GPU: constant(200.0), CPU: constant(40.0)}, **changes)  # type: ignore[arg-type]


@contextmanager
def sampling(meters: CountedMeters, look: Look | None = None, ticks: Ticks | None = None) -> Iterator[Sampler]:
    sampler = Sampler(meters, look or Look(), lambda: BoardUse({"gpu0": 1.0}), ticks or Ticks())
    try:
        yield sampler
    finally:
        sampler.close(10.0)


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.02)
    return held


def run(script: str) -> subprocess.CompletedProcess[str]:
    """A script in an interpreter of its own."""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)


def edge() -> Edge:
    return Edge(time.monotonic(), time.process_time())


def test_nothing_happens_before_the_first_user() -> None:
    meters = metered()
    with sampling(meters) as sampler:
        assert sampler.odometer.tally(edge()).joules == {}
    assert meters.calls == []


def test_a_user_gets_the_energy_between_two_edges() -> None:
    with sampling(metered()) as sampler:
        start = edge()
        sampler.hold()
        time.sleep(1.0)
        end = edge()
        assert sampler.odometer.tally(end).joules["gpu0"] > 0
        sampler.release()
        assert eventually(lambda: sampler.odometer.tally(end).settled)
        first, last = sampler.odometer.tally(start), sampler.odometer.tally(end)
    seconds = end.at - start.at
    assert last.joules["gpu0"] - first.joules["gpu0"] == pytest.approx(200.0 * seconds, rel=0.02)
    cpu_seconds = end.cpu_seconds - start.cpu_seconds
    assert last.joules["cpu0"] - first.joules["cpu0"] == pytest.approx(10.0 * cpu_seconds, rel=0.05, abs=0.01)


def test_who_asks_makes_energy_of_what_was_noted_and_nothing_is_counted_twice() -> None:
    meters, stop = Noting({GPU: constant(200.0), CPU: constant(40.0)}), threading.Event()

    def ask(sampler: Sampler) -> None:
        while not stop.wait(0.003):
            sampler.catch_up()

    with sampling(meters) as sampler:
        sampler.hold()
        start = edge()
        threads = [threading.Thread(target=ask, args=(sampler,), daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        end = edge()
        assert eventually(lambda: sampler.odometer.tally(end).settled)
        stop.set()
        for thread in threads:
            thread.join()
        joules = sampler.odometer.tally(end).joules["gpu0"] - sampler.odometer.tally(start).joules["gpu0"]
    assert joules == pytest.approx(200.0 * (end.at - start.at), rel=0.02)


def test_what_was_noted_waits_for_who_asks_but_not_for_longer_than_half_a_second() -> None:
    ticks = Ticks()
    with sampling(Noting({GPU: constant(200.0)}), ticks=ticks) as sampler:
        sampler.hold()
        assert eventually(lambda: sampler.odometer.settled_until > 0)
        before, began = ticks.count, time.monotonic()
        assert eventually(lambda: ticks.count >= before + 3)
        assert time.monotonic() - began > 2 * 0.45
        before, began = ticks.count, time.monotonic()
        sampler.hurry()
        assert eventually(lambda: ticks.count >= before + 3)
        assert time.monotonic() - began < 2 * 0.45


def test_the_longer_ago_the_last_block_began_the_less_often_it_reads_until_somebody_comes_or_waits() -> None:
    meters, later = metered(), 0.0
    sampler = Sampler(meters, Look(), BoardUse, Ticks(), lambda: time.monotonic() + later)

    def eased() -> list[str]:
        return [call for call in meters.calls if call.startswith("ease")]

    try:
        sampler.hold()
        assert eventually(lambda: "read" in meters.calls)
        time.sleep(0.5)
        assert eased() == []
        later = 6.5
        assert eventually(lambda: eased() == ["ease 0.2"])
        later = 12.5
        assert eventually(lambda: eased()[1:] == ["ease 0.3"])
        before = meters.calls.count("read")
        sampler.hold()
        assert eventually(lambda: eased()[2:] == ["ease 0.1"])
        assert eventually(lambda: meters.calls.count("read") > before)
        later = 31.5
        assert eventually(lambda: eased()[3:] == ["ease 0.3"])
        sampler.hurry()
        assert eventually(lambda: eased()[4:] == ["ease 0.1"])
    finally:
        sampler.close(10.0)


def test_it_rests_after_the_last_user_and_wakes_with_the_next() -> None:
    meters = metered()
    with sampling(meters) as sampler:
        began = time.monotonic()
        sampler.hold()
        sampler.hold()
        sampler.release()
        assert not eventually(lambda: "pause" in meters.calls, LINGER_SECONDS + 0.5)  # one user is left
        sampler.release()
        assert eventually(lambda: "pause" in meters.calls)
        assert time.monotonic() - began > 2 * LINGER_SECONDS
        resting = len(meters.calls)
        time.sleep(0.7)
        assert len(meters.calls) == resting
        start = edge()
        sampler.hold()
        assert eventually(lambda: sampler.odometer.settled_until > start.at)
        end = sampler.odometer.settled_edge()
        joules = sampler.odometer.tally(end).joules["gpu0"] - sampler.odometer.tally(start).joules["gpu0"]
        assert joules == pytest.approx(200.0 * (end.at - start.at), rel=0.05)
        sampler.release()
    assert meters.calls.count("open") == 1
    assert meters.calls[-1] == "close"
    assert meters.threads == {"carbon-sampler"}


def test_a_user_too_short_to_be_seen_still_wakes_it() -> None:
    with sampling(metered()) as sampler:
        start = edge()
        sampler.hold()
        sampler.release()
        assert eventually(lambda: sampler.odometer.settled_until > start.at)


def test_users_do_not_wait_for_meters_that_open_slowly() -> None:
    with sampling(metered(opening=1.0)) as sampler:
        start = edge()
        sampler.hold()
        tally = sampler.odometer.tally(edge())
        assert (tally.joules, tally.settled) == ({}, False)
        sampler.release()
        assert time.monotonic() - start.at < 0.9
        end = edge()
        assert eventually(lambda: sampler.odometer.tally(end).settled)
        assert sampler.odometer.tally(start).joules["gpu0"] < 0.0  # drawn backwards from the first reading


def test_meters_that_cannot_be_opened_are_tried_again_and_spans_settle_meanwhile(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "_seen", set())
    meters, ticks = metered(unopened=2), Ticks()
    with sampling(meters, ticks=ticks) as sampler:
        start = edge()
        sampler.hold()
        assert eventually(lambda: sampler.odometer.settled_until > start.at)
        assert ticks.count > 0
        assert eventually(lambda: "gpu0" in sampler.odometer.tally(edge()).joules)
    assert meters.calls.count("open") == 3
    assert [record.getMessage() for record in caplog.records] == ["opening meters: no meter answers"]


def test_meters_that_fail_are_said_to_once_and_left_alone_for_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "_seen", set())
    meters, ticks = metered(), Ticks()
    with sampling(meters, ticks=ticks) as sampler:
        sampler.hold()
        assert eventually(lambda: sampler.odometer.settled_until > 0)
        meters.failing = True
        before, reads = ticks.count, meters.calls.count("read")
        assert eventually(lambda: ticks.count > before + 5)
        assert meters.calls.count("read") - reads < ticks.count - before
        meters.failing = False
        end = edge()
        assert eventually(lambda: sampler.odometer.settled_until > end.at)
    warned = [record.getMessage() for record in caplog.records]
    assert sorted(warned) == [
        "asking meters when to read them: [Errno 5] Input/output error",
        "reading meters: [Errno 5] Input/output error",
    ]


def test_boards_are_measured_where_this_process_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "_seen", set())
    look, ticks = Look(), Ticks()
    look.failing = ticks.failing = True
    with sampling(metered(), look, ticks) as sampler:
        start = edge()
        sampler.hold()
        assert eventually(lambda: sampler.odometer.settled_until > start.at + 0.3)
        end = sampler.odometer.settled_edge()
        joules = sampler.odometer.tally(end).joules["gpu0"] - sampler.odometer.tally(start).joules["gpu0"]
        assert joules == pytest.approx(200.0 * (end.at - start.at), rel=0.05)
        sampler.release()


def test_a_device_that_falls_silent_does_not_keep_spans_from_settling() -> None:
    meters = metered()
    with sampling(meters) as sampler:
        sampler.hold()
        assert eventually(lambda: len(sampler.odometer.tally(edge()).joules) == 2)
        meters.silent = frozenset({"gpu0"})
        end = edge()
        assert eventually(lambda: sampler.odometer.tally(end).settled)


def test_closing_reads_once_more_and_ends_the_thread() -> None:
    meters = metered()
    sampler = Sampler(meters, Look(), BoardUse, Ticks())
    sampler.hold()
    assert eventually(lambda: "read" in meters.calls)
    sampler.close(10.0)
    assert meters.calls[-2:] == ["read", "close"]
    assert eventually(lambda: "carbon-sampler" not in {thread.name for thread in threading.enumerate()})
    sampler.hold()
    sampler.release()
    sampler.close(0.0)
    assert meters.calls[-1] == "close"


def test_closing_waits_no_longer_than_told() -> None:
    sampler = Sampler(metered(opening=3.0), Look(), BoardUse, Ticks())
    sampler.hold()
    time.sleep(0.1)
    began = time.monotonic()
    sampler.close(0.1)
    assert time.monotonic() - began < 2.0


def test_any_number_of_threads_may_hold_and_release() -> None:
    meters = metered()
    with sampling(meters) as sampler:

        def use() -> None:
            for _ in range(2000):
                sampler.hold()
                sampler.release()

        threads = [threading.Thread(target=use, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60.0)
        assert eventually(lambda: "pause" in meters.calls)
    assert meters.calls.count("open") == 1


def test_a_signal_handler_may_hold_and_release_at_any_moment() -> None:
    with sampling(metered()) as sampler:

        def handle(*_: object) -> None:
            sampler.hold()
            sampler.release()

        before = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                sampler.hold()
                sampler.release()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
        assert eventually(lambda: sampler.odometer.settled_until > until - 1.0)


FORKING = """
import os, sys, time
sys.path.insert(0, "tests")
from support.sdk_meters import CountedMeters, device
from support.traces import constant
from carbon_exporter.sdk.base import BoardUse, Edge
from carbon_exporter.sdk.own_use import UsePoint
from carbon_exporter.sdk.sampler import Sampler

class Look:
    def look(self):
        return UsePoint(time.monotonic(), time.process_time(), 0.0, 1e9, 0.0)

def made():
    meters = CountedMeters({device("gpu0"): constant(200.0)})
    return Sampler(meters, Look(), lambda: BoardUse({"gpu0": 1.0}), lambda: None)

def measured(sampler):
    start = Edge(time.monotonic(), time.process_time())
    sampler.hold()
    while sampler.odometer.settled_until < start.at + 0.2:
        time.sleep(0.02)
    end = sampler.odometer.settled_edge()
    joules = sampler.odometer.tally(end).joules["gpu0"] - sampler.odometer.tally(start).joules["gpu0"]
    return round(joules / (end.at - start.at) / 200.0, 1)

sampler = made()
print(measured(sampler), flush=True)
child = os.fork()
if child == 0:
    sampler.forget()
    sampler.hold(); sampler.release(); sampler.close(5.0)
    print(measured(made()), flush=True)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), measured(sampler), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_forgets_and_begins_anew() -> None:
    ended = run(FORKING)
    assert (ended.stdout.split(), ended.stderr, ended.returncode) == (["1.0", "1.0", "7", "1.0"], "", 0)


def test_the_interpreter_ends_without_a_word_while_it_measures() -> None:
    script = FORKING.partition("child = os.fork()")[0] + "sys.exit(3)"
    ended = run(script)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("1.0\n", "", 3)
