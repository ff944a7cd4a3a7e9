"""Runs in the exporter: two ranks on boards of their own, a killed rank that comes back, and what the book keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest
from support import ranks
from support.exporter import Exporter, Series
from support.fakenvml import FakeNvml, Process, environment
from support.raw_script import RawScript, session_name
from support.scripts import Room, room
from support.snapshots import grid
from support.waiting import until

from carbon_exporter.carbon.runs import RunKey
from carbon_exporter.jobs.base import Job
from carbon_exporter.publish import handoff_wire as wire
from carbon_exporter.service.runs import RunBook, SavedRuns
from carbon_exporter.units import JOULES_PER_KWH

__all__ = ["room"]

WATTS = (300.0, 120.0)
TRAIN = Job("train")


class Rank:
    """One rank as torchrun starts it, on a board of its own."""

    def __init__(self, room: Room, fake: FakeNvml, rank: int, *arguments: str) -> None:
        told = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "7f3a"}
        own = {name: value for name, value in os.environ.items() if not name.startswith(("CARBON_", "OTEL_"))}
        names = {"CARBON_JOB": "ddp", "CARBON_SDK_SOCKET": str(room.path), "CUDA_VISIBLE_DEVICES": str(rank)}
        command = [sys.executable, ranks.__file__, *arguments]
        environ = {**own, **environment(fake), **told, **names}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        fake.boards[rank].processes([Process(self.process.pid, sm=50)])

    def go(self) -> None:
        """Let it work, once it can."""
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        assert self.process.stdout.readline() == "working\n"
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def report(self) -> tuple[dict[str, Any], str]:
        """What it says in the end."""
        out, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        return json.loads(out), errors


def told(series: Series, name: str, **labels: str) -> float | None:
    """A run's number, summed over what else tells series apart; None if there is none."""
    found = [value for (one, had), value in series.items() if one == name and labels.items() <= set(had)]
    return sum(found) if found else None


def energy(exporter: Exporter, **labels: str) -> float:
    """Joules of a run."""
    return JOULES_PER_KWH * (told(exporter.series(), "carbon_run_energy_kwh_total", run="7f3a", **labels) or 0.0)


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("boards_turn")
def test_two_ranks_on_boards_of_their_own_are_right_each_and_together_and_rank_0_shows_the_sum(room: Room) -> None:
    fake = FakeNvml(room.folder / "nvml", boards=2)
    for board, watts in zip(fake.boards, WATTS, strict=True):
        board.constant(watts)
    gpus = ("--path.sysfs=/nonexistent", "--containers.sockets=")
    with room.exporter(*gpus, environ=environment(fake), interval="500ms") as exporter:
        both = [Rank(room, fake, rank, "4", "0.6") for rank in (0, 1)]
        for one in both:
            one.go()
        until(lambda: told(exporter.series(), "carbon_run_predicted_energy_kwh", rank="0") is not None, 30)
        predicted = told(exporter.series(), "carbon_run_predicted_energy_kwh", run="7f3a", rank="0")
        reports = [one.report() for one in both]
        truths = [
            fake.boards[rank].true_joules(report["begun"], report["ended"]) for rank, (report, _) in enumerate(reports)
        ]
        for rank, (report, _) in enumerate(reports):
            assert report["run"] == "7f3a"
            assert report["energy_by_kind"]["gpu"] * JOULES_PER_KWH == pytest.approx(truths[rank], rel=0.01)
        until(lambda: energy(exporter) == pytest.approx(_joules(reports), rel=1e-6), 5)
        series = exporter.series()
        for rank, (report, _) in enumerate(reports):
            assert energy(exporter, rank=str(rank)) == pytest.approx(report["energy_kwh"] * JOULES_PER_KWH, rel=1e-6)
        assert energy(exporter) == pytest.approx(sum(truths), rel=0.01), "with what processor and memory add"
        info = {"model": "probe", "dataset": "noise", "batch_size": "32", "job_name": "ddp", "rank": "1"}
        assert told(series, "carbon_run_info", **info) == 1.0
        assert predicted == pytest.approx(truths[0] / JOULES_PER_KWH, rel=0.3)
        assert "; 2 of 2 ranks: " in reports[0][1], "rank 0 sums up"
        assert "carbon-exporter:" not in reports[1][1], "and only that one speaks"


def _joules(reports: list[tuple[dict[str, Any], str]]) -> float:
    return sum(float(report["energy_kwh"]) for report, _ in reports) * JOULES_PER_KWH


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("boards_turn")
def test_a_killed_rank_and_its_elastic_restart_lose_at_most_an_interval_and_go_on_as_one_run(room: Room) -> None:
    fake = FakeNvml(room.folder / "nvml", boards=2)
    fake.boards[0].constant(WATTS[0])
    gpus = ("--path.sysfs=/nonexistent", "--containers.sockets=")
    with room.exporter(*gpus, environ=environment(fake), interval="500ms") as exporter:
        first = Rank(room, fake, 0, "100", "0.4")
        first.go()
        begun = time.monotonic()
        time.sleep(2)
        first.process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        first.process.communicate()
        time.sleep(1.2)
        truth = fake.boards[0].true_joules(begun, killed)
        before = energy(exporter, rank="0")
        lost = truth - before
        assert -0.02 * truth < lost < WATTS[0] * 1.5, "a second, in which it tells, and an interval"
        again = Rank(room, fake, 0, "5", "0.4", "2")
        again.go()
        report, _ = again.report()
        until(lambda: energy(exporter) > before, 5)
        until(lambda: energy(exporter) == pytest.approx(before + report["energy_kwh"] * JOULES_PER_KWH, rel=1e-3), 5)
        assert told(exporter.series(), "carbon_run_info", run="7f3a") == 1.0, "one run, not two"


