"""Names of boards: shared by all makers, and never given to two."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.sensors.names import DeviceNames


def test_a_board_keeps_its_name_wherever_it_is_listed_later() -> None:
    names = DeviceNames()
    assert [names.name("gpu", uuid, index) for index, uuid in enumerate("abc")] == ["gpu0", "gpu1", "gpu2"]
    assert names.name("gpu", "c", 0) == "gpu2"
    assert names.name("gpu", "d", 1) == "gpu3", "the next that is free"


def test_boards_of_two_makers_share_the_numbers() -> None:
    names = DeviceNames()
    assert names.name("gpu", "GPU-1", 0) == "gpu0"
    assert names.name("gpu", "0000:03:00.0", 0) == "gpu1"


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 5)), max_size=30))
def test_no_two_boards_have_one_name_whoever_asks_when(boards: list[tuple[str, int]]) -> None:
    names = DeviceNames()
    with ThreadPoolExecutor(4) as pool:
        given_names = list(pool.map(lambda board: names.name("gpu", *board), boards))
    known = {identity: name for (identity, _), name in zip(boards, given_names, strict=True)}
    assert len(set(known.values())) == len(known)
    assert [names.name("gpu", *board) for board in boards] == given_names
