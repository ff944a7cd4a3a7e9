"""The remainder: fans, power supplies and boards, as the difference of two kinds of meters that never agree exactly."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.jobs.base import IDLE, UNATTRIBUTED, Job, JobSlice
from carbon_exporter.jobs.remainder import Remainder
from carbon_exporter.sensors.base import Device, Quality
from carbon_exporter.units import Joules

PLUG = Device("redfish", "node", "redfish")
CPU = Device("cpu0", "cpu", "rapl")
A, B = Job("a"), Job("b")


def node(start: float, end: float, watts: float, device: Device = PLUG) -> EnergySlice:
    return EnergySlice(device, start, end, Joules(watts * (end - start)), Quality.INTEGRATED)


def part(job: Job, start: float, end: float, watts: float) -> JobSlice:
    return JobSlice(job, CPU, start, end, Joules(watts * (end - start)))


def paid(parts: list[JobSlice]) -> dict[Job, float]:
    return {one.job: one.joules for one in parts}


def test_jobs_pay_for_the_difference_in_proportion_to_what_their_devices_used() -> None:
    rest = Remainder("redfish")
    assert rest.post([node(0, 5, 500)], [part(A, 0, 5, 300), part(B, 0, 5, 100)]) == []
    first = rest.post([node(5, 10, 500)], [part(A, 5, 10, 300), part(B, 5, 10, 100)])
    assert paid(first) == pytest.approx({A: 375.0, B: 125.0})
    assert {(one.start, one.end, one.device.kind) for one in first} == {(0, 5, "other")}
    second = rest.post([node(10, 15, 500)], [part(IDLE, 10, 15, 100)])
    assert paid(second) == pytest.approx({A: 375.0, B: 125.0})
    assert paid(rest.post([], [])) == pytest.approx({IDLE: 2000.0})


def test_a_device_that_tells_one_tick_later_is_still_subtracted() -> None:
    rest = Remainder("redfish")
    rest.post([node(0, 5, 500)], [part(A, -5, 0, 400)])
    assert paid(rest.post([node(5, 10, 500)], [part(A, 0, 5, 400)])) == pytest.approx({A: 500.0})


def test_a_negative_difference_is_carried_until_later_energy_makes_up_for_it() -> None:
    rest = Remainder("redfish")
    rest.post([node(0, 5, 300)], [part(A, 0, 5, 400)])
    assert paid(rest.post([node(5, 10, 450)], [part(A, 5, 10, 400)])) == {A: 0.0}
    assert rest.balance == pytest.approx(-250)
    assert paid(rest.post([node(10, 15, 450)], [part(A, 10, 15, 400)])) == {A: 0.0}
    assert paid(rest.post([node(15, 20, 450)], [part(A, 15, 20, 400)])) == {A: 0.0}
    assert paid(rest.post([], [])) == pytest.approx({A: 250.0})


def test_while_the_nodes_meter_is_silent_nothing_is_charged_and_nothing_owed() -> None:
    rest = Remainder("redfish")
    rest.post([node(0, 5, 500)], [part(A, 0, 5, 400)])
    rest.post([], [part(A, 5, 10, 400)])
    for start in range(10, 100, 5):
        assert rest.post([], [part(A, start, start + 5, 400)]) == []
    rest.post([node(100, 105, 500)], [part(A, 100, 105, 400)])
    assert paid(rest.post([], [part(A, 105, 110, 400)])) == pytest.approx({A: 500.0})


def test_a_device_that_was_silent_is_subtracted_when_it_tells_of_that_time() -> None:
    rest = Remainder("redfish")
    total = 0.0
    for start in range(0, 50, 5):
        total += math.fsum(one.joules for one in rest.post([node(start, start + 5, 500)], []))
    assert total == pytest.approx(9 * 2500), "until then it looks like remainder"
    rest.post([node(50, 55, 500)], [part(A, 0, 55, 400)])
    assert rest.balance == pytest.approx(55 * 100 - 9 * 2500)


def test_meters_of_other_sources_and_without_users_are_told_apart() -> None:
    rest = Remainder("redfish")
    other = Device("ipmi", "node", "ipmi")
    rest.post([node(0, 5, 900, other), node(0, 5, 500)], [])
    assert paid(rest.post([], [])) == pytest.approx({UNATTRIBUTED: 2500.0})


_watts = st.floats(0, 1000)


@given(st.lists(st.tuples(st.floats(0.5, 10), _watts, _watts, _watts, st.booleans()), min_size=2, max_size=20))
def test_what_is_charged_and_what_is_carried_is_the_node_less_its_devices(
    ticks: list[tuple[float, float, float, float, bool]],
) -> None:
    rest = Remainder("redfish")
    now = node_joules = device_joules = charged = 0.0
    for seconds, whole, a, b, told in ticks:
        parts = [part(A, now, now + seconds, a), part(B, now, now + seconds, b)]
        nodes = [node(now, now + seconds, whole)] if told else []
        paid_now = rest.post(nodes, parts)
        assert all(one.joules >= 0 for one in paid_now)
        charged += math.fsum(one.joules for one in paid_now)
        node_joules += whole * seconds if told else 0.0
        device_joules += (a + b) * seconds if told else 0.0
        now += seconds
    charged += math.fsum(one.joules for one in rest.post([], []))
    assert charged + rest.balance == pytest.approx(node_joules - device_joules, rel=1e-9, abs=1e-6)
