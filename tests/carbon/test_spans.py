"""The account of spans: nothing is lost by a limit, and nothing grows without end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_exporter.carbon.spans import FOLDED, SpanAccount, SpanEntry, SpanKey, SpanTotal, Trace
from carbon_exporter.jobs.base import OVERFLOW, Job
from carbon_exporter.sensors.base import Kind
from carbon_exporter.units import Grams, Joules

JOBS = [Job("train"), Job("eval", "research"), OVERFLOW]
KINDS: tuple[Kind, ...] = ("gpu", "cpu", "dram")


def entry(span: str, joules: float = 1.0, *, job: Job = JOBS[0], rank: str = "", **values: float) -> SpanEntry:
    return SpanEntry(SpanKey(job, "FR", span, rank), {"cpu": Joules(joules)}, Grams(joules / 2), 0.5, 1, values)


def joules_of(account: SpanAccount) -> float:
    both = (*account.totals.values(), *account.resting.values())
    return math.fsum(joules for total in both for joules in total.joules.values())


entries = st.builds(
    SpanEntry,
    st.builds(
        SpanKey,
        st.sampled_from(JOBS),
        st.sampled_from(["FR", "PL"]),
        st.text(max_size=4) | st.integers(0, 60).map(str),
        st.sampled_from(["", "0", "1"]),
    ),
    st.dictionaries(st.sampled_from(KINDS), st.floats(0, 1e9).map(Joules), max_size=3),
    st.floats(0, 1e9).map(Grams),
    st.floats(0, 1e6),
    st.integers(0, 5),
    st.dictionaries(st.text(max_size=3), st.floats(-1e9, 1e9), max_size=8),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(entries, max_size=6), max_size=20),
    st.integers(1, 6),
    st.integers(1, 12),
    st.none() | st.integers(1, 90),
)
def test_whatever_is_posted_is_counted_somewhere_and_limits_hold(
    batches: list[list[SpanEntry]], per_job: int, most: int, series: int | None
) -> None:
    account = SpanAccount(per_job=per_job, most=most, values=3, series=series)
    told = [one for batch in batches for one in batch]
    for batch in batches:
        account.post_all(batch)
        if len(batch) == 5:
            account.rest({JOBS[0]})
    both = (*account.totals.values(), *account.resting.values())
    expected = math.fsum(joules for one in told for joules in one.joules.values())
    assert joules_of(account) == pytest.approx(expected)
    assert math.fsum(total.grams for total in both) == pytest.approx(math.fsum(one.grams for one in told))
    assert sum(total.count for total in both) == sum(one.ended for one in told)
    assert len(account.totals) <= 2 * most + 2
    assert all(len(total.values) <= 3 for total in both)
    for key in account.totals:
        same = [k for k in account.totals if (k.job, k.rank) == (key.job, key.rank) and k.span != FOLDED]
        assert len(same) <= per_job


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(entries, max_size=6), max_size=10))
def test_announcing_first_and_posting_later_comes_to_the_same_as_posting(batches: list[list[SpanEntry]]) -> None:
    at_once, later = (SpanAccount(per_job=3, most=6) for _ in range(2))
    for batch in batches:
        at_once.post_all(batch)
        later.post_all(later.announce(batch))
    assert later.totals.keys() == at_once.totals.keys()
    assert joules_of(later) == pytest.approx(joules_of(at_once))
    assert later.folded_total == at_once.folded_total


def test_a_new_span_is_announced_at_zero_with_each_of_its_kinds() -> None:
    account = SpanAccount()
    (placed,) = account.announce([entry("epoch", 3.0, loss=0.5)])
    assert account.totals == {placed.key: SpanTotal({"cpu": Joules(0.0)})}
    account.post(placed)
    assert account.totals[placed.key] == SpanTotal({"cpu": Joules(3.0)}, Grams(1.5), 0.5, 1, {"loss": 0.5})


def test_what_is_beyond_a_limit_is_folded_into_one_span_of_its_job_and_counted() -> None:
    account = SpanAccount(per_job=2)
    for number in range(5):
        account.post(entry(f"step {number}"))
    account.post(entry("step 0"))
    assert {key.span for key in account.totals} == {"step 0", "step 1", FOLDED}
    assert account.totals[SpanKey(JOBS[0], "FR", FOLDED)].count == 3
    assert account.folded_total == 3


def test_ranks_have_limits_of_their_own() -> None:
    account = SpanAccount(per_job=1)
    for rank in ("0", "1"):
        account.post(entry("epoch", rank=rank))
    assert {key.span for key in account.totals} == {"epoch"}
    assert account.folded_total == 0


def test_beyond_all_limits_even_the_job_is_folded() -> None:
    account = SpanAccount(per_job=1, most=1)
    for number in range(9):
        account.post(entry("a", job=Job(f"job {number}")))
    assert SpanKey(OVERFLOW, "FR", FOLDED) in account.totals
    assert joules_of(account) == 9


def test_what_a_script_has_folded_itself_stays_folded_and_keeps_no_values() -> None:
    account = SpanAccount()
    key = account.post(entry(FOLDED, loss=1.0))
    assert key.span == FOLDED
    assert account.totals[key].values == {}


@pytest.mark.parametrize(
    ("told", "cleaned"), [("  a\nb ", "a?b"), ("", "span"), ("_idle_", "idle"), ("é" * 300, "é" * 128)]
)
def test_names_are_cleaned(told: str, cleaned: str) -> None:
    assert SpanAccount().post(entry(told)).span == cleaned


def test_a_job_that_rests_is_not_shown_and_goes_on_when_it_comes_back() -> None:
    account = SpanAccount()
    key = account.post(entry("epoch", 2.0))
    account.rest(frozenset())
    assert account.totals == {}
    account.post(entry("epoch", 3.0))
    assert account.totals[key].joules == {"cpu": 5.0}
    assert account.resting == {}


def test_a_job_that_is_forgotten_begins_anew() -> None:
    account = SpanAccount()
    account.post(entry("epoch", 2.0))
    account.rest(frozenset())
    account.keep(frozenset())
    key = account.post(entry("epoch", 3.0))
    assert account.totals[key].joules == {"cpu": 3.0}


def test_of_jobs_at_rest_only_so_many_are_remembered() -> None:
    account = SpanAccount(most=2)
    for number in range(100):
        account.post(entry("a", job=Job(f"job {number}")))
        account.rest(frozenset())
    assert len(account.resting) == 32
    assert SpanKey(Job("job 99"), "FR", "a") in account.resting


def test_the_newest_trace_and_values_are_kept() -> None:
    account = SpanAccount()
    trace = Trace("ab" * 16, "cd" * 8, Joules(2.0), 1.8e9)
    key = account.post(SpanEntry(entry("epoch").key, {"cpu": Joules(1.0)}, values={"loss": 2.0}, trace=trace))
    account.post(entry("epoch", loss=1.0))
    assert account.totals[key].trace == trace
    assert account.totals[key].values == {"loss": 1.0}


def test_no_new_spans_are_named_beyond_the_limit_of_series() -> None:
    account = SpanAccount(series=20)
    for number in range(50):
        account.post(entry(f"step {number}"))
    assert account.series <= 30
    assert joules_of(account) == 50
