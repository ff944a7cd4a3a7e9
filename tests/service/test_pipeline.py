"""The rooms joined, on a machine in a directory whose clocks and counters the test turns."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.machine import Machine
from support.powercap import PowercapTree

from carbon_exporter.carbon.grid import locate_grid
from carbon_exporter.carbon.static import StaticProvider
from carbon_exporter.config import Settings
from carbon_exporter.jobs.base import IDLE, UNATTRIBUTED, Job
from carbon_exporter.sensors.base import Host
from carbon_exporter.sensors.registry import SENSORS, discover
from carbon_exporter.service.keeper import Keeper
from carbon_exporter.service.pipeline import Pipeline
from carbon_exporter.snapshot import Snapshot

METERS = tuple(entry for entry in SENSORS if entry.name in {"rapl", "cray", "model"})

NOON = 1_795_348_800.0
"""Unix seconds; 2026-11-22 in every time zone near Greenwich."""


@dataclass
class Wall:
    """A wall clock that the test sets."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


class Node:
    """One socket that draws what the test says, and processes that use what it says."""

    def __init__(self, root: Path, **changes: object) -> None:
        self.machine = Machine(root)
        self.tree = PowercapTree(root / "sys")
        self.tree.add("intel-rapl:0", "package-0", constraints={"constraint_0_power_limit_uw": 200_000_000})
        boot_id = root / "proc/sys/kernel/random/boot_id"
        boot_id.parent.mkdir(parents=True)
        boot_id.write_text("one-boot\n")
        self.wall = Wall()
        self.host: Host = replace(self.machine.host, wall=self.wall)
        self.settings = replace(Settings(), **changes)  # type: ignore[arg-type]
        self.storage = root / "state"
        self._drawn = 0
        self._used: dict[int, int] = {}
        self._jobs: dict[int, str] = {}
        self.pipeline = self.begin()

    def begin(self) -> Pipeline:
        """A new life of the exporter on the same state."""
        sensors, findings = discover(self.host, METERS)
        self.keeper = Keeper(self.storage, self.wall)
        grid = locate_grid("FR", StaticProvider("lifecycle"), 1.0, {})
        self.pipeline = Pipeline(
            self.settings, host=self.host, grid=grid, keeper=self.keeper, sensors=sensors, findings=findings
        )
        return self.pipeline

    def end(self) -> None:
        """As after kill -9: nothing is written."""
        self.keeper.close()
        self.pipeline.close()

    def start(self, pid: int, job: str = "") -> None:
        """A process appears."""
        self._used[pid] = 0
        self._jobs[pid] = job

    def pass_time(self, seconds: float, watts: float, cpu: dict[int, float] | None = None) -> None:
        """`cpu` gives the CPU seconds that processes use meanwhile."""
        self.wall.now += seconds
        self._drawn += round(watts * seconds * 1e6)
        self.tree.set_energy("intel-rapl:0", self._drawn)
        self.machine.run(seconds, sum((cpu or {}).values()) / (2 * seconds) if seconds else 0.0)
        for pid, used in (cpu or {}).items():
            self._used[pid] += round(used * 100)
        for pid, ticks in self._used.items():
            place = self.host.procfs / str(pid)
            place.mkdir(exist_ok=True)
            numbers = ["S", "1", *["0"] * 9, str(ticks), *["0"] * 7, str(1000 + pid), "0", "256", *["0"] * 10]
            (place / "stat").write_text(f"{pid} (work) {' '.join(numbers)}\n")
            (place / "environ").write_text(f"CARBON_JOB={self._jobs[pid]}\0" if self._jobs[pid] else "HOME=/\0")

    def tick(self, seconds: float, watts: float, cpu: dict[int, float] | None = None) -> Snapshot:
        self.pass_time(seconds, watts, cpu)
        return self.pipeline.tick()


def joules(snapshot: Snapshot, job: Job, device: str = "cpu0") -> float:
    mine = (t for key, t in snapshot.job_totals.items() if key.job == job and key.device.device == device)
    return math.fsum(total.joules for total in mine)


def device_joules(snapshot: Snapshot, device: str = "cpu0") -> float:
    return math.fsum(total for key, total in snapshot.device_totals.items() if key.device == device)


