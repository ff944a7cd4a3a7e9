"""Discovery: which sensors are taken, which are left, and that nothing a probe does can stop it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.machine import Machine
from support.other_user import needs_root, public_directory, run_as_nobody
from support.powercap import PowercapTree

from carbon_exporter.sensors.base import Host, Quality
from carbon_exporter.sensors.rapl import COUNTER_REMEDY
from carbon_exporter.sensors.registry import SENSORS, Entry, Finding, discover

HOST = Host(procfs=Path("/nowhere"), sysfs=Path("/nowhere"))


PROCESSORS = tuple(entry for entry in SENSORS if entry.name in {"rapl", "model"})
"""A counter, and the estimate that stands in for it."""


def states(findings: tuple[Finding, ...]) -> dict[str, str]:
    return {finding.sensor: finding.state for finding in findings}


def devices(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(device.name, device.sensor) for finding in findings for device in finding.devices]


def test_with_packages_and_dram_nothing_is_estimated(tmp_path: Path) -> None:
    host = Machine(tmp_path / "m").host
    PowercapTree(host.sysfs).add_socket(0)
    sensors, findings = discover(host, PROCESSORS)
    assert [sensor.name for sensor in sensors] == ["rapl"]
    assert states(findings) == {"rapl": "active", "model": "covered"}
    assert findings[0].quality is Quality.MEASURED
    assert findings[1].reason == "measured already: cpu, dram"


def test_with_packages_only_memory_is_estimated(tmp_path: Path) -> None:
    host = Machine(tmp_path / "m").host
    PowercapTree(host.sysfs).add_amd_socket(0)
    sensors, findings = discover(host, PROCESSORS)
    assert [sensor.name for sensor in sensors] == ["rapl", "model"]
    assert devices(findings) == [("cpu0", "rapl"), ("dram0", "model")]
    assert findings[1].quality is Quality.DEFAULT


def test_with_psys_alone_memory_is_not_estimated_on_top_of_it(tmp_path: Path) -> None:
    host = Machine(tmp_path / "m").host
    PowercapTree(host.sysfs).add_psys()
    _, findings = discover(host, PROCESSORS)
    assert devices(findings) == [("psys0", "rapl")]
    assert states(findings) == {"rapl": "active", "model": "covered"}


def test_without_meters_everything_is_estimated(tmp_path: Path) -> None:
    _, findings = discover(Machine(tmp_path / "m").host, PROCESSORS)
    assert devices(findings) == [("cpu0", "model"), ("dram0", "model")]
    assert states(findings) == {"rapl": "missing", "model": "active"}
    assert "modprobe" in findings[0].remedy


def test_masked_counters_are_denied_with_the_remedy_and_estimated(tmp_path: Path) -> None:
    host = Machine(tmp_path / "m").host
    tree = PowercapTree(host.sysfs)
    tree.add_socket(0)
    tree.mask()
    _, findings = discover(host, PROCESSORS)
    assert states(findings) == {"rapl": "denied", "model": "active"}
    assert "--path.sysfs=/host/sys" in findings[0].remedy


@needs_root
def test_refused_counters_are_denied_with_the_remedy_and_estimated() -> None:
    with public_directory() as directory:
        host = Machine(directory / "m").host
        tree = PowercapTree(host.sysfs)
        tree.add_socket(0)
        tree.deny("intel-rapl:0")

        def refused() -> None:
            _, findings = discover(host, PROCESSORS)
            assert states(findings) == {"rapl": "denied", "model": "active"}
            assert findings[0].remedy == COUNTER_REMEDY
            assert devices(findings) == [("cpu0", "model"), ("dram0", "model")]

        run_as_nobody(refused)


def test_on_a_machine_without_anything_nothing_is_found_and_nothing_raised() -> None:
    sensors, findings = discover(HOST, PROCESSORS)
    assert sensors == ()
    assert states(findings) == {"rapl": "missing", "model": "missing"}
    assert all(finding.reason for finding in findings)


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory whose modules can be imported, and are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("foreign_"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def probe(host, covered): raise ValueError('the driver is upset')", "ValueError: the driver is upset"),
        ("def probe(host, covered): return 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise OSError('libsmi.so: version skew')", "OSError: libsmi.so: version skew"),
        ("x = 1", "has no attribute 'probe'"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("def probe(", "SyntaxError"),
        ("def probe(host, covered): return None", "AttributeError"),
    ],
)
def test_whatever_a_vendors_file_does_the_others_are_found(foreign: Path, source: str, reason: str) -> None:
    (foreign / "foreign_sensor.py").write_text(source)
    machine = Machine(foreign / "m")
    _, findings = discover(machine.host, [Entry("foreign", "foreign_sensor"), *PROCESSORS])
    assert states(findings) == {"foreign": "failed", "rapl": "missing", "model": "active"}
    assert reason in findings[0].reason


def test_a_sensor_that_fails_with_our_error_keeps_its_remedy(foreign: Path) -> None:
    (foreign / "foreign_sensor.py").write_text(
        "from carbon_exporter.errors import SensorReadError\n"
        "def probe(host, covered): raise SensorReadError('it hangs', remedy='reboot')\n"
    )
    _, (finding,) = discover(HOST, [Entry("foreign", "foreign_sensor")])
    assert (finding.state, finding.reason, finding.remedy) == ("failed", "SensorReadError: it hangs", "reboot")


def test_a_sensor_is_told_what_better_ones_cover_and_need_not_grade_itself(foreign: Path) -> None:
    (foreign / "foreign_sensor.py").write_text(
        "from carbon_exporter.sensors.base import Device, Sample, Sensor\n"
        "class Foreign(Sensor):\n"
        "    name = 'foreign'\n"
        "    devices = ()\n"
        "    def read(self): return Sample()\n"
        "    def __init__(self, method): self.devices = (Device('x0', 'other', 'foreign', method=method),)\n"
        "def probe(host, covered): return Foreign(str(sorted(covered)))\n"
    )
    machine = Machine(foreign / "m")
    PowercapTree(machine.host.sysfs).add_amd_socket(0)
    _, findings = discover(machine.host, [*PROCESSORS, Entry("foreign", "foreign_sensor")])
    assert findings[-1].state == "active"
    assert findings[-1].quality is None
    assert findings[-1].devices[0].method == "['cpu', 'dram']"


def test_a_sensors_module_is_loaded_only_when_it_is_asked(foreign: Path) -> None:
    (foreign / "foreign_sensor.py").write_text("raise RuntimeError('loaded')")
    machine = Machine(foreign / "m")
    _, findings = discover(machine.host, [*PROCESSORS, Entry("late", "foreign_sensor", fills=frozenset({"cpu"}))])
    assert findings[-1].state == "covered"
    assert "foreign_sensor" not in sys.modules
