"""The odometer: this process's own energy, by the node's policy, and until when it is final."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sdk_meters import device, piece
from support.simulated_spans import BOARD, PACKAGE, Span, coverage, errors, simulate, width
from support.traces import Trace, burst, square

from carbon_exporter.jobs.attribute import split
from carbon_exporter.jobs.base import Activity, IdlePolicy, Job, Usage
from carbon_exporter.sdk.base import BoardUse, Edge, Machine
from carbon_exporter.sdk.odometer import PATIENCE_SECONDS, Odometer, span_bound
from carbon_exporter.sdk.own_use import UsePoint
from carbon_exporter.sensors.base import Device

CPU, DRAM, GPU = device("cpu0", "cpu"), device("dram0", "dram"), device("gpu0")
NODE = device("psu", "node")
MINE = BoardUse({"gpu0": 1.0})


@dataclass
class Stand:
    """Meters that are asked, not read."""

    devices: tuple[Device, ...] = ()
    machine: Machine = field(default_factory=lambda: Machine(4, 16e9))

    def slack(self, device: str) -> float:
        assert device
        return 0.001


def use(at: float, cpu: float = 0.0, children: float = 0.0, memory: float = 0.0, busy: float = 0.0) -> UsePoint:
    return UsePoint(at, cpu, children, memory, busy)


def begun(*devices: Device, idle: IdlePolicy = "separate", at: float = 0.0) -> Odometer:
    odometer = Odometer(Stand(devices, Machine(4, 16e9, idle)))
    odometer.begin(use(at))
    return odometer


def spent(odometer: Odometer, start: Edge, end: Edge) -> dict[str, float]:
    first, last = odometer.tally(start), odometer.tally(end)
    return {name: joules - first.joules.get(name, 0.0) for name, joules in last.joules.items()}


def test_before_anything_is_known_there_are_no_devices() -> None:
    tally = Odometer(Stand()).tally(Edge(5.0, 1.0))
    assert (tally.joules, tally.bound, tally.settled) == ({}, {}, False)


def test_a_part_of_the_devices_does_not_pass_for_all_of_them() -> None:
    odometer = begun(CPU, DRAM)
    odometer.add([piece(DRAM, 0.0, 0.25, 1.0)], use(0.25, cpu=0.25, memory=1e9), None)
    assert odometer.tally(Edge(0.25, 0.25)).joules == {}
    odometer.add([piece(CPU, 0.0, 0.5, 50.0)], use(0.5, cpu=0.5, memory=1e9), None)
    assert set(odometer.tally(Edge(0.5, 0.5)).joules) == {"cpu0", "dram0"}


def test_a_processor_is_paid_by_own_cpu_seconds_and_childrens() -> None:
    odometer = begun(CPU)
    odometer.add([piece(CPU, 0.0, 1.0, 100.0)], use(1.0, cpu=1.0, children=2.0), None)
    # 100 J for the 4 CPU seconds that there were: 25 J each
    assert spent(odometer, Edge(0.0, 0.0), Edge(1.0, 1.0)) == pytest.approx({"cpu0": 75.0})


def test_a_burst_right_before_an_edge_is_on_its_side() -> None:
    odometer = begun(CPU)
    odometer.add([piece(CPU, 0.0, 1.0, 100.0)], use(1.0, cpu=1.0), None)
    at_once = Edge(0.5, 0.9)  # most of the second's CPU time was used in its first half
    assert spent(odometer, Edge(0.0, 0.0), at_once) == pytest.approx({"cpu0": 22.5})
    assert spent(odometer, at_once, Edge(1.0, 1.0)) == pytest.approx({"cpu0": 2.5})


def test_a_processor_that_was_used_unevenly_while_its_power_stepped_is_less_sure() -> None:
    def bound(cpu_seconds: Sequence[float]) -> float:
        odometer, cpu = begun(CPU), 0.0
        for i, (own, joules) in enumerate(zip(cpu_seconds, [20.0, 20.0, 60.0, 100.0, 100.0], strict=True)):
            cpu += own
            odometer.add([piece(CPU, i, i + 1.0, joules)], use(i + 1.0, cpu=cpu), None)
        return span_bound(odometer.tally(Edge(1.0, cpu_seconds[0])), odometer.tally(Edge(4.0, cpu - cpu_seconds[-1])))[
            "cpu0"
        ]

    # 20 J more of a CPU second, twice a quarter of 10 J for each change by half a CPU
    assert bound([1.0, 0.5, 1.0, 0.5, 1.0]) == pytest.approx(2 * 10.0 * 0.5 / 4, rel=0.2)
    assert bound([1.0, 1.0, 1.0, 1.0, 1.0]) < 0.2


def test_idle_is_shared_among_those_who_ran_if_the_node_says_so() -> None:
    odometer = begun(CPU, idle="shared")
    odometer.add([piece(CPU, 0.0, 1.0, 100.0)], use(1.0, cpu=1.0, busy=2.0), None)
    assert spent(odometer, Edge(0.0, 0.0), Edge(1.0, 1.0)) == pytest.approx({"cpu0": 50.0})


def test_idle_is_nobodys_where_the_machines_busy_time_is_not_known() -> None:
    odometer = begun(CPU, idle="shared")
    odometer.add([piece(CPU, 0.0, 1.0, 100.0)], use(1.0, cpu=1.0), None)
    assert spent(odometer, Edge(0.0, 0.0), Edge(1.0, 1.0)) == pytest.approx({"cpu0": 25.0})


def test_memory_is_paid_by_what_is_held_of_what_there_is() -> None:
    odometer = begun(DRAM)
    odometer.add([piece(DRAM, 0.0, 1.0, 10.0)], use(1.0, memory=4e9), None)
    assert spent(odometer, Edge(0.0, 0.0), Edge(0.5, 0.0)) == pytest.approx({"dram0": 1.25})


def test_a_board_is_paid_by_its_share_and_a_neighbours_is_not_there() -> None:
    other = device("gpu1")
    odometer = begun(GPU, other)
    slices = [piece(GPU, 0.0, 1.0, 300.0), piece(other, 0.0, 1.0, 300.0), piece(NODE, 0.0, 1.0, 900.0)]
    odometer.add(slices, use(1.0), BoardUse({"gpu0": 0.25}))
    assert spent(odometer, Edge(0.0, 0.0), Edge(1.0, 0.0)) == pytest.approx({"gpu0": 75.0})


def test_a_board_that_becomes_mine_later_cost_nothing_before() -> None:
    odometer = begun(GPU)
    odometer.add([piece(GPU, 0.0, 1.0, 300.0)], use(1.0), None)
    odometer.add([piece(GPU, 1.0, 2.0, 300.0)], use(2.0), MINE)
    assert spent(odometer, Edge(0.0, 0.0), Edge(2.0, 0.0)) == pytest.approx({"gpu0": 300.0})


def test_what_was_used_before_the_first_reading_is_drawn_backwards() -> None:
    odometer = begun(GPU, at=10.0)
    odometer.add([piece(GPU, 10.05, 10.15, 30.0)], use(10.2), MINE)
    assert spent(odometer, Edge(10.0, 0.0), Edge(10.15, 0.0)) == pytest.approx({"gpu0": 45.0})
    assert odometer.tally(Edge(10.0, 0.0)).bound["gpu0"] >= 15.0


def test_a_slice_that_is_mostly_of_the_time_before_the_first_look_tells_nothing() -> None:
    odometer = begun(GPU, at=10.0)
    odometer.add([piece(GPU, 5.0, 10.1, 900.0), piece(GPU, 10.1, 10.2, 30.0)], use(10.2), MINE)
    assert spent(odometer, Edge(10.1, 0.0), Edge(10.2, 0.0)) == pytest.approx({"gpu0": 30.0})
    caught_up = piece(GPU, 10.2, 10.3, 900.0, caught_up=True)
    odometer.add([caught_up], use(10.3), MINE)
    assert spent(odometer, Edge(10.2, 0.0), Edge(10.3, 0.0)) == pytest.approx({"gpu0": 30.0})  # drawn out


def test_a_slice_that_ends_after_the_look_waits_for_the_next() -> None:
    odometer = begun(CPU)
    odometer.add([piece(CPU, 0.0, 1.0, 100.0)], use(0.9, cpu=0.9), None)
    assert odometer.tally(Edge(0.9, 0.9)).joules == {}
    odometer.add([], use(1.1, cpu=0.9), None)
    assert spent(odometer, Edge(0.0, 0.0), Edge(1.0, 0.9)) == pytest.approx({"cpu0": 22.5})


def test_an_edge_is_final_when_the_interval_after_its_own_is_known() -> None:
    odometer = begun(GPU)
    odometer.add([piece(GPU, 0.0, 0.1, 30.0)], use(0.1), MINE)
    odometer.add([piece(GPU, 0.1, 0.2, 30.0)], use(0.2), MINE)
    assert odometer.settled_until == pytest.approx(0.1)
    assert odometer.tally(Edge(0.1, 0.0)).settled
    assert not odometer.tally(Edge(0.15, 0.0)).settled
    assert odometer.settled_edge() == Edge(0.1, 0.0)


def test_the_settled_edge_has_its_cpu_seconds() -> None:
    odometer = begun(CPU)
    for tick in range(1, 4):
        odometer.add([piece(CPU, tick / 10 - 0.1, tick / 10, 10.0)], use(tick / 10, cpu=tick / 20), None)
    assert odometer.settled_edge() == pytest.approx(Edge(0.2, 0.1))


def test_all_devices_are_waited_for_but_not_for_ever() -> None:
    odometer = begun(GPU, CPU)
    for tick in range(1, 12):
        slices = [piece(GPU, (tick - 1) / 10, tick / 10, 30.0)]
        slices += [piece(CPU, (tick - 1) / 10, tick / 10, 10.0)] if tick <= 2 else []
        odometer.add(slices, use(tick / 10), MINE)
        if tick < 2 + 10 * PATIENCE_SECONDS:
            assert odometer.settled_until <= 0.2
    assert odometer.settled_until == pytest.approx(1.0)


def test_a_device_that_never_speaks_is_waited_for_at_first() -> None:
    odometer = begun(GPU, CPU)
    odometer.add([piece(GPU, 0.0, 0.1, 30.0)], use(0.1), MINE)
    odometer.add([piece(GPU, 0.1, 0.2, 30.0)], use(0.2), MINE)
    assert odometer.settled_until == -math.inf
    odometer.add([piece(GPU, 0.2, 0.6, 120.0)], use(0.6), MINE)
    assert odometer.settled_until == pytest.approx(0.6)


def test_without_any_device_edges_are_final_at_once() -> None:
    odometer = begun()
    odometer.add([], use(0.1), None)
    assert odometer.tally(Edge(0.05, 0.0)).settled


def test_a_silent_board_keeps_its_energy_and_its_silence_is_in_the_bound() -> None:
    odometer = begun(GPU)
    for tick in range(1, 41):
        odometer.add([piece(GPU, (tick - 1) / 10, tick / 10, 30.0)], use(tick / 10), MINE)
    for tick in range(41, 101):
        odometer.add([], use(tick / 10), MINE)
    start, end = odometer.tally(Edge(3.0, 0.0)), odometer.tally(Edge(9.0, 0.0))
    assert end.settled
    assert end.joules["gpu0"] - start.joules["gpu0"] <= 300.0 * (1.0 + PATIENCE_SECONDS) + 1e-6
    assert span_bound(start, end)["gpu0"] >= 300.0 * (5.0 - PATIENCE_SECONDS)
    odometer.add([piece(GPU, 10.0, 10.1, 30.0), piece(GPU, 10.1, 10.2, 30.0)], use(10.2), MINE)
    later = odometer.tally(Edge(10.05, 0.0)), odometer.tally(Edge(10.15, 0.0))
    assert span_bound(*later)["gpu0"] < 60.0  # the gap is behind both edges


def test_after_a_pause_nothing_of_it_is_paid() -> None:
    odometer = begun(GPU)
    for tick in range(1, 11):
        odometer.add([piece(GPU, (tick - 1) / 10, tick / 10, 6.0)], use(tick / 10), MINE)
    odometer.begin(use(61.0))
    assert spent(odometer, Edge(61.0, 0.0), Edge(61.05, 0.0)) == pytest.approx({"gpu0": 3.0})  # as before, for now
    slices = [piece(GPU, 1.0, 61.04, 9000.0), piece(GPU, 61.04, 61.14, 30.0), piece(GPU, 61.14, 61.24, 30.0)]
    odometer.add(slices, use(61.25), MINE)
    assert spent(odometer, Edge(61.0, 0.0), Edge(61.14, 0.0)) == pytest.approx({"gpu0": 42.0})
    assert odometer.settled_until == pytest.approx(61.14)


SHARES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5)


@given(
    st.lists(st.tuples(st.floats(0.05, 2.0), st.floats(0.0, 500.0), st.floats(0.0, 1.0)), min_size=1, max_size=30),
    st.lists(st.floats(-1.0, 70.0), min_size=2, max_size=10),
)
def test_a_tally_never_falls_as_the_edge_moves_on(
    ticks: list[tuple[float, float, float]], moments: list[float]
) -> None:
    odometer, now, cpu, looks = begun(CPU, GPU), 0.0, 0.0, [(0.0, 0.0)]
    for seconds, watts, busy in ticks:
        start, now, cpu = now, now + seconds, cpu + seconds * busy
        looks.append((now, cpu))
        slices = [piece(one, start, now, watts * seconds) for one in (CPU, GPU)]
        odometer.add(slices, use(now, cpu=cpu, children=cpu / 2), MINE)
    last: Mapping[str, float] = {}
    for moment in sorted(moments):
        tally = odometer.tally(Edge(moment, _between(looks, moment)))
        for name, joules in tally.joules.items():
            assert joules >= last.get(name, -math.inf) - 1e-9 * (1.0 + abs(joules))
        last = tally.joules


@given(st.lists(st.tuples(st.floats(0.05, 2.0), st.floats(0.0, 500.0), SHARES), min_size=3, max_size=20))
def test_between_settled_edges_lies_what_the_slices_had_of_mine(ticks: list[tuple[float, float, list[float]]]) -> None:
    odometer, now, own = begun(GPU), 0.0, []
    for seconds, watts, shares in ticks:
        start, now = now, now + seconds
        odometer.add([piece(GPU, start, now, watts * seconds)], use(now), BoardUse({"gpu0": shares[0] or 0.5}))
        own.append((now, watts * seconds * (shares[0] or 0.5)))
    until = odometer.settled_until
    expected = math.fsum(joules for end, joules in own if end <= until)
    assert spent(odometer, Edge(0.0, 0.0), odometer.settled_edge()).get("gpu0", 0.0) == pytest.approx(expected)


@given(
    st.lists(
        st.lists(st.integers(0, 100).map(lambda part: part / 100), min_size=3, max_size=3), min_size=1, max_size=10
    ),
    st.sampled_from(["separate", "shared"]),
)
def test_all_processes_together_and_idle_pay_for_the_whole_package(ticks: list[list[float]], idle: IdlePolicy) -> None:
    """Three processes, one of them by its children, on the four CPUs of a machine where nothing else runs."""
    odometers = [begun(CPU, idle=idle) for _ in range(3)]
    totals, node = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    for number, seconds in enumerate(ticks):
        totals = [total + own for total, own in zip(totals, seconds, strict=True)]
        energy = piece(CPU, float(number), number + 1.0, 100.0)
        usages = tuple(Usage(Job(str(who)), own) for who, own in enumerate(seconds))
        activity = Activity(float(number), number + 1.0, 4, sum(seconds), 16e9, 0.0, usages)
        for part in split(energy, [activity], idle):
            if part.job.name in {"0", "1", "2"}:
                node[int(part.job.name)] += part.joules
        for who, odometer in enumerate(odometers):
            own, children = (0.0, totals[who]) if who == 2 else (totals[who], 0.0)
            odometer.add([energy], use(number + 1.0, cpu=own, children=children, busy=sum(totals)), None)
    for who, odometer in enumerate(odometers):
        end = Edge(float(len(ticks)), 0.0 if who == 2 else totals[who])
        assert spent(odometer, Edge(0.0, 0.0), end)["cpu0"] == pytest.approx(node[who], abs=1e-9)


LIMITS: Sequence[tuple[float, float, float, float]] = (
    (5.0, 0.5, 2.0, 0.5),
    (1.0, 2.0, 8.0, 3.0),
    (0.3, 8.0, 30.0, 10.0),
)


@pytest.mark.parametrize(("seconds", "half", "most", "settled"), LIMITS)
@pytest.mark.parametrize("measured", [BOARD, PACKAGE], ids=["board", "processor"])
def test_spans_at_random_phases_are_as_exact_as_they_say(
    measured: Device, seconds: float, half: float, most: float, settled: float
) -> None:
    runs = [simulate(_load(seed), measured, seconds, 200, seed) for seed in range(5)]
    spans = [span for run in runs for span in run]
    assert _percentile(errors(spans, settled=False), 50) <= half
    assert _percentile(errors(spans, settled=False), 95) <= most
    assert _percentile(errors(spans, settled=True), 95) <= settled
    for final in (False, True):
        assert coverage(spans, settled=final) >= 95.0
        assert width(spans, settled=final) <= 3.0


@pytest.mark.parametrize(("seconds", "half", "most", "settled"), LIMITS)
@pytest.mark.parametrize("measured", [BOARD, PACKAGE], ids=["board", "processor"])
def test_spans_of_a_usual_length_are_as_exact_and_claim_no_more_than_if_read_closely_all_the_time(
    measured: Device, seconds: float, half: float, most: float, settled: float
) -> None:
    loads = [_load(seed) for seed in range(5)]
    close = [span for seed in range(5) for span in simulate(loads[seed], measured, seconds, 200, seed)]
    spans = [span for seed in range(5) for span in simulate(loads[seed], measured, seconds, 200, seed, learns=True)]
    assert _percentile(errors(spans, settled=False), 50) <= half
    assert _percentile(errors(spans, settled=False), 95) <= most
    assert _percentile(errors(spans, settled=True), 95) <= settled
    for final in (False, True):
        assert coverage(spans, settled=final) >= 95.0
        assert _usual_bound(spans, settled=final) <= 1.2 * _usual_bound(close, settled=final)


@pytest.mark.parametrize("measured", [BOARD, PACKAGE], ids=["board", "processor"])
def test_spans_that_end_long_before_they_are_expected_to_say_that_they_may_be_far_off(measured: Device) -> None:
    lengths = [length for early in (0.4, 0.7, 1.0, 1.3, 1.6) for length in (2.5, 2.5, 2.5, early)]
    spans = [span for seed in range(10) for span in simulate(_load(seed), measured, lengths, 200, seed, learns=True)]
    surprising = spans[3::4]
    assert coverage(spans, settled=False) >= 95.0
    assert coverage(surprising, settled=False) >= 93.0
    assert coverage(surprising, settled=True) >= 95.0
    assert _percentile(errors(surprising, settled=True), 95) <= 3.0


@pytest.mark.parametrize("name", ["square 0.7 s", "bursts of 2 s", "pulses of 50 ms"])
def test_bounds_hold_for_other_loads(name: str) -> None:
    loads = {
        "square 0.7 s": square(60, 300, 0.7),
        "bursts of 2 s": burst(60, 300, 2.0, 10.0),
        "pulses of 50 ms": burst(60, 300, 0.05, 0.3),
    }
    spans: list[Span] = simulate(loads[name], BOARD, 1.0, 400, 1)
    assert coverage(spans, settled=False) >= 95.0
    assert coverage(spans, settled=True) >= 95.0


def _usual_bound(spans: Sequence[Span], *, settled: bool) -> float:
    """The median, in percent of the truth."""
    return _percentile([100 * (span.settled if settled else span.left).bound / span.truth for span in spans], 50)


def _load(seed: int) -> Trace:
    """One that begins anywhere between two renewals of the meter."""
    return square(60, 300, 1.9).starting(random.Random(seed).uniform(0.0, 1.9))  # noqa: S311 - a phase


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def _between(looks: list[tuple[float, float]], moment: float) -> float:
    """CPU seconds at a moment, as a straight line between looks and level outside."""
    for (start, cpu), (end, cpu_end) in pairwise(looks):
        if start <= moment <= end:
            return cpu + (cpu_end - cpu) * (moment - start) / (end - start)
    return looks[0][1] if moment < looks[0][0] else looks[-1][1]
