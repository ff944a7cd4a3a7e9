"""The process table: every tick that a family of processes used is reported once, however its members come and go."""

from __future__ import annotations

import resource
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.other_user import needs_root
from support.workloads import TICKS, FakeProc, Program, run

from carbon_exporter.jobs.processes import CHECK_EVERY_SCANS, Process, ProcessTable, fresh_ticks
from carbon_exporter.jobs.procfs import ProcessStat, parse_process_stat

RESOLUTION = 5
"""Ticks by which sums of a handful of processes may differ: each process's user and system time is rounded down."""


def ticks(processes: list[Process]) -> dict[int, int]:
    """By pid, of those who used any."""
    return {process.pid: process.ticks for process in processes if process.ticks}


def used(pid: int) -> int:
    """Ticks that the kernel charges to a process and those whom it waited for."""
    stat = parse_process_stat(Path(f"/proc/{pid}/stat").read_bytes())
    return stat.own + stat.waited


def watch(program: Program, interval: float) -> tuple[dict[int, int], int]:
    """Scan until the program has done its work: the reported ticks of all that it started, by pid, and the truth."""
    table, reported = ProcessTable(Path("/proc")), {program.pid: 0}

    def look() -> None:
        processes = table.scan()
        known = 0
        while known < len(reported):
            known = len(reported)
            reported.update(
                {one.pid: 0 for one in processes if one.stat.parent in reported and one.pid not in reported}
            )
        for one in processes:
            if one.pid in reported:
                reported[one.pid] += one.ticks

    assert program.says() == "ready"
    before = used(program.pid)
    table.scan()
    program.go_on()
    until = time.monotonic() + 30
    while not program.has_spoken(interval) and time.monotonic() < until:
        look()
    assert program.says() == "done"
    look()
    return reported, used(program.pid) - before


def test_the_first_scan_reports_nothing_and_all_as_new(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path)
    proc.set(10, own=500, waited=100)
    table = ProcessTable(tmp_path)
    (process,) = table.scan()
    assert (process.pid, process.new, process.ticks, process.key) == (10, True, 0, (10, 1))
    (process,) = table.scan()
    assert (process.new, process.ticks) == (False, 0)


def test_own_time_is_reported_once(tmp_path: Path) -> None:
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    for own, fresh in ((100, 0), (150, 50), (150, 0), (151, 1)):
        proc.set(10, own=own)
        assert [one.ticks for one in table.scan()] == [fresh]


def test_a_new_process_counts_from_its_birth(tmp_path: Path) -> None:
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    proc.set(10)
    table.scan()
    proc.set(11, own=30, waited=5, started=9)
    assert ticks(table.scan()) == {11: 35}


def test_a_child_that_nobody_saw_is_its_parents(tmp_path: Path) -> None:
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    proc.set(10, own=5)
    table.scan()
    proc.set(10, own=6, waited=40)
    assert ticks(table.scan()) == {10: 41}


def test_what_was_reported_of_a_child_is_not_reported_of_its_parent_again(tmp_path: Path) -> None:
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    proc.set(10)
    proc.set(11, parent=10)
    table.scan()
    proc.set(11, parent=10, own=60)
    assert ticks(table.scan()) == {11: 60}
    proc.end(11)
    proc.set(10, waited=75)
    assert ticks(table.scan()) == {10: 15}


def test_a_chain_whose_middle_ends_too_is_reported_once(tmp_path: Path) -> None:
    """10 started 11 started 12; both end between two scans, and 10 waits for 11, who had waited for 12."""
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    for pid, parent in ((10, 1), (11, 10), (12, 11)):
        proc.set(pid, parent=parent)
    table.scan()
    proc.set(11, parent=10, own=20)
    proc.set(12, parent=11, own=30)
    assert ticks(table.scan()) == {11: 20, 12: 30}
    proc.end(11, 12)
    proc.set(10, waited=57)
    assert ticks(table.scan()) == {10: 7}


