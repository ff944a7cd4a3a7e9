"""A server that fails while pods are followed: garbage, floods, silence, refusals, absence."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.apiserver import NODE, ApiServer, Handler, make_pod, refusal
from support.pod_watching import BRISK, address_of, eventually, following, knows, settled, well

from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.api_server import ApiAddress
from carbon_exporter.jobs.pod_watch import LONGEST_LINE, MOST_PAGE_BYTES, PodWatch


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


@pytest.fixture
def address(server: ApiServer, tmp_path: Path) -> ApiAddress:
    return address_of(server, tmp_path)


@pytest.fixture
def watch(server: ApiServer, address: ApiAddress) -> Iterator[PodWatch]:
    with settled(server, address) as running:
        yield running


@pytest.mark.parametrize(
    "garbage", [b"nonsense\n", b"\xff\xfe\n", b"{}\n", b'{"type":7,"object":{}}\n', b"[" * 5000 + b"\n", b"<html>\n\n"]
)
def test_garbage_in_a_watch_is_survived(watch: PodWatch, server: ApiServer, garbage: bytes) -> None:
    server.tell(garbage)
    eventually(lambda: len(server.watches) == 2)
    eventually(lambda: len(server.watchers) == 1)
    server.put(make_pod("after"))
    knows(watch, "after")
    assert len(server.lists) == 1
    assert well(watch)


def test_a_server_that_tells_nothing_but_garbage_is_seen_and_asked_for_a_new_list(
    watch: PodWatch, server: ApiServer
) -> None:
    server.answers = [lambda handler: handler.stream(b"nonsense\n")] * 3
    server.hang_up()
    eventually(lambda: not well(watch), "trouble")
    assert "no event" in watch.health().reason
    assert watch.by_name("default", "first") is not None
    eventually(lambda: len(server.lists) == 2 and len(server.watchers) == 1)
    server.bookmark()
    eventually(lambda: well(watch), "recovery")


def test_an_error_in_a_watch_is_survived(watch: PodWatch, server: ApiServer) -> None:
    server.tell(b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd"}}\n')
    eventually(lambda: len(server.watches) == 2 and len(server.watchers) == 1)
    server.put(make_pod("after"))
    knows(watch, "after")
    assert len(server.lists) == 1


def test_a_line_that_is_too_long_is_left_out_and_told(watch: PodWatch, server: ApiServer) -> None:
    for _ in range(LONGEST_LINE // (1 << 20) + 2):
        server.tell(b"x" * (1 << 20))
    server.tell(b"\n")
    server.put(make_pod("after"))
    knows(watch, "after")
    assert len(server.watches) == 1
    assert "1 pods, or changes of them, could not be read" in watch.health().reason


@pytest.mark.usefixtures("watch")
def test_a_line_without_an_end_ends_the_watch(server: ApiServer) -> None:
    piece = b"x" * (1 << 20)
    for _ in range(MOST_PAGE_BYTES // len(piece) + 1):
        server.tell(piece)
    eventually(lambda: len(server.watches) == 2)


def test_a_pod_that_cannot_be_read_costs_its_own_name_only(
    watch: PodWatch, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    odd = make_pod("odd")
    odd["metadata"]["labels"] = ["not", "a", "map"]
    server.put(odd)
    server.put(make_pod("after"))
    knows(watch, "after")
    assert watch.by_name("default", "odd") is None
    assert len(server.watches) == 1
    assert not well(watch)
    assert sum("cannot be read" in record.message for record in caplog.records) == 1


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(server: ApiServer, address: ApiAddress) -> None:
    server.answers = [refusal(429, {"Retry-After": "1"})]
    began = time.monotonic()
    with following(address) as watch:
        eventually(lambda: watch.synced)
        assert time.monotonic() - began >= 1.0
    assert len(server.lists) == 2


@pytest.mark.parametrize("retry_after", ["soon", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "1" * 500])
def test_an_odd_wish_of_a_busy_server_is_passed_over(server: ApiServer, address: ApiAddress, retry_after: str) -> None:
    server.answers = [refusal(429, {"Retry-After": retry_after})]
    with following(address) as watch:
        eventually(lambda: watch.synced)


@pytest.mark.parametrize("status", [301, 400, 404, 500, 503])
def test_any_other_answer_is_retried(server: ApiServer, address: ApiAddress, status: int) -> None:
    elsewhere = {"Location": f"http://127.0.0.1:{server.port}/elsewhere"}
    server.answers = [refusal(status, elsewhere)] * 2
    with following(address) as watch:
        eventually(lambda: f"HTTP {status}" in watch.health().reason)
        eventually(lambda: watch.synced)
    assert len(server.lists) == 3


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b'{"metadata":{"resourceVersion":"1"},"items":[{]}', b"[" * 9999]
)
def test_a_list_that_is_none_is_asked_for_again(server: ApiServer, address: ApiAddress, body: bytes) -> None:
    server.answers = [lambda handler: handler.send(200, body)] * 2
    with following(address) as watch:
        eventually(lambda: "the list of pods" in watch.health().reason)
        eventually(lambda: watch.synced and well(watch))


def test_a_list_that_is_too_large_is_not_kept(server: ApiServer, address: ApiAddress) -> None:
    server.answers = [lambda handler: handler.stream(*[b" " * (1 << 20)] * (MOST_PAGE_BYTES // (1 << 20) + 1))]
    with following(address) as watch:
        eventually(lambda: "more than 64 MiB" in watch.health().reason)
        eventually(lambda: watch.synced)


def test_a_server_that_drips_or_says_nothing_is_given_up(server: ApiServer, address: ApiAddress) -> None:
    silence = threading.Event()

    def say_nothing(_: Handler) -> None:
        silence.wait(20.0)

    server.answers = [lambda handler: handler.drip(20.0), say_nothing]
    with following(address, replace(BRISK, answer=0.3, page=0.5)) as watch:
        eventually(lambda: "does not answer in time" in watch.health().reason)
        eventually(lambda: watch.synced)
    silence.set()
    assert len(server.lists) == 3


def test_a_watch_that_the_server_forgets_to_end_is_ended_here(server: ApiServer, address: ApiAddress) -> None:
    def forget(handler: Handler) -> None:
        handler._begin()
        time.sleep(3)

    server.answers = [lambda handler: handler._list(server.lists[-1]), forget]
    with following(address, replace(BRISK, watch=0.3, watch_slack=0.2)) as watch:
        eventually(lambda: len(server.watches) >= 2)
        assert well(watch)
    assert len(server.lists) == 1


def test_a_server_that_ends_each_watch_at_once_is_not_hammered(server: ApiServer, address: ApiAddress) -> None:
    server.watch_seconds = 0.0
    with following(address, replace(BRISK, first_pause=0.1, longest_pause=0.4)) as watch:
        eventually(lambda: "ends each watch at once" in watch.health().reason)
        asked = len(server.watches)
        time.sleep(1.0)
        assert len(server.watches) - asked <= 4
    assert len(server.lists) == 1


def test_connections_that_are_cut_now_and_then_are_no_trouble(
    watch: PodWatch, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    for round_number in range(4):
        time.sleep(BRISK.steady * 1.5)
        server.hang_up()
        eventually(lambda: len(server.watches) == round_number + 2)  # noqa: B023 - within the round
        eventually(lambda: len(server.watchers) == 1)
        assert well(watch)
    assert not caplog.records
    assert len(server.lists) == 1


def test_connections_that_are_cut_at_once_are_trouble(watch: PodWatch, server: ApiServer) -> None:
    server.answers = [lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)] * 3
    server.hang_up()
    eventually(lambda: "breaks off" in watch.health().reason, "trouble")
    eventually(lambda: len(server.watchers) == 1 and well(watch))
    assert len(server.lists) == 1


def test_a_server_that_is_away_is_asked_again_and_nothing_is_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ApiServer() as server:
        server.put(make_pod("first"))
        with following(address_of(server, tmp_path)) as watch:
            eventually(lambda: len(server.watchers) == 1)
            server.stop()
            eventually(lambda: "cannot be reached" in watch.health().reason)
            assert watch.by_name("default", "first") is not None
            time.sleep(0.5)
            assert len(caplog.messages) == len(set(caplog.messages)) <= 2
            server.start()
            server.put(make_pod("second"))
            knows(watch, "second")
            assert well(watch)
            assert len(server.lists) == 1


def test_no_pause_is_longer_than_half_a_minute(server: ApiServer, address: ApiAddress) -> None:
    watch = PodWatch(address, NODE)
    pauses = [watch._failed(JobResolutionError("no network")) for _ in range(2000)]
    assert 0.5 <= pauses[0] <= 1.0
    assert 29.0 < max(pauses) <= 30.0
    assert len(set(pauses)) > 1000
    assert not server.lists
