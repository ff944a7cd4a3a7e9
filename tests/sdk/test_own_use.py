"""What this process and its children use: against what the kernel itself adds up for those who wait."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.self_trackers import TRACKER, burn, environment, watch
from support.workloads import PRELUDE, TICKS, FakeProc, Program, kill_session, run

from carbon_exporter.sdk.own_use import ALONE_SECONDS, ROOT_NAMESPACE, OwnUse, UsePoint
from carbon_exporter.sdk.presence import Presence

RESOLUTION = 0.05
"""CPU seconds by which a handful of processes may differ: the kernel tells each one's time in hundredths, cut off."""
MEBIBYTE = 2**20
HOSTS_NUMBERS = str(Path("/proc/self/ns/pid").readlink()) == ROOT_NAMESPACE


@pytest.fixture(params=[False, True], ids=["procfs", "psutil"])
def use(request: pytest.FixtureRequest, presence: Presence) -> OwnUse:
    """A look has been taken."""
    made = OwnUse(presence=presence, portable=request.param)
    made.look()
    return made


@pytest.fixture
def room(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def presence(room: Path) -> Presence:
    """Of this test alone."""
    return Presence([room / "carbon-exporter" / "sdk"])


def waited_for() -> float:
    """What the kernel has added up of all children that this process has waited for."""
    times = resource.getrusage(resource.RUSAGE_CHILDREN)
    return times.ru_utime + times.ru_stime


def forked(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def python(code: str, *, room: Path | None = None) -> subprocess.Popen[str]:
    """A program with the prelude, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, *([] if room else ["-I", "-S"]), "-c", PRELUDE + code],
        env=environment(room) if room else None,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def tracker(room: Path) -> Iterator[Callable[[str], Program]]:
    """Starts a program that can announce itself; it is killed at the end."""
    started = []

    def start(code: str) -> Program:
        process = python(TRACKER + code, room=room)
        started.append(process)
        return Program(process)

    yield start
    for process in started:
        kill_session(process.pid)
        process.communicate()


def ends(process: subprocess.Popen[str], use: OwnUse) -> None:
    """Look until a program has ended and was waited for."""
    while process.poll() is None:
        use.look()
        time.sleep(0.03)
    process.communicate()


def test_own_time_is_that_of_all_threads(use: OwnUse) -> None:
    before = use.look()
    thread = threading.Thread(target=burn, args=(0.2,))
    thread.start()
    thread.join()
    after = use.look()
    assert after.at - before.at >= 0.2
    assert 0.2 <= after.cpu_seconds - before.cpu_seconds <= time.process_time() - before.cpu_seconds
    assert after.children_seconds == before.children_seconds == 0


def test_a_forked_child_is_counted_while_it_lives_and_once(use: OwnUse) -> None:
    before, waited = use.look(), waited_for()
    pid = forked(lambda: burn(0.4, rest=100))
    while use.look().children_seconds - before.children_seconds < 0.3:
        time.sleep(0.02)
    assert waited_for() == waited, "it has not ended"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    used = watch(use, 0.15).children_seconds - before.children_seconds
    assert used == pytest.approx(waited_for() - waited, abs=RESOLUTION)


def test_children_of_every_kind_and_their_children_are_counted_once(use: OwnUse) -> None:
    before, waited = use.look(), waited_for()
    grandchildren = "for _ in range(3):\n if os.fork() == 0:\n  burn(0.1); os._exit(0)\n os.wait()\nburn(0.1)"
    spawned = multiprocessing.get_context("spawn").Process(target=burn, args=(0.2,))
    spawned.start()
    pid = forked(lambda: burn(0.3))
    ends(python(grandchildren), use)
    os.waitpid(pid, 0)
    while spawned.is_alive():
        use.look()
        time.sleep(0.03)
    spawned.join()
    spawned.close()
    used = watch(use, 0.15).children_seconds - before.children_seconds
    assert waited_for() - waited >= 0.9
    assert used == pytest.approx(waited_for() - waited, abs=0.15), "the resource tracker of `spawn` lives on"


def test_children_that_come_and_go_between_two_looks_are_counted(use: OwnUse) -> None:
    before, waited = use.look(), waited_for()
    for _ in range(10):
        os.waitpid(forked(lambda: burn(0.03)), 0)
    after = watch(use, ALONE_SECONDS)
    assert after.children_seconds - before.children_seconds == pytest.approx(waited_for() - waited, abs=RESOLUTION)


def test_a_child_that_was_there_before_the_first_look_is_counted_from_then_on(presence: Presence) -> None:
    with run('burn(0.5); say("ready"); wait(); burn(0.2); say("done"); wait()') as program:
        assert program.says() == "ready"
        use = OwnUse(presence=presence)
        before = use.look()
        program.go_on()
        assert program.says() == "done"
        used = use.look().children_seconds - before.children_seconds
        assert 0.2 - RESOLUTION <= used <= 0.2 + 2 * RESOLUTION


def test_an_orphan_of_ours_is_counted_as_long_as_it_lives(presence: Presence) -> None:
    use = OwnUse(presence=presence)
    use.look()
    family = 'child = os.fork()\nif child == 0:\n time.sleep(2.5); burn(0.3); say("done"); wait()\ntime.sleep(2)'
    process = python(family)
    try:
        while process.poll() is None:
            use.look()
            time.sleep(0.02)
        assert Program(process).says() == "done"
        assert use.look().children_seconds >= 0.3 - RESOLUTION
    finally:
        kill_session(process.pid)
        process.communicate()


def test_a_child_that_measures_itself_is_ours_until_it_does(use: OwnUse, tracker: Callable[[str], Program]) -> None:
    before = use.look()
    program = tracker(
        'burn(0.3); before = time.process_time(); announce(); say(before); burn(0.4); say("done"); wait()'
    )
    while not program.has_spoken(0.05):
        use.look()
    began = float(program.says())
    assert program.says() == "done"
    used = watch(use, 0.2).children_seconds - before.children_seconds
    assert began >= 0.3
    assert used == pytest.approx(began, abs=2 * RESOLUTION)
    assert program.pid not in use.pids()


def test_one_that_measured_itself_before_anybody_looked_is_ours_until_it_did(
    use: OwnUse, tracker: Callable[[str], Program]
) -> None:
    program = tracker(
        'burn(0.3); before = time.process_time(); announce(); say(before); burn(0.4); say("done"); wait()'
    )
    began = float(program.says())
    assert program.says() == "done"
    assert watch(use, 1.2).children_seconds == pytest.approx(began, abs=2 * RESOLUTION)


def test_what_it_used_does_not_come_back_when_it_has_ended(use: OwnUse, room: Path) -> None:
    before = use.look()
    code = """
presence, before = announce(), time.process_time()
say(before)
child = os.fork()
burn(0.6)
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
presence.withdraw()
burn(0.1)
"""
    process = python(TRACKER + code, room=room)
    began = float(Program(process).says())
    ends(process, use)
    used = watch(use, 0.3).children_seconds - before.children_seconds
    assert used == pytest.approx(began, abs=2 * RESOLUTION), "1.3 s more were its own"


def test_children_of_one_that_measures_itself_are_its_own(use: OwnUse, tracker: Callable[[str], Program]) -> None:
    code = """
presence, before = announce(), time.process_time()
if os.fork() == 0:
    say(before); burn(0.4); say("done"); time.sleep(100)
time.sleep(100)
"""
    program = tracker(code)
    began = float(program.says())
    watch(use, 1.2)
    assert program.says() == "done"
    assert watch(use, 0.2).children_seconds == pytest.approx(began, abs=2 * RESOLUTION)


@pytest.mark.skipif(not HOSTS_NUMBERS, reason="pids here are not the host's")
def test_the_tree_is_named_by_pid(use: OwnUse) -> None:
    with run('say("ready"); wait()') as program:
        assert program.says() == "ready"
        until = time.monotonic() + 30
        while program.pid not in use.pids() and time.monotonic() < until:
            watch(use, 0.1)
        assert use.pids() >= {os.getpid(), program.pid}
    watch(use, 0.1)
    assert program.pid not in use.pids()


def test_pids_of_a_numbering_of_its_own_are_not_told(tmp_path: Path, presence: Presence) -> None:
    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "self" / "ns" / "pid").symlink_to("pid:[4026532250]")
    assert OwnUse(tmp_path, presence=presence).pids() == frozenset()


def test_pages_that_forked_children_share_are_counted_once(presence: Presence) -> None:
    clock = iter(range(0, 1000, 2))
    use = OwnUse(presence=presence, clock=lambda: float(next(clock)))
    alone = [use.look().memory_bytes for _ in range(3)][-1]
    block = bytearray(os.urandom(MEBIBYTE)) * 64
    children = [forked(lambda: time.sleep(100)) for _ in range(4)]
    try:
        time.sleep(1.1)
        held = [use.look().memory_bytes for _ in range(100)][-1]  # one process is walked through at a time
        assert 60 * MEBIBYTE <= held - alone <= 64 * MEBIBYTE + 4 * 12 * MEBIBYTE, "and some of the children's own"
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert len(block) == 64 * MEBIBYTE


def test_memory_by_psutil_is_what_is_held(presence: Presence) -> None:
    use = OwnUse(presence=presence, portable=True)
    assert 4 * MEBIBYTE <= use.look().memory_bytes <= 4096 * MEBIBYTE


@pytest.mark.parametrize("portable", [False, True])
def test_the_whole_machine_is_looked_at_only_if_that_is_asked_for(presence: Presence, portable: bool) -> None:
    use = OwnUse(presence=presence, needs_busy=True, portable=portable)
    before = use.look()
    burn(0.3)
    after = use.look()
    assert after.busy_seconds - before.busy_seconds >= 0.3 - 4 / TICKS
    use.needs_busy = False
    assert use.look().busy_seconds == 0


def test_where_the_kernel_lists_no_children_all_processes_are_searched(tmp_path: Path, presence: Presence) -> None:
    me, proc = os.getpid(), FakeProc(tmp_path)
    proc.set(me, own=500, waited=100)
    proc.set(2, parent=me, own=100)
    proc.set(3, parent=2, own=50)
    proc.set(4, parent=1, own=900)
    use = OwnUse(tmp_path, presence=presence)
    assert use.look().children_seconds == 0
    proc.set(2, parent=me, own=130)
    proc.set(3, parent=2, own=51)
    proc.set(4, parent=1, own=999)
    proc.set(me, own=700, waited=110)
    assert use.look().children_seconds == pytest.approx((30 + 1 + 10) / TICKS)


def test_a_proc_that_cannot_be_read_gives_nothing_and_raises_nothing(tmp_path: Path, presence: Presence) -> None:
    use = OwnUse(tmp_path / "nowhere", presence=presence, needs_busy=True)
    look = use.look()
    assert isinstance(look, UsePoint)
    assert look[2:] == (0, 0, 0)


def test_files_are_not_kept_open(presence: Presence) -> None:
    use = OwnUse(presence=presence)
    before = list(Path("/proc/self/fd").iterdir())
    with run('say("ready"); wait()') as program:
        assert program.says() == "ready"
        watch(use, 0.3)
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)
