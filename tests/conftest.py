"""What holds for all tests.

Hypothesis looks for wrong answers, never for slow ones, for machines are busy at times. Workers take a file each: those
that mostly wait come first, the others by how many tests they have, so that none is alone at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from support.in_memory import in_memory
from support.turns import boards_turn

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

LONGEST = (
    "test_containers_energy.py",
    "test_durable.py",
    "test_end_to_end.py",
    "test_nvidia_energy.py",
    "test_predicted_runs.py",
)
"""Half a minute and more each, with little work for the machine in it; or they measure time, and want little beside."""
LONG = ("test_nvidia_faults.py", "test_slurm_jobs.py", "test_many_jobs.py", "test_sum.py")
"""Begun in the middle: they would be last by the number of their tests."""
MIDDLE = 30


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; the tests of each stay as they are."""
    tests = Counter(item.path for item in items)

    def place(item: pytest.Item) -> tuple[int, int, str]:
        name = item.path.name
        size = MIDDLE if name in LONG else tests[item.path]
        return (0 if name in LONGEST else 1, -size, str(item.path))

    items.sort(key=place)


@pytest.fixture(name="boards_turn")
def _boards_turn() -> Iterator[None]:
    """For a test that says whose a board is: no Slurm of another test gives the same boards away meanwhile."""
    with boards_turn():
        yield


@pytest.fixture(name="in_memory")
def _in_memory() -> Iterator[Path]:
    """For a test whose counters are files that move in time."""
    with in_memory() as directory:
        yield directory
