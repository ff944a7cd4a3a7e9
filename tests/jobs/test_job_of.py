"""Whose a process on a board is: the observer is asked, of the living and of those that have just ended."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.groups import Groups
from support.stage import Stage, rules
from support.workloads import run

from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.base import UNATTRIBUTED, Allocation, Job
from carbon_exporter.jobs.marked import GROUP_PERIOD_SECONDS
from carbon_exporter.jobs.observer import Observer
from carbon_exporter.sensors.base import Host

SLEEP = 'say("ready"); wait()'
DOCKER = "docker-" + "0123456789abcdef" * 4 + ".scope"


def jobs_of(observer: Observer, *pids: int) -> list[str]:
    """Names by process, after another look."""
    observer.observe()
    return [observer.job_of(pid).name for pid in pids]


def test_the_job_of_a_process_is_its_own_else_that_of_its_container_unit_or_session(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 0.0, "train", "/a.service")
    stage.proc.set(11, parent=10)
    for path in ("/a.service", "/system.slice/a.service/inner", f"/system.slice/{DOCKER}", "/x"):
        stage.group(path, 0.0)
    (stage.groups / "system.slice/a.service/cpu.stat").write_text("usage_usec 0\n")
    for pid, group in ((20, "/system.slice/a.service/inner"), (21, f"/system.slice/{DOCKER}"), (22, "/"), (23, "/x")):
        stage.process(pid, 0.0, group=group)
    observer = Observer(stage.host)
    names = jobs_of(observer, 10, 11, 20, 21, 22, 23)
    assert names == ["train", "train", "a.service", "docker-0123456789ab", "_unattributed_", "_unattributed_"]
    assert rules(observer) == {
        "train": ("environment", "CARBON_JOB"),
        "a.service": ("unit", "unit"),
        "docker-0123456789ab": ("container", "container id"),
    }


def test_a_group_is_read_of_processes_that_somebody_asks_about_and_seldom(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 0.0, group="/a.service")
    stage.group("a.service", 0.0)
    stage.group("b.service", 0.0)
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
    stage.group("a.service", 0.0)
    observer = Observer(stage.host)
    assert jobs_of(observer, 10) == ["a.service"]
    stage.proc.set(10, stack=8)
    stage.proc.write(10, "environ", "CARBON_JOB=train\0")
    assert jobs_of(observer, 10) == ["train"]


def test_a_process_that_has_ended_keeps_its_job_for_two_more_looks(tmp_path: Path) -> None:
    """Even if its group has gone with it, as a container's does."""
    stage = Stage(tmp_path)
    stage.group("a.service", 0.0)
    stage.process(10, 0.0, "train")
    stage.process(20, 0.0, group="/a.service")
    stage.process(30, 0.0, "never asked about")
    observer = Observer(stage.host)
    assert jobs_of(observer, 10, 20) == ["train", "a.service"]
    stage.proc.end(10, 20, 30)
    stage.remove("a.service")
    for _ in range(2):
        stage.turn()
        assert jobs_of(observer, 10, 20, 30) == ["train", "a.service", "never asked about"]
        assert observer.health()[-1].success
    stage.turn()
    assert jobs_of(observer, 10, 20, 30) == ["_unattributed_"] * 3


def test_a_process_that_ends_just_before_its_group_is_read_again_keeps_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 0.0, group="/a.service")
    stage.group("a.service", 0.0)
    observer = Observer(stage.host)
    assert jobs_of(observer, 10) == ["a.service"]
    stage.turn(GROUP_PERIOD_SECONDS)
    observer.observe()
    stage.proc.end(10)
    assert observer.job_of(10) == Job("a.service")


def test_another_process_with_the_same_number_is_not_mistaken_for_the_one_that_ended(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.process(10, 0.0, "train")
    stage.group("b.service", 0.0)
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


def test_a_scan_that_fails_forgets_no_job_and_no_board_of_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.group("slurm/uid_1/job_7", 0.0, pids=[10])
    stage.process(10, 0.0, group="/slurm/uid_1/job_7")
    stage.environment(10, {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_JOB_GPUS": "1"})
    observer = Observer(stage.host)
    observer.observe()
    given = (Allocation("nvidia1", Job("train")),)
    assert observer.allocations() == given
    with too_few_files(), pytest.raises(JobResolutionError, match="Too many open files"):
        observer.observe()
    assert observer.allocations() == given
    observer.observe()
    assert observer.allocations() == given


@contextmanager
def too_few_files() -> Iterator[None]:
    """One file at a time may be opened: /proc/stat can be read, processes cannot."""
    before, free = resource.getrlimit(resource.RLIMIT_NOFILE), os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
