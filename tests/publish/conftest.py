"""Fixtures of the publish room."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture
def nothing_left_behind(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """In its log asyncio says what it did not like, and unclosed sockets and tasks when they are collected."""
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
    assert not [thread for thread in threading.enumerate() if thread.name == "http"]
