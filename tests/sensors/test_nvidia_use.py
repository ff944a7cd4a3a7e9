"""Who is on a board at the C ABI: processes, their use, and boards divided in hardware."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakenvml import FakeNvml, Process, Slice, load_in_process
from support.nvidia import Told, fleet_on, tick

from carbon_exporter.sensors.base import Occupancy, Occupant
from carbon_exporter.sensors.nvidia.mig import profile_of
from carbon_exporter.sensors.nvidia.nvml import Library, Nvml
from carbon_exporter.sensors.nvidia.processes import mean_utilization, merge
from carbon_exporter.sensors.nvidia.refusals import PERMISSION_REMEDY
from carbon_exporter.sensors.nvidia.wire import NO_INSTANCE, ProcessEntry, UtilizationEntry

SEVEN = [Slice(gi=number) for number in range(7, 14)]


@pytest.fixture
def fake(tmp_path: Path) -> FakeNvml:
    fake = FakeNvml(tmp_path / "nvml", boards=1)
    fake.boards[0].samples(0)
    return fake


def on(told: Told) -> Occupancy:
    return told.occupancies["gpu0"]


def test_a_board_nobody_is_on_is_told_as_such(fake: FakeNvml) -> None:
    occupancy = on(tick(fleet_on(fake)))
    assert (occupancy.occupants, occupancy.partitions) == ((), ())
    assert occupancy.uuid == fake.boards[0].uuid
    assert occupancy.at <= time.monotonic()


def test_compute_graphics_and_mps_processes_are_each_told_once(fake: FakeNvml) -> None:
    fake.boards[0].processes(
        [
            *(Process(11, sm=60), Process(11, kind="graphics"), Process(12, sm=20, kind="mps")),
            *(Process(13, kind="graphics"), Process(11, kind="mps")),
        ]
    )
    assert set(on(tick(fleet_on(fake))).occupants or ()) == {Occupant(11, 0.6), Occupant(12, 0.2), Occupant(13, 0.0)}


def test_more_processes_than_there_is_room_for_are_asked_again(fake: FakeNvml) -> None:
    fake.boards[0].processes([Process(100 + number, sm=1) for number in range(32)])
    load_in_process(fake)
    library = Library()
    library.begin()
    nvml = Nvml(library, room=4)
    board = nvml.handle_at(0)
    for _ in range(2):
        assert len(nvml.processes(board, "Compute")) == 32
        assert len(nvml.samples(board, 0)) == 32
    assert (fake.boards[0].calls["procs"], fake.boards[0].calls["samples"]) == (3, 3)
    library.end()


def test_samples_are_of_the_time_since_the_last_look(fake: FakeNvml) -> None:
    board = fake.boards[0]
    board.samples(3600)
    board.processes([Process(11, sm=60)])
    fleet = fleet_on(fake)
    assert on(tick(fleet)).occupants == (Occupant(11, 0.6),)
    assert on(tick(fleet)).occupants == (Occupant(11, 0.0),)


@pytest.mark.parametrize("code", [0, 6])
def test_no_new_sample_is_no_use_whatever_the_driver_answers(fake: FakeNvml, code: int) -> None:
    fake.boards[0].samples(0, code_if_none=code)
    fake.boards[0].processes([Process(11)])
    assert on(tick(fleet_on(fake))).occupants == (Occupant(11, 0.0),)


@pytest.mark.parametrize("code", [3, 4, 13])
def test_use_that_the_driver_does_not_tell_is_not_known(fake: FakeNvml, code: int) -> None:
    fake.boards[0].processes([Process(11, sm=60)])
    fake.boards[0].error(code, "samples")
    fleet = fleet_on(fake)
    for _ in range(3):
        assert on(tick(fleet)).occupants == (Occupant(11, None),)
    assert fake.boards[0].calls["samples"] == 1
    assert "utilisation by process" in fleet.members[0].notes[0]


@pytest.mark.parametrize(("code", "remedy"), [(3, ""), (4, PERMISSION_REMEDY), (13, "")])
def test_processes_that_cannot_be_listed_are_not_nobody(fake: FakeNvml, code: int, remedy: str) -> None:
    fake.boards[0].error(code, "procs")
    fleet = fleet_on(fake)
    for _ in range(3):
        told = tick(fleet)
        assert told.occupancies["gpu0"].occupants is None
        assert set(told.readings) == {"gpu0"}
    (note,) = fleet.members[0].notes
    assert "no list of its processes" in note
    assert note.endswith(remedy)


def test_a_full_board_has_partitions_whose_shares_add_up_to_one(fake: FakeNvml) -> None:
    fake.boards[0].mig(SEVEN)
    fake.boards[0].processes([Process(11, gi=7), Process(12, gi=9), Process(12, gi=10), Process(13)])
    occupancy = on(tick(fleet_on(fake)))
    assert [one.name for one in occupancy.partitions] == [f"gi{number}" for number in range(7, 14)]
    assert sum(one.share for one in occupancy.partitions) == pytest.approx(1.0)
    assert {(one.profile, one.utilization) for one in occupancy.partitions} == {("1g.10gb", None)}
    assert all(one.uuid.startswith("MIG-") for one in occupancy.partitions)
    assert occupancy.occupants == (
        *(Occupant(11, partition="gi7"), Occupant(12, partition="gi9")),
        *(Occupant(12, partition="gi10"), Occupant(13)),
    )


def test_a_board_that_is_partly_divided_leaves_the_rest_free(fake: FakeNvml) -> None:
    fake.boards[0].mig([Slice(gi=1, profile="3g.40gb", slices=3, sm=60), Slice(gi=9)])
    shares = {one.name: one.share for one in on(tick(fleet_on(fake))).partitions}
    assert shares == {"gi1": pytest.approx(3 / 7), "gi9": pytest.approx(1 / 7)}


def test_devices_of_one_gpu_instance_are_one_partition(fake: FakeNvml) -> None:
    devices = [Slice(gi=2, ci=number, profile="1c.2g.20gb", slices=2) for number in range(2)]
    fake.boards[0].mig(devices)
    (partition,) = on(tick(fleet_on(fake))).partitions
    assert (partition.name, partition.profile) == ("gi2", "1c.2g.20gb")
    assert partition.share == pytest.approx(2 / 7)


def test_a_divided_board_without_partitions_is_used_by_nobody(fake: FakeNvml) -> None:
    fake.boards[0].mig([])
    occupancy = on(tick(fleet_on(fake)))
    assert (occupancy.occupants, occupancy.partitions) == ((), ())


def test_a_new_partition_is_seen_with_its_first_process(fake: FakeNvml) -> None:
    fake.boards[0].mig(SEVEN[:1])
    fleet = fleet_on(fake)
    assert len(on(tick(fleet)).partitions) == 1
    fake.boards[0].mig(SEVEN[:2])
    fake.boards[0].processes([Process(11, gi=8)])
    assert len(on(tick(fleet)).partitions) == 2


def test_an_instance_that_is_in_no_layout_makes_the_layout_be_read_once(fake: FakeNvml) -> None:
    fake.boards[0].mig(SEVEN[:1])
    fleet = fleet_on(fake)
    tick(fleet)
    fake.boards[0].processes([Process(11, gi=99)])
    tick(fleet)
    before = fake.boards[0].calls["mig"]
    assert on(tick(fleet)).occupants == (Occupant(11, partition="gi99"),)
    assert fake.boards[0].calls["mig"] == before


def test_a_layout_that_changes_is_read_again_within_twenty_ticks_and_each_keeps_its_budget(fake: FakeNvml) -> None:
    fake.boards[0].mig(SEVEN)
    fake.boards[0].gpm()
    fake.boards[0].processes([Process(10 + one.gi, gi=one.gi) for one in SEVEN])
    fleet = fleet_on(fake)
    tick(fleet)
    fake.boards[0].mig([Slice(gi=1, profile="3g.40gb", slices=3), *SEVEN[4:]])
    fake.boards[0].processes([])
    seen = []
    for _ in range(30):
        before = fake.calls
        seen.append([one.name for one in on(tick(fleet)).partitions])
        assert fake.calls - before <= 13, "one more may be the fleet's"
    assert seen[20] == ["gi1", "gi11", "gi12", "gi13"]


def test_a_board_may_be_divided_and_whole_again_while_it_is_watched(fake: FakeNvml) -> None:
    fake.boards[0].processes([Process(11, sm=50)])
    fleet = fleet_on(fake)
    assert on(tick(fleet)).occupants == (Occupant(11, 0.5),)
    fake.boards[0].mig(SEVEN)
    fake.boards[0].processes([Process(11, gi=7)])
    for _ in range(12):
        told = tick(fleet)
    assert len(on(told).partitions) == 7
    fake.boards[0].whole()
    fake.boards[0].processes([Process(11, sm=50)])
    for _ in range(12):
        told = tick(fleet)
    assert on(told).partitions == ()
    assert on(told).occupants == (Occupant(11, 0.5),)
    assert told.vitals["gpu0"].utilization == 0.0


def test_partitions_tell_their_use_where_the_driver_does(fake: FakeNvml) -> None:
    slices = [Slice(gi=7, busy=75.0), Slice(gi=8, busy=0.0), Slice(gi=9, busy=float("nan"))]
    fake.boards[0].mig(slices)
    fake.boards[0].gpm()
    fleet = fleet_on(fake)
    for _ in range(4):
        told = tick(fleet)
    assert [one.utilization for one in on(told).partitions] == [0.75, 0.0, None]


def test_seven_partitions_take_turns_to_tell_their_use(fake: FakeNvml) -> None:
    fake.boards[0].mig([Slice(gi=number, busy=10.0 * number) for number in range(1, 8)])
    fake.boards[0].gpm()
    fleet = fleet_on(fake)
    for _ in range(40):
        before = sum(fake.boards[0].calls.values())
        told = tick(fleet)
        used = sum(fake.boards[0].calls.values()) - before
    assert [one.utilization for one in on(told).partitions] == [pytest.approx(number / 10) for number in range(1, 8)]
    assert used <= 12


def test_without_gpm_the_use_of_partitions_is_not_known_and_asked_once(fake: FakeNvml) -> None:
    fake.boards[0].mig(SEVEN)
    fleet = fleet_on(fake)
    for _ in range(3):
        told = tick(fleet)
    assert {one.utilization for one in on(told).partitions} == {None}
    assert fake.boards[0].calls["gpm"] == 1
    assert fleet.members[0].notes == ("gpu0: no utilisation by partition (not supported)",)


def test_a_process_is_merged_into_the_instance_that_it_has() -> None:
    entries = [ProcessEntry(1, NO_INSTANCE), ProcessEntry(1, 7), ProcessEntry(2, NO_INSTANCE), ProcessEntry(1, 7)]
    assert merge(entries) == (ProcessEntry(1, 7), ProcessEntry(2, NO_INSTANCE))


def test_use_is_the_mean_of_a_processes_samples() -> None:
    samples = [UtilizationEntry(1, 10, 40), UtilizationEntry(1, 20, 60), UtilizationEntry(2, 20, 100)]
    assert mean_utilization(samples) == {1: 0.5, 2: 1.0}


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "1g.5gb"),
        ("NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb", "1c.3g.40gb"),
        ("NVIDIA A100 MIG 1g.5gb+me", "1g.5gb+me"),
        ("NVIDIA A100", ""),
    ],
)
def test_a_profile_is_read_from_the_name(name: str, profile: str) -> None:
    assert profile_of(name) == profile


@given(st.text())
def test_any_name_has_a_profile_or_none(name: str) -> None:
    assert profile_of(name) in name
