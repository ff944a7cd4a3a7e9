"""A powercap tree whose counters move after a known trace, in real time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import powercap_driver
from support.powercap import PowercapTree
from support.powercap_driver import Truth, load_truth

__all__ = ["driven_tree", "two_sockets"]


def two_sockets(sysfs: Path, *, range_uj: int, limit_watts: int) -> PowercapTree:
    """Two packages with core, uncore and dram, a psys that holds them, and the mmio mirror of the first."""
    tree = PowercapTree(sysfs)
    limits = {"constraint_0_power_limit_uw": limit_watts * 1_000_000}
    for socket in (0, 1):
        package = f"intel-rapl:{socket}"
        tree.add(package, f"package-{socket}", range_uj=range_uj, energy_uj=range_uj // 3, constraints=limits)
        tree.add(f"{package}:0", "core", range_uj=range_uj)
        tree.add(f"{package}:1", "dram", range_uj=range_uj, energy_uj=range_uj - 1_000_000, constraints=limits)
    tree.add("intel-rapl:2", "psys", range_uj=range_uj, constraints=limits)
    tree.add("intel-rapl-mmio:0", "package-0", range_uj=range_uj, constraints=limits)
    return tree


@contextmanager
def driven_tree(sysfs: Path, trace: str) -> Iterator[Truth]:
    """Moves every counter of the tree below `sysfs` after `trace` (LOW:HIGH:PERIOD) while the block runs.

    The tree belongs in memory (`support.in_memory`): a disk that is busy makes counters late.
    """
    command = [sys.executable, powercap_driver.__file__, str(sysfs), "--watts-trace", trace]
    with subprocess.Popen(command) as driver:
        try:
            until = time.monotonic() + 10
            while not (sysfs / powercap_driver.STATE).exists():
                assert driver.poll() is None, "the driver has ended"
                assert time.monotonic() < until
                time.sleep(0.01)
            yield load_truth(sysfs)
        finally:
            driver.terminate()