def test_a_child_that_ends_while_we_look_is_subtracted_at_the_next_look(tmp_path: Path) -> None:
    """Its parent was read before it had waited: the time comes one scan later."""
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    proc.set(10)
    proc.set(11, parent=10)
    table.scan()
    proc.set(11, parent=10, own=60)
    table.scan()
    proc.end(11)
    assert ticks(table.scan()) == {}
    proc.set(10, waited=75)
    assert ticks(table.scan()) == {10: 15}
    proc.set(10, waited=95)
    assert ticks(table.scan()) == {10: 20}


def test_what_did_not_come_at_the_next_look_is_expected_no_longer(tmp_path: Path) -> None:
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    proc.set(10)
    proc.set(11, parent=10, own=60)
    table.scan()
    proc.end(11)
    assert ticks(table.scan()) == ticks(table.scan()) == {}
    proc.set(10, waited=75)
    assert ticks(table.scan()) == {10: 75}


def test_what_a_process_was_still_to_be_given_passes_to_its_parent_when_it_ends(tmp_path: Path) -> None:
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    for pid, parent in ((10, 1), (11, 10), (12, 11)):
        proc.set(pid, parent=parent)
    table.scan()
    proc.set(12, parent=11, own=30)
    table.scan()
    proc.end(12)
    table.scan()
    proc.end(11)
    assert ticks(table.scan()) == {}
    proc.set(10, waited=33)
    assert ticks(table.scan()) == {10: 3}


def test_parents_are_read_before_their_children_whatever_their_numbers(tmp_path: Path) -> None:
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    for pid, started in ((900, 1), (30, 2), (7, 3), (500, 4)):
        proc.set(pid, parent=1, started=started)
    table.scan()
    proc.set(1, parent=0, started=9)
    assert [one.pid for one in table.scan()] == [900, 30, 7, 500, 1]


def test_parents_are_read_before_a_child_that_was_given_the_pid_of_another(tmp_path: Path) -> None:
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    proc.set(10, started=5)
    proc.set(20, started=6)
    for _ in range(2):
        assert [one.pid for one in table.scan()] == [10, 20]
    proc.set(10, parent=20, started=9)
    for _ in range(2):
        assert [one.pid for one in table.scan()] == [20, 10]


def test_a_parent_that_ignores_its_children_is_not_charged_for_them(tmp_path: Path) -> None:
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    proc.set(10)
    proc.set(11, parent=10)
    table.scan()
    proc.set(11, parent=10, own=60)
    table.scan()
    proc.end(11)
    proc.set(10, own=3)
    assert ticks(table.scan()) == {10: 3}


def test_a_pid_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    proc.set(10, own=100, started=5)
    table.scan()
    proc.set(10, own=40, started=6)
    (process,) = table.scan()
    assert (process.new, process.ticks, process.key) == (True, 40, (10, 6))


def test_a_parents_pid_that_is_used_again_inherits_no_deduction(tmp_path: Path) -> None:
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    proc.set(10, started=5)
    proc.set(11, parent=10)
    table.scan()
    proc.set(11, parent=10, own=60)
    table.scan()
    proc.end(11)
    proc.set(10, own=40, waited=50, started=6)
    assert ticks(table.scan()) == {10: 90}


@pytest.mark.parametrize(("comm", "stack", "is_new"), [("work", 7, False), ("other", 7, True), ("work", 8, True)])
def test_another_program_in_the_same_process_is_new(tmp_path: Path, comm: str, stack: int, is_new: bool) -> None:
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    proc.set(10, own=5)
    table.scan()
    proc.set(10, own=6, comm=comm, stack=stack)
    (process,) = table.scan()
    assert (process.new, process.ticks) == (is_new, 1)


def test_what_is_no_process_is_left_out(tmp_path: Path) -> None:
    proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    proc.set(10)
    (tmp_path / "11").mkdir()
    (tmp_path / "self").mkdir()
    proc.set(13)
    proc.write(13, "stat", "")
    assert [one.pid for one in table.scan()] == [10]


