"""Marked processes: who started for a job stays its own, whatever becomes of environments, programs and parents."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.groups import Groups
from support.other_user import needs_root, run_as_nobody
from support.workloads import FakeProc, Program, run

from carbon_exporter.jobs.base import Job
from carbon_exporter.jobs.marked import (
    GROUP_PERIOD_SECONDS,
    PSS_PERIOD_SECONDS,
    PSS_READS_PER_TICK,
    Mark,
    MarkedProcesses,
)
from carbon_exporter.jobs.namer import Namer
from carbon_exporter.jobs.naming import Name
from carbon_exporter.jobs.processes import CHECK_EVERY_SCANS, Process, ProcessTable

PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 2**20

SLEEP = 'say(str(os.getpid())); wait(); say("still here"); wait()'

CLEARED = """
pid = os.fork()
if pid == 0:
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"], {})
say(str(pid)); wait()
"""

ORPHAN = r"""
middle = os.fork()
if middle == 0:
    child = os.fork()
    if child == 0:
        code = '''
import os, sys
print("ready", flush=True)
sys.stdin.readline()
while os.getppid() == int(sys.argv[1]):
    pass
print("parent has ended", flush=True)
sys.stdin.readline()
again = "print('another program', flush=True); input()"
os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", again], {})
'''
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", code, str(os.getppid())], {})
    say(f"{child} {os.getpid()}")
    time.sleep(60)
os.close(0)
os.waitpid(middle, 0)
time.sleep(60)
"""

EXEC = """
say(str(os.getpid())); wait()
code = "print('changed', flush=True); input()"
os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", code], {"CARBON_JOB": "second"})
"""

SHARED = """
held = bytearray(os.urandom(1 << 20)) * 200
pids = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
    pids.append(pid)
time.sleep(0.1)
say(" ".join(map(str, pids))); wait()
"""


class Watch:
    """A table and the marks of one /proc, with a clock to turn."""

    def __init__(self, procfs: Path = Path("/proc")) -> None:
        self.table, self.now = ProcessTable(procfs), 1000.0
        self.marked = MarkedProcesses(self.table, procfs, "", PAGE, Namer())

    def members(self) -> list[tuple[Process, Mark]]:
        """Look once: all that belong to a job."""
        return [(process, mark) for process, mark, _ in self.marked.update(self.now)]

    def jobs(self) -> dict[int, str]:
        """Look once: job by pid."""
        return {process.pid: mark.name.job.name for process, mark in self.members() if mark.name}

    def memory(self, job: str) -> dict[int, float]:
        """Look once: bytes by pid of a job's processes."""
        members = [(process, mark) for process, mark in self.members() if mark.name and mark.name.job.name == job]
        return self.marked.memory_bytes(members, self.now)


def until(true: Callable[[], bool]) -> None:
    """Wait until it holds, at most 10 s."""
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def marked(name: str) -> dict[str, str]:
    return {"CARBON_JOB": name}


def test_a_process_belongs_to_the_job_that_it_was_started_for() -> None:
    watch = Watch()
    with run(SLEEP, marked("train")) as one, run(SLEEP) as other:
        assert int(one.says()) == one.pid
        assert int(other.says()) == other.pid
        jobs = watch.jobs()
        assert jobs[one.pid] == "train"
        assert other.pid not in jobs
        assert watch.jobs()[one.pid] == "train"
    assert one.pid not in watch.jobs()


def test_a_child_with_a_cleared_environment_has_its_parents_job() -> None:
    with run(CLEARED, marked("train")) as program:
        child = int(program.says())
        until(lambda: Path(f"/proc/{child}/environ").read_bytes() == b"")
        assert Watch().jobs()[child] == "train"


def test_an_orphan_keeps_its_job_even_as_another_program() -> None:
    """Its environment is empty and its parent has ended: only we remember whose it is."""
    watch = Watch()
    with run(SLEEP, marked("unrelated")) as unrelated, run(ORPHAN, marked("train")) as program:
        unrelated.says()
        child, middle = map(int, program.says().split())
        assert program.says() == "ready"
        assert watch.jobs()[child] == "train"
        os.kill(middle, signal.SIGKILL)
        program.go_on()
        assert program.says() == "parent has ended"
        assert watch.jobs()[child] == "train"
        program.go_on()
        assert program.says() == "another program"
        assert watch.jobs()[child] == "train"


def test_another_environment_after_exec_is_another_job() -> None:
    watch = Watch()
    with run(EXEC, marked("first")) as program:
        program.says()
        assert watch.jobs()[program.pid] == "first"
        program.go_on()
        assert program.says() == "changed"
        assert watch.jobs()[program.pid] == "second"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("_idle_", "idle"),
        ("  _unattributed_ ", "unattributed"),
        ("a\x1b[31m\nb", "a?[31m?b"),
        ("x" * 5000, "x" * 128),
        ("naïve 模型", "naïve 模型"),
        ('q"{}\\', 'q"{}\\'),
    ],
)
def test_a_hostile_name_is_cleaned_and_cut(value: str, name: str) -> None:
    with run(SLEEP, marked(value)) as program:
        program.says()
        assert Watch().jobs()[program.pid] == name


