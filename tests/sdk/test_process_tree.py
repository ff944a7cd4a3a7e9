"""The family's account: each CPU second of the descendants once, and none of those who measure themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.families import ROOT, Family

from carbon_exporter.sdk.process_tree import ProcessTree, Seen

EVENTS = ["fork", "work", "end", "wait", "look"]
steps = st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 30), st.integers(1, 50)), max_size=80)
steps_with_trackers = st.lists(
    st.tuples(st.sampled_from([*EVENTS, "announce"]), st.integers(0, 30), st.integers(1, 50)), max_size=80
)


def look(tree: ProcessTree, family: Family) -> None:
    tree.look(family.seen(set(tree.pids)), family.announced)


def play(family: Family, tree: ProcessTree, event: str, who: int, seconds: int) -> None:
    """One event of a history, to whomever the number means."""
    if event == "look":
        look(tree, family)
        return
    members = [one for one in family.members.values() if one.ended == (event == "wait")]
    if not members:
        return
    member = members[who % len(members)]
    if event == "fork":
        family.fork(member)
    elif event == "work":
        family.work(member, float(seconds))
    elif event == "announce":
        family.announce(member)
    elif event == "end":
        family.end(member)
    elif member.parent in family.members:
        family.wait(member)


def reaches_init(family: Family) -> bool:
    """Whether somebody left the family unwaited for: what they used after the last look is nobody's."""
    return any(one.parent == 1 for one in family.members.values() if one.pid != ROOT)


@given(steps)
def test_each_second_is_counted_once_and_the_sum_never_falls(history: list[tuple[str, int, int]]) -> None:
    family, tree, before, orphaned = Family(), ProcessTree(ROOT), 0.0, False
    look(tree, family)
    for event, who, seconds in history:
        members = len(family.members)
        play(family, tree, event, who, seconds)
        orphaned = orphaned or reaches_init(family) or (event == "end" and len(family.members) < members)
        assert before <= tree.seconds <= family.ours
        before = tree.seconds
    look(tree, family)
    if not orphaned:
        assert tree.seconds == pytest.approx(family.ours)


@given(steps_with_trackers)
def test_no_second_of_those_who_measure_themselves_is_counted(history: list[tuple[str, int, int]]) -> None:
    family, tree, before = Family(), ProcessTree(ROOT), 0.0
    look(tree, family)
    for event, who, seconds in history:
        if event == "announce":
            look(tree, family)  # who begins between two looks is known by then: see the searches' own tests
        play(family, tree, event, who, seconds)
        if event in {"announce", "end", "fork"}:
            look(tree, family)
        assert before <= tree.seconds <= family.ours
        before = tree.seconds


def grown(
    tree: ProcessTree,
    *processes: Seen,
    announced: dict[int, float] | None = None,
    adopted: Sequence[int] = (),
    possible: float = math.inf,
) -> float:
    """Seconds that one look adds."""
    before = tree.seconds
    tree.look(processes, announced or {}, adopted=adopted, possible=possible)
    return tree.seconds - before


def root(waited: float) -> Seen:
    return Seen(ROOT, 1, 0, 77, waited)


def test_the_first_look_is_a_mark_and_own_time_is_not_counted() -> None:
    tree = ProcessTree(ROOT)
    assert grown(tree, root(50), Seen(2, ROOT, 1, 30, 4)) == 0
    assert grown(tree, Seen(ROOT, 1, 0, 99, 50), Seen(2, ROOT, 1, 31, 4)) == 1


def test_a_child_that_nobody_saw_is_counted_when_it_is_waited_for() -> None:
    tree = ProcessTree(ROOT)
    grown(tree, root(0))
    assert grown(tree, root(0.75)) == 0.75


def test_one_that_begins_to_measure_itself_is_ours_until_then() -> None:
    tree = ProcessTree(ROOT)
    grown(tree, root(0), Seen(2, ROOT, 1, 10, 0))
    assert grown(tree, root(0), Seen(2, ROOT, 1, 15, 0), announced={2: 12.5}) == 2.5
    assert grown(tree, root(0), Seen(2, ROOT, 1, 20, 0), announced={2: 12.5}) == 0
    assert tree.ours == (ROOT,)


