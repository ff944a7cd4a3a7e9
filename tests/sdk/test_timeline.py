"""The timeline: energy as a function of an edge, and how far off that may be."""

from __future__ import annotations

import math
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.sdk.timeline import KEEP_POINTS, Timeline

WATTS = st.floats(0.0, 1000.0)
SECONDS = st.floats(0.01, 5.0)
INTERVALS = st.lists(st.tuples(SECONDS, WATTS), min_size=1, max_size=40)


def built(powers: list[float], *, cold: bool = False, seconds: float = 1.0, slack: float = 0.0) -> Timeline:
    """Intervals of equal length with these powers, from zero on."""
    timeline = Timeline(cold=cold)
    for number, watts in enumerate(powers):
        timeline.add(number * seconds, (number + 1) * seconds, watts * seconds, slack=slack)
    return timeline


def test_inside_an_interval_energy_is_a_straight_line() -> None:
    timeline = built([100.0, 100.0, 300.0])
    assert timeline.at(1.0)[0] == pytest.approx(100.0)
    assert timeline.at(1.25)[0] == pytest.approx(125.0)
    assert timeline.at(2.5)[0] == pytest.approx(350.0)


def test_a_step_between_two_levels_is_found_where_the_energy_says() -> None:
    timeline = built([100.0, 100.0, 250.0, 300.0])  # a quarter of the third second was still at 100 W
    assert timeline.at(2.25)[0] == pytest.approx(225.0)
    assert timeline.at(2.5)[0] == pytest.approx(225.0 + 75.0)
    assert timeline.at(3.0)[0] == pytest.approx(450.0)


def test_a_ramp_has_no_knee() -> None:
    timeline = built([100.0, 150.0, 200.0, 250.0])
    assert timeline.at(2.5)[0] == pytest.approx(350.0)


def test_the_last_slope_is_drawn_out() -> None:
    joules, bound, missing = built([200.0, 200.0]).at(2.5)
    assert joules == pytest.approx(500.0)
    assert bound > 0
    assert missing == 0.0


def test_a_level_known_from_before_is_drawn_out_once_that_has_been_right() -> None:
    night, day = [60.0] * 4, [300.0] * 4
    timeline = built([*night, 180.0, *day, 180.0, *night, 180.0, *day, 180.0, *night, 180.0])
    end = 25.0
    assert timeline.at(end + 0.5)[0] - timeline.at(end)[0] == pytest.approx(150.0)  # not 90: it steps to 300 W again


def test_without_history_the_slope_may_be_wrong_by_all_of_it() -> None:
    _, bound, _ = built([200.0]).at(1.5)
    assert bound >= 0.95 * 100.0


def test_a_steady_load_earns_a_small_bound() -> None:
    _, bound, _ = built([200.0] * 100).at(100.5)
    assert bound == pytest.approx(0.0, abs=1e-6)


def test_slack_widens_every_edge() -> None:
    timeline = built([200.0] * 100, slack=0.01)
    assert timeline.at(50.5)[1] == pytest.approx(2.0)
    assert timeline.at(100.5)[1] == pytest.approx(2.0)


def test_a_possible_step_inside_is_bounded_by_what_its_neighbours_differ() -> None:
    timeline = built([100.0, 200.0, 100.0])  # a pulse: nobody knows when
    joules, bound, _ = timeline.at(1.5)
    assert joules == pytest.approx(200.0)
    assert bound == pytest.approx(100.0)  # twice what it takes for a pulse at either end
    assert timeline.at(1.0)[1] == pytest.approx(0.0)


def test_a_gap_is_not_filled_but_said_to_be_missing() -> None:
    timeline = Timeline(cold=False)
    timeline.add(0.0, 1.0, 100.0, slack=0.0)
    timeline.add(4.0, 5.0, 300.0, slack=0.0)
    assert timeline.at(4.0)[0] == timeline.at(1.0)[0] == 100.0
    assert timeline.at(4.0)[2] - timeline.at(1.0)[2] == pytest.approx(3 * 300.0)
    assert timeline.at(5.0)[2] == timeline.at(4.0)[2]


def test_intervals_that_differ_by_rounding_have_no_gap() -> None:
    timeline = Timeline(cold=False)
    timeline.add(0.0, 1.0, 100.0, slack=0.005)
    timeline.add(1.004, 2.0, 100.0, slack=0.005)
    assert timeline.at(2.0)[0] == pytest.approx(200.0)
    assert timeline.at(2.0)[2] == 0.0


def test_a_silent_meter_keeps_its_energy_and_more_and_more_is_missing() -> None:
    timeline = built([100.0] * 3)
    timeline.hold(3.5)
    assert timeline.at(10.0)[0] == pytest.approx(350.0)
    assert timeline.at(10.0)[2] == pytest.approx(650.0)
    timeline.add(3.0, 11.0, 800.0, slack=0.0)  # it speaks again, and its counter had gone on
    assert timeline.at(11.0) == pytest.approx((1100.0, 0.0, 0.0), abs=100.0)


def test_before_the_first_point_the_first_slope_is_drawn_backwards_where_nobody_watched() -> None:
    assert built([100.0], cold=True).at(-0.5) == pytest.approx((-50.0, 50.0, 0.0))
    assert built([100.0], cold=False).at(-0.5)[0] == 0.0


