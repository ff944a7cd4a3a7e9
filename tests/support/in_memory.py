"""A place in memory for files that stand for hardware.

A counter of the kernel's is never late. One in a file on a disk is, by half a second and more, while that disk is busy
with what others wrote, such as a fresh installation: to rename a file over another may wait for it. What a package drew
meanwhile then comes at once, as no package can draw it, and is refused as it should be.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["in_memory"]

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux has it; the directory below it is made with a random name


@contextmanager
def in_memory() -> Iterator[Path]:
    """An empty directory, gone after the block; on the disk where no memory can be written to as files."""
    place = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="carbon-exporter-tests-", dir=place) as directory:
        yield Path(directory)
