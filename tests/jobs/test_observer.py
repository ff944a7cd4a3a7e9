"""The observer: three views of the same CPU time joined, on the machine's own trees and on staged ones."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.groups import Groups
from support.machine import Clock
from support.other_user import needs_root, run_as_nobody
from support.workloads import TICKS, FakeProc, run

from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.base import RESERVED, UNATTRIBUTED, Activity, Job, Usage
from carbon_exporter.jobs.marked import GROUP_PERIOD_SECONDS
from carbon_exporter.jobs.observer import GROUP_MEMORY_PERIOD_SECONDS, Observer
from carbon_exporter.sensors.base import Host

BURN = 'say("ready"); wait(); burn(1.2); say("done"); wait()'
FORK_AND_BURN = """
say("ready"); wait()
for _ in range(12):
    if os.fork() == 0:
        burn(0.1)
        os._exit(0)
    os.wait()
say("done"); wait()
"""
SLEEP = 'say("ready"); wait()'


class Stage:
    """A machine of text files: two CPUs, one /proc, a version 2 tree, and a clock to turn."""

    def __init__(self, root: Path, *, tree: bool = True) -> None:
        self.clock, self.sysfs, self.busy = Clock(), root / "sys", 0
        self.proc = FakeProc(root / "proc")
        self.proc.machine()
        self.host = Host(self.proc.root, self.sysfs, self.clock)
        if tree:
            self.groups.mkdir(parents=True)
            (self.groups / "cgroup.controllers").write_text("cpu memory cpuset\n")

    @property
    def groups(self) -> Path:
        """The root of the tree."""
        return self.sysfs / "fs/cgroup"

    def group(self, path: str, seconds: float, *, memory: int = 0, cpuset: str = "") -> None:
        """Set a group's counters."""
        folder = self.groups / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.stat").write_text(f"usage_usec {round(seconds * 1e6)}\n")
        (folder / "memory.stat").write_text(f"anon {memory}\nshmem 0\n")
        (folder / "cpuset.cpus").write_text(cpuset + "\n")

    def process(self, pid: int, cpu: float, job: str = "", group: str = "/", pages: int = 0) -> None:
        """Set a process that has used `cpu` seconds."""
        self.proc.set(pid, own=round(cpu * TICKS), pages=pages)
        self.proc.write(pid, "environ", f"CARBON_JOB={job}\0")
        self.proc.write(pid, "cgroup", f"0::{group}\n")

    def turn(self, seconds: float = 5.0, busy: float = 0.0) -> None:
        """Let time pass."""
        self.clock.now += seconds
        self.busy += round(busy * TICKS)
        self.proc.machine(busy=self.busy)


def seen(observer: Observer) -> Activity:
    """The next activity, which there must be."""
    activity = observer.observe()
    assert activity is not None
    assert all(min(usage.cpu_seconds, usage.memory_bytes, usage.cpus_reserved) >= 0 for usage in activity.usages)
    return activity


def used(observer: Observer) -> dict[str, float]:
    """CPU seconds by job since the last look."""
    return {usage.job.name: round(usage.cpu_seconds, 6) for usage in seen(observer).usages}


def of(usages: Iterable[Usage], name: str) -> Usage:
    return next(usage for usage in usages if usage.job.name == name)