def test_a_new_job_is_at_zero_when_first_seen_and_gets_its_first_interval_at_the_next_sample(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.tick(0, 0)
    node.tick(5, 100)
    node.start(42, "train")
    first = node.tick(5, 100, {42: 5.0})
    train = Job("train")
    assert train in {key.job for key in first.job_totals}
    assert joules(first, train) == 0
    assert device_joules(first) == pytest.approx(500)
    second = node.tick(5, 100, {42: 2.5})
    assert joules(second, train) == pytest.approx(500 * 5.0 / 10)
    assert joules(second, IDLE) == pytest.approx(500 + 250)
    third = node.tick(5, 100)
    assert joules(third, train) == pytest.approx(250 + 125)
    assert joules(third, UNATTRIBUTED) == 0
    node.end()


def test_an_ended_job_lingers_then_leaves_and_goes_on_if_it_comes_back(tmp_path: Path) -> None:
    node = Node(tmp_path, jobs_linger=20.0, jobs_retain=100.0)
    train = Job("train")
    node.start(42, "train")
    node.tick(0, 0)
    node.tick(5, 100, {42: 5.0})
    snapshot = node.tick(5, 100)
    paid = joules(snapshot, train)
    assert paid > 0
    del node._used[42]
    for name in ("stat", "environ"):
        (node.host.procfs / "42" / name).unlink()
    (node.host.procfs / "42").rmdir()
    assert train in {key.job for key in node.tick(15, 100).job_totals}
    assert train not in {key.job for key in node.tick(10, 100).job_totals}
    node.start(43, "train")
    assert joules(node.tick(5, 100, {43: 1.0}), train) == paid
    del node._used[43]
    for name in ("stat", "environ"):
        (node.host.procfs / "43" / name).unlink()
    (node.host.procfs / "43").rmdir()
    node.tick(101, 100)
    node.tick(5, 100)
    node.start(44, "train")
    assert joules(node.tick(5, 100, {44: 1.0}), train) == 0
    node.end()


@pytest.mark.parametrize("step", [-30 * 86400.0, -3600.0, 3600.0, 400 * 86400.0])
def test_a_step_of_the_wall_clock_changes_no_energy_and_forgets_no_job(tmp_path: Path, step: float) -> None:
    node = Node(tmp_path)
    node.start(42, "train")
    node.tick(0, 0)
    node.tick(5, 100, {42: 5.0})
    before = node.tick(5, 100, {42: 5.0})
    node.wall.now += step
    after = node.tick(5, 100, {42: 5.0})
    assert device_joules(after) - device_joules(before) == pytest.approx(500)
    assert joules(after, Job("train")) - joules(before, Job("train")) == pytest.approx(250)
    last = node.tick(5, 100, {42: 5.0})
    assert device_joules(last) - device_joules(after) == pytest.approx(500)
    assert last.devices[0].gap_seconds == 0
    node.end()


def test_today_begins_at_midnight_and_survives_a_restart(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.tick(0, 0)
    node.tick(5, 100)
    assert node.tick(5, 100).today.joules == pytest.approx(500 + dram(5))
    node.end()
    node.begin()
    assert node.tick(5, 100).today.joules == pytest.approx(1000 + dram(10))
    node.wall.now += 86400
    assert node.tick(5, 100).today.joules < 1000
    node.end()


def dram(seconds: float) -> float:
    """Joules of this machine's 16 GiB, of which no counter tells."""
    return 16 * 0.375 * seconds


def test_energy_is_priced_when_it_is_used(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.tick(0, 0)
    node.tick(10, 100)
    france = node.pipeline.grid
    poland = locate_grid("PL", StaticProvider("lifecycle"), 1.5, {})
    node.pipeline.apply(node.settings, poland)
    node.tick(10, 300)
    snapshot = node.tick(10, 0)
    grams = {
        region: math.fsum(
            total.grams
            for key, total in snapshot.job_totals.items()
            if key.device.region == region and key.device.device == "cpu0"
        )
        for region in ("FR", "PL")
    }
    assert grams["FR"] == pytest.approx(1000 / 3.6e6 * france.intensity.grams_per_kwh)
    assert grams["PL"] == pytest.approx(3000 / 3.6e6 * poland.intensity.grams_per_kwh * 1.5)
    node.end()


def test_a_kill_between_announcing_and_posting_loses_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.start(42, "train")
    node.tick(0, 0)
    node.tick(5, 100, {42: 5.0})
    node.end()
    node.begin()
    reborn = node.tick(5, 200, {42: 5.0})
    assert joules(reborn, Job("train")) == pytest.approx(250), "what was announced is the job's"
    after = node.tick(5, 100, {42: 5.0})
    assert joules(after, UNATTRIBUTED) == pytest.approx(1000), "what was used between two lives is nobody's"
    assert device_joules(after) == pytest.approx(1500)
    node.end()


def test_a_device_that_was_silent_is_split_by_what_ran_in_that_time(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.start(42, "train")
    node.tick(0, 0)
    hidden = node.tree.directory("intel-rapl:0") / "energy_uj"
    node.pass_time(5, 100, {42: 10.0})
    hidden.chmod(0o644)
    kept = hidden.read_text()
    hidden.unlink()
    node.pipeline.tick()
    hidden.write_text(kept)
    node.tick(5, 100)
    snapshot = node.tick(5, 0)
    assert device_joules(snapshot) == pytest.approx(1000)
    assert joules(snapshot, Job("train")) == pytest.approx(1000 * 10 / 20)
    node.end()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.floats(0.5, 20.0),
            st.floats(0.0, 300.0),
            st.floats(0.0, 1.0),
            st.floats(0.0, 1.0),
            st.sampled_from(["", "", "", "kill", "move"]),
        ),
        min_size=2,
        max_size=8,
    ),
    policy=st.sampled_from(["separate", "shared", "reserved"]),
)
def test_whatever_happens_jobs_add_up_to_devices_and_no_counter_falls(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[float, float, float, float, str]], policy: str
) -> None:
    node = Node(tmp_path_factory.mktemp("node") / "root", idle=policy)
    node.start(1001, "a")
    node.start(1002, "b")
    node.start(1003)
    last = node.tick(0, 0)
    for seconds, watts, a, b, event in steps:
        if event == "kill":
            node.end()
            node.begin()
        elif event == "move":
            node.pipeline.apply(node.settings, locate_grid("PL", StaticProvider("lifecycle"), 1.1, {}))
        snapshot = node.tick(seconds, watts, {1001: a * seconds, 1002: b * seconds * 0.6, 1003: b * seconds * 0.4})
        for key, total in last.job_totals.items():
            assert snapshot.job_totals[key].joules >= total.joules
            assert snapshot.job_totals[key].grams >= total.grams
        for device, whole in snapshot.device_totals.items():
            assert whole >= last.device_totals.get(device, 0.0)
            parts = math.fsum(t.joules for key, t in snapshot.job_totals.items() if key.device == device)
            assert parts == pytest.approx(whole, rel=1e-9, abs=1e-9)
        last = snapshot
    node.end()