def test_a_proc_that_cannot_be_read_is_an_error_and_forgets_nothing(tmp_path: Path) -> None:
    proc, table = FakeProc(tmp_path / "proc"), ProcessTable(tmp_path / "proc")
    with pytest.raises(FileNotFoundError):
        table.scan()
    proc.set(10, own=5)
    table.scan()
    (tmp_path / "proc").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        table.scan()
    (tmp_path / "away").rename(tmp_path / "proc")
    proc.set(10, own=9)
    assert ticks(table.scan()) == {10: 4}


def open_below(folder: Path) -> set[str]:
    """The files below a folder that this process has open."""
    targets = {link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    return {str(target.relative_to(folder)) for target in targets if folder in target.parents}


def test_some_files_are_kept_open_until_their_processes_end_and_all_are_read(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, before[1]))
    try:
        proc, table = FakeProc(tmp_path), ProcessTable(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for own in (0, 3, 5):
        for pid in (10, 11, 12, 13):
            proc.set(pid, own=own)
        scanned = ticks(table.scan())
    assert scanned == dict.fromkeys((10, 11, 12, 13), 2)
    assert open_below(tmp_path) == {"10/stat", "11/stat"}
    proc.end(10)
    table.scan()
    assert open_below(tmp_path) == {"11/stat"}


def passed_over(proc: FakeProc, *pids: int) -> ProcessTable:
    """A table that leaves these out."""
    table = ProcessTable(proc.root)
    for pid in pids:
        proc.set(pid)
    table.pass_over([one.key for one in table.scan() if one.pid in pids])
    assert table.scan() == []
    return table


def test_a_process_that_is_passed_over_is_told_of_once_it_has_ended(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path)
    table = passed_over(proc, 10, 11)
    proc.end(10)
    assert table.scan() == []
    assert table.take_forgotten() == [(10, 1)]
    assert table.take_forgotten() == []


def test_a_pid_that_was_passed_over_and_is_given_anew_is_read_within_twelve_scans(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path)
    table = passed_over(proc, 10, 11, 12)
    proc.end(10, 12)
    proc.set(10, own=3, started=2)
    proc.set(12, own=4, started=3)
    scans = [table.scan() for _ in range(CHECK_EVERY_SCANS)]
    assert {one.key for scan in scans for one in scan} == {(10, 2), (12, 3)}
    assert {one.pid: one.ticks for scan in scans for one in scan if one.new} == {10: 3, 12: 4}
    assert sorted(table.take_forgotten()) == [(10, 1), (12, 1)]


def test_a_directory_that_is_made_anew_for_the_same_process_changes_nothing(tmp_path: Path) -> None:
    """The kernel drops directories that nobody has looked at for long, and makes another when somebody does."""
    proc = FakeProc(tmp_path)
    table = passed_over(proc, 10)
    for _ in range(2):
        proc.end(10)
        proc.set(10)
        assert [table.scan() for _ in range(CHECK_EVERY_SCANS)] == [[]] * CHECK_EVERY_SCANS
    assert table.take_forgotten() == []


def test_of_what_is_passed_over_only_the_directory_is_looked_at(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path)
    table = passed_over(proc, 10)
    proc.write(10, "stat", "no process's stat")
    proc.set(10, own=3, started=2)
    assert [table.scan() for _ in range(CHECK_EVERY_SCANS)] == [[]] * CHECK_EVERY_SCANS


def run_as(pid: int, stack: ExitStack) -> Program:
    """A program with this pid; skips where the kernel does not let us choose one, or others are always faster."""
    for _ in range(20):
        try:
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        except OSError as error:
            pytest.skip(f"no pid can be chosen: {error.strerror}")
        program = stack.enter_context(run('say("up"); wait()'))
        if program.pid == pid:
            assert program.says() == "up"
            return program
    pytest.skip(f"{pid} was given to another process")


@needs_root
def test_a_real_pid_that_was_passed_over_and_is_given_anew_is_read() -> None:
    table = ProcessTable(Path("/proc"))
    with run('say("up"); wait()') as first:
        assert first.says() == "up"
        (before,) = (one.key for one in table.scan() if one.pid == first.pid)
        table.pass_over([before])
        assert first.pid not in {one.pid for one in table.scan()}
    with ExitStack() as stack:
        second = run_as(before[0], stack)
        after = {one.key for _ in range(CHECK_EVERY_SCANS) for one in table.scan() if one.pid == second.pid}
    assert len(after) == 1
    assert before not in after
    assert table.take_forgotten() == [before]


SHORT_LIVED = """
say("ready"); wait()
for _ in range(60):
    child = os.fork()
    if child == 0:
        burn(0.02)
        os._exit(0)
    os.waitpid(child, 0)
burn(0.1)
say("done"); wait()
"""

CHAINS = """
say("ready"); wait()
for n in range(6):
    middle = os.fork()
    if middle == 0:
        leaf = os.fork()
        if leaf == 0:
            burn(0.05 + n * 0.02)
            os._exit(0)
        burn(0.05)
        os.waitpid(leaf, 0)
        burn(0.03)
        os._exit(0)
    os.waitpid(middle, 0)
say("done"); wait()
"""

CROWD = """
say("ready"); wait()
for n in range(5):
    if os.fork() == 0:
        burn(0.1 + 0.05 * n)
        os._exit(0)
time.sleep(0.4)
for n in range(5):
    os.wait()
say("done"); wait()
"""

IGNORED = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
say("ready"); wait()
for n in range(4):
    if os.fork() == 0:
        burn(0.3)
        os._exit(0)
    burn(0.05)
try:
    os.wait()
except ChildProcessError:
    pass
say("done"); wait()
"""


@pytest.mark.parametrize("interval", [0.013, 0.11, 60.0])
@pytest.mark.parametrize("code", [SHORT_LIVED, CHAINS, CROWD], ids=["short-lived", "chains", "crowd"])
def test_what_a_real_family_used_is_reported_once(code: str, interval: float) -> None:
    with run(code) as program:
        reported, truth = watch(program, interval)
    assert truth > 0.5 * TICKS
    assert abs(sum(reported.values()) - truth) <= RESOLUTION, reported


def test_children_that_are_not_waited_for_are_counted_while_they_live() -> None:
    with run(IGNORED) as program:
        reported, own = watch(program, 0.02)
    parent = reported.pop(program.pid)
    assert abs(parent - own) <= 2
    assert 0.5 * 1.2 * TICKS <= sum(reported.values()) <= 1.2 * TICKS + RESOLUTION


def test_a_real_exec_is_seen_even_by_the_same_name() -> None:
    again = """
say("ready"); wait()
os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", "print('done', flush=True); input()"])
"""
    with run(again) as program:
        assert program.says() == "ready"
        table = ProcessTable(Path("/proc"))
        first, second = ({one.pid: one for one in table.scan()}[program.pid] for _ in range(2))
        program.go_on()
        assert program.says() == "done"
        third, fourth = ({one.pid: one for one in table.scan()}[program.pid] for _ in range(2))
    assert [one.new for one in (first, second, third, fourth)] == [True, False, True, False]
    assert len({one.key for one in (first, second, third, fourth)}) == 1
    assert first.stat.comm == third.stat.comm


counts = st.integers(0, 10**9)


@given(old=st.tuples(counts, counts), now=st.tuples(counts, counts), reported=counts)
def test_no_process_reports_less_than_nothing(old: tuple[int, int], now: tuple[int, int], reported: int) -> None:
    before, after = (ProcessStat(b"", 1, own, waited, 1, 1) for own, waited in (old, now))
    assert fresh_ticks(before, after, reported) >= 0
    assert fresh_ticks(None, after, reported) == sum(now)
