"""From load to watts: what a processor without a meter is estimated to draw.

Both curves are averages over many machines. An estimate from them is within about 50 % of the truth, not closer.
"""

from __future__ import annotations

from itertools import pairwise

from carbon_exporter.units import Watts

__all__ = [
    "DRAM_WATTS_PER_GIB",
    "TDP_CURVE",
    "WATTS_PER_CPU_BUSY",
    "WATTS_PER_CPU_IDLE",
    "unknown_watts",
    "watts_by_tdp",
]

TDP_CURVE = ((0.0, 0.12), (0.1, 0.32), (0.5, 0.75), (1.0, 1.02))
"""(load, share of TDP): averages of turbostress measurements on bare-metal EC2 machines.

Source: B. Davy, Teads Engineering, "Estimating AWS EC2 instances power consumption", 2021.
"""

WATTS_PER_CPU_IDLE = 0.74
WATTS_PER_CPU_BUSY = 3.5
"""W per vCPU (hardware thread) at no and at full load: Cloud Carbon Footprint's averages for AWS, from SPECpower."""

DRAM_WATTS_PER_GIB = 0.375
"""W per installed GiB, at any load: the rule of 3 W per 8 GB of eco2AI and of CodeCarbon before version 3."""


def watts_by_tdp(tdp: Watts, load: float) -> Watts:
    """Power of a processor with this thermal design power at `load` (0 to 1, clamped), by `TDP_CURVE`."""
    load = min(max(load, 0.0), 1.0)
    for (low, low_share), (high, high_share) in pairwise(TDP_CURVE):
        if load <= high:
            return Watts(tdp * (low_share + (high_share - low_share) * (load - low) / (high - low)))
    raise AssertionError(load)


def unknown_watts(cpus: int, load: float) -> Watts:
    """Power of `cpus` hardware threads of an unknown model at `load` (0 to 1, clamped), linear from idle to busy."""
    load = min(max(load, 0.0), 1.0)
    return Watts(cpus * (WATTS_PER_CPU_IDLE + (WATTS_PER_CPU_BUSY - WATTS_PER_CPU_IDLE) * load))
