"""How an API server is reached: its address, the token, roles, certificates; and how its answer is cut into lines."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.apiserver import NODE, TOKEN, ApiServer, make_pod, refusal
from support.bmc import make_certificate
from support.pod_watching import address_of, eventually, following, knows, settled, well

from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.api_server import ApiAddress, Lines
from carbon_exporter.jobs.pod_watch import PodWatch


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


@pytest.fixture
def token_file(address: ApiAddress) -> Path:
    assert address.token_file is not None
    return address.token_file


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[ApiServer, Path]]:
    with ApiServer(certificate=(made := make_certificate(tmp_path))) as running:
        yield running, made.certificate


def test_a_replaced_token_is_read_anew(watch: PodWatch, server: ApiServer, token_file: Path) -> None:
    server.tokens = {"second-token"}
    server.hang_up()
    eventually(lambda: not well(watch), "trouble")
    assert "token" in watch.health().reason
    assert "service account" in watch.health().remedy
    fresh = token_file.with_name("fresh")
    fresh.write_text("second-token")
    fresh.replace(token_file)
    eventually(lambda: well(watch), "recovery")
    server.put(make_pod("after"))
    knows(watch, "after")
    assert set(server.refused_tokens) == {TOKEN}
    assert len(server.lists) == 1


def test_a_token_that_is_replaced_in_time_makes_no_trouble(
    watch: PodWatch, server: ApiServer, token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token_file.write_text("second-token")
    server.tokens = {"second-token"}
    server.hang_up()
    eventually(lambda: len(server.watches) == 2 and len(server.watchers) == 1)
    assert well(watch)
    assert not server.refused_tokens
    assert not caplog.records


def test_a_role_that_is_missing_is_told_with_its_remedy_once_and_its_coming_too(
    server: ApiServer, address: ApiAddress, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "carbon_exporter")
    server.answers = [refusal(403)] * 3
    with following(address) as watch:
        eventually(lambda: len(server.lists) == 3)
        health = watch.health()
        assert (health.resolver, health.success) == ("pods", False)
        assert "does not let the service account read pods (HTTP 403)" in health.reason
        assert "list and watch on pods" in health.remedy
        eventually(lambda: well(watch))
        eventually(lambda: len(caplog.records) == 2)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "ClusterRole" in caplog.records[0].message


def test_a_role_that_lacks_watch_alone_is_told_too(server: ApiServer, address: ApiAddress) -> None:
    server.put(make_pod("first"))
    server.answers = [lambda handler: handler._list(server.lists[-1]), refusal(403), refusal(403)]
    with following(address) as watch:
        knows(watch, "first")
        eventually(lambda: "HTTP 403" in watch.health().reason)
        eventually(lambda: well(watch))
    assert len(server.lists) == 1


def test_a_server_whose_certificate_the_cluster_signed_is_trusted(
    secure: tuple[ApiServer, Path], token_file: Path
) -> None:
    server, certificate = secure
    server.put(make_pod("first"))
    (token_file.parent / "ca.crt").write_bytes(certificate.read_bytes())
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
    address = ApiAddress.from_environment(environment, token_file.parent)
    assert address is not None
    with following(address) as watch:
        knows(watch, "first")
        eventually(lambda: len(server.watchers) == 1)
        server.put(make_pod("second"))
        knows(watch, "second")
        server.hang_up()
        server.put(make_pod("third"))
        knows(watch, "third")
        assert len(server.lists) == 1


def test_no_token_goes_to_a_server_that_is_not_trusted(
    secure: tuple[ApiServer, Path], token_file: Path, tmp_path: Path
) -> None:
    server, _ = secure
    (other := tmp_path / "other").mkdir()
    wrong = make_certificate(other).certificate
    with following(ApiAddress("127.0.0.1", server.port, token_file, wrong)) as watch:
        eventually(lambda: "is not trusted" in watch.health().reason)
        assert "ca.crt" in watch.health().remedy
        assert not watch.synced
    assert not server.lists


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_a_certificate_file_that_is_none_is_told(
    secure: tuple[ApiServer, Path], token_file: Path, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_bytes(content)
    with following(ApiAddress("127.0.0.1", secure[0].port, token_file, file)) as watch:
        eventually(lambda: "ca.crt" in watch.health().reason)


def test_a_certificate_file_that_comes_later_is_read(
    secure: tuple[ApiServer, Path], token_file: Path, tmp_path: Path
) -> None:
    server, certificate = secure
    file = tmp_path / "ca.crt"
    with following(ApiAddress("127.0.0.1", server.port, token_file, file)) as watch:
        eventually(lambda: "cannot be read" in watch.health().reason)
        file.write_bytes(certificate.read_bytes())
        eventually(lambda: watch.synced and well(watch))


def test_a_server_that_speaks_no_tls_is_told(server: ApiServer, token_file: Path) -> None:
    with following(ApiAddress("127.0.0.1", server.port, token_file)) as watch:
        eventually(lambda: "TLS" in watch.health().reason)


@pytest.mark.parametrize("content", [None, b"", b"two words", b"two\nlines", b"\xff", b"x" * 70_000])
def test_a_token_file_that_is_none_is_told_without_its_content(
    server: ApiServer, token_file: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    if content is None:
        token_file.unlink()
    else:
        token_file.write_bytes(content)
    with following(ApiAddress("127.0.0.1", server.port, token_file, tls=False)) as watch:
        eventually(lambda: str(token_file) in watch.health().reason)
        assert "automountServiceAccountToken" in watch.health().remedy
    assert not server.lists
    assert "words" not in caplog.text + watch.health().reason


def test_the_token_is_in_no_log_and_no_health(
    watch: PodWatch, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for answer in (refusal(401), lambda handler: handler.stream(b"nonsense\n"), refusal(500)):
        server.answers = [answer] * 3
        server.hang_up()
        eventually(lambda: not server.answers)
        eventually(lambda: len(server.watchers) == 1)
        assert TOKEN not in repr(watch.health())
    assert caplog.records
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("environment", [{}, {"KUBERNETES_SERVICE_HOST": ""}, {"KUBERNETES_SERVICE_PORT": "443"}])
def test_outside_a_cluster_there_is_no_server(environment: dict[str, str]) -> None:
    assert ApiAddress.from_environment(environment) is None


def test_the_address_comes_from_the_environment() -> None:
    address = ApiAddress.from_environment({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"})
    root = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    assert address == ApiAddress("fd00::1", 6443, root / "token", root / "ca.crt")


@pytest.mark.parametrize(("host", "port"), [("a b", "443"), ("a/b", "443"), ("host", "tcp://1"), ("h\r\nX: y", "1")])
def test_an_environment_that_names_no_server_is_refused(host: str, port: str) -> None:
    with pytest.raises(JobResolutionError, match="name no server"):
        ApiAddress.from_environment({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port})


def test_closing_ends_a_watch_over_tls_and_one_that_never_began(
    secure: tuple[ApiServer, Path], token_file: Path
) -> None:
    server, certificate = secure
    with following(ApiAddress("127.0.0.1", server.port, token_file, certificate)):
        eventually(lambda: len(server.watchers) == 1)
    PodWatch(ApiAddress("127.0.0.1", 1), NODE).close()


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"\n", b"\n\n", b"a\nb", b"{}\n"]), max_size=30))
def test_any_bytes_are_cut_into_their_lines(pieces: list[bytes]) -> None:
    lines = Lines(40)
    found = [line for piece in pieces for line in lines.feed(piece)]
    ended = b"".join(pieces).split(b"\n")[:-1]
    assert found == [line for line in ended if 0 < len(line) <= 40]
    assert lines.skipped == sum(len(line) > 40 for line in ended)
    assert sum(map(len, lines._parts)) <= 40
