"""Real control groups for a test, gone after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.groups import Groups, own_groups


@pytest.fixture
def groups() -> Iterator[Groups]:
    """Skips where this machine has no version 2 tree, or lets nobody make groups in it."""
    with own_groups() as made:
        yield made
