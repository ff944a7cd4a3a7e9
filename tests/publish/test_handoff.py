"""The scripts' socket: who may knock, what is said to whom, and where it listens."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.handoff_desk import WELCOME, counter
from support.other_user import needs_root, public_directory, run_as_nobody
from support.raw_script import RawScript, row, session_name
from support.waiting import until

from carbon_exporter.jobs.base import Job
from carbon_exporter.publish import handoff_wire as wire
from carbon_exporter.publish.handoff_doors import default_socket
from carbon_exporter.publish.handoff_limits import Bucket

pytestmark = pytest.mark.usefixtures("nothing_left_behind")
NEWS = wire.encode(wire.Energy((wire.SliceRow("gpu0", 1.0, 1.1, 30.0, 0.004),)))


@pytest.fixture
def path() -> Iterator[Path]:
    """Of a socket that is to be: pytest's own directories are too long for one."""
    with TemporaryDirectory() as folder:
        yield Path(folder) / "sdk.sock"


def test_hello_is_answered_by_welcome_and_the_kernel_tells_who_it_is(path: Path) -> None:
    with counter(path) as here, RawScript(path) as script:
        assert script.wait_for(wire.Welcome) == WELCOME
        assert here.looked == [(os.getpid(), os.geteuid())]
        assert [peer.hello.session for peer in here.server.peers if peer.hello] == [script.session]


def test_what_is_told_is_kept_as_the_newest_of_each_span(path: Path) -> None:
    with counter(path) as here:
        with RawScript(path) as script:
            for joules in range(1, 5):
                script.tell(row("epoch", joules), row("step", 2 * joules))
            until(lambda: any(peer.has_told for peer in here.server.peers))
        until(lambda: bool(here.left))
        assert here.told == {("epoch", ""): row("epoch", 4), ("step", ""): row("step", 8)}


def test_a_script_that_says_all_at_once_and_leaves_is_heard(path: Path) -> None:
    with counter(path) as here:
        hello = wire.encode(wire.Hello(wire.VERSION, session_name()))
        with RawScript(path, hello=False) as script:
            script.socket.sendall(hello + wire.encode(wire.Spans(0, (row("short", 1.0),))))
        until(lambda: bool(here.left))
        assert here.told == {("short", ""): row("short", 1.0)}


def test_its_last_words_are_heard_though_it_left_while_it_was_being_told_news(path: Path) -> None:
    with counter(path, period=0.001) as here:
        here.lines = (NEWS,)
        for number in range(30):
            with RawScript(path) as script:
                script.wait_for(wire.Welcome)
                script.send(wire.Watch(on=True))
                script.wait_for(wire.Energy)
                script.tell(row(f"span {number}", 1.0))
        until(lambda: len(here.left) == 30)
        assert len(here.told) == 30


def test_news_goes_to_those_who_watch_and_to_nobody_else(path: Path) -> None:
    with counter(path) as here:
        here.lines = (NEWS,)
        with RawScript(path) as watcher, RawScript(path) as other:
            watcher.wait_for(wire.Welcome)
            other.wait_for(wire.Welcome)
            assert True not in here.watched
            watcher.send(wire.Watch(on=True))
            watcher.wait_for(wire.Energy)
            other.listen(0.3)
            assert not [one for one in other.heard if isinstance(one, wire.Energy)]
            watcher.send(wire.Watch(on=False))
            until(lambda: here.watched[-1] is False)
        until(lambda: here.server.connections == 0)


def test_nobody_wants_news_once_the_last_who_watched_has_gone(path: Path) -> None:
    with counter(path) as here:
        with RawScript(path) as script:
            script.wait_for(wire.Welcome)
            script.send(wire.Watch(on=True))
            until(lambda: here.watched[-1:] == [True])
        until(lambda: here.watched[-1] is False)


def test_another_version_is_refused_with_a_remedy(path: Path) -> None:
    with counter(path) as here, RawScript(path, hello=False) as script:
        script.send(wire.Hello(99, session_name()))
        assert "version" in script.refusal().reason
        assert script.refusal().remedy
        assert here.server.refused["version"] == 1


