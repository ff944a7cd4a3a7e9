"""What the tests of sensors share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import fakenvml


@pytest.fixture(autouse=True, scope="module")
def _no_boards_are_left() -> Iterator[None]:
    """A library stays in a process once it is loaded: later tests are to find no boards behind it."""
    yield
    if fakenvml.LIBRARY in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace"):
        fakenvml.unload()
