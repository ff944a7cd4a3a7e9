"""TLS against clients of others: curl and openssl, good and bad certificates, and files that change meanwhile."""

from __future__ import annotations

import gc
import http.client
import logging
import re
import socket
import ssl
import subprocess
import time
from asyncio.sslproto import SSLProtocol
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.authority import Authority
from support.clients import BIG, BRISK, ask, connected, echo, rest, until
from support.tools import need

from carbon_exporter.errors import ConfigError
from carbon_exporter.publish.gate import Gate
from carbon_exporter.publish.http import Address, Limits, Server

pytestmark = pytest.mark.usefixtures("nothing_left_behind")
MUTUAL = "client_auth_type: RequireAndVerifyClientCert, client_ca_file: authority.crt"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates: of the server, of two clients, and of a client that a stranger has signed."""
    directory = tmp_path_factory.mktemp("tls")
    ours = Authority(directory)
    ours.sign("server", "DNS:localhost,IP:127.0.0.1")
    ours.sign("client", "DNS:prometheus.example,IP:2001:db8::7")
    ours.sign("colleague", "DNS:grafana.example")
    Authority(directory, "strangers").sign("stranger", "DNS:prometheus.example")
    return directory


@contextmanager
def secured(
    place: Path, more: str = "", limits: Limits | None = None, name: str = "web-config.yml"
) -> Iterator[Server]:
    """A server with TLS and these further keys of tls_server_config; its gate looks often."""
    file = place / name
    file.write_text(f"tls_server_config: {{cert_file: server.crt, key_file: server.key, {more}}}")
    gate = Gate(echo, file, period=0.05)
    server = Server(Address("127.0.0.1"), gate.answer, limits, tls=gate.tls)
    server.start()
    gate.start()
    try:
        yield server
    finally:
        server.stop()
        gate.close()


def curl(server: Server, place: Path, *options: str, client: str = "") -> str:
    """What curl writes, or how it fails."""
    if client:
        options = (*options, "--cert", str(place / f"{client}.crt"), "--key", str(place / f"{client}.key"))
    url = f"https://localhost:{server.address.port}/metrics"
    command = [
        need("curl"),
        "-sS",
        "--ipv4",
        "--max-time",
        "5",
        "--cacert",
        str(place / "authority.crt"),
        *options,
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else f"curl {done.returncode}: {done.stderr}"


def handshake(server: Server, place: Path, *options: str) -> str:
    """What openssl tells of a handshake."""
    where = f"127.0.0.1:{server.address.port}"
    command = [need("openssl"), "s_client", "-connect", where, "-CAfile", str(place / "authority.crt"), *options]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False, timeout=10)
    return done.stdout + done.stderr


def trusting(place: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(place / "authority.crt"))
    context.check_hostname = False
    return context


@contextmanager
def speaking(server: Server, place: Path, receive_buffer: int = 0) -> Iterator[ssl.SSLSocket]:
    """A client after its handshake."""
    with connected(server, receive_buffer) as plain, trusting(place).wrap_socket(plain) as client:
        yield client


def serial(server: Server, place: Path) -> object:
    """Of the certificate that a new connection is shown."""
    with speaking(server, place) as client:
        return (client.getpeercert() or {})["serialNumber"]


def test_curl_gets_its_answer_and_what_is_old_or_in_the_clear_gets_none(place: Path) -> None:
    with secured(place) as server:
        assert curl(server, place) == "GET /metrics\n"
        assert curl(server, place, "--tlsv1.2", "--tls-max", "1.2") == "GET /metrics\n"
        assert "Cipher is (NONE)" in handshake(server, place, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
        with connected(server) as client:
            client.sendall(ask())
            assert b"HTTP" not in rest(client)
        until(lambda: server.connections == 0)
        assert server.refused == {"connections": 0, "deadline": 0, "tls": 2}


def test_versions_ciphers_and_curve_are_those_of_the_file(place: Path) -> None:
    with secured(place, "min_version: TLS13") as server:
        assert curl(server, place) == "GET /metrics\n"
        assert "Cipher is (NONE)" in handshake(server, place, "-tls1_2")
    suite = "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384], curve_preferences: [CurveP384]"
    with secured(place, f"max_version: TLS12, {suite}") as server:
        seen = handshake(server, place)
        assert "New, TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384" in seen
        assert re.search(r"secp384r1|P-384", seen)
        assert "Cipher is (NONE)" in handshake(server, place, "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")


def test_only_clients_with_a_certificate_of_the_authority_come_in(place: Path) -> None:
    with secured(place, MUTUAL) as server:
        assert curl(server, place, client="client") == "GET /metrics\n"
        assert curl(server, place).startswith("curl ")
        assert curl(server, place, client="stranger").startswith("curl ")
        assert server.refused["tls"] == 2


def test_a_certificate_that_may_be_left_out_must_be_good_if_it_is_shown(place: Path) -> None:
    with secured(place, MUTUAL.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")) as server:
        assert curl(server, place) == "GET /metrics\n"
        assert curl(server, place, client="client") == "GET /metrics\n"
        assert curl(server, place, client="stranger").startswith("curl ")


@pytest.mark.parametrize("name", ["prometheus.example", "2001:DB8:0::7"])
def test_of_good_certificates_only_those_with_an_allowed_name_come_in(name: str, place: Path) -> None:
    with secured(place, f"{MUTUAL}, client_allowed_sans: ['{name}']") as server:
        assert curl(server, place, client="client") == "GET /metrics\n"
        assert curl(server, place, client="colleague").startswith("curl ")
        assert server.refused["tls"] == 1


def test_a_name_that_is_no_text_is_none_of_the_allowed_ones(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    openssl = place / "directory.cnf"
    openssl.write_text("[req]\ndistinguished_name = somebody\n[somebody]\nCN = somebody\n")
    with monkeypatch.context() as patch:
        patch.setenv("OPENSSL_CONF", str(openssl))
        Authority(place, "directory").sign("listed", "dirName:somebody,DNS:prometheus.example")
    mutual = MUTUAL.replace("authority.crt", "directory.crt")
    for name, answer in (("prometheus.example", "GET /metrics\n"), ("grafana.example", "curl ")):
        with secured(place, f"{mutual}, client_allowed_sans: [{name}]") as server:
            assert curl(server, place, client="listed").startswith(answer)
            assert server.refused.get("tls", 0) == (answer == "curl ")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_renewed_certificate_is_shown_to_new_connections_and_old_ones_live_on(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.sign("server", "IP:127.0.0.1")
    with secured(tmp_path) as server:
        kept = http.client.HTTPSConnection("127.0.0.1", server.address.port, timeout=5, context=trusting(tmp_path))
        kept.request("GET", "/1")
        assert kept.getresponse().read() == b"GET /1\n"
        old = serial(server, tmp_path)
        authority.sign("server", "IP:127.0.0.1")
        until(lambda: serial(server, tmp_path) != old)
        kept.request("GET", "/2")
        assert kept.getresponse().read() == b"GET /2\n"
        kept.close()


def test_a_broken_new_certificate_changes_nothing_until_it_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server", "IP:127.0.0.1")
    good = key.read_bytes()
    caplog.set_level(logging.INFO)
    with secured(tmp_path) as server:
        old = serial(server, tmp_path)
        key.write_bytes(Authority(tmp_path, "other").sign("another", "IP:127.0.0.1")[1].read_bytes())
        until(lambda: "key values mismatch" in caplog.text)
        time.sleep(0.2)
        assert serial(server, tmp_path) == old
        key.write_bytes(good)
        until(lambda: "web configuration reloaded" in caplog.text)
        assert serial(server, tmp_path) == old
    assert caplog.text.count("not reloaded") == 1
    assert str(certificate) in caplog.text


def test_a_file_that_is_made_readable_is_read_again_though_nothing_else_of_it_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, key = Authority(tmp_path).sign("server", "IP:127.0.0.1")
    caplog.set_level(logging.INFO)
    with secured(tmp_path):
        key.chmod(0o640)
        until(lambda: "web configuration reloaded" in caplog.text)


def test_files_that_cannot_be_used_stop_the_start_by_their_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server", "IP:127.0.0.1")
    protected = tmp_path / "protected.key"
    command = [need("openssl"), "pkcs8", "-topk8", "-in", str(key), "-out", str(protected), "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "words.pem").write_text("words")
    cases = [
        (f"cert_file: none.crt, key_file: {key}", "cert_file", "No such file"),
        (f"cert_file: {certificate}, key_file: none.key", "key_file", "No such file"),
        (f"cert_file: {certificate}, key_file: {protected}", "cert_file", "not encrypted"),
        (f"cert_file: words.pem, key_file: {key}", "cert_file", "a certificate in PEM"),
        (
            f"cert_file: {certificate}, key_file: {key}, {MUTUAL.replace('authority.crt', 'words.pem')}",
            "client_ca_file",
            "certificates in PEM",
        ),
    ]
    file = tmp_path / "web-config.yml"
    for text, name, accepted in cases:
        file.write_text(f"tls_server_config: {{{text}}}")
        with pytest.raises(ConfigError) as caught:
            Gate(echo, file)
        assert caught.value.key == f"tls_server_config.{name}"
        assert accepted in caught.value.accepted


def test_a_handshake_that_does_not_come_to_its_end_is_cut_off_and_counted(place: Path) -> None:
    brisk = Limits(handshake_seconds=0.3, request_seconds=0.4)
    with secured(place, limits=brisk) as server, connected(server) as silent, connected(server) as slow:
        slow.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert rest(silent) in {b"", b"<reset>"}
        assert rest(slow) in {b"", b"<reset>"}
        until(lambda: server.connections == 0)
        assert server.refused == {"connections": 0, "deadline": 1}
        assert curl(server, place) == "GET /metrics\n"


def test_a_handshake_takes_of_the_time_for_the_request(place: Path) -> None:
    with secured(place, limits=Limits(request_seconds=0.4)) as server, connected(server) as slow:
        began = time.monotonic()
        slow.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert rest(slow) in {b"", b"<reset>"}
        assert 0.3 < time.monotonic() - began < 2
        until(lambda: server.refused == {"connections": 0, "deadline": 1})


def test_over_tls_too_a_slow_reader_gets_all_and_one_that_never_reads_is_cut_off(place: Path) -> None:
    with secured(place) as server, speaking(server, place, receive_buffer=4096) as client:
        client.sendall(ask("/big", "GET", "Connection: close"))
        time.sleep(0.3)
        assert rest(client).partition(b"\r\n\r\n")[2] == BIG
    with secured(place, limits=BRISK) as server, speaking(server, place, receive_buffer=4096) as client:
        client.sendall(ask("/big"))
        until(lambda: server.refused["deadline"] == 1)
        until(lambda: server.connections == 0)


def test_garbage_and_broken_connections_leave_the_server_well(place: Path) -> None:
    with secured(place, MUTUAL, limits=Limits(handshake_seconds=0.5)) as server:
        for words in (b"", b"\x16\x03\x01\xff\xff" + bytes(3000), b"\x80\x2e\x01\x00\x02" * 50, bytes(range(256)) * 20):
            with connected(server) as client:
                client.sendall(words)
                client.shutdown(socket.SHUT_WR)
                rest(client)
        until(lambda: server.connections == 0)
        assert curl(server, place, client="client") == "GET /metrics\n"


def test_stop_ends_handshakes_and_conversations_at_once(place: Path) -> None:
    with secured(place) as server, connected(server) as silent, speaking(server, place) as client:
        client.sendall(ask())
        assert client.recv(65536).endswith(b"GET /\n")
        until(lambda: server.connections == 2)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 1
        assert rest(silent) in {b"", b"<reset>"}


def test_what_handshakes_that_fail_took_of_memory_is_free_at_once(place: Path) -> None:
    """256 KiB each, which would wait for the garbage collector: it counts objects, not what they hold."""

    def handshakes() -> int:
        return sum(type(one) is SSLProtocol for one in gc.get_objects())

    with secured(place, limits=Limits(connections=4)) as server:
        gc.collect()
        gc.disable()
        try:
            clients = [socket.create_connection(("127.0.0.1", server.address.port)) for _ in range(12)]
            for client in clients:
                client.sendall(b"no handshake" * 50)
                time.sleep(0.02)
            for client in clients:
                client.close()
            until(lambda: server.refused["connections"] > 0 and handshakes() == 0)
        finally:
            gc.enable()
