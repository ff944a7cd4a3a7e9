"""Floods, garbage and slow peers at the scripts' socket: they cost the sender only."""

from __future__ import annotations

import gc
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.handoff_desk import Counter, counter
from support.raw_script import RawScript, row, session_name
from support.waiting import until

from carbon_exporter.publish import handoff_wire as wire
from carbon_exporter.publish.handoff_limits import HandoffLimits

pytestmark = pytest.mark.usefixtures("nothing_left_behind")
MANY = HandoffLimits(calls_per_second=1e6, calls_at_once=1e6)
SESSION = "0123456789abcdef" * 2
GOOD = (
    wire.encode(wire.Hello(wire.VERSION, SESSION, "train", "run", "0")),
    wire.encode(wire.Spans(1, (row("epoch", 1.0, count=1, loss=0.5),))),
    wire.encode(wire.Watch(on=True)),
)


@pytest.fixture
def path() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield Path(folder) / "sdk.sock"


def is_well(here: Counter, path: Path) -> None:
    """A script that behaves is welcomed and heard as ever."""
    with RawScript(path) as script:
        script.wait_for(wire.Welcome)
        script.tell(row("well", 1.0))
        until(
            lambda: any(
                peer.has_told for peer in here.server.peers if peer.hello and peer.hello.session == script.session
            )
        )


def say(path: Path, *chunks: bytes) -> list[bytes]:
    """Say it, whether it is taken or not; returns the lines that came back."""
    heard = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        try:
            client.connect(str(path))
            for chunk in chunks:
                client.sendall(chunk)
            client.shutdown(socket.SHUT_WR)
            while chunk := client.recv(65536):
                heard += chunk
        except OSError:
            return heard.split(b"\n")
    return heard.split(b"\n")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"garbage\n", "malformed"),
        (b"\n", "malformed"),
        (b"\xff\xfe\n", "malformed"),
        (b"[" * 60000 + b"\n", "malformed"),
        (GOOD[1], "malformed"),
        (GOOD[0] + GOOD[0], "malformed"),
        (b"x" * (wire.LONGEST_LINE + 1), "too_long"),
        (b"x" * (wire.LONGEST_LINE + 1) + b"\n", "too_long"),
        (GOOD[0] + GOOD[2] * 300, "flood"),
        (GOOD[0].replace(b'"version":1', b'"version":2'), "version"),
        (GOOD[0].replace(SESSION.encode(), b"short"), "malformed"),
        (GOOD[0] + GOOD[1].replace(b'"number":1', b'"number":-1'), "malformed"),
        (GOOD[0] + GOOD[1].replace(b"1.0", b"-1.0"), "malformed"),
        (GOOD[0] + GOOD[1].replace(b"1.0", b"NaN"), "malformed"),
        (GOOD[0] + GOOD[1].replace(b"1.0", b"1e999"), "malformed"),
        (GOOD[0] + GOOD[1].replace(b"epoch", b"\\ud800"), "malformed"),
    ],
)
def test_what_is_not_understood_is_refused_and_counted(path: Path, said: bytes, reason: str) -> None:
    with counter(path) as here:
        last = say(path, said)[-2:]
        assert b'"type":"refused"' in last[0]
        assert {name for name, count in here.server.refused.items() if count} == {reason}
        is_well(here, path)


def test_who_says_no_hello_in_time_is_sent_away(path: Path) -> None:
    with counter(path, limits=HandoffLimits(hello_seconds=0.3)) as here, RawScript(path, hello=False) as script:
        script.socket.sendall(GOOD[0][:-2])
        assert "no hello" in script.refusal().reason
        assert here.server.refused["deadline"] == 1


def test_too_many_different_spans_are_refused(path: Path) -> None:
    with counter(path) as here, RawScript(path) as script:
        for batch in range(6):
            script.tell(*(row(f"{batch}-{number}", 1.0) for number in range(64)))
        assert "different spans" in script.refusal().reason
        assert here.server.refused["spans"] == 1


