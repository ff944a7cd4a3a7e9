"""What a process tree pays of boards, by the driver's lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.sdk.base import BoardUse
from carbon_exporter.sdk.board_use import board_use
from carbon_exporter.sensors.base import Occupancy, Occupant, Partition


def test_alone_it_pays_for_all_of_it() -> None:
    occupancies = [Occupancy("gpu0", 1.0, (Occupant(7), Occupant(8))), Occupancy("gpu1", 1.0, (Occupant(9),))]
    assert board_use(occupancies, {7, 8}) == BoardUse({"gpu0": 1.0}, certain=True)


def test_with_others_it_pays_equal_parts_where_no_use_is_known_and_says_so() -> None:
    occupancy = Occupancy("gpu0", 1.0, (Occupant(7, 0.5), Occupant(9, None)))
    assert board_use([occupancy], {7}) == BoardUse({"gpu0": 0.5}, certain=False)


def test_a_partition_is_its_share_of_the_board() -> None:
    parts = (Partition("gi1", 0.25), Partition("gi2", 0.75))
    occupancy = Occupancy("gpu0", 1.0, (Occupant(7, partition="gi1"), Occupant(9, partition="gi2")), parts)
    use = board_use([occupancy], {7})
    assert use is not None
    assert use.shares == {"gpu0": pytest.approx(0.25)}
    assert use.certain


def test_what_nobody_can_list_is_unknown_and_not_nothing() -> None:
    hidden = Occupancy("gpu0", 1.0, None)
    assert board_use([hidden], {7}) is None
    assert board_use([], {7}) is None
    assert board_use([Occupancy("gpu1", 1.0, ())], ()) is None
    assert board_use([hidden, Occupancy("gpu1", 1.0, ())], {7}) == BoardUse({}, certain=True)


@given(st.lists(st.tuples(st.integers(1, 9), st.none() | st.floats(0, 1)), min_size=1, max_size=9))
def test_holders_never_pay_more_than_the_board_together(occupants: list[tuple[int, float | None]]) -> None:
    occupancy = Occupancy("gpu0", 1.0, tuple(Occupant(pid, used) for pid, used in occupants))
    uses = [board_use([occupancy], {pid}) for pid in {pid for pid, _ in occupants}]
    assert sum(use.shares["gpu0"] for use in uses if use) == pytest.approx(1.0)