@pytest.mark.parametrize("value", ["", "   ", "\t"])
def test_an_empty_name_is_none(value: str) -> None:
    with run(SLEEP, marked(value)) as program:
        program.says()
        assert program.pid not in Watch().jobs()


@needs_root
def test_processes_of_others_are_counted_as_unreadable_without_the_kernels_own() -> None:
    with run(SLEEP, marked("hidden")) as program:
        program.says()

        def check() -> None:
            watch = Watch()
            assert program.pid not in watch.jobs()
            processes = watch.table.scan()
            people = sum(not process.stat.kernel for process in processes)
            assert 1 <= watch.marked.unreadable <= people

        run_as_nobody(check)
        assert Watch().jobs()[program.pid] == "hidden"


def test_pages_that_children_share_are_charged_once() -> None:
    with run(SHARED, marked("forks")) as program:
        children = [int(pid) for pid in program.says().split()]
        watch = Watch()
        memory = watch.memory("forks")
        resident = sum(process.stat.resident_pages * PAGE for process, _ in watch.members() if process.pid in memory)
    assert memory.keys() == {program.pid, *children}
    assert resident > 900 * MIB
    assert 195 * MIB < sum(memory.values()) < 240 * MIB


def test_without_proportional_sizes_a_child_counts_for_what_it_holds_beyond_its_parent(tmp_path: Path) -> None:
    proc, watch = FakeProc(tmp_path), Watch(tmp_path)
    proc.set(10, pages=50_000)
    proc.write(10, "environ", "CARBON_JOB=forks\0")
    for pid in range(11, 31):
        proc.set(pid, parent=10, pages=50_100)
    proc.set(31, parent=10, pages=40_000)
    memory = watch.memory("forks")
    assert memory[10] == 50_000 * PAGE
    assert {memory[pid] for pid in range(11, 31)} == {100 * PAGE}
    assert memory[31] == 0
    assert sum(memory.values()) == 52_000 * PAGE


def test_a_proportional_size_is_kept_as_a_ratio_for_a_minute_and_shared_out_among_many(tmp_path: Path) -> None:
    many = 3 * PSS_READS_PER_TICK
    proc, watch = FakeProc(tmp_path), Watch(tmp_path)
    for pid in range(10, 10 + many):
        proc.set(pid, pages=1000)
        proc.write(pid, "environ", "CARBON_JOB=many\0")
        proc.write(pid, "smaps_rollup", f"Pss: {PAGE * 250 // 1024} kB\n")
    quarters = []
    for _ in range(3):
        quarters.append(sum(size == 250 * PAGE for size in watch.memory("many").values()))
        watch.now += 5
    assert quarters == [PSS_READS_PER_TICK, 2 * PSS_READS_PER_TICK, many]
    for pid in range(10, 10 + many):
        proc.set(pid, pages=2000)
        proc.write(pid, "smaps_rollup", f"Pss: {PAGE * 2000 // 1024} kB\n")
    assert set(watch.memory("many").values()) == {500 * PAGE}, "a quarter of what it holds now"
    watch.now += PSS_PERIOD_SECONDS
    rounds = []
    for _ in range(3):
        rounds.append(sum(size == 2000 * PAGE for size in watch.memory("many").values()))
        watch.now += PSS_PERIOD_SECONDS
    assert rounds == [PSS_READS_PER_TICK, 2 * PSS_READS_PER_TICK, many], "those that waited longest come first"


def test_a_lone_process_counts_for_what_it_holds(tmp_path: Path) -> None:
    proc, watch = FakeProc(tmp_path), Watch(tmp_path)
    proc.set(10, pages=123)
    proc.write(10, "environ", "CARBON_JOB=alone\0")
    assert watch.memory("alone") == {10: 123 * PAGE}


def test_the_second_process_of_a_container_may_belong_to_a_job(tmp_path: Path) -> None:
    """Pid 2 is the kernel's on a host, and anybody's in a namespace of its own."""
    proc = FakeProc(tmp_path)
    proc.set(1, parent=0)
    proc.set(2, parent=1)
    proc.write(2, "environ", "CARBON_JOB=train\0")
    proc.set(3, parent=2)
    assert Watch(tmp_path).jobs() == {2: "train", 3: "train"}


def test_a_parent_that_cannot_be_seen_is_no_trouble(tmp_path: Path) -> None:
    proc, watch = FakeProc(tmp_path), Watch(tmp_path)
    proc.set(20, parent=999)
    proc.set(21, parent=21)
    proc.set(22, parent=23)
    proc.set(23, parent=22)
    proc.write(23, "environ", "CARBON_JOB=ring\0")
    assert watch.jobs()[23] == "ring"
    assert watch.jobs().keys() <= {22, 23}


