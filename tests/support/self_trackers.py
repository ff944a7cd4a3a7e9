"""Real programs below this process: they work, start others, and may say that they measure themselves."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from carbon_exporter.sdk.own_use import OwnUse, UsePoint

__all__ = ["TRACKER", "burn", "environment", "watch"]

TRACKER = """
from carbon_exporter.sdk.presence import Presence
def announce():
    presence = Presence()
    presence.announce()
    return presence
"""
"""After the prelude of `support.workloads`, in a Python that finds this package."""


def burn(seconds: float, rest: float = 0.0) -> None:
    """Use so much CPU time, then sleep."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    time.sleep(rest)


def environment(runtime: Path) -> Mapping[str, str]:
    """For programs that meet in `runtime` and import this package from its sources."""
    here = os.pathsep.join(path for path in sys.path if path)
    return {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": here, "XDG_RUNTIME_DIR": str(runtime)}


def watch(use: OwnUse, seconds: float, every: float = 0.05) -> UsePoint:
    """Look for so long; the last look."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        use.look()
        time.sleep(every)
    return use.look()