def test_a_thousand_connections_leave_room_for_others_and_nothing_behind(path: Path) -> None:
    limits = HandoffLimits(peers=64, per_user=32, per_root=32)
    with counter(path, limits=limits) as here:
        before = open_files()
        clients = []
        for _ in range(1000):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.connect(str(path))
            clients.append(client)
        until(lambda: here.server.refused["peers"] + here.server.refused["calls"] == 968)
        until(lambda: here.server.connections == 32)
        for client in clients:
            client.close()
        until(lambda: here.server.connections == 0)
        until(lambda: open_files() <= before)
        is_well(here, path)


def test_who_connects_again_and_again_is_held_up(path: Path) -> None:
    with counter(path, limits=HandoffLimits(calls_per_second=0.01, calls_at_once=1.0)) as here:
        for _ in range(20):
            say(path, GOOD[0])
        assert here.server.refused["calls"] >= 11


def test_who_does_not_read_loses_news_first_and_then_its_connection(path: Path) -> None:
    limits = HandoffLimits(lag_seconds=1.0)
    with counter(path, limits=limits, period=0.001) as here:
        rows = tuple(wire.SliceRow(f"gpu{number}", 1.0, 1.1, 30.0, 0.004) for number in range(300))
        here.lines = (wire.encode(wire.Energy(rows)),)
        with RawScript(path) as slow, RawScript(path) as brisk:
            slow.wait_for(wire.Welcome)
            slow.send(wire.Watch(on=True))
            brisk.wait_for(wire.Welcome)
            until(lambda: here.server.refused["slow"] == 1, 20)
            is_well(here, path)
            brisk.tell(row("here", 1.0))
            until(lambda: [one.hello.session for one in here.server.peers if one.hello] == [brisk.session])


def test_who_does_not_read_what_it_is_owed_is_cut_off(path: Path) -> None:
    with counter(path) as here, RawScript(path) as slow:
        slow.wait_for(wire.Welcome)
        (peer,) = here.server.peers
        line = wire.encode(wire.Refused("x" * 60000, ""))
        for _ in range(40):
            here.server.say(peer, line)
        until(lambda: here.server.refused["slow"] == 1, 20)
        until(lambda: here.server.connections == 0)


def test_bytes_that_drip_in_are_read_as_they_come(path: Path) -> None:
    with counter(path) as here, RawScript(path, hello=False) as script:
        for at in range(len(GOOD[0])):
            script.socket.sendall(GOOD[0][at : at + 1])
        script.wait_for(wire.Welcome)
        assert here.server.refused["malformed"] == 0


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Good lines with some bytes changed, cut or doubled."""
    text = bytearray(b"".join(draw(st.lists(st.sampled_from(GOOD), min_size=1, max_size=6))))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(text)))
        what = draw(st.sampled_from(["insert", "delete", "change", "double"]))
        if what == "insert":
            text[at:at] = draw(st.binary(max_size=6))
        elif what == "delete":
            del text[at : at + draw(st.integers(1, 20))]
        elif what == "double":
            text[at:at] = text[at : at + 30]
        else:
            text[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
    return bytes(text)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200) | mutated(), max_size=4))
def test_no_bytes_break_it(chunks: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sdk.sock"
        with counter(path, limits=MANY) as here:
            say(path, *chunks)
            is_well(here, path)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_minutes_of_garbage_make_it_neither_crash_nor_grow(path: Path) -> None:
    chance = random.Random(5)  # noqa: S311 - bytes to throw, not secrets

    def throw(count: int) -> None:
        for _ in range(count):
            text = bytearray(b"".join(chance.choices(GOOD, k=chance.randrange(1, 12))))
            text = text.replace(SESSION.encode(), session_name().encode())
            for _ in range(chance.randrange(6)):
                text[chance.randrange(len(text))] = chance.randrange(256)
            say(path, bytes(text[: chance.randrange(1, len(text) + 1)]))

    def throw_for(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            throw(500)
            here.forget()
            gc.collect()
        until(lambda: here.server.connections == 0)

    with counter(path, limits=MANY) as here:
        throw_for(40)  # until the heap has the size that so many connections in a second want
        memory, files = resident(), open_files()
        throw_for(200)
        assert resident() - memory < 8 * 2**20
        assert open_files() <= files
        is_well(here, path)


def open_files() -> int:
    """Of this process."""
    return len(tuple(Path("/proc/self/fd").iterdir()))


def resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
