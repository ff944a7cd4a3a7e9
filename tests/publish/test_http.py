"""The server against real sockets: well-behaved clients, slow ones, rude ones, and too many of them."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.clients import BIG, BRISK, SECRET, ask, connected, echo, is_well, rest, say, serving, until

from carbon_exporter.publish.http import Address, Limits, Request, Response

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def test_get_is_answered_with_the_handlers_response_and_its_length() -> None:
    with serving() as server:
        head, _, body = say(server, ask("/a?b=c", "GET", "Connection: close")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert {b"Content-Length: 11", b"X-Test: yes", b"Content-Type: text/plain; charset=utf-8"} <= set(
        head.split(b"\r\n")
    )
    assert body == b"GET /a?b=c\n"


def test_head_has_the_headers_of_get_and_no_body() -> None:
    with serving() as server:
        answer = say(server, ask("/", "HEAD", "Connection: close"))
    assert answer.endswith(b"\r\n\r\n")
    assert b"\r\nContent-Length: 7\r\n" in answer


def test_a_connection_is_kept_alive_for_many_requests() -> None:
    with serving() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.address.port, timeout=5)
        for n in range(50):
            connection.request(("GET", "HEAD")[n % 2], f"/{n}")
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"" if n % 2 else f"GET /{n}\n".encode())
        assert server.connections == 1
        connection.close()
        until(lambda: server.connections == 0)


def test_http_1_0_is_answered_and_closed() -> None:
    with serving() as server:
        assert say(server, ask("/", version="1.0")).endswith(b"\r\n\r\nGET /\n")


def test_pipelined_requests_are_answered_in_order() -> None:
    with serving() as server:
        requests = [ask(f"/{n}") for n in range(200)]
        answer = say(server, b"".join([*requests, ask("/last", "GET", "Connection: close")]))
    bodies = [line for line in answer.decode().splitlines() if line.startswith("GET ")]
    assert bodies == [*(f"GET /{n}" for n in range(200)), "GET /last"]


def test_a_request_in_many_small_pieces_is_one_request() -> None:
    with serving() as server:
        pieces = (bytes([byte]) for byte in ask("/pieces", "GET", "Connection: close"))
        assert say(server, *pieces).endswith(b"GET /pieces\n")


def test_a_client_that_has_said_all_and_shut_its_side_gets_its_answers() -> None:
    with serving() as server:
        assert say(server, ask("/1"), ask("/2"), shut=True).count(b"HTTP/1.1 200 ") == 2
        until(lambda: server.connections == 0)
        assert sum(server.refused.values()) == 0


def test_a_body_is_taken_and_ignored_however_it_is_framed() -> None:
    chunked = ask("/a", "POST", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n3;x=y\r\n...\r\n0\r\nTrailer: t\r\n\r\n"
    sized = ask("/b", "PUT", "Content-Length: 5", body="hello")
    with serving() as server:
        answer = say(server, chunked, sized, ask("/c", "GET", "Connection: close"))
    assert [line for line in answer.splitlines() if b" /" in line] == [b"POST /a", b"PUT /b", b"GET /c"]


def test_an_upgrade_that_is_not_wanted_is_ignored() -> None:
    with serving() as server:
        wish = ask("/", "GET", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ")
        assert say(server, wish, ask("/next", "GET", "Connection: close")).count(b"HTTP/1.1 200 ") == 2


def test_a_repeated_header_counts_whole() -> None:
    with serving() as server:
        answer = say(server, ask("/headers", "GET", "Accept: a;q=0.5", "Accept: b", "Connection: close"))
    assert b"\naccept: a;q=0.5, b\n" in answer


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), 400),
        (b"\r\n\r\n\x00\xff\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (ask("/", "GET", "X: " + "y" * 300_000), 431),
        (b"GET /" + b"a" * 300_000, 431),
        (ask("/", "POST", "Content-Length: 400000", body="z" * 400_000), 413),
        (ask("/", "POST", "Content-Length: 5", "Expect: 100-continue"), 417),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else ascii(value[:40]),
)
def test_what_cannot_be_understood_is_refused_counted_and_closed(words: bytes, status: int) -> None:
    with serving() as server:
        with connected(server) as client:
            client.sendall(words)
            answer = client.recv(65536)
            client.shutdown(socket.SHUT_WR)
            answer += rest(client)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"<reset>" not in answer
        assert b"\r\nConnection: close\r\n" in answer
        assert server.refused == {"connections": 0, "deadline": 0, str(status): 1}
        assert is_well(server)


@pytest.mark.parametrize(
    ("framing", "body", "status"),
    [("Content-Length: 70000", "z" * 70_000, 413), ("Transfer-Encoding: chunked", "Z\r\n", 400)],
)
def test_a_head_request_that_is_refused_has_no_body_either(framing: str, body: str, status: int) -> None:
    with serving() as server:
        answer = say(server, ask("/", "HEAD", framing, body=body), shut=True)
        assert server.refused[str(status)] == 1
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.endswith(b"\r\n\r\n")


def test_a_client_that_goes_on_talking_after_a_refusal_is_closed_all_the_same() -> None:
    with serving() as server, connected(server) as client:
        client.sendall(b"nonsense\r\n\r\n")
        until(lambda: server.refused.get("400") == 1)
        began = time.monotonic()
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):  # noqa: PT012 - it breaks at some byte
            while time.monotonic() < began + 5:
                client.sendall(b"x" * 1024)
                time.sleep(0.01)
        assert 0.5 < time.monotonic() - began < 4
        assert server.connections == 0


CHUNKED = "Transfer-Encoding: chunked"
WORDS = [ask(), ask("/", "HEAD"), ask("/", "POST", CHUNKED), ask("/", "HEAD", CHUNKED)]
WORDS += [b"0\r\n\r\n", b"\r\n", b"GET ", b"HTTP/1.1", b": "]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.binary(max_size=40) | st.sampled_from(WORDS), max_size=5))
def test_no_bytes_make_the_server_fail(caplog: pytest.LogCaptureFixture, words: list[bytes]) -> None:
    with serving() as server:
        answer = say(server, b"".join(words), shut=True)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.1 5"))
        assert b"HTTP/1.1 500" not in answer
        assert is_well(server)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_request_that_dribbles_in_is_cut_off_at_its_deadline_and_counted() -> None:
    with serving(BRISK) as server, connected(server) as client:
        began = time.monotonic()
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):  # noqa: PT012 - it breaks at some byte
            for byte in ask("/", "GET", "X: " + "y" * 400):
                client.sendall(bytes([byte]))
                time.sleep(0.02)
        assert 0.3 < time.monotonic() - began < 2
        until(lambda: server.connections == 0)
        assert server.refused == {"connections": 0, "deadline": 1}


def test_a_client_that_is_silent_at_first_has_no_more_time_for_its_request() -> None:
    with serving(Limits(request_seconds=1.5)) as server, connected(server) as client:
        began = time.monotonic()
        time.sleep(1.2)
        client.sendall(b"GET / HT")
        assert rest(client) in {b"", b"<reset>"}
        assert 1.4 < time.monotonic() - began < 2.2
        assert server.refused == {"connections": 0, "deadline": 1}


@pytest.mark.parametrize("half", [b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"])
def test_half_a_request_is_counted_whether_the_client_waits_or_leaves(half: bytes) -> None:
    with serving(BRISK) as server:
        assert say(server, half) == b""
        assert server.refused == {"connections": 0, "deadline": 1}
        assert say(server, half, shut=True).startswith(b"HTTP/1.1 400 ")
        assert server.refused == {"connections": 0, "deadline": 1, "400": 1}


def test_a_connection_that_lies_idle_is_closed_and_not_counted_as_refused() -> None:
    with serving(BRISK) as server:
        assert say(server) == b""
        assert say(server, ask()).endswith(b"GET /\n")
        until(lambda: server.connections == 0)
        assert server.refused == {"connections": 0, "deadline": 0}


@pytest.mark.parametrize("closing", [("Connection: close",), ()])
def test_a_slow_reader_gets_the_whole_of_a_big_response(closing: tuple[str, ...]) -> None:
    with serving(Limits(idle_seconds=0.2)) as server, connected(server, receive_buffer=4096) as client:
        client.sendall(ask("/big", "GET", *closing))
        chunks = []
        for _ in range(20):
            chunks.append(client.recv(4096))
            time.sleep(0.02)
        assert (b"".join(chunks) + rest(client)).partition(b"\r\n\r\n")[2] == BIG


@pytest.mark.parametrize("size", [30_000, 220_000, 250_000, 280_000, 3_000_000])
def test_no_response_loses_its_end_when_the_reader_is_late(size: int, tmp_path: Path) -> None:
    """The sizes lie around what the kernel takes at once of a Unix socket, 208 KiB, and asyncio's 64 KiB beyond."""
    page, address = BIG[:size], Address(path=str(tmp_path / "exporter.sock"))
    with serving(handler=lambda _: Response(200, page), address=address) as server, connected(server) as client:
        client.sendall(ask("/", "GET", "Connection: close"))
        time.sleep(0.15)
        assert rest(client).partition(b"\r\n\r\n")[2] == page


