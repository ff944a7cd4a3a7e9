"""Sessions and the book of spans: whatever is told in whatever order, what is counted is the highest that was told."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.snapshots import grid

from carbon_exporter.jobs.base import Job
from carbon_exporter.publish.handoff_wire import SpanRow
from carbon_exporter.sensors.base import Kind
from carbon_exporter.service.sessions import Owner, Session, Sessions, fresh, highest
from carbon_exporter.service.spans import SavedSpans, SpanBook, SpanLimits

LIMITS = SpanLimits(32, 100_000, 300.0, 86400.0)
OWNER = Owner(1000, 42, 777, "")
TRAIN = Job("train")
KINDS: tuple[Kind, ...] = ("gpu", "cpu", "dram", "accelerator", "other")

rows = st.builds(
    SpanRow,
    st.sampled_from(["epoch", "step", "eval"]),
    st.dictionaries(st.sampled_from(["gpu", "cpu"]), st.floats(0, 1e9), max_size=2),
    st.floats(0, 1e6),
    st.integers(0, 1000),
)


def opened(book: SpanBook, name: str = "a" * 32, job: Job = TRAIN, now: float = 0.0) -> Session:
    session = book.sessions.open(name, OWNER, job, "", now)
    assert session is not None
    return session


def tell(book: SpanBook, session: Session, *told: SpanRow, now: float = 0.0, hidden: bool = False) -> None:
    book.tell(session, told, grid(), shows=lambda _: not hidden, now=now, wall=1.8e9 + now)


def counted(book: SpanBook) -> dict[str, float]:
    """Joules by span, whatever is shown and whatever rests."""
    found: dict[str, float] = {}
    for key, total in (*book.account.totals.items(), *book.account.resting.items()):
        found[key.span] = found.get(key.span, 0.0) + math.fsum(total.joules.values())
    return found


def reborn(book: SpanBook, now: float, *, same_boot: bool = True) -> SpanBook:
    """Another life on the same state file."""
    body = msgspec.json.encode(book.saved(now))
    other = SpanBook(LIMITS)
    other.restore(msgspec.json.decode(body, type=SavedSpans), saved_at=now, same_boot=same_boot)
    return other


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(rows, st.sampled_from(["", "", "turn", "kill", "again"])), max_size=25))
def test_what_is_counted_is_the_highest_total_of_each_kind_through_kills_and_repetitions(
    steps: list[tuple[SpanRow, str]],
) -> None:
    book = SpanBook(LIMITS)
    best: dict[tuple[str, str], float] = {}
    for number, (row, then) in enumerate(steps):
        tell(book, opened(book), row, now=float(number))
        for kind, joules in row.joules.items():
            best[row.span, kind] = max(joules, best.get((row.span, kind), 0.0))
        if then == "turn":
            book.turn(float(number))
        elif then == "kill":
            book = reborn(book, float(number))
        elif then == "again":
            tell(book, opened(book), row, now=float(number))
    for _ in range(2):
        book.turn(float(len(steps)))
    expected: dict[str, float] = {}
    for (span, _), joules in best.items():
        expected[span] = expected.get(span, 0.0) + joules
    assert {span: joules for span, joules in counted(book).items() if joules} == pytest.approx(
        {span: joules for span, joules in expected.items() if joules}
    )


@settings(max_examples=100, deadline=None)
@given(rows, rows)
def test_a_difference_is_never_negative_and_the_highest_never_falls(before: SpanRow, now: SpanRow) -> None:
    difference, high = fresh(before, now), highest(before, now)
    assert min([*difference.joules.values(), difference.seconds, difference.count, 0.0]) >= 0
    assert all(high.joules[kind] >= joules for row in (before, now) for kind, joules in row.joules.items())
    assert high.count == max(before.count, now.count)


def test_new_spans_stand_at_zero_for_one_turn_and_again_after_a_kill() -> None:
    book = SpanBook(LIMITS)
    tell(book, opened(book), SpanRow("epoch", {"cpu": 5.0}, 1.0, 1))
    book.turn(1.0)
    assert counted(book) == {"epoch": 0.0}
    book = reborn(book, 2.0)
    book.turn(3.0)
    assert counted(book) == {"epoch": 0.0}
    book.turn(4.0)
    assert counted(book) == {"epoch": 5.0}


def test_after_a_reboot_totals_stay_and_sessions_go() -> None:
    book = SpanBook(LIMITS)
    tell(book, opened(book), SpanRow("epoch", {"cpu": 5.0}, 1.0, 1))
    book = reborn(book, 1.0, same_boot=False)
    for now in (2.0, 3.0):
        book.turn(now)
    assert counted(book) == {"epoch": 5.0}
    assert len(book.sessions) == 0


def test_spans_leave_after_the_linger_and_are_forgotten_after_the_retention() -> None:
    book = SpanBook(LIMITS._replace(linger=10.0, retain=100.0))
    tell(book, opened(book), SpanRow("epoch", {"cpu": 5.0}, 1.0, 1))
    for now in (1.0, 2.0):
        book.turn(now)
    assert book.account.totals
    book.turn(20.0)
    assert not book.account.totals
    tell(book, opened(book), SpanRow("epoch", {"cpu": 6.0}, 1.0, 1), now=50.0)
    for now in (50.0, 51.0):
        book.turn(now)
    assert [total.joules for total in book.account.totals.values()] == [{"cpu": 6.0}]
    book.turn(200.0)
    assert counted(book) == {}


def test_a_session_is_of_the_process_that_began_it() -> None:
    sessions = Sessions()
    assert sessions.open("a" * 32, OWNER, TRAIN, "", 0.0) is not None
    for other in (
        OWNER._replace(uid=0),
        OWNER._replace(pid=43),
        OWNER._replace(started=778),
        OWNER._replace(door="/jobs/x/sdk.sock"),
    ):
        assert sessions.open("a" * 32, other, TRAIN, "", 1.0) is None


def test_of_a_user_with_very_many_names_the_oldest_sessions_are_forgotten_and_nobody_elses() -> None:
    sessions = Sessions()
    other = sessions.open("f" * 32, OWNER._replace(uid=1), TRAIN, "", 0.0)
    assert other is not None
    sessions.tell(other, [SpanRow("epoch", {}, 0.0, 0)], 0.0)
    for number in range(200):
        session = sessions.open(f"{number:032x}", OWNER, TRAIN, "", float(number))
        assert session is not None
        sessions.tell(session, [SpanRow(str(span), {}, 0.0, 0) for span in range(100)], float(number))
    sessions.forget(lambda _: True)
    kept = {row.session for row in sessions.saved(200.0)}
    assert "f" * 32 in kept
    assert f"{199:032x}" in kept
    assert len(kept) < 60


def test_of_a_hidden_job_neither_name_nor_values_are_kept() -> None:
    book = SpanBook(LIMITS)
    row = SpanRow("secret", {"cpu": 5.0}, 1.0, 1, {"loss": 1.0}, "a" * 32, "b" * 16, 5.0)
    tell(book, opened(book), row, hidden=True)
    for now in (1.0, 2.0):
        book.turn(now)
    ((key, total),) = book.account.totals.items()
    assert (key.job.name, key.span, key.rank, total.values, total.trace) == ("_overflow_", "_overflow_", "", {}, None)


def test_only_a_script_that_names_itself_may_say_that_a_span_is_another_jobs() -> None:
    book = SpanBook(LIMITS)
    named, free = opened(book), opened(book, "b" * 32, Job("mine"))
    free.free = True
    for session in (named, free):
        tell(book, session, SpanRow("epoch", {"cpu": 5.0}, 1.0, 1), SpanRow("epoch", {"cpu": 2.0}, 1.0, 1, job="other"))
    book.turn(1.0)
    book.turn(2.0)
    found = {key.job.name: math.fsum(total.joules.values()) for key, total in book.account.totals.items()}
    assert found == {"train": 7.0, "mine": 5.0, "other": 2.0}
