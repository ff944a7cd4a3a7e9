"""Whose a script's spans are: the exporter finds out by itself, and believes no script about another's."""

from __future__ import annotations

import time

import pytest
from support.other_user import as_nobody, needs_root
from support.raw_script import RawScript, row, session_name
from support.scripts import Room, process, room, span_joules
from support.tools import need
from support.waiting import until

from carbon_exporter.publish import handoff_wire as wire

__all__ = ["room"]
APART = ("--pid", "--fork", "--mount-proc", "--kill-child")


def unshare() -> tuple[str, ...]:
    """What to put before a command that gets a pid namespace of its own."""
    return (need("unshare"), *APART)


def test_what_a_process_was_started_for_wins_over_what_it_says(room: Room) -> None:
    with room.exporter() as exporter:
        with process(room.path, job="said", environ={"CARBON_JOB": "started-for"}) as answer:
            assert answer.startswith("/started-for ")
        until(lambda: span_joules(exporter, job_name="started-for") == pytest.approx(3.6e6))
        assert span_joules(exporter, job_name="said") is None


def test_a_child_without_a_mark_has_its_parents(room: Room) -> None:
    shell = ("sh", "-c", 'sleep 1; env -u CARBON_JOB "$@" & wait', "sh")
    with room.exporter(), process(room.path, environ={"CARBON_JOB": "parent"}, prefix=shell) as answer:
        assert answer.startswith("/parent ")


def test_what_it_says_counts_where_nothing_better_is_known(room: Room) -> None:
    with room.exporter(), process(room.path, job=" my\njob ") as answer:
        assert answer.startswith("/my?job ")


def test_another_process_cannot_go_on_with_a_session(room: Room) -> None:
    session = session_name()
    with room.exporter() as exporter, RawScript(room.path, session=session, job="mine") as script:
        script.tell(row("epoch", 1.0))
        script.wait_for(wire.Seen)
        with process(room.path, session=session, job="mine") as answer:
            assert answer.startswith("refused: this session is another process's")
        script.tell(row("epoch", 2.0))
        until(lambda: span_joules(exporter, job_name="mine") == pytest.approx(2.0))
        assert ("carbon_handoff_refused_total", frozenset({("reason", "session")})) in exporter.series()


def test_nor_after_the_exporter_was_killed(room: Room) -> None:
    session = session_name()
    with room.exporter() as exporter, RawScript(room.path, session=session) as script:
        script.tell(row("epoch", 1.0))
        script.wait_for(wire.Seen)
        exporter.kill()
    with room.exporter(), process(room.path, session=session) as answer:
        assert answer.startswith("refused")


def test_the_same_process_may_connect_again_and_its_old_connection_ends(room: Room) -> None:
    session = session_name()
    with room.exporter() as exporter, RawScript(room.path, session=session, job="again") as old:
        old.tell(row("epoch", 1.0))
        old.wait_for(wire.Welcome)
        with RawScript(room.path, session=session, job="again") as new:
            new.wait_for(wire.Welcome)
            assert "connected again" in old.refusal().reason
            new.tell(row("epoch", 3.0))
            until(lambda: span_joules(exporter, job_name="again") == pytest.approx(3.0))


@needs_root
def test_a_script_in_a_pid_namespace_below_is_known_all_the_same(room: Room) -> None:
    with room.exporter() as exporter:
        with process(room.path, environ={"CARBON_JOB": "inside"}, prefix=unshare()) as answer:
            assert answer.startswith("/inside ")
        until(lambda: span_joules(exporter, job_name="inside") == pytest.approx(3.6e6))


@needs_root
def test_an_exporter_that_cannot_see_whose_process_it_is_refuses_with_the_remedy(room: Room) -> None:
    with room.exporter(prefix=unshare()) as exporter:
        with process(room.path, job="train") as answer:
            assert answer.startswith("refused: the exporter cannot tell whose process this is")
            assert "hostPID: true" in answer
            assert "sdk.job-sockets" in answer
        assert span_joules(exporter, job_name="train") is None
        exporter.kill()  # unshare passes no SIGTERM on


@needs_root
def test_nor_does_it_trust_numbers_that_another_proc_would_read_otherwise(room: Room) -> None:
    bind = 'mkdir -p $0/proc && mount --bind /proc $0/proc && exec unshare --pid --fork --mount-proc --kill-child "$@"'
    prefix = (need("unshare"), "--mount", "sh", "-c", bind, str(room.folder))
    with room.exporter(f"--path.procfs={room.folder}/proc", prefix=prefix) as exporter:
        with process(room.path, job="train") as answer:
            assert answer.startswith("refused")
        exporter.kill()


@needs_root
def test_by_a_jobs_own_socket_all_are_that_job_though_nobody_sees_them(room: Room) -> None:
    own = room.folder / "jobs" / "research:eval"
    own.mkdir(parents=True)
    with room.exporter(f"--sdk.job-sockets={own.parent}", prefix=unshare()) as exporter:
        until((own / "sdk.sock").exists)
        with process(own / "sdk.sock", job="said") as answer:
            assert answer.startswith("research/eval False")
        until(lambda: span_joules(exporter, job_name="eval", job_namespace="research") == pytest.approx(3.6e6))
        exporter.kill()


@needs_root
def test_a_user_without_privileges_is_heard(room: Room) -> None:
    with room.exporter() as exporter:
        with process(room.path, job="nobody's", prefix=as_nobody()) as answer:
            assert answer.startswith("/nobody's ")
        until(lambda: span_joules(exporter, job_name="nobody's") == pytest.approx(3.6e6))


@needs_root
def test_an_exporter_without_privileges_hears_its_users_scripts(room: Room) -> None:
    room.folder.chmod(0o777)
    with room.exporter(prefix=as_nobody()), process(room.path, job="mine") as answer:
        assert answer.startswith("/mine ")


def test_the_answer_comes_at_once_and_not_with_the_next_sample(room: Room) -> None:
    with room.exporter(interval="60s"):
        time.sleep(2.5)
        began = time.monotonic()
        with RawScript(room.path) as script:
            script.wait_for(wire.Welcome)
            assert time.monotonic() - began < 5
