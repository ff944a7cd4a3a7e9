"""Tests that would disturb each other on one machine, whatever worker they run on: they take turns.

Jobs of a real Slurm hold boards by their numbers, and every exporter of this machine sees that, by /proc. So a test of
boards takes its turn with others of its kind, and a Slurm with boards has the machine for itself.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["boards_turn", "slurms_turn"]


@contextmanager
def boards_turn() -> Iterator[None]:
    """Beside any other test of boards, but beside no Slurm that gives some away."""
    with _lock("boards") as boards:
        with _lock("door") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(boards, fcntl.LOCK_SH)
        yield


@contextmanager
def slurms_turn() -> Iterator[None]:
    """Alone. Whoever comes later waits at the door, so that this one is not passed by for ever."""
    with _lock("door") as door, _lock("boards") as boards:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(boards, fcntl.LOCK_EX)
        yield


def _lock(name: str) -> IO[str]:
    """A file whose lock goes when it is closed."""
    return Path(tempfile.gettempdir(), f"carbon-exporter-{name}-{os.getuid()}.lock").open("w")
