"""Stretches of time in pieces: nothing is asked twice, and nothing is left out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_exporter.errors import QueryError, QueryTooLarge
from carbon_exporter.report.stretch import DAY, Stretch, in_parts, pieces


@given(st.integers(0, 10**9), st.integers(1, 40 * DAY), st.sampled_from([60, 300, DAY]))
def test_pieces_touch_and_cover_the_whole_in_whole_windows(begin: int, length: int, step: int) -> None:
    made = list(pieces(begin, begin + length, step))
    assert [piece.begin for piece in made] == [begin, *(piece.end for piece in made[:-1])]
    assert made[-1].end == begin + length
    assert all(piece.seconds % piece.step == 0 and piece.seconds <= DAY for piece in made)
    assert all(piece.step == step for piece in made[:-1])


@settings(deadline=None)
@given(st.integers(1, 40), st.sampled_from([60, 300, DAY]), st.integers(1800, 40 * DAY))
def test_a_server_that_answers_little_at_once_is_asked_in_parts(windows: int, step: int, most: int) -> None:
    def ask(part: Stretch) -> int:
        if part.seconds > most:
            raise QueryTooLarge("too many samples")
        return part.seconds

    whole = Stretch(0, windows * step, step)
    parts = list(in_parts(whole, ask))
    assert [part.begin for part, _ in parts] == [0, *(part.end for part, _ in parts[:-1])]
    assert sum(answer for _, answer in parts) == whole.seconds
    assert all(part.seconds % part.step == 0 for part, _ in parts)


def test_a_server_that_answers_nothing_at_all_is_believed() -> None:
    def ask(_: Stretch) -> int:
        raise QueryTooLarge("too many samples")

    with pytest.raises(QueryError, match="too many samples"):
        list(in_parts(Stretch(0, DAY, 300), ask))
