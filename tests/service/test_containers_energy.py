"""Whose energy: pods, containers and Slurm jobs of every spelling, as real control groups with real load, all at once.

Everything begins after one sample and ends before another, so that the kernel's own counts of the time between need no
interpolation. The meter draws a constant power; the exporter is a real one, with an interval of a second.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.driven import driven_tree
from support.exporter import Exporter, state_of
from support.groups import Groups, own_groups
from support.in_memory import in_memory
from support.pods import (
    BURN,
    CONTAINERS_COME_AND_GO,
    NAMINGS,
    PODS_COME_AND_GO,
    Workload,
    start,
)
from support.powercap import PowercapTree
from support.workloads import TICKS, Program

PARTS = (4, 2, 1)
RATE = 0.005
"""Of a CPU, for each of these parts: all workloads together keep two thirds of one busy."""
LIVING = NAMINGS["systemd-containerd-burstable"].workload("containers come and go in it")
SHORT_PODS = "kubelet/kubepods/besteffort"
RESERVED = {"_idle_", "_unattributed_", "_overflow_"}


@dataclass(frozen=True)
class Moment:
    """What there was when a sample had been taken, and all was quiet."""

    at: float
    """CLOCK_MONOTONIC of the meter's reading."""
    state: Any
    used: dict[str, float]
    """CPU seconds by path of a group, by the kernel's word; the whole folder's by the empty path."""
    busy: float
    """CPU seconds of the whole machine, by /proc/stat."""

    def joules(self, name: str) -> float:
        """Of a job, announced ones included."""
        rows = (*self.state["jobs"], *self.state["pending"])
        return math.fsum(row[5] for row in rows if row[0] == name and row[2] == "cpu0")

    @property
    def device_joules(self) -> float:
        """The same of the device."""
        posted = (row[3] for row in self.state["devices"] if row[0] == "cpu0")
        announced = (row[5] for row in self.state["pending"] if row[2] == "cpu0")
        return math.fsum((*posted, *announced))

    @property
    def jobs(self) -> set[str]:
        return {row[0] for row in (*self.state["jobs"], *self.state["pending"])}


@dataclass
class Load:
    """What runs between the two moments."""

    seconds: int
    groups: Groups
    workloads: dict[str, tuple[Workload, ...]]
    """By runtime, in the order of PARTS."""
    programs: list[Program] = field(default_factory=list)
    comers: list[Program] = field(default_factory=list)
    """They say what came and went used: of the containers, of the pods."""

    @property
    def paths(self) -> list[str]:
        return [LIVING.whole, SHORT_PODS, *(one.whole for three in self.workloads.values() for one in three)]

    def prepare(self, stack: ExitStack, state: Path) -> None:
        """Everything in its place, waiting."""
        for three in self.workloads.values():
            for parts, workload in zip(PARTS, three, strict=True):
                rate = RATE * parts / len(workload.places)
                for place in workload.places:
                    self.groups.make(place)
                    program = stack.enter_context(start(BURN, rate * self.seconds, rate))
                    self.groups.move(program.pid, place)
                    self.programs.append(program)
        self.groups.make(LIVING.whole, SHORT_PODS, "come.service", "go.service")
        above, file = self.groups.top, state / "totals.json"
        comers = {
            "come.service": start(CONTAINERS_COME_AND_GO, above / LIVING.whole, 2 * self.seconds, 0.05),
            "go.service": start(PODS_COME_AND_GO, above / SHORT_PODS, self.seconds, 0.15, file),
        }
        for unit, comer in comers.items():
            program = stack.enter_context(comer)
            self.groups.move(program.pid, unit)
            self.comers.append(program)
        assert {program.says() for program in (*self.programs, *self.comers)} == {"ready"}

    def run(self) -> list[float]:
        """Let it all go, until it has ended; returns what the comers say."""
        for program in (*self.programs, *self.comers):
            program.go_on()
        said = [float(program.says()) for program in self.comers]
        assert {program.says() for program in self.programs} == {"done"}
        return said


class Watch:
    """Notes the machine's busy time all the while, to know it at the moment of any sample."""

    def __init__(self) -> None:
        self._noted: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:  # noqa: PYI034 - Self is of Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(5)

    def busy_at(self, moment: float) -> float:
        """CPU seconds since boot, of which 10 ms are the unit."""
        after = next(index for index, (at, _) in enumerate(self._noted) if at >= moment)
        (t0, b0), (t1, b1) = self._noted[after - 1], self._noted[after]
        return b0 + (b1 - b0) * (moment - t0) / (t1 - t0)

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            words = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
            busy = sum(map(int, words[0:3])) + sum(map(int, words[5:7]))
            self._noted.append((time.monotonic(), busy / TICKS))