def test_after_a_pause_the_power_of_the_work_is_drawn_backwards_to_its_beginning() -> None:
    timeline = built([60.0] * 3, seconds=0.1)
    timeline.wake(100.0)
    before = timeline.at(100.05)[0] - timeline.at(100.0)[0]
    assert before == pytest.approx(3.0)  # not known yet: as it was before the pause, give or take all of it
    assert timeline.at(100.05)[1] == pytest.approx(3.0)
    timeline.add(100.05, 100.15, 30.0, slack=0.0)
    assert timeline.at(100.15)[0] - timeline.at(100.0)[0] == pytest.approx(45.0)
    assert timeline.at(100.0)[1] >= 15.0
    assert timeline.at(100.0)[1] < 60.0
    assert timeline.at(100.15)[2] == 0.0


def test_an_edge_older_than_what_is_kept_is_as_uncertain_as_can_be() -> None:
    timeline = built([100.0] * (2 * KEEP_POINTS + 10), seconds=0.1)
    joules, bound, _ = timeline.at(5.0)
    assert joules - bound <= 50.0 <= joules + bound


def test_what_the_meters_slack_makes_of_a_level_load_is_no_step_of_a_processor_that_is_one_of_many() -> None:
    timeline, now = Timeline(cold=False), 0.0
    for watts in [*[60.0] * 10, *[300.0] * 10] * 8 + [60.0] * 9 + [61.0]:  # a change of 1.7 %, of 1 ms in 100
        timeline.add(now, now + 0.1, watts * 0.1, slack=0.001, slope=watts, interval=0.8)
        now += 0.1
    assert timeline.at(now + 0.05)[0] - timeline.at(now)[0] == pytest.approx(61.0 * 0.05)


@given(INTERVALS, st.floats(-2.0, 250.0), st.floats(0.0, 100.0))
def test_the_time_between_two_edges_is_the_difference_of_both(
    intervals: list[tuple[float, float]], start: float, seconds: float
) -> None:
    timeline, now = Timeline(cold=True), 0.0
    for length, watts in intervals:
        timeline.add(now, now + length, watts * length, slack=0.001)
        now += length
    for begins in (start, now + start / 1000):
        before, off, lost = timeline.at(begins)
        joules, bound, missing = timeline.at(begins + seconds)
        expected = (joules - before, off, bound, missing - lost)
        assert timeline.between(begins, begins + seconds) == pytest.approx(expected, abs=1e-6)


def test_an_abscissa_that_stood_still_still_tells_the_slope() -> None:
    timeline = Timeline(cold=False)
    timeline.add(5.0, 6.0, 10.0, slack=0.0, slope=10.0, interval=4.0)
    timeline.add(6.0, 6.0, 0.0, slack=0.0, slope=30.0, interval=4.0)
    assert timeline.at(6.5)[0] == pytest.approx(25.0)


def test_an_empty_timeline_knows_of_nothing() -> None:
    assert Timeline(cold=True).at(3.0) == (0.0, 0.0, 0.0)


@given(INTERVALS, st.lists(st.floats(-2.0, 250.0), min_size=2, max_size=20), st.sets(st.integers(0, 39)))
def test_energy_never_falls_from_one_edge_to_a_later_one(
    intervals: list[tuple[float, float]], edges: list[float], gaps: set[int]
) -> None:
    timeline, now = Timeline(cold=True), 0.0
    for number, (seconds, watts) in enumerate(intervals):
        now += 1.0 if number in gaps else 0.0
        timeline.add(now, now + seconds, watts * seconds, slack=0.001)
        now += seconds
    known = [timeline.at(edge) for edge in sorted([*edges, now, 0.0])]
    for (earlier, _, lost), (later, bound, lost_later) in pairwise(known):
        assert later >= earlier - 1e-9 * (1 + abs(earlier))
        assert lost_later >= lost - 1e-9 * (1 + lost)
        assert 0.0 <= bound < math.inf


@given(INTERVALS)
def test_between_points_all_energy_is_there_and_nothing_else(intervals: list[tuple[float, float]]) -> None:
    timeline, now, total = Timeline(cold=True), 0.0, 0.0
    for seconds, watts in intervals:
        timeline.add(now, now + seconds, watts * seconds, slack=0.0)
        now, total = now + seconds, total + watts * seconds
    assert timeline.at(now)[0] - timeline.at(0.0)[0] == pytest.approx(total)


def test_readers_on_other_threads_see_one_state_at_a_time() -> None:
    timeline, ended, wrong = built([100.0], seconds=0.1), threading.Event(), []

    def read() -> None:
        while not ended.is_set():
            ahead, inside = timeline.at(10_000.0)[0], timeline.at(30.0)[0]
            if ahead != pytest.approx(1_000_000.0) or inside < 3000.0 - 1e-6:
                wrong.append((ahead, inside))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    for number in range(1, 5 * KEEP_POINTS):
        timeline.add(number * 0.1, (number + 1) * 0.1, 10.0, slack=0.0)
    ended.set()
    reader.join(10.0)
    assert wrong == []
