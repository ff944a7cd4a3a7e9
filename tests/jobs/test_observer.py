"""The observer: three views of the same CPU time joined, on the machine's own trees and on staged ones."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.groups import Groups
from support.other_user import needs_root, run_as_nobody
from support.stage import Stage, rules
from support.workloads import run

from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.base import RESERVED, Activity, Job, Usage
from carbon_exporter.jobs.groups import MEMORY_PERIOD_SECONDS
from carbon_exporter.jobs.observer import Observer
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
DOCKER, DOCKER_JOB = "docker-" + "0123456789abcdef" * 4 + ".scope", "docker-0123456789ab"


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
    assert rules(observer) == {"a.service": ("unit", "unit")}


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
    (stage.groups / "a.service/cpu.stat").write_text("")
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
    assert rules(observer) == {"train": ("environment", "CARBON_JOB"), "a.service": ("unit", "unit")}
    assert observer.marked_jobs == {Job("train")}


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
    stage.turn(MEMORY_PERIOD_SECONDS)
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


CONTAINER_BELOW = """
say("ready"); wait()
pid = os.fork()
if pid == 0:
    say(str(os.getpid())); wait(); burn(0.6); say("burnt"); wait()
    os._exit(0)
os.waitpid(pid, 0)
say("reaped"); wait()
"""


def test_a_container_whose_parent_is_marked_is_charged_to_nobody_twice(groups: Groups) -> None:
    """As with a runtime that is started in the foreground: it waits for the container, and so has its time."""
    unit, scope, name = "runner.service", DOCKER, f"runner-{os.getpid()}"
    groups.make(unit, scope)
    observer = Observer(Host())
    jobs = {name: 0.0, DOCKER_JOB: 0.0}

    def look() -> None:
        for usage in seen(observer).usages:
            if usage.job.name in jobs:
                jobs[usage.job.name] += usage.cpu_seconds

    with run(CONTAINER_BELOW, {"CARBON_JOB": name}) as program:
        assert program.says() == "ready"
        groups.move(program.pid, unit)
        observer.observe()
        program.go_on()
        groups.move(int(program.says()), scope)
        look()
        program.go_on()
        assert program.says() == "burnt"
        look()
        look()
        program.go_on()
        assert program.says() == "reaped"
        look()
        look()
    assert jobs[DOCKER_JOB] == pytest.approx(0.6, abs=0.15)
    assert jobs[name] < 0.15


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
