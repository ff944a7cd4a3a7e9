"""Tests that would disturb each other on one machine, whatever worker they run on: they take turns."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["slurms_turn"]


@contextmanager
def slurms_turn() -> Iterator[None]:
    """Jobs of a real Slurm hold boards by their numbers, and every exporter of this machine sees that."""
    with Path(tempfile.gettempdir(), f"carbon-exporter-slurm-{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
