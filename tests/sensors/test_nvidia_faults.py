"""NVIDIA's boards when things go wrong, at the C ABI: errors, hangs, boards that come and go, forks, upgrades."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fakenvml import OLD_DRIVER, FakeNvml, Process
from support.nvidia import Told, fleet_on, run_script, tick

from carbon_exporter.errors import SensorOutdated, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Host
from carbon_exporter.sensors.crew import Crew
from carbon_exporter.sensors.nvidia import MODULE_REMEDY, Nvidia, probe
from carbon_exporter.sensors.nvidia.fleet import HANG_REMEDY, MISMATCH_REMEDY

ALL = {"gpu0", "gpu1", "gpu2"}
RECOVERABLE = [1, 9, 15, 16, 28, 999]


@pytest.fixture
def fake(tmp_path: Path) -> FakeNvml:
    return FakeNvml(tmp_path / "nvml", boards=3)


@pytest.fixture
def fleet(fake: FakeNvml) -> Iterator[Nvidia]:
    sensor = fleet_on(fake)
    yield sensor
    fake.clear()
    sensor.close()


def given(told: Told) -> set[str]:
    return set(told.readings)


def names(fleet: Nvidia) -> list[str]:
    return [board.devices[0].name for board in fleet.members]


def ticks_until(fleet: Nvidia, wanted: set[str], most: int = 20) -> int:
    """How many ticks pass until all of `wanted` give a reading."""
    for number in range(1, most + 1):
        if given(tick(fleet)) == wanted:
            return number
    pytest.fail(f"{wanted} did not come in {most} ticks")


@pytest.mark.parametrize("code", RECOVERABLE)
@pytest.mark.parametrize("while_failing", [1, 4, 5, 13])
def test_an_error_of_one_board_costs_its_freshness_only_and_ends_with_its_cause(
    fake: FakeNvml, fleet: Nvidia, code: int, while_failing: int
) -> None:
    assert given(tick(fleet)) == ALL
    fake.boards[1].error(code)
    for _ in range(while_failing):
        told = tick(fleet)
        assert given(told) == ALL - {"gpu1"}
        assert f"NVML {code}" in str(told.failures["gpu1"])
    fake.boards[1].clear()
    assert ticks_until(fleet, ALL) <= 3
    assert names(fleet) == ["gpu0", "gpu1", "gpu2"]


@pytest.mark.parametrize("code", RECOVERABLE)
def test_an_error_of_all_boards_at_once_ends_with_its_cause(fake: FakeNvml, fleet: Nvidia, code: int) -> None:
    assert given(tick(fleet)) == ALL
    for board in fake.boards:
        board.error(code)
    for _ in range(5):
        assert given(tick(fleet)) == set()
    fake.clear()
    assert ticks_until(fleet, ALL) <= 3


@pytest.mark.parametrize("code", [1, 9, 999])
def test_a_session_that_fails_is_begun_anew(fake: FakeNvml, fleet: Nvidia, code: int) -> None:
    assert given(tick(fleet)) == ALL
    fake.session_error(code)
    for _ in range(4):
        assert given(tick(fleet)) == set()
    fake.clear()
    assert ticks_until(fleet, ALL) <= 3


def test_a_session_that_was_ended_is_begun_anew(fake: FakeNvml, fleet: Nvidia) -> None:
    assert given(tick(fleet)) == ALL
    fake.end_sessions()
    assert ticks_until(fleet, ALL) <= 3
    assert fake.inits == 2


def test_a_board_that_fails_is_asked_at_the_next_tick_and_then_at_every_second_one(
    fake: FakeNvml, fleet: Nvidia
) -> None:
    tick(fleet)
    fake.boards[1].error(999)
    asked = []
    for _ in range(6):
        before = sum(fake.boards[1].calls.values())
        assert set(tick(fleet).failures) == {"gpu1"}
        asked.append(sum(fake.boards[1].calls.values()) > before)
    assert asked == [True, True, False, True, False, True]


def test_an_error_of_one_board_leaves_the_session_to_the_others(fake: FakeNvml, fleet: Nvidia) -> None:
    fake.boards[1].error(1)
    for _ in range(6):
        tick(fleet)
    assert fake.inits == 1


def test_a_board_that_hangs_costs_its_own_freshness_and_one_thread(fake: FakeNvml) -> None:
    crew = Crew([fleet_on(fake)])
    try:
        assert {reading.device.name for reading in crew.gather(10).readings} == ALL
        threads = threading.active_count()
        fake.boards[1].hang(60)
        crew.gather(0.3)
        for _ in range(14):
            began = time.monotonic()
            assert {reading.device.name for reading in crew.gather(10).readings} == ALL - {"gpu1"}
            assert time.monotonic() - began < 5
        assert threading.active_count() <= threads
        assert "has not answered in time" in str(crew.members[0].trouble)
        fake.clear()
        until = time.monotonic() + 20
        while {reading.device.name for reading in crew.gather(2).readings} != ALL:
            assert time.monotonic() < until
        assert crew.members[0].trouble is None or crew.gather(10).failures == ()
    finally:
        fake.clear()
        crew.close()


def test_a_board_that_hangs_at_the_start_comes_later(fake: FakeNvml) -> None:
    fake.boards[1].hang(60, lookups=True)
    fleet = fleet_on(fake)
    try:
        assert names(fleet) == ["gpu0", "gpu2"]
        told = tick(fleet)
        assert given(told) == {"gpu0", "gpu2"}
        assert "the board at index 1 has not answered" in str(told.failures[""])
        fake.clear()
        assert ticks_until(fleet, ALL) <= 3
    finally:
        fake.clear()


def test_a_driver_that_hangs_at_the_start_is_waited_for_without_holding_anybody_up(fake: FakeNvml) -> None:
    fake.hang_session(60)
    fleet = fleet_on(fake)
    assert fleet.members == ()
    with pytest.raises(SensorReadError, match="has not answered since the start") as caught:
        fleet.read()
    assert caught.value.remedy == HANG_REMEDY
    fake.clear()
    until = time.monotonic() + 20
    while given(tick(fleet)) != ALL:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("code", [15, 28])
def test_a_board_that_is_removed_leaves_and_comes_back_by_its_name(fake: FakeNvml, fleet: Nvidia, code: int) -> None:
    tick(fleet)
    fake.remove(1, code)
    for _ in range(4):
        assert given(tick(fleet)) == ALL - {"gpu1"}
    assert names(fleet) == ["gpu0", "gpu2"]
    assert tick(fleet).failures == {}
    fake.restore(1)
    assert ticks_until(fleet, ALL) <= 14
    assert {board.uuid: board.devices[0].name for board in fleet.members}[fake.boards[1].uuid] == "gpu1"


def test_a_board_that_is_added_is_found_within_twelve_ticks_and_named_after_its_place(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path / "nvml", boards=3)
    fake.present([0, 2])
    fleet = fleet_on(fake)
    assert names(fleet) == ["gpu0", "gpu1"]
    fake.present([0, 1, 2])
    for _ in range(14):
        told = tick(fleet)
    assert {name: reading.device.uuid for name, reading in told.readings.items()} == {
        "gpu0": fake.boards[0].uuid,
        "gpu1": fake.boards[2].uuid,
        "gpu2": fake.boards[1].uuid,
    }


def test_boards_in_another_order_keep_their_names(fake: FakeNvml, fleet: Nvidia) -> None:
    before = {name: reading.device.uuid for name, reading in tick(fleet).readings.items()}
    fake.present([2, 0, 1])
    for _ in range(14):
        told = tick(fleet)
        assert {name: reading.device.uuid for name, reading in told.readings.items()} == before
    assert [board.uuid for board in fleet.members] == [fake.boards[slot].uuid for slot in (2, 0, 1)]


def test_a_board_that_is_exchanged_for_another_gets_a_new_name(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path / "nvml", boards=3)
    fake.present([0, 1])
    fleet = fleet_on(fake)
    tick(fleet)
    fake.remove(0)
    fake.present([2, 1])
    for _ in range(6):
        told = tick(fleet)
    assert {name: reading.device.uuid for name, reading in told.readings.items()} == {
        "gpu1": fake.boards[1].uuid,
        "gpu2": fake.boards[2].uuid,
    }


def test_a_board_that_cannot_be_looked_at_is_told_and_found_later(fake: FakeNvml) -> None:
    fake.boards[2].error(15)
    fleet = fleet_on(fake)
    assert names(fleet) == ["gpu0", "gpu1"]
    told = tick(fleet)
    assert "the board at index 2: the GPU is lost" in str(told.failures[""])
    assert given(told) == {"gpu0", "gpu1"}
    fake.clear()
    assert ticks_until(fleet, ALL) <= 3


def test_no_board_is_no_meter(fake: FakeNvml) -> None:
    fake.present([])
    with pytest.raises(SensorUnavailable, match="lists no board"):
        fleet_on(fake)


def test_without_its_module_the_driver_is_missing_quietly_or_with_a_remedy(fake: FakeNvml, tmp_path: Path) -> None:
    fake.session_error(9)
    host = Host(procfs=tmp_path / "proc", sysfs=tmp_path / "sys")
    with pytest.raises(SensorUnavailable, match="driver is not loaded") as quiet:
        fleet_on(fake, host)
    assert quiet.value.remedy == ""
    board = tmp_path / "sys" / "bus" / "pci" / "devices" / "0000:01:00.0"
    board.mkdir(parents=True)
    (board / "vendor").write_text("0x10de\n")
    (board / "class").write_text("0x030200\n")
    with pytest.raises(SensorReadError, match="driver is not loaded") as loud:
        fleet_on(fake, host)
    assert loud.value.remedy == MODULE_REMEDY


def test_a_driver_that_was_replaced_under_the_process_makes_it_outdated(fake: FakeNvml, fleet: Nvidia) -> None:
    tick(fleet)
    fake.session_error(18)
    with pytest.raises(SensorOutdated) as of_board:
        fleet.members[0].read()
    assert of_board.value.device == "gpu0"
    with pytest.raises(SensorOutdated, match="different versions") as of_fleet:
        fleet.read()
    assert "must be started again" in of_fleet.value.remedy
    late = probe(Host(), frozenset())
    with pytest.raises(SensorOutdated):
        late.read()


def test_a_mismatch_at_the_first_start_tells_to_load_the_module_anew(fake: FakeNvml) -> None:
    fake.session_error(18)
    script = """if True:
        import json
        from carbon_exporter.errors import SensorOutdated, SensorReadError
        from carbon_exporter.sensors.base import Host
        from carbon_exporter.sensors.nvidia import probe
        told = []
        for _ in range(2):
            try:
                probe(Host(), frozenset())
            except SensorReadError as error:
                told.append([isinstance(error, SensorOutdated), error.reason, error.remedy])
        print(json.dumps(told))
    """
    told = run_script(script, fake)
    assert [(outdated, remedy) for outdated, _, remedy in told] == [(False, MISMATCH_REMEDY)] * 2
    assert "different versions" in told[0][1]


PROBE = """if True:
    import json, pathlib, sys
    from carbon_exporter.errors import SensorUnavailable
    from carbon_exporter.sensors.base import Host
    from carbon_exporter.sensors.nvidia import probe
    host = Host(procfs=pathlib.Path({proc!r}), sysfs=pathlib.Path({proc!r}))
    try:
        probe(host, frozenset())
    except SensorUnavailable as error:
        print(json.dumps([error.reason, error.remedy, "pynvml" in sys.modules]))
