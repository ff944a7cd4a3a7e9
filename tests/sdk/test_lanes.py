"""Spans that overlap share what there is, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.sdk.lanes import FINEST_SECONDS, MOST_PARTS, Lane, Lanes, Moment

THREADS = 3


class World:
    """A process's clocks, moved by hand: the wall, and the CPU time of its threads."""

    def __init__(self) -> None:
        self.wall, self.threads, self.dead = 0.0, [0.0] * THREADS, set[int]()
        self.lanes = Lanes(self.now, self.read)

    def now(self) -> Moment:
        return self.wall, sum(self.threads)

    def read(self, clock: int) -> float | None:
        return None if clock in self.dead else self.threads[clock]

    def enter(self, thread: int = 0, parent: Lane | None = None, *, clock: bool = True) -> Lane:
        lane = Lane(thread, thread if clock else None)
        self.lanes.enter(lane, parent)
        return lane

    def leave(self, *lanes: Lane) -> None:
        for lane in lanes:
            self.lanes.leave(lane, lane.thread)

    def pass_time(self, wall: float, *cpu: float) -> None:
        self.wall += wall
        for thread, seconds in enumerate(cpu):
            self.threads[thread] += seconds


class Group(NamedTuple):
    """Who was open together in a stretch of time, under whom."""

    start: Moment
    end: Moment
    parent: Lane | None
    members: tuple[Lane, ...]


def weights(lane: Lane, group: Group) -> tuple[float, float]:
    found = [part for part in lane.parts if part[0] <= group.start and group.end <= part[1]]
    assert len(found) == 1, "every stretch of an open span is in one of its parts"
    return found[0][2:]


def integral(lane: Lane) -> float:
    return sum((end[0] - start[0]) * rest for start, end, _, rest in lane.parts)


@given(st.data())
def test_siblings_add_up_to_their_parent_whatever_comes_and_goes(data: st.DataObject) -> None:
    world, groups, open_lanes = World(), list[Group](), list[Lane]()
    clocked = data.draw(st.booleans())
    for _ in range(data.draw(st.integers(1, 15))):
        ends: bool = data.draw(st.booleans())
        if open_lanes and ends:
            world.leave(open_lanes.pop(data.draw(st.integers(0, len(open_lanes) - 1))))
        else:
            parent = data.draw(st.sampled_from([None, *open_lanes]))
            open_lanes.append(world.enter(data.draw(st.integers(0, THREADS - 1)), parent, clock=clocked))
        start = world.now()
        world.pass_time(0.01, *data.draw(st.tuples(*[st.sampled_from([0.0, 0.004, 0.01])] * THREADS)))
        groups += _groups(open_lanes, start, world.now())
    world.leave(*reversed(open_lanes))
    for group in groups:
        whole = (1.0, 1.0) if group.parent is None else weights(group.parent, group)
        parts = [weights(member, group) for member in group.members]
        assert sum(cpu for cpu, _ in parts) == pytest.approx(whole[0])
        assert sum(rest for _, rest in parts) == pytest.approx(whole[1])
        assert all(-1e-9 <= weight <= 1 + 1e-9 for part in parts for weight in part)


def _groups(open_lanes: Sequence[Lane], start: Moment, end: Moment) -> list[Group]:
    parents = {lane.parent for lane in open_lanes}
    return [Group(start, end, one, tuple(lane for lane in open_lanes if lane.parent is one)) for one in parents]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6))
def test_a_parent_has_at_least_what_its_children_have(durations: list[tuple[int, int]]) -> None:
    world = World()
    parent = world.enter()
    total = 0.0
    for alone, together in durations:
        one = world.enter(1, parent)
        world.pass_time(alone / 100)
        other = world.enter(2, parent)
        world.pass_time(together / 100)
        world.leave(one, other)
        total += integral(one) + integral(other)
    world.leave(parent)
    assert total == pytest.approx(integral(parent)) == pytest.approx(world.wall)


def test_spans_one_after_the_other_have_all_and_lose_nothing_between() -> None:
    world = World()
    for _ in range(3):
        lane = world.enter()
        began = world.now()
        world.pass_time(0.5, 0.2)
        world.leave(lane)
        assert lane.parts == [(began, world.now(), 1.0, 1.0)]
        assert not lane.cpu_shared
        assert not lane.rest_shared


