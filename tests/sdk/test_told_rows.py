"""The rows that are due: whatever is lost on the way, the newest totals arrive, and no message is too long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.carbon.runs import RunKey, RunTotal
from carbon_exporter.carbon.spans import SpanAccount, SpanEntry, SpanKey, Trace
from carbon_exporter.jobs.base import Job
from carbon_exporter.publish.handoff_limits import HandoffLimits
from carbon_exporter.publish.handoff_wire import LONGEST_LINE, SpanRow, Spans, decode_script
from carbon_exporter.sdk.run_record import MOST_KEPT
from carbon_exporter.sdk.told_rows import MOST_ROWS, ToldRows
from carbon_exporter.sdk.told_runs import MOST_NAMED
from carbon_exporter.units import Grams, Joules


def entry(span: str, joules: float = 1.0, *, job: str = "train", **more: Any) -> SpanEntry:
    """A span that has ended."""
    return SpanEntry(SpanKey(Job(job), "FR", span), {"cpu": Joules(joules)}, seconds=0.5, ended=1, **more)


def taken(rows: ToldRows) -> Spans:
    """The next message, which must be there, as the exporter reads it."""
    line = rows.take()
    assert line is not None
    message = decode_script(line)
    assert isinstance(message, Spans)
    return message


def test_only_what_changed_is_told_and_as_running_totals() -> None:
    account, rows = SpanAccount(), ToldRows("train")
    for span in ("epoch", "load"):
        account.post(entry(span))
    rows.note(account.totals)
    assert [row.span for row in taken(rows).rows] == ["epoch", "load"]
    account.post(entry("epoch", 2.0))
    rows.note(account.totals)
    assert taken(rows).rows == (SpanRow("epoch", {"cpu": 3.0}, 1.0, 2),)
    assert rows.take() is None
    assert not rows.due


def test_regions_and_ranks_of_one_span_are_one_row_for_the_exporter_says_where_it_is() -> None:
    account, rows = SpanAccount(), ToldRows("train")
    first = entry("epoch", 2.0, values={"loss": 0.5}, trace=Trace("a1", "b1", Joules(1.0), 7.0))
    account.post(first)
    account.post(replace(first, key=first.key._replace(region="DE"), joules={"cpu": Joules(3.0)}))
    account.post(entry("epoch", 2.0, job="other", trace=Trace("a2", "b2", Joules(3.0), 8.0)))
    rows.note(account.totals)
    own, other = taken(rows).rows
    assert own == SpanRow("epoch", {"cpu": 5.0}, 1.0, 2, {"loss": 0.5}, "a1", "b1", 1.0)
    assert other == SpanRow("epoch", {"cpu": 2.0}, 0.5, 1, {}, "a2", "b2", 3.0, "other")


def test_many_rows_go_in_several_messages() -> None:
    account, rows = SpanAccount(per_job=200), ToldRows()
    for n in range(150):
        account.post(entry(f"span-{n}"))
    rows.note(account.totals)
    messages = [taken(rows) for _ in range(3)]
    assert [len(message.rows) for message in messages] == [MOST_ROWS, MOST_ROWS, 150 - 2 * MOST_ROWS]
    assert [message.number for message in messages] == [1, 2, 3]
    rows.seen(2)
    assert len(rows.unsafe) == 150 - 2 * MOST_ROWS


def test_long_names_make_more_messages_and_none_that_is_too_long() -> None:
    account, rows = SpanAccount(per_job=100), ToldRows()
    long = "\U0001f525" * 300
    for n in range(64):
        account.post(entry(f"{n}{long}", values={f"{n}\x01{v}{long}": 0.5 for v in range(8)}))
    rows.note(account.totals)
    told: list[str] = []
    while line := rows.take():
        assert len(line) <= LONGEST_LINE
        message = decode_script(line)
        assert isinstance(message, Spans)
        told += [row.span for row in message.rows]
    assert sorted(told) == sorted({key.span for key in account.totals})


_texts = st.text(st.characters(exclude_categories=()), max_size=300)


@given(_texts, st.dictionaries(_texts, st.floats(), max_size=12), st.floats(), st.tuples(_texts, _texts, st.floats()))
def test_whatever_a_script_records_the_exporter_can_read_it(
    name: str, values: dict[str, float], amount: float, trace: tuple[str, str, float]
) -> None:
    account, rows = SpanAccount(values=20), ToldRows()
    exemplar = Trace(trace[0], trace[1], Joules(trace[2]), 1.0)
    account.post(SpanEntry(SpanKey(Job("train"), "FR", name), {"cpu": Joules(amount)}, seconds=amount, ended=1,
                           values=values, trace=exemplar))  # fmt: skip
    rows.note(account.totals)
    (row,) = taken(rows).rows
    assert row.count == 1
    assert row.joules.get("cpu", 0.0) == (min(amount, 1e15) if amount > 0 and math.isfinite(amount) else 0.0)


_steps = st.one_of(
    st.tuples(st.just("post"), st.integers(0, 5)),
    st.tuples(st.just("take"), st.booleans()),
    st.tuples(st.just("seen"), st.integers(0, 3)),
    st.tuples(st.just("lost"), st.just(0)),
)


@given(st.lists(_steps, max_size=60))
def test_in_the_end_the_exporter_has_all_totals_whatever_was_lost_on_the_way(steps: list[tuple[str, int]]) -> None:
    """`take` True: the message arrives; False: it is lost, and with it the connection, sooner or later."""
    account, rows = SpanAccount(), ToldRows()
    there: dict[str, SpanRow] = {}
    saved: list[int] = []
    broken = False
    for step, how in steps:
        if step == "post":
            account.post(entry(f"span-{how}"))
            rows.note(account.totals)
        elif step == "take" and rows.due:
            message = taken(rows)
            broken = broken or not how
            if not broken:
                there.update({row.span: row for row in message.rows})
                saved.append(message.number)
        elif step == "seen" and saved and not broken:
            rows.seen(saved[max(0, len(saved) - 1 - how)])
        elif step == "lost":
            rows.lost()
            broken = False
    rows.lost()
    while rows.due:
        there.update({row.span: row for row in taken(rows).rows})
    expected = {key.span: (total.joules["cpu"], total.count) for key, total in account.totals.items()}
    assert {name: (row.joules["cpu"], row.count) for name, row in there.items()} == expected


def test_what_is_kept_is_as_large_as_the_account_and_not_as_what_happened() -> None:
    account, rows = SpanAccount(), ToldRows()
    for n in range(500):
        account.post(entry(f"span-{n}"))
        rows.note(account.totals)
        rows.take()
        rows.lost()
    assert len(rows.unsafe) == len(account.totals) < 40


def runs_at(joules: Mapping[str, float], job: str = "train") -> dict[RunKey, RunTotal]:
    """Runs as an account lists them."""
    return {RunKey(Job(job), run): RunTotal(Joules(used), Grams(used / 10)) for run, used in joules.items()}


def told_runs(rows: ToldRows) -> dict[tuple[str, str], float]:
    """What the exporter knows of runs when all that is due has arrived: the newest of each row."""
    known: dict[tuple[str, str], float] = {}
    while rows.due:
        message = taken(rows)
        for row in message.runs:
            assert row.joules >= known.get((row.run, row.job), 0.0), "totals only grow"
            known[row.run, row.job] = row.joules
        rows.seen(message.number)
    return known


def test_of_very_many_runs_the_first_are_told_by_themselves_and_the_others_as_one_sum_that_loses_nothing() -> None:
    rows, known = ToldRows("train"), dict[tuple[str, str], float]()
    for first in range(0, 3 * MOST_KEPT, 4):
        for part in (0.5, 1.0):  # four go on, four are new; then the account lets go of the former
            newest = {f"r{number}": part for number in range(first + 4, first + 8)}
            rows.note_runs(runs_at({**{f"r{number}": 1.0 for number in range(first, first + 4)}, **newest}))
            known |= told_runs(rows)
    assert len(known) == MOST_NAMED + 1
    assert sum(known.values()) == 3 * MOST_KEPT + 4
    again = {"r3": 1.5, f"r{3 * MOST_KEPT}": 3.0}
    rows.note_runs(runs_at(again))
    known |= told_runs(rows)
    assert known["r3", ""] == 1.5
    assert sum(known.values()) == 3 * MOST_KEPT + 4 + 2.5, "one that goes on, by itself or among the others"


def test_a_full_account_of_spans_and_very_many_runs_of_many_jobs_are_less_than_an_exporter_takes() -> None:
    account, rows = SpanAccount(), ToldRows("train")
    for number in range(40 * 8):
        account.post(entry(f"span-{number}", job=f"job-{number % 8}"))
    rows.note(account.totals)
    for number in range(100):
        rows.note_runs(runs_at({f"r{number}": 1.0}, job=f"job-{number}"))
    names, joules = set[tuple[str, str, str]](), dict[tuple[str, str], float]()
    while rows.due:
        message = taken(rows)
        names |= {("span", row.span, row.job) for row in message.rows}
        names |= {("run", row.run, row.job) for row in message.runs}
        joules |= {(row.run, row.job): row.joules for row in message.runs}
    assert len(names) <= HandoffLimits().spans
    assert sum(joules.values()) == 100.0