@needs_root
def test_any_local_user_may_connect() -> None:
    with public_directory() as folder:
        path = folder / "carbon-exporter" / "sdk.sock"

        def call() -> None:
            with RawScript(path) as script:
                script.wait_for(wire.Welcome)

        with counter(path) as here:
            assert stat.S_IMODE(path.stat().st_mode) == 0o666
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
            run_as_nobody(call)
            assert here.looked[0].uid == 65534


def test_the_socket_of_a_dead_exporter_is_replaced_that_of_a_living_one_is_not(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with counter(path) as first:
        with counter(path) as second:
            assert not second.server.listens
            assert "another exporter listens" in caplog.text
        with RawScript(path) as script:
            script.wait_for(wire.Welcome)
        assert first.server.listens
    assert not path.exists()


def test_a_file_in_its_place_is_left_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text("mine")
    with counter(path) as here:
        assert not here.server.listens
    assert path.read_text() == "mine"
    assert "cannot listen" in caplog.text


def test_a_socket_that_somebody_took_away_is_opened_again(path: Path) -> None:
    with counter(path) as here, RawScript(path) as script:
        script.wait_for(wire.Welcome)
        path.unlink()
        until(path.exists)
        script.send(wire.Watch(on=True))
        until(lambda: here.watched[-1] is True)
        with RawScript(path) as other:
            other.wait_for(wire.Welcome)


def test_too_long_a_path_is_told_and_not_fatal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with counter(tmp_path / ("x" * 120) / "sdk.sock") as here:
        assert not here.server.listens
    assert "too long" in caplog.text


def test_each_job_has_a_socket_as_soon_as_it_has_a_directory_and_as_long(path: Path) -> None:
    rooms = path.parent / "jobs"
    for name in ("train", "research:eval"):
        (rooms / name).mkdir(parents=True)
    (rooms / "loose").mkdir()
    (rooms / "loose").chmod(0o777)
    (rooms / "link").symlink_to(rooms / "train")
    with counter(None, rooms=rooms) as here:
        until(lambda: all((rooms / name / "sdk.sock").exists() for name in ("train", "research:eval")))
        assert not (rooms / "loose" / "sdk.sock").exists()
        with RawScript(rooms / "train" / "sdk.sock") as one, RawScript(rooms / "research:eval" / "sdk.sock") as two:
            one.wait_for(wire.Welcome)
            two.wait_for(wire.Welcome)
            assert {peer.door.job for peer in here.server.peers} == {Job("train"), Job("eval", "research")}
            (rooms / "late").mkdir()
            until((rooms / "late" / "sdk.sock").exists)
            (rooms / "train" / "sdk.sock").unlink()
            (rooms / "train").rmdir()
        with RawScript(rooms / "late" / "sdk.sock") as three:
            three.wait_for(wire.Welcome)
    assert not (rooms / "late" / "sdk.sock").exists()


def test_a_directory_of_jobs_that_is_not_there_is_told_once_and_awaited(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rooms = path.parent / "jobs"
    with counter(None, rooms=rooms):
        until(lambda: "cannot look" in caplog.text)
        (rooms / "train").mkdir(parents=True)
        until((rooms / "train" / "sdk.sock").exists)
    assert caplog.text.count("cannot look") == 1


def test_by_default_it_is_the_system_s_socket_else_the_user_s_else_none(tmp_path: Path) -> None:
    user = {"XDG_RUNTIME_DIR": "/run/user/1000"}
    system = tmp_path / "carbon-exporter" / "sdk.sock"
    assert default_socket({}, system) == system
    unwritable = Path("/nowhere/carbon-exporter/sdk.sock")
    assert default_socket(user, unwritable) == Path("/run/user/1000/carbon-exporter/sdk.sock")
    assert default_socket({}, unwritable) is None


def test_a_bucket_gives_what_it_holds_and_fills_again() -> None:
    now = [0.0]
    bucket = Bucket(10.0, 5.0, lambda: now[0])
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]
    now[0] = 0.25
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    now[0] = 100.0
    assert bucket.full
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]


def test_stopping_ends_the_thread_and_hangs_up_on_all(path: Path) -> None:
    with counter(path):
        scripts = [RawScript(path) for _ in range(5)]
        for script in scripts:
            script.wait_for(wire.Welcome)
    for script in scripts:
        script.listen(5)
        assert script.ended
        script.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "handoff"]
