"""Names from container engines, over a real Unix socket."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.engine import Engine, listed
from support.other_user import needs_root, public_directory, run_as_nobody

from carbon_exporter.jobs.base import RESERVED, Job
from carbon_exporter.jobs.engines import (
    MOST_LABELS,
    Engines,
    EngineTrouble,
    default_sockets,
    parse_answer,
    parse_containers,
)
from carbon_exporter.jobs.workload import Container

ID, OTHER, THIRD = "4f" * 32, "a0" * 32, "b1" * 32
REQUEST = "GET /containers/json?all=0 HTTP/1.0"


@contextmanager
def asking(
    *sockets: Path,
    period: float = 60.0,
    again: float = 0.02,
    patience: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Engines]:
    paths = [str(path) for path in sockets]
    with closing(Engines(paths, clock, period=period, again=again, patience=patience)) as engines:
        engines.start()
        yield engines


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not what():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


def found(engines: Engines, container_id: str) -> Container:
    wait_for(lambda: engines.by_id(container_id))
    container = engines.by_id(container_id)
    assert container is not None
    return container


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.sock"


@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_a_container_has_the_name_and_labels_that_its_engine_gives_it(path: Path, kind: str) -> None:
    with Engine(path, kind, [listed(ID, "trainer", team="vision")]) as engine, asking(path) as engines:
        container = found(engines, ID)
        assert (container.id, container.name, container.engine) == (ID, "trainer", kind)
        assert dict(container.labels) == {"team": "vision"}
        assert engines.health().success
        assert not engines.health().reason
        assert set(engine.requests) == {REQUEST}


def test_two_engines_are_known_together(tmp_path: Path) -> None:
    first, second = tmp_path / "a.sock", tmp_path / "b.sock"
    docker, podman = Engine(first, "docker", [listed(ID, "a")]), Engine(second, "podman", [listed(OTHER, "b")])
    with docker, podman, asking(first, tmp_path / "none.sock", second) as engines:
        assert (found(engines, ID).engine, found(engines, OTHER).engine) == ("docker", "podman")


def test_a_container_that_is_new_is_asked_for(path: Path) -> None:
    with Engine(path) as engine, asking(path) as engines:
        wait_for(lambda: engine.requests)
        before = engines.revision
        engine.containers.append(listed(ID, "late"))
        assert found(engines, ID).name == "late"
        assert engines.revision > before


def test_a_container_that_no_engine_knows_is_asked_for_a_few_times_only(path: Path) -> None:
    with Engine(path) as engine, asking(path) as engines:
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            assert engines.by_id(ID) is None
            time.sleep(0.005)
        assert len(engine.requests) <= 5


def test_an_engine_is_left_alone_between_two_questions(path: Path) -> None:
    with Engine(path) as engine, asking(path, again=30.0) as engines:
        wait_for(lambda: engine.requests)
        for _ in range(50):
            engines.by_id(ID)
            time.sleep(0.005)
        assert len(engine.requests) == 1


def test_an_engine_is_left_asleep_where_nobody_looks_anything_up(path: Path) -> None:
    with Engine(path) as engine, asking(path, period=0.05):
        wait_for(lambda: engine.requests)
        time.sleep(0.5)
        assert len(engine.requests) == 1


def test_a_container_that_is_renamed_is_known_by_its_new_name_in_a_while(path: Path) -> None:
    with Engine(path, containers=[listed(ID, "old")]) as engine, asking(path, period=0.1) as engines:
        assert found(engines, ID).name == "old"
        engine.containers[:] = [listed(ID, "new")]
        wait_for(lambda: found(engines, ID).name == "new")


def test_a_container_that_has_ended_is_known_for_ten_minutes(path: Path) -> None:
    now = [0.0]
    watching = asking(path, period=0.05, clock=lambda: now[0])
    with Engine(path, containers=[listed(ID, "brief")]) as engine, watching as engines:
        found(engines, ID)
        engine.containers.clear()
        asked = len(engine.requests)
        wait_for(lambda: engines.by_id(ID) and len(engine.requests) > asked + 2)
        now[0] = 601.0
        wait_for(lambda: engines.by_id(ID) is None)


def test_no_engine_at_all_is_normal(tmp_path: Path) -> None:
    left = tmp_path / "left.sock"
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(left))  # and nobody listens
    with asking(tmp_path / "none.sock", left) as engines:
        assert engines.by_id(ID) is None
        time.sleep(0.1)
        assert engines.health().success
        assert not engines.health().reason


@needs_root
def test_a_socket_that_may_not_be_used_is_told_and_is_no_failure() -> None:
    with public_directory() as directory, closing(socket.socket(socket.AF_UNIX)) as listener:
        path = directory / "engine.sock"
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o660)

        def check() -> None:
            with asking(path) as engines:
                wait_for(lambda: engines.health().reason)
                health = engines.health()
                assert health.success
                assert health.reason.startswith("names of containers are their ids")
                assert "root on this machine" in health.remedy

        run_as_nobody(check)


def test_trouble_is_told_and_logged_once_and_so_is_its_end(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="carbon_exporter")
    with Engine(path, containers=[listed(ID, "x")]) as engine, asking(path, period=0.05, again=0.01) as engines:
        found(engines, ID)
        engine.answer = lambda handler: handler.send(500, b"")
        asked = len(engine.requests)
        wait_for(lambda: engines.by_id(OTHER) is None and len(engine.requests) > asked + 3)
        assert not engines.health().success
        assert engines.health().reason == f"{path}: it answers with status 500"
        assert found(engines, ID).name == "x"
        engine.answer = None
        wait_for(lambda: engines.by_id(OTHER) is None and engines.health().success)
    told = [record.message for record in caplog.records]
    assert len([line for line in told if "status 500" in line]) == 1
    assert len([line for line in told if "answers again" in line]) == 1


GARBAGE = [
    b"",
    b"\x00\xff",
    b"HTTP/1.1 200 OK\r\n\r\nnot json",
    b"HTTP/1.1 200 OK\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[]",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500,
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_a_failure_and_nothing_else(path: Path, garbage: bytes) -> None:
    with Engine(path, answer=lambda handler: handler.wfile.write(garbage)), asking(path) as engines:
        wait_for(lambda: not engines.health().success)
        assert engines.by_id(ID) is None
        assert str(path) in engines.health().reason


def test_an_answer_without_end_is_cut(path: Path) -> None:
    def endless(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            handler.wfile.write(b" " * 65536)

    with Engine(path, answer=endless), asking(path) as engines:
        wait_for(lambda: "longer than 16 MiB" in engines.health().reason)


def test_an_answer_that_comes_in_drops_ends_at_its_deadline(path: Path) -> None:
    stop = threading.Event()

    def dripping(handler: Any) -> None:
        while not stop.wait(0.02):
            handler.wfile.write(b"H")

    with Engine(path, answer=dripping), asking(path, patience=0.3) as engines:
        wait_for(lambda: "no answer in time" in engines.health().reason)
        stop.set()


def test_close_does_not_wait_for_an_engine_that_hangs(path: Path) -> None:
    stop = threading.Event()
    with Engine(path, answer=lambda _: stop.wait(20)) as engine:
        engines = Engines([str(path)])
        engines.start()
        wait_for(lambda: engine.requests)
        began = time.monotonic()
        engines.close()
        assert time.monotonic() - began < 3
        assert not [thread for thread in threading.enumerate() if thread.name == "container-engines"]
        stop.set()


def test_sockets_are_looked_for_where_engines_have_them() -> None:
    assert default_sockets({}) == ("/var/run/docker.sock", "/run/podman/podman.sock")
    assert default_sockets({"XDG_RUNTIME_DIR": "/run/user/7"})[2] == "/run/user/7/podman/podman.sock"
    assert default_sockets({"XDG_RUNTIME_DIR": "run"}) == default_sockets({})


def test_entries_that_are_no_containers_are_left_out() -> None:
    good = listed(ID, "good")
    bad = [
        None,
        7,
        {},
        {"Id": 7, "Names": ["/x"]},
        {"Id": "short", "Names": ["/x"]},
        {"Id": OTHER, "Names": []},
        {"Id": OTHER, "Names": None},
        {"Id": OTHER, "Names": ["/"]},
        {"Id": OTHER, "Names": ["/x"], "Labels": {"a": 7}},
    ]
    containers = parse_containers(json.dumps([*bad, good]).encode(), "docker")
    assert [container.name for container in containers] == ["good"]


def test_a_link_is_not_a_name() -> None:
    entry = {"Id": ID, "Names": ["/web/db", "/db"], "Labels": None}
    assert [container.name for container in parse_containers(json.dumps([entry]).encode(), "docker")] == ["db"]


def test_a_name_never_passes_for_a_reserved_one_and_labels_are_bounded() -> None:
    labels = {f"key{number}": "v" * 1000 for number in range(1000)}
    (container,) = parse_containers(json.dumps([listed(ID, "_idle_", **labels)]).encode(), "docker")
    assert Job(container.name) not in RESERVED
    assert len(container.labels) == MOST_LABELS
    assert max(len(value) for value in container.labels.values()) == 512


@given(st.binary(max_size=400))
@example(b"HTTP/1.1 200 OK\r\n\r\n")
def test_any_answer_is_containers_or_trouble(content: bytes) -> None:
    for answer in (content, b"HTTP/1.0 200 OK\r\n\r\n" + content, b"HTTP/1.0 200 OK\r\n" + content):
        try:
            assert isinstance(parse_answer(answer), tuple)
        except EngineTrouble as trouble:
            assert str(trouble)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["Id", "Names", "Labels"]), inner),
    max_leaves=20,
)


@given(json_values)
def test_any_json_is_containers_or_trouble(value: object) -> None:
    try:
        containers = parse_containers(json.dumps(value).encode(), "docker")
    except EngineTrouble:
        assert not isinstance(value, list)
    else:
        assert isinstance(value, list)
        assert all(container.name and len(container.id) == 64 for container in containers)
