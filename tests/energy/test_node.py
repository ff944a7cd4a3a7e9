"""Whole-node meters: a family of their own."""

from __future__ import annotations

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.energy.node import NodeMeters
from carbon_exporter.sensors.base import Device, Quality
from carbon_exporter.units import Joules

PLUG, CPU = Device("redfish", "node", "redfish"), Device("cpu0", "cpu", "rapl")


def slice_of(device: Device, joules: float) -> EnergySlice:
    return EnergySlice(device, 0.0, 5.0, Joules(joules), Quality.INTEGRATED)


def test_a_new_meter_is_shown_at_zero_and_never_counted_with_devices() -> None:
    nodes = NodeMeters()
    nodes.announce([PLUG, CPU])
    assert nodes.totals == {"redfish": 0.0}
    cpu = slice_of(CPU, 100)
    assert nodes.post([slice_of(PLUG, 300), cpu, slice_of(PLUG, 200)]) == [cpu]
    assert nodes.totals == {"redfish": 500.0}


def test_totals_go_on_where_an_earlier_life_left_them() -> None:
    nodes = NodeMeters()
    nodes.restore({"redfish": 500.0, "ipmi": 7.0})
    nodes.announce([PLUG])
    nodes.post([slice_of(PLUG, 1)])
    assert nodes.totals == {"redfish": 501.0, "ipmi": 7.0}
