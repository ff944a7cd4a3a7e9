"""Real control groups for a test, gone after it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.groups import Groups

from carbon_exporter.jobs.cgroups import find_hierarchy


@pytest.fixture
def groups() -> Iterator[Groups]:
    """Skips where this machine has no version 2 tree, or lets nobody make groups in it."""
    hierarchy = find_hierarchy(Path("/sys"))
    if hierarchy is None or hierarchy.version != 2:
        pytest.skip("this machine has no control groups of version 2")
    path = f"/carbon-exporter-test-{os.getpid()}"
    top = hierarchy.cpu_root / path[1:]
    try:
        top.mkdir()
    except OSError as error:
        pytest.skip(f"no control groups can be made below {hierarchy.cpu_root}: {error.strerror}")
    made = Groups(hierarchy.cpu_root, path)
    try:
        yield made
    finally:
        for folder, _, _ in os.walk(top, topdown=False):
            for pid in (Path(folder) / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
            made.remove(os.path.relpath(folder, top))