def test_a_client_that_never_reads_is_cut_off_at_the_write_deadline_and_counted() -> None:
    with serving(BRISK) as server, connected(server, receive_buffer=4096) as client:
        began = time.monotonic()
        client.sendall(ask("/big") * 3)
        until(lambda: server.refused["deadline"] == 1)
        assert 0.4 < time.monotonic() - began < 3
        until(lambda: server.connections == 0)
        assert len(rest(client)) < len(BIG)
        assert is_well(server)


def test_slow_clients_do_not_keep_a_quick_one_waiting() -> None:
    with serving() as server, ExitStack() as stack:
        for _ in range(30):
            slow = stack.enter_context(connected(server, receive_buffer=4096))
            slow.sendall(ask("/big"))
        began = time.monotonic()
        assert is_well(server)
        assert time.monotonic() - began < 2


def test_beyond_the_limit_the_connection_idle_for_longest_makes_room_and_is_counted() -> None:
    with serving(Limits(connections=3)) as server:
        with ExitStack() as stack:
            clients = []
            for n in range(3):
                clients.append(stack.enter_context(connected(server)))
                clients[n].sendall(ask())
                assert clients[n].recv(65536).endswith(b"GET /\n")
            clients[0].sendall(ask("/still"))
            assert clients[0].recv(65536).endswith(b"GET /still\n")
            assert is_well(server)
            assert server.refused == {"connections": 1, "deadline": 0}
            assert rest(clients[1]) in {b"", b"<reset>"}
            for kept in (clients[0], clients[2]):
                kept.sendall(ask("/kept"))
                assert kept.recv(65536).endswith(b"GET /kept\n")
        until(lambda: server.connections == 0)
        assert is_well(server)


