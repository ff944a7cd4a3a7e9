"""Powercap trees of any shape, and trees that move: no reader sees a half-written counter, and the truth is known."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import powercap_driver
from support.powercap import PowercapTree
from support.powercap_driver import SquareWave, energy_at, load_truth

from carbon_exporter.errors import SensorUnavailable
from carbon_exporter.sensors.base import Host, Kind
from carbon_exporter.sensors.powercap import read_count
from carbon_exporter.sensors.rapl import probe

NOTHING: frozenset[Kind] = frozenset()


@given(st.binary(max_size=100))
def test_any_bytes_are_a_count_or_none(data: bytes) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
        os.close(writer)
        count = read_count(Path(f"/proc/self/fd/{reader}"))
    finally:
        os.close(reader)
    assert count is None or (count >= 0 and str(count).encode() == data.strip().lstrip(b"0").rjust(1, b"0"))


zone_names = st.sampled_from(
    [
        "package-0",
        "package-1",
        "package-0-die-1",
        "core",
        "uncore",
        "dram",
        "psys",
        "package-",
        "package-x",
        "",
        "\n",
        "ß",
    ]
)


@given(
    st.dictionaries(
        st.from_regex(r"intel-rapl(-mmio)?:[0-9a-b]{1,2}(:[0-3])?", fullmatch=True), zone_names, min_size=1, max_size=8
    )
)
def test_any_mixture_of_zones_gives_devices_of_unique_names_or_none(
    tmp_path_factory: pytest.TempPathFactory, zones: dict[str, str]
) -> None:
    tree = PowercapTree(tmp_path_factory.mktemp("mixture"))
    for zone, name in sorted(zones.items()):
        place = tree.links / zone
        place.mkdir(parents=True)
        (place / "name").write_text(name)
        (place / "energy_uj").write_text("1")
    try:
        sensor = probe(Host(procfs=tree.sysfs, sysfs=tree.sysfs), NOTHING)
    except SensorUnavailable:
        assert not any(name.startswith(("package-0", "package-1", "dram", "psys")) for name in zones.values())
    else:
        found = [device.name for device in sensor.devices]
        assert len(set(found)) == len(found)
        assert "psys0" not in found or found == ["psys0"]


@given(
    wave=st.builds(SquareWave, st.floats(0, 500), st.floats(0, 500), st.floats(0.1, 100)),
    times=st.lists(st.floats(0, 1e4), min_size=2, max_size=2).map(sorted),
)
def test_the_driven_truth_grows_by_no_less_than_low_and_no_more_than_high(wave: SquareWave, times: list[float]) -> None:
    start, end = times
    drawn = energy_at(wave, end) - energy_at(wave, start)
    low, high = sorted([wave.low, wave.high])
    slack = 1e-6 * (1 + high * end)
    assert low * (end - start) - slack <= drawn <= high * (end - start) + slack


def test_the_truth_of_a_whole_period_is_its_mean() -> None:
    assert energy_at(SquareWave(50, 200, 8), 16) == pytest.approx(16 * 125)
    assert energy_at(SquareWave(50, 200, 8), 5) == pytest.approx(4 * 50 + 1 * 200)


def test_a_driven_tree_is_read_whole_and_true_over_its_wraps(in_memory: Path) -> None:
    tree = PowercapTree(in_memory)
    range_uj = 20_000_000
    tree.add("intel-rapl:0", "package-0", range_uj=range_uj, energy_uj=1_000_000)
    tree.add("intel-rapl:0:0", "dram", range_uj=range_uj)
    driver = [
        sys.executable,
        powercap_driver.__file__,
        str(tree.sysfs),
        "--watts-trace",
        "20:60:0.5",
        "--tick",
        "0.005",
    ]
    running = subprocess.Popen(driver)
    try:
        wait_for(tree.sysfs / powercap_driver.STATE)
        truth = load_truth(tree.sysfs)
        sensor = probe(Host(procfs=tree.sysfs, sysfs=tree.sysfs), NOTHING)
        wraps, last = 0, 1.0
        while time.monotonic() < truth.started + 1.8:
            sample = sensor.read()
            assert not sample.failures
            energy, at = sample.readings[0].energy, sample.readings[0].at
            assert energy is not None
            wraps += energy < last
            total = energy + wraps * range_uj / 1e6 - 1.0
            assert truth.package_joules(at - 0.5) - 0.01 <= total <= truth.package_joules(at + 0.1) + 0.01
            last = energy
    finally:
        running.kill()
        running.wait()
    assert wraps == 3


def test_a_driver_that_is_started_again_goes_on_with_the_trace(tmp_path: Path) -> None:
    tree = PowercapTree(tmp_path)
    tree.add("intel-rapl:0", "package-0", energy_uj=77)
    begun = powercap_driver.start_driving(tmp_path, SquareWave(1, 2, 3))
    tree.set_energy("intel-rapl:0", 99)
    assert powercap_driver.start_driving(tmp_path, SquareWave(4, 5, 6)) == begun
    assert begun.counter("intel-rapl:0", "package-0", 10**9, begun.started) == 77
    assert begun.counter("intel-rapl:0", "package-0", 10**9, begun.started + 3) == 77 + 4_500_000


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 10
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} does not appear"
        time.sleep(0.01)