def test_the_first_look_gives_nothing_and_the_second_what_lies_between(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.group("a.service", 1000.0)
    observer = Observer(stage.host)
    assert observer.observe() is None
    stage.turn(5.0, busy=3.0)
    stage.group("a.service", 1002.0)
    activity = seen(observer)
    assert activity == Activity(
        start=100.0,
        end=105.0,
        cpus=2,
        busy_seconds=3.0,
        memory_total=1_024_000_000.0,
        memory_used=614_400_000.0,
        usages=(Usage(Job("a.service"), 2.0),),
    )
    assert observer.rules == {Job("a.service"): "unit"}


def test_a_clock_that_stands_still_gives_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    observer = Observer(stage.host)
    assert observer.observe() is None
    assert observer.observe() is None


def test_a_new_group_counts_from_its_birth(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    observer = Observer(stage.host)
    observer.observe()
    stage.turn()
    stage.group("new.service", 1.5)
    assert used(observer) == {"new.service": 1.5}


def test_a_group_that_was_made_anew_counts_from_its_second_birth(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.group("a.service", 100.0)
    observer = Observer(stage.host)
    observer.observe()
    stage.turn()
    stage.group("a.service", 2.0)
    assert used(observer) == {"a.service": 2.0}


def test_a_group_that_could_not_be_read_for_a_while_is_not_charged_for_its_whole_life(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.group("a.service", 100_000.0)
    observer = Observer(stage.host)
    observer.observe()
    (stage.groups / "a.service/cpu.stat").unlink()
    stage.turn()
    assert used(observer) == {}
    stage.turn()
    stage.group("a.service", 100_003.0)
    assert used(observer) == {"a.service": 0.0}
    stage.turn()
    stage.group("a.service", 100_004.0)
    assert used(observer) == {"a.service": 1.0}


def test_marked_processes_are_taken_out_of_their_group(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.group("a.service", 0.0)
    stage.process(10, 0.0, "train", "/a.service/inner")
    observer = Observer(stage.host)
    observer.observe()
    stage.turn()
    stage.group("a.service", 5.0)
    stage.process(10, 3.0, "train", "/a.service/inner")
    assert used(observer) == {"train": 3.0, "a.service": 2.0}
    assert observer.rules == {Job("train"): "CARBON_JOB", Job("a.service"): "unit"}


def test_what_a_group_owes_for_marked_processes_is_paid_back_and_never_negative(tmp_path: Path) -> None:
    """Clock ticks are coarse and read at another moment: the marked process seems to have used more than its group."""
    stage = Stage(tmp_path)
    stage.group("a.service", 0.0)
    stage.process(10, 0.0, "train", "/a.service")
    observer = Observer(stage.host)
    observer.observe()
    charged = []
    for group, process in ((0.9, 1.0), (1.2, 1.0), (2.0, 1.5)):
        stage.turn()
        stage.group("a.service", group)
        stage.process(10, process, "train", "/a.service")
        charged.append(used(observer))
    assert charged == [
        {"train": 1.0, "a.service": 0.0},
        {"train": 0.0, "a.service": 0.2},
        {"train": 0.5, "a.service": 0.3},
    ]


def test_groups_inside_groups_pay_for_themselves(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    paths = ("a.service", "a.service/in.slice/b.scope", "a.service/in.slice/b.scope/c.service")
    for path in paths:
        stage.group(path, 0.0)
    observer = Observer(stage.host, reservations=True)
    observer.observe()
    stage.turn(GROUP_MEMORY_PERIOD_SECONDS)
    for path, seconds, memory, cpuset in zip(paths, (6.0, 5.0, 3.0), (600, 500, 300), ("0-5", "0-2", "0"), strict=True):
        stage.group(path, seconds, memory=memory, cpuset=cpuset)
    usages = seen(observer).usages
    expected = {"a.service": (1.0, 100.0, 3.0), "b.scope": (2.0, 200.0, 2.0), "c.service": (3.0, 300.0, 1.0)}
    assert {
        usage.job.name: (round(usage.cpu_seconds, 6), usage.memory_bytes, usage.cpus_reserved) for usage in usages
    } == expected


def test_reservations_are_read_only_when_asked_for(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.group("a.service", 0.0, cpuset="0-1")
    for wanted, cpus in ((False, 0.0), (True, 2.0)):
        observer = Observer(stage.host, reservations=wanted)
        observer.observe()
        stage.turn()
        assert of(seen(observer).usages, "a.service").cpus_reserved == cpus


def test_memory_of_marked_processes_is_taken_out_of_their_group(tmp_path: Path) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    stage = Stage(tmp_path)
    stage.group("a.service", 0.0, memory=100 * page)
    stage.process(10, 0.0, "train", "/a.service", pages=70)
    stage.group("b.service", 0.0, memory=10 * page)
    stage.process(11, 0.0, "huge", "/b.service", pages=50)
    observer = Observer(stage.host)
    observer.observe()
    stage.turn()
    usages = seen(observer).usages
    pages = {usage.job.name: usage.memory_bytes / page for usage in usages}
    assert pages == {"train": 70, "a.service": 30, "huge": 50, "b.service": 0}


def test_units_of_the_same_name_are_one_job(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    observer = Observer(stage.host)
    observer.observe()
    stage.turn()
    stage.group("user-1.slice/init.scope", 1.0)
    stage.group("user-2.slice/init.scope", 2.0)
    assert used(observer) == {"init.scope": 3.0}


def test_a_machine_without_groups_says_so_and_still_knows_marked_processes(tmp_path: Path) -> None:
    stage = Stage(tmp_path, tree=False)
    stage.process(10, 1.0, "train", "/a.service")
    observer = Observer(stage.host)
    observer.observe()
    stage.turn()
    stage.process(10, 2.5, "train", "/a.service")
    assert used(observer) == {"train": 1.5}
    environment, cgroup = observer.health()
    assert (environment.resolver, environment.success) == ("environment", True)
    assert (cgroup.resolver, cgroup.success) == ("cgroup", False)
    assert f"{stage.sysfs}/fs/cgroup" in cgroup.reason
    assert "--path.sysfs" in cgroup.remedy


@pytest.mark.parametrize("missing", ["stat", "meminfo"])
def test_a_proc_without_the_kernels_totals_is_an_error_with_a_remedy(tmp_path: Path, missing: str) -> None:
    stage = Stage(tmp_path)
    (stage.proc.root / missing).write_text("nonsense\n")
    with pytest.raises(JobResolutionError, match=r"--path\.procfs=DIR"):
        Observer(stage.host).observe()
    (stage.proc.root / missing).unlink()
    with pytest.raises(JobResolutionError, match=r"cannot read .*No such file"):
        Observer(stage.host).observe()


def test_a_proc_that_fails_for_a_tick_loses_no_time(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 1.0, "train")
    observer = Observer(stage.host)
    observer.observe()
    stage.turn(5.0, busy=1.0)
    (stage.proc.root / "stat").rename(stage.proc.root / "away")
    with pytest.raises(JobResolutionError):
        observer.observe()
    stage.turn(5.0, busy=1.0)
    stage.process(10, 3.0, "train")
    activity = seen(observer)
    assert (activity.start, activity.end, activity.busy_seconds) == (100.0, 110.0, 2.0)
    assert of(activity.usages, "train").cpu_seconds == 2.0


def test_processes_that_may_not_be_seen_are_no_trouble(tmp_path: Path) -> None:
    """As with hidepid: of all processes only one is there, and its parent and group are not."""
    stage = Stage(tmp_path)
    stage.process(10, 1.0, "train", "/hidden.service")
    observer = Observer(stage.host)
    observer.observe()
    stage.turn(busy=5.0)
    stage.process(10, 2.0, "train", "/hidden.service")
    (stage.proc.root / "10/cgroup").unlink()
    assert used(observer) == {"train": 1.0}
    shutil.rmtree(stage.proc.root / "10")
    stage.turn()
    assert used(observer) == {}


def jobs_of(observer: Observer, *pids: int) -> list[str]:
    """Names by process, after another look."""
    observer.observe()
    return [observer.job_of(pid).name for pid in pids]


DOCKER = "docker-" + "0123456789abcdef" * 4 + ".scope"


def test_the_job_of_a_process_is_its_own_else_that_of_its_container_unit_or_session(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 0.0, "train", "/a.service")
    stage.proc.set(11, parent=10)
    for pid, group in ((20, "/system.slice/a.service/inner"), (21, f"/system.slice/{DOCKER}"), (22, "/"), (23, "/x")):
        stage.process(pid, 0.0, group=group)
    observer = Observer(stage.host)
    names = jobs_of(observer, 10, 11, 20, 21, 22, 23)
    assert names == ["train", "train", "a.service", "docker-0123456789ab", "_unattributed_", "_unattributed_"]
    rules = {Job("train"): "CARBON_JOB", Job("a.service"): "unit", Job("docker-0123456789ab"): "container"}
    assert observer.rules == rules


def test_a_group_is_read_of_processes_that_somebody_asks_about_and_seldom(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 0.0, group="/a.service")
    observer = Observer(stage.host)
    assert jobs_of(observer, 10) == ["a.service"]
    stage.proc.write(10, "cgroup", "0::/b.service\n")
    stage.turn(GROUP_PERIOD_SECONDS - 1)
    assert jobs_of(observer, 10) == ["a.service"], "not read again yet"
    stage.turn(1)
    assert jobs_of(observer, 10) == ["b.service"]


def test_a_process_that_becomes_another_program_may_be_of_another_job(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 0.0, group="/a.service")
    observer = Observer(stage.host)
    assert jobs_of(observer, 10) == ["a.service"]
    stage.proc.set(10, stack=8)
    stage.proc.write(10, "environ", "CARBON_JOB=train\0")
    assert jobs_of(observer, 10) == ["train"]


def test_a_process_that_has_ended_keeps_its_job_for_two_more_looks(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 0.0, "train")
    stage.process(20, 0.0, group="/a.service")
    stage.process(30, 0.0, "never asked about")
    observer = Observer(stage.host)
    assert jobs_of(observer, 10, 20) == ["train", "a.service"]
    stage.proc.end(10, 20, 30)
    for _ in range(2):
        stage.turn()
        assert jobs_of(observer, 10, 20, 30) == ["train", "a.service", "never asked about"]
        assert observer.health()[-1].success
    stage.turn()
    assert jobs_of(observer, 10, 20, 30) == ["_unattributed_"] * 3


def test_a_process_that_ends_just_before_its_group_is_read_again_keeps_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 0.0, group="/a.service")
    observer = Observer(stage.host)
    assert jobs_of(observer, 10) == ["a.service"]
    stage.turn(GROUP_PERIOD_SECONDS)
    observer.observe()
    stage.proc.end(10)
    assert observer.job_of(10) == Job("a.service")


def test_another_process_with_the_same_number_is_not_mistaken_for_the_one_that_ended(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 0.0, "train")
    observer = Observer(stage.host)
    assert jobs_of(observer, 10) == ["train"]
    stage.proc.end(10)
    stage.proc.set(10, started=2)
    stage.proc.write(10, "cgroup", "0::/b.service\n")
    assert jobs_of(observer, 10) == ["b.service"]


def test_processes_on_boards_that_are_not_in_proc_are_said_with_the_remedy(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 0.0, "train")
    observer = Observer(stage.host)
    assert jobs_of(observer, 10, 77, 78) == ["train", "_unattributed_", "_unattributed_"]
    assert observer.health()[-1].success, "they may have ended just now"
    stage.turn()
    assert jobs_of(observer, 10, 77, 79) == ["train", "_unattributed_", "_unattributed_"]
    gpu = observer.health()[-1]
    assert (gpu.resolver, gpu.success) == ("gpu", False)
    assert gpu.reason == f"1 processes on boards are not in {stage.proc.root}: their jobs are not known"
    assert "hostPID: true in Kubernetes" in gpu.remedy
    assert "--pid=host in Docker" in gpu.remedy
    assert gpu.seconds > 0
    stage.turn()
    assert jobs_of(observer, 10) == ["train"]
    assert observer.health()[-1].success


def test_without_processes_on_boards_there_is_nothing_to_say_of_them(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 0.0, "train")
    observer = Observer(stage.host)
    assert jobs_of(observer, 10) == ["train"]
    assert [health.resolver for health in observer.health()] == ["environment", "cgroup", "gpu"]
    observer.observe()
    assert [health.resolver for health in observer.health()] == ["environment", "cgroup"]


@pytest.mark.parametrize("pid", [-1, 0, 2**32 - 1, 2**80])
def test_the_job_of_a_process_that_cannot_be_is_not_known(tmp_path: Path, pid: int) -> None:
    stage = Stage(tmp_path)
    observer = Observer(stage.host)
    assert observer.job_of(pid) == UNATTRIBUTED, "also before the first look"
    assert jobs_of(observer, pid) == ["_unattributed_"]


def test_a_proc_that_cannot_be_read_leaves_every_process_the_job_that_it_had(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 0.0, "train")
    observer = Observer(stage.host)
    assert jobs_of(observer, 10) == ["train"]
    (stage.proc.root / "stat").unlink()
    for _ in range(5):
        stage.turn()
        (stage.proc.root / "stat").unlink()
        with pytest.raises(JobResolutionError):
            observer.observe()
        assert observer.job_of(10) == Job("train")
        assert observer.job_of(77) == UNATTRIBUTED
        assert observer.health()[-1].success, "that it cannot look is said elsewhere"


def test_a_real_process_is_found_in_its_real_group(groups: Groups) -> None:
    groups.make("board.service")
    observer = Observer(Host())
    with run(SLEEP, {"CARBON_JOB": "on the board"}) as marked, run(SLEEP) as plain:
        marked.says()
        plain.says()
        groups.move(plain.pid, "board.service")
        assert jobs_of(observer, marked.pid, plain.pid) == ["on the board", "board.service"]
    assert jobs_of(observer, marked.pid, plain.pid) == ["on the board", "board.service"]


@needs_root
def test_environments_of_other_users_are_said_to_be_hidden_with_the_remedy() -> None:
    with run(SLEEP, {"CARBON_JOB": "hidden"}) as program:
        program.says()

        def check() -> None:
            observer = Observer(Host())
            observer.observe()
            time.sleep(0.01)
            assert "hidden" not in {usage.job.name for usage in seen(observer).usages}
            environment = observer.health()[0]
            assert not environment.success
            assert "may not be read: their CARBON_JOB is not seen" in environment.reason
            assert "AmbientCapabilities=CAP_SYS_PTRACE" in environment.remedy

        run_as_nobody(check)


@pytest.mark.parametrize("code", [BURN, FORK_AND_BURN], ids=["one process", "short-lived children"])
def test_a_marked_and_an_unmarked_process_of_one_real_unit_add_up_to_its_counter(groups: Groups, code: str) -> None:
    unit, name = "pair.service", f"marked-{os.getpid()}"
    groups.make(unit)
    observer = Observer(Host())
    with run(code, {"CARBON_JOB": name}) as marked, run(BURN) as plain:
        for program in (marked, plain):
            assert program.says() == "ready"
            groups.move(program.pid, unit)
        observer.observe()
        before = groups.used(unit)
        marked.go_on()
        plain.go_on()
        jobs = {name: 0.0, unit: 0.0}
        while not (marked.has_spoken(0.05) and plain.has_spoken(0.05)):
            for usage in seen(observer).usages:
                jobs[usage.job.name] = jobs.get(usage.job.name, 0.0) + usage.cpu_seconds
        assert (marked.says(), plain.says()) == ("done", "done")
        for usage in seen(observer).usages:
            jobs[usage.job.name] = jobs.get(usage.job.name, 0.0) + usage.cpu_seconds
        truth = groups.used(unit) - before
    assert truth > 2.3
    assert jobs[name] + jobs[unit] == pytest.approx(truth, rel=0.03)
    assert jobs[name] == pytest.approx(1.2, abs=0.15)
    assert jobs[unit] == pytest.approx(1.2, abs=0.15)


def test_reserved_names_cannot_be_taken_by_a_real_process() -> None:
    observer = Observer(Host())
    observer.observe()
    with run(SLEEP, {"CARBON_JOB": "_idle_"}) as program:
        program.says()
        jobs = {usage.job for usage in seen(observer).usages}
    assert Job("idle") in jobs
    assert not jobs & RESERVED


def test_what_hides_even_from_both_capabilities_is_shown_and_is_no_blindness(tmp_path: Path) -> None:
    class Hidden:
        unreadable = 1

    observer = Observer(Host(procfs=tmp_path, sysfs=tmp_path))
    observer._marked = Hidden()  # type: ignore[assignment]
    for sees_all in (False, True):
        observer._sees_all = sees_all
        environment, _ = observer.health()
        assert environment.success is sees_all
        assert "the environment of 1 processes may not be read" in environment.reason
        assert bool(environment.remedy) is not sees_all
