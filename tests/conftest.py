"""For all tests: the files that take longest begin first, for workers take a file each and all wait for the last."""

from __future__ import annotations

import pytest

LONGEST = (
    "test_durable",
    "test_end_to_end",
    "test_sum",
    "test_endings",
    "test_nvidia_energy",
    "test_containers_energy",
)
ROOMS = ("service", "sdk")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort them so; within a file nothing changes."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    others = {room: len(LONGEST) + place for place, room in enumerate(ROOMS)}
    last = len(LONGEST) + len(ROOMS)
    items.sort(key=lambda item: rank.get(item.path.stem, others.get(item.path.parent.name, last)))