@dataclass(frozen=True)
class Run:
    """What a minute gave."""

    load: Load
    first: Moment
    last: Moment
    said: list[float]

    def used(self, path: str) -> float:
        """CPU seconds of a group, by the kernel's word."""
        return self.last.used[path] - self.first.used[path]

    def joules(self, name: str) -> float:
        return self.last.joules(name) - self.first.joules(name)

    @property
    def capacity(self) -> float:
        """CPU seconds that the machine could have given."""
        return (os.cpu_count() or 1) * (self.last.at - self.first.at)

    @property
    def joules_per_cpu_second(self) -> float:
        return (self.last.device_joules - self.first.device_joules) / self.capacity


@pytest.fixture(scope="module", params=[30, pytest.param(60, marks=pytest.mark.soak)])
def run(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Run]:
    storage = tmp_path_factory.mktemp("containers") / "state"
    alone = ("--containers.sockets=", "--kubernetes.pod-resources-socket=")
    with ExitStack() as stack:
        sysfs = stack.enter_context(in_memory())
        PowercapTree(sysfs).add("intel-rapl:0", "package-0", constraints={"constraint_0_power_limit_uw": 200_000_000})
        (sysfs / "fs").mkdir()
        (sysfs / "fs/cgroup").symlink_to("/sys/fs/cgroup")
        flags = ("--sample.interval=1s", f"--path.sysfs={sysfs}", f"--storage.path={storage}", "--jobs.max=300", *alone)
        groups = stack.enter_context(own_groups())
        workloads = {
            runtime: tuple(naming.workload(f"{runtime} {parts}") for parts in PARTS)
            for runtime, naming in NAMINGS.items()
        }
        load = Load(int(request.param), groups, workloads)
        load.prepare(stack, storage)
        stack.enter_context(driven_tree(sysfs, "100:100:2"))
        exporter = stack.enter_context(Exporter(*flags))
        watch = stack.enter_context(Watch())
        first = moment(exporter, storage, load, watch)
        said = load.run()
        yield Run(load, first, moment(exporter, storage, load, watch), said)


def moment(exporter: Exporter, storage: Path, load: Load, watch: Watch) -> Moment:
    """After two more samples: the second begins after now."""
    exporter.wait_for_samples(2)
    state = state_of(storage)
    at = state["marks"]["cpu0"]["at"]
    used = {path: load.groups.used(path) for path in ("", *load.paths)}
    time.sleep(0.1)
    return Moment(at, state, used, watch.busy_at(at))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("runtime", NAMINGS)
def test_a_workload_pays_by_what_the_kernel_says_it_used_however_its_runtime_spells_it(run: Run, runtime: str) -> None:
    three = run.load.workloads[runtime]
    used = [run.used(one.whole) for one in three]
    assert [one / used[-1] for one in used] == pytest.approx(PARTS, rel=0.1)
    assert used == pytest.approx([RATE * run.load.seconds * parts for parts in PARTS], rel=0.1)
    assert [run.joules(one.job) / run.joules_per_cpu_second for one in three] == pytest.approx(used, rel=0.02)


def test_all_of_them_and_the_rest_add_up_to_the_device(run: Run) -> None:
    jobs = run.last.jobs
    mine = {one.job for three in run.load.workloads.values() for one in three}
    assert len(mine) == len(PARTS) * len(NAMINGS)
    assert mine | {LIVING.job, "_idle_", "_unattributed_"} <= jobs
    whole = run.last.device_joules
    assert whole > 100 * run.load.seconds
    assert math.fsum(map(run.last.joules, jobs)) == pytest.approx(whole, rel=1e-9)


def test_containers_of_half_a_second_in_a_living_pod_are_the_pods(run: Run) -> None:
    used = run.said[0]
    paid = run.joules(LIVING.job) / run.joules_per_cpu_second
    assert used > 0.04 * 2 * run.load.seconds
    assert paid == pytest.approx(used, rel=0.05)
    assert paid == pytest.approx(run.used(LIVING.whole), rel=0.02)


def test_pods_of_half_a_second_are_in_what_nobody_is_known_to_have_used(run: Run) -> None:
    used = run.said[1]
    ours = {one.job for three in run.load.workloads.values() for one in three} | {LIVING.job}
    ours |= {"come.service", "go.service"}
    of_others = math.fsum(map(run.joules, run.last.jobs - ours - RESERVED)) / run.joules_per_cpu_second
    # what ran outside of this test's groups, and belongs to nobody known either
    outside = run.last.busy - run.first.busy - run.used("") - of_others
    paid = run.joules("_unattributed_") / run.joules_per_cpu_second - outside
    assert used > 0.14 * run.load.seconds
    assert run.used(SHORT_PODS) == pytest.approx(used, rel=0.02)
    assert paid == pytest.approx(used, rel=0.05)
