"""The switch interval while the SDK gets ready: short, and afterwards the program's own again."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from carbon_exporter.sdk.hurry import HURRIED_SECONDS, hurried


@pytest.fixture(autouse=True)
def _own_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


def test_turns_are_short_while_it_hurries_and_then_as_before() -> None:
    with hurried():
        assert sys.getswitchinterval() == pytest.approx(HURRIED_SECONDS)
    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_what_the_program_chose_meanwhile_stays() -> None:
    with hurried():
        sys.setswitchinterval(0.02)
    assert sys.getswitchinterval() == pytest.approx(0.02)


def test_one_that_is_shorter_already_is_left_alone() -> None:
    sys.setswitchinterval(0.0001)
    with hurried():
        assert sys.getswitchinterval() == pytest.approx(0.0001)
    assert sys.getswitchinterval() == pytest.approx(0.0001)