def test_runs_survive_a_kill_of_the_exporter_and_are_not_counted_twice(room: Room) -> None:
    row = wire.RunRow("r1", 3.6e6, 1.8e6, 10.0, "m", "d", "8")

    def seen(exporter: Exporter) -> tuple[float | None, ...]:
        names = ("carbon_run_energy_kwh_total", "carbon_run_predicted_energy_kwh", "carbon_run_predicted_co2e_grams")
        return tuple(told(exporter.series(), name, run="r1", job_name="train") for name in names)

    session = session_name()
    with room.exporter() as exporter, RawScript(room.path, session=session, job="train") as script:
        script.send(wire.Spans(1, (), (row,)))
        until(lambda: seen(exporter)[0] == 1.0)
        price = script.wait_for(wire.Grid).grams_per_kwh
        assert seen(exporter)[:2] == (1.0, 1.5)
        assert seen(exporter)[2] == pytest.approx(price + 10.0)
        exporter.kill()
    with room.exporter() as exporter, RawScript(room.path, session=session, job="train") as script:
        script.send(wire.Spans(1, (), (row,)))
        script.wait_for(wire.Seen)
        time.sleep(0.6)
        assert seen(exporter)[0] == 1.0


def book_of(*names: str, per_job: int = 8, series_max: int = 1000) -> RunBook:
    """A book to which each of these has told of 1 J, one after the other."""
    book = RunBook(per_job, series_max)
    for name in names:
        tell(book, name)
    return book


def tell(book: RunBook, name: str, joules: float = 1.0, rank: str = "") -> None:
    key = RunKey(TRAIN, name, rank)
    book.tell(key, wire.RunRow(name, joules), joules, grid())
    book.turn({TRAIN}, {TRAIN})
    assert book.totals.get(key) is not None or book.per_job < 9
    book.turn({TRAIN}, {TRAIN})


def test_a_run_is_at_zero_first() -> None:
    book = RunBook(8, 1000)
    book.tell(RunKey(TRAIN, "a"), wire.RunRow("a", 5.0), 5.0, grid())
    book.turn({TRAIN}, {TRAIN})
    assert [total.joules for total in book.totals.values()] == [0.0]
    book.turn({TRAIN}, {TRAIN})
    assert [total.joules for total in book.totals.values()] == [5.0]


def test_the_newest_runs_are_shown_with_all_their_ranks_and_an_old_one_keeps_its_total() -> None:
    book = book_of("a", "b", per_job=2)
    tell(book, "b", rank="1")
    tell(book, "c")
    assert [(key.run, key.rank) for key in book.totals] == [("b", ""), ("b", "1"), ("c", "")]
    tell(book, "a")
    assert "a" not in {key.run for key in book.totals}, "the newest are those that began last"
    book.per_job = 3
    tell(book, "a")
    assert book.totals[RunKey(TRAIN, "a")].joules == 3.0


def test_the_oldest_runs_give_way_where_series_are_too_many_and_a_job_that_leaves_takes_its_runs() -> None:
    book = book_of("a", "b", "c", series_max=12)
    assert [key.run for key in book.totals] == ["b", "c"]
    book.turn(set(), {TRAIN})
    assert not book.totals
    tell(book, "c")
    assert book.totals[RunKey(TRAIN, "c")].joules == 2.0
    book.turn(set(), set())
    tell(book, "c")
    assert book.totals[RunKey(TRAIN, "c")].joules == 1.0, "forgotten with the job"


def test_runs_that_are_too_many_for_the_series_take_no_turns_on_the_page() -> None:
    book = book_of("a", "b", "c", series_max=12)
    for _ in range(3):
        for name in ("a", "b", "c"):
            book.tell(RunKey(TRAIN, name), wire.RunRow(name, 1.0), 1.0, grid())
        book.turn({TRAIN}, {TRAIN})
        assert [key.run for key in book.totals] == ["b", "c"]
    tell(book, "d")
    assert [key.run for key in book.totals] == ["c", "d"], "only a new one takes the place of the oldest"
    book.series_max = 1000
    tell(book, "a")
    assert book.totals[RunKey(TRAIN, "a")].joules == 5.0, "what it used meanwhile is not lost"


def test_what_waits_between_two_ticks_survives_a_restart() -> None:
    book = book_of("a")
    for joules in (2.0, 3.0):
        book.tell(RunKey(TRAIN, "a"), wire.RunRow("a", joules), joules, grid())
    saved = msgspec.json.decode(msgspec.json.encode(book.saved()), type=SavedRuns)
    other = RunBook(8, 1000)
    other.restore(saved)
    for _ in range(2):
        other.turn({TRAIN}, {TRAIN})
    assert other.totals[RunKey(TRAIN, "a")].joules == 6.0


class OlderSpans(msgspec.Struct, tag="spans"):
    """What a release before runs takes of such a message."""

    number: int
    rows: tuple[wire.SpanRow, ...]


class OlderSeen(msgspec.Struct, tag="seen"):
    """Likewise, of the answer."""

    number: int


def test_a_release_that_knows_no_runs_understands_all_else() -> None:
    told = wire.encode(wire.Spans(7, (wire.SpanRow("epoch", {}, 1.0, 1),), (wire.RunRow("a", 1.0),)))
    assert msgspec.json.decode(told, type=OlderSpans).number == 7
    seen = wire.encode(wire.Seen(7, (wire.RunSum("a", 2, 1.0, 0.1),)))
    assert msgspec.json.decode(seen, type=OlderSeen) == OlderSeen(7)
    assert wire.decode_script(msgspec.json.encode(OlderSpans(7, ()))) == wire.Spans(7, ())
    assert wire.decode_exporter(msgspec.json.encode(OlderSeen(7))) == wire.Seen(7)