def test_threads_share_processors_by_their_cpu_time_and_the_rest_equally() -> None:
    world = World()
    one, other = world.enter(0), world.enter(1)
    world.pass_time(1.0, 0.9, 0.3)
    world.leave(one, other)
    assert [part[2:] for part in one.parts] == [(0.75, 0.5)]
    assert other.parts[0][2:] == (0.25, 0.5)
    assert one.rest_shared
    assert not one.cpu_shared


def test_a_child_has_its_share_of_its_parents_share() -> None:
    world = World()
    one, _other = world.enter(0), world.enter(1)
    child = world.enter(0, one)
    world.pass_time(1.0, 0.6, 0.2)
    world.leave(child)
    ((start, end, cpu, rest),) = child.parts
    assert (start[0], end[0], rest) == (0.0, 1.0, 0.5)
    assert cpu == pytest.approx(0.75)


def test_a_thread_of_a_child_counts_for_its_parent() -> None:
    world = World()
    one, other = world.enter(0), world.enter(1)
    child = world.enter(2, one)
    world.pass_time(1.0, 0.0, 0.25, 0.75)
    world.leave(child, other, one)
    assert other.parts[-1][2] == pytest.approx(0.25)
    assert one.parts[-1][2] == child.parts[-1][2] == pytest.approx(0.75)


def test_tasks_on_one_thread_share_equally_and_say_so() -> None:
    world = World()
    one, other = world.enter(0), world.enter(0)
    world.pass_time(1.0, 0.9)
    world.leave(one, other)
    assert one.parts[0][2:] == other.parts[0][2:] == (0.5, 0.5)
    assert one.cpu_shared
    assert other.cpu_shared


def test_without_clocks_of_threads_parts_are_equal() -> None:
    world = World()
    one, other = world.enter(0, clock=False), world.enter(1, clock=False)
    world.pass_time(1.0, 0.9, 0.1)
    world.leave(one, other)
    assert one.parts[0][2] == 0.5
    assert one.cpu_shared


def test_a_thread_that_has_ended_used_what_it_was_last_seen_with() -> None:
    world = World()
    one, other = world.enter(0), world.enter(1)
    world.pass_time(1.0, 0.5, 0.5)
    world.lanes.cut()
    world.dead.add(1)
    world.pass_time(1.0, 0.5, 0.0)
    world.lanes.leave(other, 0)
    assert [part[2] for part in other.parts] == [0.5, 0.0]
    assert other.cpu_shared, "it was left by another thread than it was entered by"
    world.leave(one)


def test_children_that_outlive_their_parent_go_to_its_parent() -> None:
    world = World()
    root = world.enter()
    parent = world.enter(0, root)
    child = world.enter(0, parent)
    world.leave(parent)
    world.pass_time(1.0, 1.0)
    world.leave(child)
    assert child.parent is root
    assert integral(child) == pytest.approx(1.0)
    late = world.enter(0, parent)
    assert late.parent is root, "a parent that has ended is stepped over"
    world.leave(late, root)
    assert not world.lanes.crowded


def test_company_that_changes_fast_is_taken_in_the_mean() -> None:
    world = World()
    long, parts = world.enter(0), 500
    for _ in range(parts):
        short = world.enter(1)
        world.pass_time(FINEST_SECONDS / 10, FINEST_SECONDS / 10)
        world.leave(short)
        world.pass_time(FINEST_SECONDS / 10, FINEST_SECONDS / 10)
    world.leave(long)
    assert len(long.parts) < parts / 3
    assert integral(long) == pytest.approx(0.75 * world.wall, rel=0.02)


def test_a_span_that_nobody_folds_does_not_grow_without_end() -> None:
    world = World()
    long = world.enter(0)
    for _ in range(MOST_PARTS):
        short = world.enter(1)
        world.pass_time(0.01, 0.01)
        world.leave(short)
        world.pass_time(0.01, 0.01)
    world.leave(long)
    assert len(long.parts) == MOST_PARTS
    assert integral(long) == pytest.approx(0.75 * world.wall)


def test_leaving_twice_is_an_error_of_the_caller() -> None:
    world = World()
    lane = world.enter()
    world.leave(lane)
    with pytest.raises(ValueError, match="not in list"):
        world.leave(lane)
