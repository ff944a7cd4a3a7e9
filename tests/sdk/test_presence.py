"""Processes of one user know which of them measure themselves, and believe no file that nobody holds."""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.other_user import needs_root, public_directory, run_as_nobody

from carbon_exporter.sdk.presence import Presence, private_directories, used_until_now


@pytest.fixture
def room(tmp_path: Path) -> Path:
    directory = tmp_path / "run" / "sdk"
    directory.mkdir(parents=True)
    directory.chmod(0o700)
    return directory


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def child(work: Callable[[], None]) -> Iterator[int]:
    """A fork that does some work and then stays, until it is killed at the end."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.write(done, b"!")
            time.sleep(100)
        finally:
            os._exit(1)
    os.close(done)
    try:
        assert os.read(ready, 1) == b"!"
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def names(room: Path) -> list[str]:
    return [path.name for path in room.iterdir()]


def test_a_child_that_announces_itself_is_known_with_what_it_had_used_before(room: Path) -> None:
    watcher = Presence([room])
    assert watcher.others() == frozenset()
    with child(lambda: Presence([room]).announce()) as pid:
        assert watcher.others() == {pid}
        assert 0 <= watcher.announced()[pid] < 60
    assert used_until_now() >= time.process_time() - 0.1


def test_one_does_not_count_oneself_among_the_others(room: Path) -> None:
    mine, watcher = Presence([room]), Presence([room])
    mine.announce()
    mine.announce()
    assert len(names(room)) == 1
    assert mine.others() == watcher.others() == frozenset()
    mine.withdraw()
    mine.withdraw()
    assert names(room) == []


def test_one_that_withdraws_is_known_no_longer(room: Path) -> None:
    def come_and_go() -> None:
        presence = Presence([room])
        presence.announce()
        presence.withdraw()

    with child(come_and_go):
        assert Presence([room]).others() == frozenset()


def test_what_a_killed_process_left_counts_for_nothing_and_is_removed(room: Path) -> None:
    clock = Time()
    watcher = Presence([room], clock=clock)
    with child(lambda: Presence([room]).announce()) as pid:
        assert watcher.others() == {pid}
    assert len(names(room)) == 1, "kill -9 leaves the file"
    clock.now += 2
    assert watcher.others() == frozenset()
    assert names(room) == []


def test_a_forked_child_does_not_hold_what_its_parent_announced(room: Path) -> None:
    def announce_and_fork() -> None:
        Presence([room]).announce()
        if os.fork() == 0:
            time.sleep(100)
            os._exit(0)

    watcher = Presence([room], clock=Time())
    with child(announce_and_fork) as pid:
        assert watcher.others() == {pid}
        grandchild = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
    try:
        until = time.monotonic() + 30
        while names(room) and time.monotonic() < until:  # it may not have come to its first line yet
            assert Presence([room]).others() == frozenset()
        assert names(room) == [], "the grandchild lives and holds nothing"
    finally:
        os.kill(grandchild, signal.SIGKILL)


def test_a_forked_child_can_announce_itself_and_leaves_its_parents_file_alone(room: Path) -> None:
    mine = Presence([room])
    mine.announce()

    def announce_too() -> None:
        mine.withdraw()
        mine.announce()

    with child(announce_too) as pid:
        assert mine.others() == {pid}
        assert len(names(room)) == 2
    mine.withdraw()
    assert names(room) == [name for name in names(room) if name.startswith(f"{pid}-")]


def test_a_program_that_closes_every_file_keeps_its_own_when_we_let_go_of_ours(room: Path) -> None:
    mine = Presence([room])
    mine.announce()
    assert mine._held is not None
    number = mine._held.handle
    os.close(number)
    with (room.parent / "users").open("wb", buffering=0) as users:
        os.dup2(users.fileno(), number)
        mine.withdraw()
        os.write(number, b"still open")
        os.close(number)
    assert (room.parent / "users").read_bytes() == b"still open"


def test_a_file_of_a_process_that_is_not_there_is_left_alone_while_somebody_holds_it(room: Path) -> None:
    """As one of another container that shares the directory."""
    import fcntl  # noqa: PLC0415 - beside its use

    with (room / "999999999-1").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert Presence([room]).others() == frozenset()
        assert names(room) == ["999999999-1"]
    assert Presence([room]).others() == frozenset()
    assert names(room) == []


def test_a_pid_that_was_given_anew_is_not_who_announced_itself(room: Path) -> None:
    import fcntl  # noqa: PLC0415 - beside its use

    with (room / f"{os.getppid()}-1").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert Presence([room]).others() == frozenset()


@pytest.mark.parametrize("text", ["", "nan", "-3", "inf", "x" * 5000, "1e400"])
def test_a_text_that_is_no_time_is_none(room: Path, text: str) -> None:
    with child(lambda: Presence([room]).announce()) as pid:
        (file,) = room.iterdir()
        file.write_text(text)
        assert Presence([room]).announced() == {pid: 0.0}


def test_what_else_lies_in_the_directory_is_left_alone(room: Path) -> None:
    (room / "notes.txt").write_text("mine")
    (room / "1-2.new").write_text("half made a moment ago")
    (room / "4-5").mkdir()
    (room / "6-7").symlink_to(room / "notes.txt")
    assert Presence([room]).others() == frozenset()
    assert sorted(names(room)) == ["1-2.new", "4-5", "6-7", "notes.txt"]
    assert Presence([room], wall=lambda: time.time() + 3600).others() == frozenset()
    assert sorted(names(room)) == ["4-5", "6-7", "notes.txt"], "what is half made for an hour never will be whole"


@pytest.mark.parametrize("how", ["open to others", "a link", "a file", "under a file"])
def test_a_directory_that_is_not_ours_alone_is_not_used(
    tmp_path: Path, room: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "place"
    if how == "open to others":
        place.mkdir(mode=0o755)
    elif how == "a link":
        place.symlink_to(room)
    else:
        place.write_text("")
        place = place / "below" if how == "under a file" else place
    presence = Presence([place])
    with caplog.at_level(logging.DEBUG, "carbon_exporter.sdk"):
        presence.announce()
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert presence.others() == frozenset()
    assert names(room) == []
    presence.withdraw()


def test_the_next_directory_is_used_where_the_first_cannot_be(tmp_path: Path, room: Path) -> None:
    (tmp_path / "file").write_text("")
    with child(lambda: Presence([tmp_path / "file", room]).announce()) as pid:
        assert Presence([tmp_path / "file", room]).others() == {pid}


def test_what_is_made_is_private(tmp_path: Path) -> None:
    place = tmp_path / "carbon-exporter" / "sdk"
    presence = Presence([place])
    presence.announce()
    (file,) = place.iterdir()
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    presence.withdraw()


def test_a_directory_that_has_not_changed_is_not_read_again_for_a_second(room: Path) -> None:
    clock = Time()
    watcher = Presence([room], clock=clock)
    first = watcher.announced()
    assert watcher.announced() is first
    clock.now += 1.5
    assert watcher.announced() is not first


@needs_root
def test_no_user_believes_another(room: Path) -> None:
    with public_directory() as place:
        theirs = place / "sdk"
        theirs.mkdir()
        theirs.chmod(0o700)
        presence = Presence([theirs])
        presence.announce()
        os.chown(theirs, 65534, 65534)

        def look() -> None:
            assert Presence([room]).others() == frozenset()
            os.environ["XDG_RUNTIME_DIR"] = "/"
            assert Path("/carbon-exporter/sdk") not in private_directories()

        run_as_nobody(look)
        assert presence.others() == frozenset()
        assert Presence([theirs]).others() == frozenset()
        assert len(names(theirs)) == 1, "another user's directory is not touched"
        os.chown(theirs, 0, 0)
        presence.withdraw()


def test_processes_of_one_user_meet_where_the_system_keeps_what_runs(tmp_path: Path) -> None:
    script = "from carbon_exporter.sdk.presence import private_directories as d; print(*d(), sep='\\n')"
    environ = {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    out = subprocess.check_output([sys.executable, "-c", script], env=environ, text=True)
    user = f"carbon-exporter-{os.geteuid()}"
    assert out.split() == [f"{tmp_path}/carbon-exporter/sdk", f"{tmp_path}/{user}"]
    environ["XDG_RUNTIME_DIR"] = "relative"
    out = subprocess.check_output([sys.executable, "-c", script], env=environ, text=True)
    assert out.split() == [f"{tmp_path}/{user}"]


WITHOUT_LOCKS = """
import sys, time, psutil
sys.modules["fcntl"] = sys.modules["resource"] = sys.modules["grp"] = None
from pathlib import Path
from carbon_exporter.sdk.own_use import OwnUse
from carbon_exporter.sdk.presence import Presence
presence = Presence([Path(sys.argv[1])], procfs=None)
if sys.argv[2] == "announce":
    presence.announce()
    assert OwnUse(presence=presence, portable=True).look().memory_bytes > 0
print(*presence.others(), flush=True)
sys.stdin.readline()
"""


@contextmanager
def without_locks(room: Path, what: str) -> Iterator[tuple[int, str]]:
    """A program on a system without file locks: its pid and whom it sees; it is killed at the end."""
    environ = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WITHOUT_LOCKS, str(room), what]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            yield program.pid, program.stdout.readline()
        finally:
            program.kill()


def test_where_files_cannot_be_locked_those_count_that_live(room: Path) -> None:
    with without_locks(room, "announce") as (pid, seen):
        assert seen == "\n"
        with without_locks(room, "watch") as (_, others):
            assert others == f"{pid}\n"
        assert len(names(room)) == 1
    with without_locks(room, "watch") as (_, others):
        assert others == "\n"
    assert names(room) == []