"""


def test_without_the_library_it_is_missing_quietly_and_loads_nothing(tmp_path: Path) -> None:
    reason, remedy, loaded = run_script(PROBE.format(proc=str(tmp_path)), None)
    assert "libnvidia-ml.so.1 cannot be loaded" in reason
    assert (remedy, loaded) == ("", False)


def test_without_the_library_beside_hardware_the_remedy_names_it(tmp_path: Path) -> None:
    (tmp_path / "driver" / "nvidia").mkdir(parents=True)
    _, remedy, _ = run_script(PROBE.format(proc=str(tmp_path)), None)
    assert "install the driver's libraries" in remedy
    assert "NVIDIA runtime" in remedy


def test_an_old_driver_is_read_by_the_single_functions(fake: FakeNvml) -> None:
    fake.boards[0].processes([Process(11, sm=50)])
    fake.boards[0].counter(77)
    fake.boards[1].without_counter()
    script = """if True:
        import json, time
        from carbon_exporter.sensors.base import Host
        from carbon_exporter.sensors.nvidia import probe
        fleet = probe(Host(), frozenset())
        first, second = fleet.members[:2]
        sample = first.read()
        second.read(); time.sleep(0.05); second.sample(); time.sleep(0.05)
        vitals, occupancy = sample.vitals[0], sample.occupancies[0]
        print(json.dumps([
            first.devices[0].method, sample.readings[0].energy, first.devices[0].max_power, vitals.power_limit,
            vitals.memory_used, vitals.temperature, occupancy.occupants[0].utilization, first.notes,
            second.devices[0].method, second.read().readings[0].power,
        ]))
    """
    told = run_script(script, fake, OLD_DRIVER)
    assert "nvmlDeviceGetTotalEnergyConsumption" in told[0]
    assert told[1:7] == [77.0, 1400.0, 700.0, 1 << 30, 40.0, None]
    assert told[7] == ["gpu0: no utilisation by process (this driver does not have it)"]
    assert "nvmlDeviceGetPowerUsage" in told[8]
    assert told[9] == pytest.approx(100.0)


def test_a_forked_child_has_a_session_of_its_own_and_leaves_its_parents_alone(fake: FakeNvml) -> None:
    script = """if True:
        import json, os
        from carbon_exporter.sensors.base import Host
        from carbon_exporter.sensors.nvidia import probe
        fleet = probe(Host(), frozenset())
        energy = lambda: [len(board.read().readings) for board in fleet.members]
        before = energy()
        inside, outside = os.pipe()
        child = os.fork()
        if child == 0:
            told = [energy(), energy()]
            fleet.read()
            fleet.close()
            os.write(outside, json.dumps(told).encode())
            os._exit(0)
        os.waitpid(child, 0)
        print(json.dumps([before, json.loads(os.read(inside, 1000)), energy()]))
        fleet.close()
    """
    assert run_script(script, fake) == [[1, 1, 1], [[1, 1, 1], [1, 1, 1]], [1, 1, 1]]
    assert fake.inits == 2


def test_the_session_is_given_back_when_it_is_closed(fake: FakeNvml) -> None:
    fleet = fleet_on(fake)
    tick(fleet)
    fleet.close()
    assert given(tick(fleet)) == set()


def test_a_board_without_a_uuid_is_none(fake: FakeNvml) -> None:
    fake.boards[1].raw.uuid = b""
    fleet = fleet_on(fake)
    assert names(fleet) == ["gpu0", "gpu2"]
    assert "has none" in str(tick(fleet).failures[""])
