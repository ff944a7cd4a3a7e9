"""The estimate: what it says of a machine's processors and memory, and what it says when it knows little."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.machine import Machine
from support.other_user import needs_root, public_directory, run_as_nobody

from carbon_exporter.errors import SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Host, Kind, Quality, Reading
from carbon_exporter.sensors.cpu_load import CpuTicks, busy_share, parse_ticks
from carbon_exporter.sensors.cpuinfo import parse_cpuinfo
from carbon_exporter.sensors.load_curve import unknown_watts, watts_by_tdp
from carbon_exporter.sensors.memory_size import installed_memory
from carbon_exporter.sensors.model import Model, probe
from carbon_exporter.units import Watts

NOTHING: frozenset[Kind] = frozenset()
MEMORY: frozenset[Kind] = frozenset({"dram"})


def reading(sensor: Model, device: str) -> Reading:
    return next(found for found in sensor.read().readings if found.device.name == device)


def is_mark(found: Reading) -> bool:
    return found.energy is None and found.power is None and found.since is None


@pytest.mark.parametrize(
    ("load", "share"), [(0, 0.12), (0.05, 0.22), (0.1, 0.32), (0.3, 0.535), (0.5, 0.75), (0.75, 0.885), (1, 1.02)]
)
def test_the_curve_goes_through_its_points_and_straight_between(load: float, share: float) -> None:
    assert watts_by_tdp(Watts(200), load) == pytest.approx(200 * share)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1, 500))
def test_more_load_is_never_less_power(one: float, other: float, tdp: float) -> None:
    low, high = sorted([one, other])
    assert watts_by_tdp(Watts(tdp), low) <= watts_by_tdp(Watts(tdp), high) * (1 + 1e-12)
    assert unknown_watts(4, low) <= unknown_watts(4, high)


@given(st.floats(allow_nan=False))
def test_a_load_outside_of_0_to_1_is_clamped(load: float) -> None:
    assert 12 <= watts_by_tdp(Watts(100), load) <= 102
    assert 0.74 <= unknown_watts(1, load) <= 3.5


def test_on_bare_metal_each_socket_has_its_tdp_and_its_own_load(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m", sockets=(0, 1, 0, 1))
    sensor = probe(machine.host, MEMORY)
    sensor.read()
    machine.run(5, {0: 0.5, 2: 0.5, 1: 1.0, 3: 1.0})
    found = {r.device.name: r for r in sensor.read().readings}
    assert found["cpu0"].power == pytest.approx(205 * 0.75)
    assert found["cpu1"].power == pytest.approx(205 * 1.02)
    assert {r.quality for r in found.values()} == {Quality.MODELLED}
    assert {(r.since, r.at) for r in found.values()} == {(100.0, 105.0)}
    assert sensor.quality is Quality.MODELLED


def test_a_device_says_which_row_it_goes_by(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m")
    (device,) = probe(machine.host, MEMORY).devices
    assert device.method == "load curve on TDP 205 W (Intel Xeon Platinum 8280, exact match), 2 CPUs"
    assert (device.vendor, device.model) == ("Intel", "Intel(R) Xeon(R) Platinum 8280 CPU @ 2.70GHz")
    near = Machine(tmp_path / "n", model="Intel(R) Xeon(R) Platinum 8280Z CPU @ 2.70GHz")
    (device,) = probe(near.host, MEMORY).devices
    assert "(Intel Xeon Platinum 8280, near match)" in device.method


def test_a_virtual_machine_has_its_part_of_the_threads(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m", virtual=True)
    sensor = probe(machine.host, MEMORY)
    sensor.read()
    machine.run(5, 1.0)
    found = reading(sensor, "cpu0")
    assert found.power == pytest.approx(205 * 1.02 * 2 / 56)
    assert found.quality is Quality.MODELLED
    assert found.device.method.endswith("2 of 56 threads of a virtual machine's host, 2 a core assumed")


def test_a_virtual_machine_never_has_more_than_the_whole_processor(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m", virtual=True, sockets=(0,) * 64)
    sensor = probe(machine.host, MEMORY)
    sensor.read()
    machine.run(1, 1.0)
    assert reading(sensor, "cpu0").power == pytest.approx(205 * 1.02)


def test_a_virtual_machine_of_a_model_without_core_count_goes_by_cpus(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m", virtual=True, model="Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz")
    sensor = probe(machine.host, MEMORY)
    assert "no core count for Intel Xeon Platinum 8275CL" in sensor.devices[0].method
    assert sensor.quality is Quality.DEFAULT


@pytest.mark.parametrize(
    ("model", "vendor_id"), [("AMD EPYC", "AuthenticAMD"), ("Intel(R) Xeon(R) Processor", "GenuineIntel"), ("", "")]
)
def test_an_unknown_model_goes_by_watts_per_cpu_and_is_default(tmp_path: Path, model: str, vendor_id: str) -> None:
    machine = Machine(tmp_path / "m", model=model, vendor_id=vendor_id, sockets=(0,) * 4)
    sensor = probe(machine.host, MEMORY)
    sensor.read()
    machine.run(5, 0.5)
    found = reading(sensor, "cpu0")
    assert found.power == pytest.approx(4 * (0.74 + 2.76 * 0.5))
    assert found.quality is Quality.DEFAULT
    assert "0.74 to 3.5 W per CPU" in found.device.method
    assert model in found.device.method


def test_the_first_read_is_a_mark_for_processors_and_power_for_memory(tmp_path: Path) -> None:
    sensor = probe(Machine(tmp_path / "m").host, NOTHING)
    sample = sensor.read()
    assert [(r.device.name, is_mark(r)) for r in sample.readings] == [("cpu0", True), ("dram0", False)]
    assert sample.failures == ()


def test_too_short_a_period_is_a_mark_and_is_counted_with_the_next(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m")
    sensor = probe(machine.host, MEMORY)
    sensor.read()
    machine.run(0.1, 1.0)
    assert is_mark(reading(sensor, "cpu0"))
    machine.run(0.9, 0.0)
    found = reading(sensor, "cpu0")
    assert (found.since, found.at) == (100.0, 101.0)
    assert found.power == pytest.approx(205 * 0.32)


def test_a_period_without_ticks_is_a_mark(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m")
    sensor = probe(machine.host, MEMORY)
    sensor.read()
    machine.clock.now += 5
    assert is_mark(reading(sensor, "cpu0"))


def test_memory_draws_by_installed_size_at_any_load(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m")
    machine.add_memory_blocks(*["online"] * 24, "offline", block_bytes=2**30)
    sensor = probe(machine.host, frozenset({"cpu"}))
    first, second = sensor.read(), sensor.read()
    assert first.readings[0].power == pytest.approx(9.0)
    assert (first.readings[0].since, second.readings[0].since) == (None, 100.0)
    assert first.readings[0].quality is Quality.DEFAULT
    assert "24 GiB installed" in sensor.devices[0].method
    assert [device.name for device in sensor.devices] == ["dram0"]


def test_without_memory_blocks_memtotal_stands_for_the_size(tmp_path: Path) -> None:
    sensor = probe(Machine(tmp_path / "m").host, frozenset({"cpu"}))
    assert sensor.read().readings[0].power == pytest.approx(6.0)
    assert "MemTotal" in sensor.devices[0].method


def test_where_everything_is_measured_nothing_is_modelled(tmp_path: Path) -> None:
    with pytest.raises(SensorUnavailable, match="everything here is measured"):
        probe(Machine(tmp_path / "m").host, frozenset({"cpu", "dram", "gpu"}))


def test_a_machine_without_proc_cannot_be_modelled(tmp_path: Path) -> None:
    with pytest.raises(SensorUnavailable, match="stat cannot be read") as caught:
        probe(Host(procfs=tmp_path, sysfs=tmp_path), NOTHING)
    assert "--path.procfs" in caught.value.remedy
    with pytest.raises(SensorUnavailable, match="meminfo"):
        probe(Host(procfs=tmp_path, sysfs=tmp_path), frozenset({"cpu"}))
    (tmp_path / "stat").write_text("btime 5\n")
    with pytest.raises(SensorUnavailable, match="no line for any CPU"):
        probe(Host(procfs=tmp_path, sysfs=tmp_path), NOTHING)


@needs_root
def test_a_stat_that_may_not_be_read_is_said_so() -> None:
    with public_directory() as directory:
        machine = Machine(directory / "m")
        (machine.host.procfs / "stat").chmod(0o400)

        def refused() -> None:
            with pytest.raises(SensorPermission, match="stat may not be read"):
                probe(machine.host, NOTHING)

        run_as_nobody(refused)


def test_when_the_load_cannot_be_read_memory_goes_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m", sockets=(0, 1))
    both, processors = probe(machine.host, NOTHING), probe(machine.host, MEMORY)
    (machine.host.procfs / "stat").unlink()
    sample = both.read()
    assert [r.device.name for r in sample.readings] == ["dram0"]
    assert [failure.device for failure in sample.failures] == ["cpu0", "cpu1"]
    with pytest.raises(SensorReadError, match="stat cannot be read"):
        processors.read()
    machine.write_stat()
    assert len(both.read().readings) == 3


def test_a_cpu_that_goes_offline_draws_nothing_more(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m")
    sensor = probe(machine.host, MEMORY)
    sensor.read()
    del machine.ticks[1]
    machine.run(5, 1.0)
    assert reading(sensor, "cpu0").power == pytest.approx(205 * 0.75)


def test_cpus_and_sockets_that_are_plugged_in_are_counted_from_then_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m", model="AMD EPYC", vendor_id="AuthenticAMD", sockets=(0, 0, 0, 1))
    for cpu in (2, 3):
        del machine.ticks[cpu]
    machine.write_cpuinfo()
    machine.write_stat()
    sensor = probe(machine.host, MEMORY)
    sensor.read()
    machine.ticks |= {2: [0] * 10, 3: [0] * 10}
    machine.write_cpuinfo()
    machine.run(5, 1.0)
    assert is_mark(reading(sensor, "cpu1"))
    machine.run(5, 1.0)
    assert [r.power for r in sensor.read().readings] == [pytest.approx(3 * 3.5), pytest.approx(3.5)]
    assert [device.name for device in sensor.devices] == ["cpu0", "cpu1"]


def test_guest_time_is_not_counted_twice_and_stolen_or_waiting_time_is_not_busy() -> None:
    #             user nice system idle iowait irq softirq steal guest guest_nice
    ticks = parse_ticks("cpu0 100 10 20 1000 50 3 4 70 90 5\n")
    assert ticks == {0: CpuTicks(busy=137, idle=1120)}


def test_old_kernels_have_fewer_columns() -> None:
    assert parse_ticks("cpu1 1 2 3 4\ncpu2 1 2 3\ncpu3 1 2 x 4\ncpux 1 2 3 4\ncpu 1 2 3 4\n") == {1: CpuTicks(6, 4)}


ticks_of_cpus = st.dictionaries(st.integers(0, 5), st.builds(CpuTicks, st.integers(0, 10**6), st.integers(0, 10**6)))


@given(ticks_of_cpus, ticks_of_cpus, st.sets(st.integers(0, 5)))
def test_the_load_is_between_0_and_1_whatever_the_counters_do(
    before: dict[int, CpuTicks], after: dict[int, CpuTicks], cpus: set[int]
) -> None:
    share = busy_share(before, after, cpus)
    assert share is None or 0 <= share <= 1


@given(st.lists(st.text(alphabet="cpu0123456789 -x\n:\u0664", max_size=40)).map("\n".join))
def test_any_text_is_read_as_stat_or_left_out(text: str) -> None:
    assert all(tick.busy >= 0 and tick.idle >= 0 for tick in parse_ticks(text).values())


cpuinfo_lines = st.tuples(
    st.sampled_from(["processor", "physical id", "model name", "flags", "vendor_id", "x"]),
    st.sampled_from(["\t: ", ":", " ", ""]),
    st.one_of(st.integers(-5, 2**70).map(str), st.text(max_size=8), st.just("fpu hypervisor")),
).map("".join)


@given(st.lists(st.one_of(cpuinfo_lines, st.just(""))).map("\n".join))
def test_any_text_is_read_as_cpuinfo(text: str) -> None:
    info = parse_cpuinfo(text)
    assert all(cpu >= 0 and socket >= 0 for cpu, socket in info.socket_of.items())
    assert not info.virtual or "hypervisor" in text


@given(st.binary(max_size=60), st.binary(max_size=20))
def test_any_bytes_are_a_memory_size_or_none(
    tmp_path_factory: pytest.TempPathFactory, meminfo: bytes, block: bytes
) -> None:
    root = tmp_path_factory.mktemp("memory")
    blocks = root / "devices" / "system" / "memory"
    (blocks / "memory0").mkdir(parents=True)
    (blocks / "memory0" / "state").write_text("online\n")
    (blocks / "block_size_bytes").write_bytes(block)
    (root / "meminfo").write_bytes(b"MemTotal: " + meminfo + b"\n")
    size = installed_memory(Host(procfs=root, sysfs=root))
    assert size is None or size.gib > 0


def test_it_reads_from_any_thread(tmp_path: Path) -> None:
    sensor = probe(Machine(tmp_path / "m").host, NOTHING)
    with ThreadPoolExecutor(1) as other:
        assert len(other.submit(sensor.read).result().readings) == 2
    assert len(sensor.read().readings) == 2
    sensor.close()


def test_this_machine_can_be_modelled() -> None:
    sensor = probe(Host(), NOTHING)
    kinds = {device.kind for device in sensor.devices}
    assert kinds == {"cpu", "dram"}
    assert sensor.read().failures == ()
