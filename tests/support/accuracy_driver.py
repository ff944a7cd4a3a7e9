"""Moves the counter of a powercap tree after a known load every millisecond, as RAPL does.

    python accuracy_driver.py SYSFS --watts-trace 60:300:1.9

The truth is as of `powercap_driver`, which keeps trees of many zones moving. This one writes into the file that is
there: who has opened it and reads it later sees what it shows by then, as of the kernel's. It runs before all other
programs where that is allowed, for a counter that lags behind by 5 ms of 300 W is off by more than what is to be found.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from pathlib import Path

from support.powercap_driver import SquareWave, start_driving

__all__ = ["TICK_SECONDS"]

TICK_SECONDS = 0.001
ZONE, NAME = "intel-rapl:0", "package-0"


def main() -> None:
    """Drive until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sysfs")
    parser.add_argument("--watts-trace", required=True)
    arguments = parser.parse_args()
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    sysfs = Path(arguments.sysfs)
    zone = sysfs / "class" / "powercap" / ZONE
    span = int((zone / "max_energy_range_uj").read_text())
    truth = start_driving(sysfs, SquareWave(*map(float, arguments.watts_trace.split(":"))))
    file = os.open(zone / "energy_uj", os.O_WRONLY)
    while True:
        os.pwrite(file, b"%020d\n" % truth.counter(ZONE, NAME, span, time.monotonic()), 0)
        time.sleep(TICK_SECONDS)


if __name__ == "__main__":
    main()
