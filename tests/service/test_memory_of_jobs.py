"""Whose memory: processes that share pages are charged for them once, and the work of ended children is counted once.

Two data loaders with so many workers that their resident sizes are more than the machine has: a marked one outside
containers, and one in a container whose memory the kernel counts. Meters of constant power, a real exporter.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.driven import driven_tree
from support.exporter import Exporter, state_of
from support.groups import Groups, own_groups
from support.in_memory import in_memory
from support.pods import NAMINGS, start
from support.powercap import PowercapTree
from support.workloads import Program

from carbon_exporter.jobs.cgroups import find_hierarchy

MIB = 1 << 20
SHARED = 256 * MIB
"""Bytes that a loader and all its workers have in common."""
MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
WORKERS = MACHINE // SHARED + 2
CONTAINER = NAMINGS["docker-systemd"].workload("a loader and its workers")
MARKED = f"loader-{os.getpid()}"
JOBS = {"marked": MARKED, "container": CONTAINER.job}
OWN_SECONDS, SECONDS_EACH = 0.3, 0.02
LOADER = """
import resource
size, count, own, each = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
say("here"); wait()
data = bytearray(b"x" * 4096) * (size // 4096)
(hold, let_go), (hear, tell) = os.pipe(), os.pipe()
workers = []
for _ in range(count):
    worker = os.fork()
    if worker == 0:
        os.close(let_go)
        os.read(hold, 1)
        os.write(tell, f"{time.process_time()}\\n".encode())
        burn(each)
        os._exit(0)
    workers.append(worker)
resident = 0
for pid in [os.getpid(), *workers]:
    with open(f"/proc/{pid}/statm") as statm:
        resident += int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
say(resident); wait()
before = resource.getrusage(resource.RUSAGE_SELF)
burn(own)
for _ in workers:
    os.write(let_go, b"!")
    os.wait()
mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
used = mine.ru_utime + mine.ru_stime - before.ru_utime - before.ru_stime + theirs.ru_utime + theirs.ru_stime
say(used - sum(map(float, os.read(hear, 65536).split()))); wait()
"""
"""Says the sum of the resident sizes, with all workers there; then works, lets one after the other work and waits
for it, and says what all used in working."""


@dataclass(frozen=True)
class Moment:
    """A state file."""

    state: Any

    def joules(self, device: str, job: str = "") -> float:
        """Of a job, or of all, announced ones included."""
        rows = (*self.state["jobs"], *self.state["pending"])
        return math.fsum(float(row[5]) for row in rows if row[2] == device and job in {"", row[0]})


@dataclass(frozen=True)
class Run:
    """What there was when nothing moved, after some seconds more, and when all workers had worked and gone."""

    moments: tuple[Moment, Moment, Moment]
    resident: dict[str, float]
    """Bytes by job: the sum over its processes."""
    used: dict[str, float]
    """CPU seconds by job, as its processes know them."""

    def bytes_charged(self, job: str) -> float:
        return self._share(0, "dram0", job) * MACHINE

    def cpu_seconds_charged(self, job: str) -> float:
        at = [float(moment.state["marks"]["cpu0"]["at"]) for moment in self.moments]
        return self._share(1, "cpu0", job) * (os.cpu_count() or 1) * (at[2] - at[1])

    def _share(self, first: int, device: str, job: str) -> float:
        before, after = self.moments[first : first + 2]
        whole = after.joules(device) - before.joules(device)
        assert whole > 0
        return (after.joules(device, job) - before.joules(device, job)) / whole


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    storage = tmp_path_factory.mktemp("memory") / "state"
    limit = {"constraint_0_power_limit_uw": 200_000_000}
    alone = ("--containers.sockets=", "--kubernetes.pod-resources-socket=")
    with ExitStack() as stack:
        sysfs = stack.enter_context(in_memory())
        tree = PowercapTree(sysfs)
        tree.add("intel-rapl:0", "package-0", constraints=limit)
        tree.add("intel-rapl:0:0", "dram", constraints=limit)
        (sysfs / "fs").mkdir()
        (sysfs / "fs/cgroup").symlink_to("/sys/fs/cgroup")
        flags = ("--sample.interval=500ms", f"--path.sysfs={sysfs}", f"--storage.path={storage}", *alone)
        programs = loaders(stack)
        resident = {job: float(program.says()) for job, program in programs.items()}
        stack.enter_context(driven_tree(sysfs, "100:100:2"))
        exporter = stack.enter_context(Exporter(*flags))

        def moment(samples: int) -> Moment:
            exporter.wait_for_samples(samples, 60)
            return Moment(state_of(storage))

        still = moment(WORKERS // 20 + 4), moment(5)  # 20 proportional sizes are read at each sample
        for program in programs.values():
            program.go_on()
        used = {job: float(program.says()) for job, program in programs.items()}
        yield Run((*still, moment(2)), resident, used)


def loaders(stack: ExitStack) -> dict[str, Program]:
    """Both, by job; they say next what is resident."""
    programs = {
        MARKED: stack.enter_context(start(LOADER, SHARED, WORKERS, OWN_SECONDS, SECONDS_EACH, CARBON_JOB=MARKED)),
        CONTAINER.job: stack.enter_context(start(LOADER, SHARED, WORKERS, OWN_SECONDS, SECONDS_EACH)),
    }
    for tree in trees(stack):
        tree.make(*CONTAINER.places)
        tree.move(programs[CONTAINER.job].pid, CONTAINER.whole)
    for program in programs.values():
        assert program.says() == "here"
        program.go_on()
    return programs


def trees(stack: ExitStack) -> list[Groups]:
    """Where groups have their CPU time counted, and their memory: two trees on a machine that has both versions."""
    hierarchy = find_hierarchy(Path("/sys"))
    groups = stack.enter_context(own_groups())
    if hierarchy is None or hierarchy.memory_root == hierarchy.cpu_root:
        return [groups]
    return [groups, stack.enter_context(own_groups(hierarchy.memory_root))]


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_workers_that_share_pages_are_not_charged_more_memory_than_there_is(run: Run, job: str) -> None:
    assert run.resident[job] > MACHINE
    assert SHARED <= run.bytes_charged(job) < 1.5 * SHARED


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_the_work_of_children_that_were_waited_for_is_charged_once(run: Run, job: str) -> None:
    assert run.used[job] > OWN_SECONDS + WORKERS * SECONDS_EACH
    assert run.cpu_seconds_charged(job) == pytest.approx(run.used[job], rel=0.05)