def test_too_few_file_handles_are_an_error_and_end_no_process() -> None:
    watch = Watch()
    with run(SLEEP, marked("train")) as program:
        program.says()
        first = watch.jobs()
        before, free = resource.getrlimit(resource.RLIMIT_NOFILE), os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, before[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                watch.jobs()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        (again,) = (process for process in watch.table.scan() if process.pid == program.pid)
    assert first[program.pid] == "train"
    assert not again.new


def test_a_process_that_is_moved_is_found_in_its_new_group(groups: Groups) -> None:
    groups.make("a.service", "b.service/inner")
    watch = Watch()

    def group_of(program: Program) -> str | None:
        return next(mark.group for process, mark in watch.members() if process.pid == program.pid)

    with run(SLEEP, marked("train")) as program:
        program.says()
        assert group_of(program) is None
        groups.move(program.pid, "a.service")
        watch.now += GROUP_PERIOD_SECONDS
        assert group_of(program) == f"{groups.path}/a.service"
        groups.move(program.pid, "b.service/inner")
        assert group_of(program) == f"{groups.path}/a.service"
        watch.now += GROUP_PERIOD_SECONDS
        assert group_of(program) == f"{groups.path}/b.service"


CONTAINERS = [
    "/docker/" + "0123456789abcdef" * 4,
    "/kubepods/burstable/pod0cb8ae4c-8b4a-4d4e-a1a0-3a2b1c0d9e8f",
    "/slurm/uid_1000/job_211/step_0/task_0",
    r"/machine.slice/machine-qemu\x2d1\x2dvm.scope",
]


@pytest.mark.parametrize("path", CONTAINERS)
def test_what_runs_in_a_container_is_read_once_and_of_no_job_of_its_own(tmp_path: Path, path: str) -> None:
    proc, watch = FakeProc(tmp_path), Watch(tmp_path)
    for pid, group, parent in ((10, path, 1), (11, path, 10), (20, "/user.slice/user-1.slice/session-1.scope", 1)):
        proc.set(pid, parent=parent)
        proc.write(pid, "environ", f"CARBON_JOB=job-{pid}\0")
        proc.write(pid, "cgroup", f"0::{group}\n")
    assert watch.jobs() == {20: "job-20"}
    assert watch.jobs() == {20: "job-20"}
    assert [process.pid for process in watch.table.scan()] == [20]
    assert watch.marked.knows(10)
    names = {pid: watch.marked.name_of(pid, watch.now, lambda path: Name(Job(path), "", "")) for pid in (10, 11, 20)}
    assert {pid: name.job.name for pid, name in names.items() if name} == {
        10: path.removesuffix("/step_0/task_0"),
        11: path.removesuffix("/step_0/task_0"),
        20: "job-20",
    }


def test_a_pid_of_a_container_that_is_given_anew_is_found_within_twelve_scans(tmp_path: Path) -> None:
    proc, watch = FakeProc(tmp_path), Watch(tmp_path)
    proc.set(10)
    proc.write(10, "cgroup", f"0::{CONTAINERS[0]}\n")
    assert watch.jobs() == {}
    proc.set(10, started=2)
    proc.write(10, "cgroup", "0::/a.service\n")
    proc.write(10, "environ", "CARBON_JOB=train\0")
    found = [bool(watch.jobs()) for _ in range(CHECK_EVERY_SCANS)]
    assert any(found)
    assert sum(found) < CHECK_EVERY_SCANS, "it is not read at each scan"
    assert watch.jobs() == {10: "train"}


def test_a_container_that_ends_and_another_process_of_its_pid_are_two(tmp_path: Path) -> None:
    proc, watch = FakeProc(tmp_path), Watch(tmp_path)
    proc.set(10)
    proc.write(10, "cgroup", f"0::{CONTAINERS[0]}\n")
    watch.jobs()
    proc.end(10)
    assert watch.jobs() == {}
    assert watch.marked.knows(10), "for two more looks"
    proc.set(10, started=2)
    proc.write(10, "environ", "CARBON_JOB=train\0")
    assert watch.jobs() == {10: "train"}, "at once, for it was seen to have ended"


def test_a_real_containers_processes_are_not_read_again(groups: Groups) -> None:
    scope = f"docker-{'0123456789abcdef' * 4}.scope"
    groups.make(scope)
    watch = Watch()
    with run(SLEEP, marked("mine")) as program, run(SLEEP, marked("outside")) as outside:
        program.says()
        outside.says()
        groups.move(program.pid, scope)
        assert watch.jobs().keys() & {program.pid, outside.pid} == {outside.pid}
        assert program.pid not in {process.pid for process in watch.table.scan()}
        name = watch.marked.name_of(program.pid, watch.now, lambda path: Name(Job(path), "", ""))
        assert name is not None
        assert name.job.name == f"{groups.path}/{scope}"


def test_the_kernels_threads_are_read_once(tmp_path: Path) -> None:
    proc, watch = FakeProc(tmp_path), Watch(tmp_path)
    proc.set(2)
    stat = tmp_path / "2/stat"
    stat.write_text(stat.read_text().replace(" 4194560 ", " 2129984 "))
    assert watch.jobs() == {}
    assert watch.table.scan() == []
