"""Whole-node meters: what a machine draws at its plug or board, as totals of a family of their own.

They contain the devices and more, so they never enter a sum with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.sensors.base import Device
from carbon_exporter.units import Joules

__all__ = ["NodeMeters"]


class NodeMeters:
    """Totals by source. Not for use from several threads."""

    def __init__(self) -> None:
        """Start empty; `restore` puts an earlier life's totals back."""
        self.totals: dict[str, Joules] = {}

    def restore(self, totals: Mapping[str, float]) -> None:
        """Go on from an earlier life: joules by source."""
        self.totals = {source: Joules(joules) for source, joules in totals.items()}

    def announce(self, devices: Iterable[Device]) -> None:
        """Show the totals of these from now on, those of a new one at 0: its first reading is only a mark."""
        for device in devices:
            if device.kind == "node":
                self.totals.setdefault(device.name, Joules(0.0))

    def post(self, slices: Iterable[EnergySlice]) -> list[EnergySlice]:
        """Add what whole-node meters measured; returns the slices of all other devices."""
        others = []
        for one in slices:
            if one.device.kind == "node":
                self.totals[one.device.name] = Joules(self.totals.get(one.device.name, 0.0) + one.joules)
            else:
                others.append(one)
        return others
