"""Points in time as people write them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.errors import ConfigError
from carbon_exporter.report.moment import parse_moment

NOW = 1_772_366_400.9


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-03-01T12:00:00Z", 1_772_366_400),
        ("2026-03-01t14:00:00.25+02:00", 1_772_366_400),
        ("2026-03-01", 1_772_323_200),
        ("1772366400.5", 1_772_366_400),
        ("now", 1_772_366_400),
        ("now-7d", 1_771_761_600),
        ("now-90m", 1_772_361_000),
    ],
)
def test_a_moment_is_read_in_every_form(text: str, seconds: int) -> None:
    assert parse_moment(text, "--from", NOW) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "2026-03-01T12:00:00", "2026-13-01", "now+1d", "now-99999w", "-5", "1e3"),
        *("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "9" * 400),
    ],
)
def test_what_is_no_moment_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(ConfigError, match="RFC 3339"):
        parse_moment(text, "--from", NOW)


@given(st.text(max_size=30))
def test_no_text_makes_it_raise_anything_else(text: str) -> None:
    with suppress(ConfigError):
        assert parse_moment(text, "--from", NOW) >= 0
