"""The ledger: three kinds of meter become one kind of slice, and what nobody knows becomes a gap."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.energy.ledger import LONGEST_BRIDGE_SECONDS, EnergySlice, Ledger, SavedMark
from carbon_exporter.sensors.base import Device, Quality, Reading
from carbon_exporter.units import Joules, Watts

PACKAGE = Device("cpu0", "cpu", "rapl", counter_range=Joules(65_712.0), max_power=Watts(500.0))
BOARD = Device("gpu0", "gpu", "nvml")


def counter(at: float, joules: float, device: Device = PACKAGE) -> Reading:
    return Reading(device, at, Quality.MEASURED, energy=Joules(joules))


def instant(at: float, watts: float) -> Reading:
    return Reading(BOARD, at, Quality.INTEGRATED, power=Watts(watts))


def mean(at: float, watts: float, since: float) -> Reading:
    return Reading(BOARD, at, Quality.MODELLED, power=Watts(watts), since=since)


def bare(at: float, device: Device = BOARD) -> Reading:
    return Reading(device, at, Quality.INTEGRATED)


def told(slices: list[EnergySlice]) -> list[tuple[float, float, float]]:
    """Start, end and joules."""
    return [(one.start, one.end, one.joules) for one in slices]


def test_a_counter_gives_the_difference() -> None:
    ledger = Ledger()
    assert ledger.post([counter(0.0, 100.0)]) == []
    assert ledger.post([counter(5.0, 350.0)]) == [EnergySlice(PACKAGE, 0.0, 5.0, Joules(250.0), Quality.MEASURED)]


def test_power_at_an_instant_gives_the_trapezoid() -> None:
    ledger = Ledger()
    ledger.post([instant(0.0, 100.0)])
    assert told(ledger.post([instant(2.0, 200.0), instant(3.0, 200.0)])) == [(0.0, 2.0, 300.0), (2.0, 3.0, 200.0)]
    assert ledger.gap_seconds == {"gpu0": 0.0}


def test_power_over_a_known_time_gives_the_product() -> None:
    ledger = Ledger()
    ledger.post([bare(0.0)])
    assert told(ledger.post([mean(5.0, 40.0, since=0.0)])) == [(0.0, 5.0, 200.0)]


def test_time_that_a_mean_does_not_cover_is_a_gap() -> None:
    ledger = Ledger()
    ledger.post([bare(0.0)])
    assert told(ledger.post([mean(5.0, 40.0, since=2.0)])) == [(2.0, 5.0, 120.0)]
    assert ledger.gap_seconds == {"gpu0": 2.0}


def test_time_that_a_mean_covers_twice_counts_once() -> None:
    ledger = Ledger()
    ledger.post([bare(0.0)])
    ledger.post([mean(5.0, 40.0, since=0.0)])
    assert told(ledger.post([mean(8.0, 10.0, since=0.0)])) == [(5.0, 8.0, 30.0)]


def test_a_mean_of_a_time_to_come_uses_nothing() -> None:
    ledger = Ledger()
    ledger.post([bare(0.0)])
    assert [one.joules for one in ledger.post([mean(5.0, 40.0, since=9.0)])] == [0.0]
    assert ledger.gap_seconds == {"gpu0": 5.0}


def test_instants_too_far_apart_leave_a_gap() -> None:
    ledger = Ledger()
    ledger.post([instant(0.0, 100.0)])
    assert ledger.post([instant(LONGEST_BRIDGE_SECONDS + 1, 100.0)]) == []
    assert ledger.gap_seconds == {"gpu0": LONGEST_BRIDGE_SECONDS + 1}


def test_a_bare_mark_is_ignored_when_there_is_one() -> None:
    ledger = Ledger()
    ledger.post([instant(0.0, 100.0)])
    assert ledger.post([bare(1.0)]) == []
    assert told(ledger.post([instant(2.0, 100.0)])) == [(0.0, 2.0, 200.0)]
    assert ledger.gap_seconds == {"gpu0": 0.0}


def test_a_device_that_was_here_before_its_meter_spoke_has_a_gap() -> None:
    ledger = Ledger()
    ledger.post([bare(0.0, PACKAGE)])
    assert ledger.post([counter(5.0, 1000.0)]) == []
    assert ledger.gap_seconds == {"cpu0": 5.0}
    assert told(ledger.post([counter(10.0, 1100.0)])) == [(5.0, 10.0, 100.0)]


def test_a_counter_that_was_silent_for_some_ticks_loses_nothing() -> None:
    ledger = Ledger()
    other = replace(PACKAGE, name="cpu1")
    ledger.post([counter(0.0, 0.0), counter(0.0, 0.0, other)])
    for at in (5.0, 10.0, 15.0):
        assert told(ledger.post([counter(at, at * 10, other)])) == [(at - 5.0, at, 50.0)]
    assert told(ledger.post([counter(20.0, 700.0)])) == [(0.0, 20.0, 700.0)]
    assert ledger.gap_seconds == {"cpu0": 0.0, "cpu1": 0.0}


def test_a_late_or_repeated_reading_changes_nothing() -> None:
    ledger = Ledger()
    ledger.post([counter(10.0, 100.0)])
    assert ledger.post([counter(10.0, 200.0), counter(9.0, 300.0)]) == []
    assert told(ledger.post([counter(11.0, 150.0)])) == [(10.0, 11.0, 50.0)]


def test_a_reset_is_a_gap_and_counting_goes_on_from_it() -> None:
    ledger = Ledger()
    ledger.post([counter(0.0, 1000.0)])
    assert ledger.post([counter(5.0, 3.0)]) == []
    assert told(ledger.post([counter(10.0, 53.0)])) == [(5.0, 10.0, 50.0)]
    assert ledger.gap_seconds == {"cpu0": 5.0}


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -1.0])
def test_power_that_cannot_be_counts_as_silence(nonsense: float) -> None:
    ledger = Ledger()
    assert ledger.post([instant(0.0, nonsense), instant(1.0, 100.0)]) == []
    assert ledger.gap_seconds == {"gpu0": 1.0}
    assert ledger.post([instant(2.0, nonsense), mean(2.0, nonsense, since=1.0)]) == []
    assert told(ledger.post([instant(3.0, 100.0)])) == [(1.0, 3.0, 200.0)]


@pytest.mark.parametrize("nonsense", [math.nan, math.inf])
def test_a_counter_that_cannot_be_counts_as_silence(nonsense: float) -> None:
    ledger = Ledger()
    free = Device("other0", "other", "hwmon")
    assert ledger.post([counter(0.0, nonsense, free), counter(1.0, 7.0, free), counter(2.0, nonsense, free)]) == []
    assert told(ledger.post([counter(3.0, 9.0, free)])) == [(1.0, 3.0, 2.0)]


def test_a_restart_in_the_same_boot_catches_up_once() -> None:
    before, after = Ledger(), Ledger()
    before.post([counter(0.0, 100.0)])
    before.gap_seconds["cpu0"] = 7.0
    after.restore(before.marks(), before.gap_seconds)
    first, second = after.post([counter(60.0, 400.0)]), after.post([counter(65.0, 410.0)])
    assert [(told([one]), one.caught_up) for one in first + second] == [
        ([(0.0, 60.0, 300.0)], True),
        ([(60.0, 65.0, 10.0)], False),
    ]
    assert after.gap_seconds == {"cpu0": 7.0}


def test_an_absence_longer_than_the_counters_range_is_a_gap() -> None:
    before, after = Ledger(), Ledger()
    before.post([counter(0.0, 100.0)])
    after.restore(before.marks(), {})
    assert after.post([counter(200.0, 400.0)]) == []
    assert after.gap_seconds == {"cpu0": 200.0}


def test_a_counter_is_never_compared_with_another_meters() -> None:
    ledger = Ledger()
    ledger.restore({"cpu0": SavedMark(0.0, 100.0, "another/")}, {})
    assert ledger.post([counter(5.0, 110.0)]) == []
    assert ledger.gap_seconds == {"cpu0": 5.0}
    assert told(ledger.post([counter(10.0, 130.0)])) == [(5.0, 10.0, 20.0)]


def test_power_cannot_be_caught_up() -> None:
    before, after = Ledger(), Ledger()
    before.post([instant(0.0, 100.0)])
    after.restore(before.marks(), before.gap_seconds)
    assert after.post([instant(10.0, 100.0)]) == []
    assert after.gap_seconds == {"gpu0": 10.0}


def test_a_reboot_is_a_gap_of_every_device_and_the_next_reading_a_mark() -> None:
    ledger = Ledger()
    ledger.restore_after_reboot(["cpu0", "gpu0"], {"cpu0": 1.0}, away=30.0)
    assert ledger.gap_seconds == {"cpu0": 31.0, "gpu0": 30.0}
    assert ledger.marks() == {}
    assert ledger.post([counter(3.0, 10.0)]) == []
    assert told(ledger.post([counter(8.0, 20.0)])) == [(3.0, 8.0, 10.0)]


@given(
    marks=st.lists(
        st.tuples(st.integers(1, 20), st.integers(0, 1000), st.sampled_from(["reading", "silence", "bare", "restart"])),
        max_size=30,
    )
)
def test_slices_add_up_to_what_was_used_and_never_overlap(marks: list[tuple[int, int, str]]) -> None:
    """Up to 50 W in steps of up to 20 s through a counter that wraps, with silence and restarts in between."""
    device = Device("cpu0", "cpu", "rapl", counter_range=Joules(1000.0))
    ledger, at, total = Ledger(), 0, 0
    slices = ledger.post([counter(0.0, 0.0, device)])
    for seconds, joules, event in [*marks, (1, 0, "reading")]:
        at += seconds
        total += joules if event == "reading" else 0
        if event == "reading":
            slices += ledger.post([counter(float(at), float(total % 1000), device)])
        elif event == "bare":
            slices += ledger.post([bare(float(at), device)])
        elif event == "restart":
            saved, ledger = ledger, Ledger()
            ledger.restore(saved.marks(), saved.gap_seconds)
    known = sum(joules % 1000 for _, joules, event in marks if event == "reading")
    assert sum(one.joules for one in slices) == known
    assert all(one.end <= later.start for one, later in pairwise(slices))
    assert sum(one.end - one.start for one in slices) + ledger.gap_seconds["cpu0"] == at


@given(
    readings=st.lists(
        st.builds(
            lambda at, since, watts, kind: {
                "mean": mean(at, watts, since),
                "instant": instant(at, watts),
                "bare": bare(at),
                "counter": counter(at, watts, BOARD),
            }[kind],
            st.integers(0, 100).map(float),
            st.integers(0, 100).map(float),
            st.integers(-10, 1000).map(float),
            st.sampled_from(["mean", "instant", "bare", "counter"]),
        ),
        max_size=40,
    )
)
def test_any_mixture_of_readings_covers_each_second_once(readings: list[Reading]) -> None:
    ledger = Ledger()
    slices = ledger.post(readings)
    assert all(one.joules >= 0 and one.start <= one.end for one in slices)
    assert all(one.end <= later.start for one, later in pairwise(slices))
    marks = ledger.marks()
    covered = math.fsum(one.end - one.start for one in slices) + math.fsum(ledger.gap_seconds.values())
    assert covered == (marks["gpu0"].at - readings[0].at if readings else 0.0)