def test_one_that_measured_itself_before_it_was_first_seen_is_ours_until_then() -> None:
    tree = ProcessTree(ROOT)
    grown(tree, root(0))
    assert grown(tree, root(0), Seen(2, ROOT, 1, 5, 1), announced={2: 1.5}) == 1.5


def test_what_it_used_does_not_come_back_by_the_time_that_was_waited_for() -> None:
    tree = ProcessTree(ROOT)
    grown(tree, root(0), Seen(2, ROOT, 1, 0, 0))
    grown(tree, root(0), Seen(2, ROOT, 1, 10, 0), announced={2: 0.0})
    assert grown(tree, root(10.25)) == 0, "its last quarter of a second was never seen"
    assert grown(tree, root(10.25)) == 0
    assert grown(tree, root(11.25)) == 1, "what comes later is ours again"


def test_what_it_used_does_not_come_back_one_look_later_either() -> None:
    tree = ProcessTree(ROOT)
    grown(tree, root(0), Seen(2, ROOT, 1, 0, 0))
    grown(tree, root(0), Seen(2, ROOT, 1, 10, 0), announced={2: 0.0})
    assert grown(tree, root(0)) == 0
    assert grown(tree, root(10.25)) == 0


def test_one_that_was_seen_at_its_end_hides_no_other_child() -> None:
    tree = ProcessTree(ROOT)
    grown(tree, root(0), Seen(2, ROOT, 1, 0, 0))
    grown(tree, root(0), Seen(2, ROOT, 1, 10, 0, ended=True), announced={2: 0.0})
    assert grown(tree, root(10.5)) == 0.5


def test_it_stays_apart_when_it_has_withdrawn_and_so_do_its_children_when_it_has_ended() -> None:
    tree = ProcessTree(ROOT)
    grown(tree, root(0), Seen(2, ROOT, 1, 0, 0), Seen(3, 2, 2, 0, 0), announced={2: 0.0})
    assert grown(tree, root(0), Seen(2, ROOT, 1, 5, 0), Seen(3, 2, 2, 7, 0)) == 0
    assert grown(tree, root(0), Seen(3, ROOT, 2, 9, 0)) == 0


def test_the_life_of_an_orphan_that_was_taken_in_is_not_ours() -> None:
    tree = ProcessTree(ROOT)
    grown(tree, root(0))
    assert grown(tree, root(0), Seen(2, ROOT, 50, 3600, 0), adopted=[2]) == 0
    assert grown(tree, root(0), Seen(2, ROOT, 50, 3601, 0)) == 1
    assert grown(tree, root(3601)) == 0
    assert grown(tree, root(7201), possible=2.0) == 2, "one that came and went unseen cannot have used more since"


def test_a_look_that_could_not_read_the_root_invents_nothing() -> None:
    tree = ProcessTree(ROOT)
    grown(tree, root(10), Seen(2, ROOT, 1, 5, 0))
    assert grown(tree, Seen(2, ROOT, 1, 6, 0)) == 1
    assert grown(tree, root(10), Seen(2, ROOT, 1, 7, 0)) == 1
    assert tree.pids == (ROOT, 2)


def test_a_pid_that_is_used_again_is_another_process() -> None:
    tree = ProcessTree(ROOT)
    grown(tree, root(0), Seen(2, ROOT, 1, 10, 0))
    assert grown(tree, root(10), Seen(2, ROOT, 9, 4, 0)) == 4


numbers = st.floats(0, 1e6)
anything = st.builds(
    Seen, st.integers(ROOT, ROOT + 4), st.integers(ROOT, ROOT + 4), st.integers(0, 2), numbers, numbers
)


@given(st.lists(st.lists(anything, max_size=5), max_size=6))
def test_whatever_is_seen_the_sum_never_falls(looks: list[list[Seen]]) -> None:
    tree, before = ProcessTree(ROOT), 0.0
    for processes in looks:
        tree.look(processes, {ROOT + 1: 3.0})
        assert before <= tree.seconds < math.inf
        before = tree.seconds
