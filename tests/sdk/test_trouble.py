"""What goes wrong in the SDK is said once, by its name where it has no words of its own."""

from __future__ import annotations

import logging

import pytest

from carbon_exporter.sdk.trouble import trouble


def test_it_is_said_once_each_kind_with_the_error_or_its_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            trouble("winding a clock", BrokenPipeError(), "wind another")
            trouble("winding a clock", OSError("its spring is gone"))
    assert caplog.messages == ["winding a clock: BrokenPipeError; wind another", "winding a clock: its spring is gone"]