class Blade(Node):
    """A node whose controller counts the whole machine too: half as much again as its socket and memory, and 50 W."""

    def pass_time(self, seconds: float, watts: float, cpu: dict[int, float] | None = None) -> None:
        super().pass_time(seconds, watts, cpu)
        self.whole = getattr(self, "whole", 1000.0) + self.whole_watts(watts) * seconds
        self.stamp = getattr(self, "stamp", 0) + 100_000
        place = self.host.sysfs / "cray/pm_counters"
        place.mkdir(parents=True, exist_ok=True)
        (place / "energy").write_text(f"{round(self.whole)} J {self.stamp} us\n")

    def whole_watts(self, watts: float) -> float:
        """Watts of the whole machine."""
        return 1.5 * (watts + dram(1)) + 50


def test_a_whole_node_meter_is_counted_apart_and_survives_a_restart(tmp_path: Path) -> None:
    node = Blade(tmp_path)
    node.pass_time(0, 0)
    node.end()
    node.begin()
    node.tick(0, 0)
    node.tick(5, 100)
    snapshot = node.tick(5, 100)
    (whole,) = snapshot.nodes
    assert whole.source == "cray"
    assert whole.power == pytest.approx(1.5 * 106 + 50, abs=0.3)
    assert whole.joules == pytest.approx(10 * (1.5 * 106 + 50), abs=2)
    assert {key.kind for key in snapshot.device_totals} == {"cpu", "dram"}
    node.end()
    node.begin()
    (again,) = node.tick(5, 100).nodes
    assert again.joules == pytest.approx(15 * (1.5 * 106 + 50), abs=3)
    node.end()


def test_the_remainder_is_a_device_that_jobs_pay_for_by_what_their_devices_used(tmp_path: Path) -> None:
    node = Blade(tmp_path, remainder="cray")
    node.pass_time(0, 0)
    node.end()
    node.begin()
    node.start(42, "train")
    node.tick(0, 0)
    for _ in range(10):
        snapshot = node.tick(5, 100, {42: 5.0})
        for device, total in snapshot.device_totals.items():
            parts = math.fsum(t.joules for key, t in snapshot.job_totals.items() if key.device == device)
            assert parts == pytest.approx(total, rel=1e-9, abs=1e-9)
    beyond = 0.5 * 106 + 50
    assert device_joules(snapshot, "other0") == pytest.approx(8 * 5 * beyond, abs=3)
    on_other = joules(snapshot, Job("train"), "other0") / device_joules(snapshot, "other0")
    elsewhere = sum(joules(snapshot, Job("train"), device) for device in ("cpu0", "dram0"))
    whole = device_joules(snapshot) + device_joules(snapshot, "dram0")
    assert on_other == pytest.approx(elsewhere / whole, abs=0.01)
    (state,) = (state for state in snapshot.devices if state.device.name == "other0")
    assert state.power == pytest.approx(beyond, abs=0.4)
    node.end()


def test_a_remainder_of_a_meter_that_is_not_there_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("carbon_exporter"), "propagate", True)
    node = Blade(tmp_path, remainder="redfish")
    node.pass_time(0, 0)
    node.end()
    node.begin()
    for _ in range(10):
        node.tick(5, 100)
    told = [record.getMessage() for record in caplog.records if "attribution.remainder" in record.getMessage()]
    assert told == ["attribution.remainder: no whole-node meter is called redfish; there are: cray"]
    node.end()