def test_a_client_with_many_connections_loses_its_own_and_not_the_one_of_another_address() -> None:
    with serving(Limits(connections=5)) as server, ExitStack() as stack:
        scraper = stack.enter_context(connected(server))
        scraper.sendall(ask())
        assert scraper.recv(65536).endswith(b"GET /\n")
        for _ in range(40):
            crowd = socket.create_connection(("127.0.0.1", server.address.port), 5, source_address=("127.0.0.2", 0))
            stack.enter_context(crowd)
        until(lambda: server.refused["connections"] == 36)
        scraper.sendall(ask("/still"))
        assert scraper.recv(65536).endswith(b"GET /still\n")


def test_silent_connections_close_one_another_and_not_one_that_was_answered_before() -> None:
    with serving(Limits(connections=4)) as server, ExitStack() as stack:
        scraper = stack.enter_context(connected(server))
        scraper.sendall(ask())
        assert scraper.recv(65536).endswith(b"GET /\n")
        for _ in range(40):
            stack.enter_context(connected(server))
        until(lambda: server.refused["connections"] == 37)
        scraper.sendall(ask("/still"))
        assert scraper.recv(65536).endswith(b"GET /still\n")


def test_who_has_to_go_while_it_begins_to_speak_is_closed_and_not_served_on() -> None:
    """A handler holds up the server's loop, which then finds the first byte and the newcomer in one turn."""
    held, go = threading.Event(), threading.Event()

    def holding(request: Request) -> Response:
        if request.target == "/hold":
            held.set()
            go.wait(5)
        return echo(request)

    limits = Limits(connections=2)
    with serving(limits, holding) as server, connected(server) as busy, connected(server) as silent:
        until(lambda: server.connections == 2)
        busy.sendall(ask("/hold"))
        held.wait(5)
        silent.sendall(ask())
        with connected(server) as newcomer:
            go.set()
            newcomer.sendall(ask("/new", "GET", "Connection: close"))
            assert rest(newcomer).endswith(b"GET /new\n")
        assert rest(silent) in {b"", b"<reset>"}
        assert server.refused == {"connections": 1, "deadline": 0}
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 1


def test_when_all_are_taking_a_response_a_newcomer_is_refused_until_they_are_stuck() -> None:
    with serving(Limits(connections=3)) as server, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connected(server, receive_buffer=4096)).sendall(ask("/big"))
        until(lambda: server.connections == 3)
        time.sleep(0.2)
        assert say(server, ask()) in {b"", b"<reset>"}
        time.sleep(1.1)
        assert is_well(server)
        assert server.refused == {"connections": 2, "deadline": 0}


def test_clients_that_vanish_in_mid_answer_leave_nothing_behind() -> None:
    with serving() as server:
        for _ in range(20):
            with connected(server, receive_buffer=4096) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                client.sendall(ask("/big"))
                client.recv(10)
        until(lambda: server.connections == 0)
        assert sum(server.refused.values()) == 0


def test_a_handler_that_raises_is_a_500_without_its_reason_and_the_server_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving() as server:
        answer = say(server, ask("/raise"), ask("/after", "GET", "Connection: close"))
        assert is_well(server)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"GET /after\n" in answer
    assert SECRET.encode() not in answer
    assert b"Traceback" not in answer
    assert SECRET in caplog.text


def test_a_response_that_is_no_http_closes_the_connection_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    odd = Response(200, b"", headers=(("Bad", f"line\n{SECRET}"),))
    with serving(handler=lambda _: odd) as server:
        assert say(server, ask()) == b""
        until(lambda: server.connections == 0)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
