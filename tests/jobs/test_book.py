"""The job book: who is published and for how long; and whatever is folded, nothing of its use is lost."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.jobs.base import IDLE, OVERFLOW, UNATTRIBUTED, Activity, Job, Usage
from carbon_exporter.jobs.book import REMEMBERED_PER_PUBLISHED, JobBook
from carbon_exporter.jobs.privacy import Privacy, parse_patterns

A, B, C, D = (Job(name) for name in "abcd")
MARKED = "CARBON_JOB"


def activity(at: float, *usages: Usage) -> Activity:
    return Activity(at - 5.0, at, 4, 20.0, 1000.0, 500.0, usages)


def book(most: int = 64, linger: float = 300.0, retain: float = 86400.0) -> JobBook:
    return JobBook(most=most, linger=linger, retain=retain)


def ran(*jobs: Job) -> tuple[Usage, ...]:
    return tuple(Usage(job, 1.0) for job in jobs)


def admitted(one: JobBook, at: float, *usages: Usage, preferred: frozenset[Job] = frozenset()) -> set[Job]:
    return {usage.job for usage in one.admit(activity(at, *usages), preferred).usages}


def test_a_job_is_published_while_it_runs_and_lingers_after_its_end() -> None:
    one = book(linger=300.0)
    assert one.published() == frozenset()
    admitted(one, 10.0, *ran(A, B))
    assert one.published() == {A, B}
    admitted(one, 310.0, *ran(B))
    assert one.published() == {A, B}, "300 s after its end is still within"
    admitted(one, 310.1, *ran(B))
    assert one.published() == {B}


def test_a_job_is_remembered_and_then_forgotten() -> None:
    one = book(linger=300.0, retain=1000.0)
    admitted(one, 0.0, *ran(A))
    admitted(one, 1000.0)
    assert one.published() == frozenset()
    assert one.remembered() == {A}
    assert one.last_seen() == {A: 0.0}
    admitted(one, 1000.1)
    assert one.remembered() == frozenset()


def test_a_remembered_job_that_comes_back_is_published_again() -> None:
    one = book(linger=10.0)
    admitted(one, 0.0, *ran(A))
    admitted(one, 100.0)
    assert one.published() == frozenset()
    admitted(one, 200.0, *ran(A))
    assert one.published() == {A}


def test_jobs_beyond_the_limit_are_folded_with_all_that_they_used() -> None:
    one = book(most=1)
    usages = (Usage(A, 3.0, 10.0, 1.0), Usage(B, 2.0, 20.0, 2.0), Usage(C, 1.0, 30.0, 4.0))
    assert one.admit(activity(5.0, *usages), frozenset()).usages == (usages[0], Usage(OVERFLOW, 3.0, 50.0, 6.0))
    assert one.published() == one.remembered() == {A}
    assert one.folded_total == 2


def test_nothing_is_changed_where_nothing_is_folded() -> None:
    one, what = book(), activity(5.0, *ran(A, B))
    assert one.admit(what, frozenset()) is what
    assert one.folded_total == 0


def test_a_job_is_counted_as_folded_each_time_it_begins_to_be() -> None:
    one = book(most=1, linger=0.0)
    for at in (5.0, 10.0, 15.0):
        admitted(one, at, Usage(A, 9.0), *ran(B))
        assert one.folded_total == 1
    admitted(one, 20.0, *ran(B))
    assert one.published() == {B}
    admitted(one, 25.0, Usage(A, 9.0), *ran(B))
    assert one.folded_total == 2


def test_of_new_jobs_the_marked_come_first_then_those_that_use_most() -> None:
    usages = (Usage(A, 9.0), Usage(B, 5.0), Usage(C, 1.0), Usage(D, 0.0))
    assert admitted(book(most=1), 5.0, *usages) == {A, OVERFLOW}
    assert admitted(book(most=1), 5.0, *usages, preferred=frozenset({D})) == {D, OVERFLOW}
    assert admitted(book(most=3), 5.0, *usages, preferred=frozenset({D})) == {D, A, B, OVERFLOW}


def test_who_is_published_gives_way_only_to_a_job_that_somebody_named() -> None:
    one = book(most=1)
    admitted(one, 5.0, *ran(A))
    assert admitted(one, 10.0, Usage(A, 0.0), Usage(B, 9.0)) == {A, OVERFLOW}
    assert admitted(one, 15.0, Usage(B, 9.0)) == {OVERFLOW}, "a lingers"
    assert one.published() == {A}
    assert admitted(one, 20.0, Usage(B, 0.0), preferred=frozenset({B})) == {B}
    assert one.published() == {B}
    assert one.remembered() == {A, B}
    assert admitted(one, 25.0, Usage(A, 9.0), Usage(B, 0.0), preferred=frozenset({B})) == {B, OVERFLOW}


def test_a_lower_limit_folds_those_that_use_least() -> None:
    one = book(most=2)
    admitted(one, 5.0, *ran(A, B))
    one.most = 1
    assert admitted(one, 10.0, Usage(A, 1.0), Usage(B, 2.0)) == {B, OVERFLOW}
    assert one.published() == {B}


def holding(one: JobBook, at: float, *usages: Usage, holders: frozenset[Job]) -> set[Job]:
    return {usage.job for usage in one.admit(activity(at, *usages), frozenset(), holders).usages}


def test_a_job_that_holds_a_board_runs_even_without_cpu_time() -> None:
    one = book(linger=10.0, retain=20.0)
    for at in (0.0, 100.0):
        assert holding(one, at, *ran(B), holders=frozenset({A})) == {B}
        assert one.published() == {A, B}
    holding(one, 110.0, holders=frozenset())
    assert one.published() == {A, B}, "lingering"
    holding(one, 111.0, holders=frozenset())
    assert one.published() == frozenset()
    assert one.remembered() == {A, B}
    holding(one, 121.0, holders=frozenset())
    assert one.remembered() == frozenset()


def test_a_job_that_holds_a_board_gives_way_only_to_one_that_somebody_named() -> None:
    one = book(most=1)
    assert holding(one, 5.0, *ran(B), holders=frozenset({A})) == {OVERFLOW}
    assert one.published() == {A}
    assert one.folded == {B}
    assert one.folded_total == 1
    one = book(most=1)
    admitted(one, 5.0, *ran(B))
    holding(one, 10.0, *ran(B), holders=frozenset({A}))
    assert one.published() == {A}, "boards are where the energy is"
    one.admit(activity(15.0, *ran(B)), frozenset({C}), frozenset({A, C}))
    assert one.published() == {C}
    assert one.folded == {A, B}


def test_a_job_beyond_the_limit_that_only_holds_a_board_is_folded_too() -> None:
    one, what = book(most=1), activity(5.0, *ran(A))
    assert one.admit(what, frozenset({A}), frozenset({A, B})) is what
    assert one.folded == {B}
    assert one.folded_total == 1


def test_reserved_names_that_hold_boards_are_no_jobs() -> None:
    one = book(most=1)
    holding(one, 5.0, holders=frozenset({IDLE, UNATTRIBUTED, OVERFLOW}))
    assert one.published() == one.folded == frozenset()


def test_thousands_of_short_jobs_are_not_all_remembered() -> None:
    one = book(most=2, linger=0.0)
    for number in range(1000):
        admitted(one, 5.0 * number, *ran(Job(f"short{number}")))
    kept = REMEMBERED_PER_PUBLISHED * 2
    assert one.remembered() <= {Job(f"short{number}") for number in range(999 - kept, 1000)}


def test_a_restored_book_goes_on_where_it_was() -> None:
    one = book(linger=300.0, retain=1000.0)
    one.restore({A: 0.0, B: -500.0, C: -1000.0, IDLE: 0.0, UNATTRIBUTED: 0.0}, 7, now=100.0)
    assert one.published() == {A}
    assert one.remembered() == {A, B}
    assert one.folded_total == 7
    admitted(one, 105.0, *ran(B))
    assert one.published() == {A, B}


def private(most: int = 64, *, include: str = "", exclude: str = "") -> JobBook:
    privacy = Privacy(parse_patterns(include), parse_patterns(exclude))
    return JobBook(most=most, linger=300.0, retain=86400.0, privacy=privacy)


def test_a_job_that_is_not_to_be_named_is_in_overflow_and_not_among_those_beyond_the_limit() -> None:
    one = private(exclude="b,d")
    usages = (*ran(A, B), Usage(C, 3.0), Usage(D, 2.0, 100.0, 4.0))
    result = {usage.job: usage for usage in one.admit(activity(10.0, *usages), frozenset({B})).usages}
    assert result.keys() == {A, C, OVERFLOW}
    assert result[OVERFLOW] == Usage(OVERFLOW, 3.0, 100.0, 4.0)
    assert one.published() == one.remembered() == {A, C}
    assert one.folded == {B, D}, "their boards are in _overflow_, too"
    assert one.folded_total == 0


def test_one_that_is_not_to_be_named_takes_no_others_place() -> None:
    one = private(1, exclude="b")
    assert admitted(one, 10.0, *ran(A, B), preferred=frozenset({B})) == {A, OVERFLOW}
    assert admitted(one, 15.0, *ran(A, B, C), preferred=frozenset({B})) == {A, OVERFLOW}
    assert one.folded_total == 1, "job c"


def test_only_those_that_are_to_be_named_are_where_they_are_listed() -> None:
    one = private(include="a,b", exclude="b")
    assert admitted(one, 10.0, *ran(A, B, C)) == {A, OVERFLOW}
    one.admit(activity(15.0, *ran(A)), frozenset(), holders={C, UNATTRIBUTED})
    assert one.folded == {C}
    assert one.folded_total == 0


def test_a_job_that_must_not_be_named_any_more_is_not_named_after_a_restart() -> None:
    one = private(exclude="a")
    one.restore({A: 90.0, B: 95.0}, 0, now=100.0)
    assert one.published() == {B}


usages = st.lists(
    st.builds(
        Usage,
        st.integers(0, 12).map(lambda number: Job(f"job{number}")),
        st.floats(0.0, 1e6),
        st.floats(0.0, 1e12),
        st.floats(0.0, 64.0),
    ),
    max_size=8,
    unique_by=lambda usage: usage.job,
)
ticks = st.lists(st.tuples(st.floats(0.1, 400.0), usages), max_size=15)


numbers = st.sets(st.integers(0, 12))


@given(ticks=ticks, most=st.integers(1, 6), marked=numbers, on_boards=numbers)
def test_folding_loses_no_use_and_never_publishes_too_many(
    ticks: list[tuple[float, list[Usage]]], most: int, marked: set[int], on_boards: set[int]
) -> None:
    one, at = book(most=most, linger=100.0, retain=500.0), 0.0
    preferred, holders = (frozenset(Job(f"job{number}") for number in some) for some in (marked, on_boards))
    for seconds, used in ticks:
        at += seconds
        result = one.admit(activity(at, *used), preferred, holders).usages
        for field in ("cpu_seconds", "memory_bytes", "cpus_reserved"):
            whole, parts = (math.fsum(getattr(usage, field) for usage in which) for which in (used, result))
            assert math.isclose(whole, parts, rel_tol=1e-12, abs_tol=1e-300)
        running = ({usage.job for usage in result} | (holders - one.folded)) - {OVERFLOW}
        assert running <= one.published() <= one.remembered()
        assert len(one.published()) <= most
        assert len({usage.job for usage in result}) == len(result)
