"""Basic authentication against a real server: who comes in, who does not, and that guessing stalls nobody."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import bcrypt
import pytest
from support.clients import ask, connected, echo, rest, say, until
from support.tools import need

from carbon_exporter.publish.gate import Gate
from carbon_exporter.publish.http import Address, Server

pytestmark = pytest.mark.usefixtures("nothing_left_behind")
PASSWORD = "correct horse: Größe"  # noqa: S105 - of the test alone


def hashed(password: str = PASSWORD, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


@contextmanager
def guarded(directory: Path, text: str) -> Iterator[Server]:
    """A server behind a gate with this web configuration."""
    file = directory / "web-config.yml"
    file.write_text(text)
    gate = Gate(echo, file, period=0.05)
    server = Server(Address("127.0.0.1"), gate.answer, tls=gate.tls)
    server.start()
    gate.start()
    try:
        yield server
    finally:
        server.stop()
        gate.close()


def credentials(user: str = "prometheus", password: str = PASSWORD) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def status(server: Server, *headers: str, target: str = "/metrics") -> int:
    return int(say(server, ask(target, "GET", "Connection: close", *headers)).split()[1])


def test_the_right_password_opens_and_all_else_is_401_with_a_challenge(tmp_path: Path) -> None:
    with guarded(tmp_path, f"basic_auth_users: {{prometheus: '{hashed()}'}}") as server:
        assert status(server, credentials()) == 200
        assert status(server, credentials()) == 200
        basic = "Authorization: Basic "
        wrong = [credentials("prometheus", "wrong"), credentials("nobody"), credentials(password=""), f"{basic}???"]
        wrong += ["Authorization: Bearer x", basic + base64.b64encode(b"prometheus").decode(), "X-None: 1"]
        for header in (*wrong, *wrong):
            assert status(server, header) == 401
        answer = say(server, ask("/metrics", "GET", "Connection: close"))
        assert b'\r\nWWW-Authenticate: Basic realm="metrics", charset="UTF-8"\r\n' in answer
        assert server.refused["401"] == 2 * len(wrong) + 1


def test_health_needs_no_password_and_nothing_else_hides_behind_its_name(tmp_path: Path) -> None:
    with guarded(tmp_path, f"basic_auth_users: {{prometheus: '{hashed()}'}}") as server:
        assert [status(server, target=target) for target in ("/-/healthy", "/-/ready?x=1")] == [200, 200]
        for target in ("/-/healthy/../../metrics", "/metrics?/-/healthy", "//-/healthy", "/metrics#/-/ready", "/"):
            assert status(server, target=target) == 401


def test_2y_hashes_and_passwords_beyond_bcrypts_length_work_as_with_other_exporters(tmp_path: Path) -> None:
    long = "x" * 100
    users = {"a": hashed().replace("$2b$", "$2y$"), "b": hashed(long[:72])}
    text = "basic_auth_users: {" + ", ".join(f"{name}: '{value}'" for name, value in users.items()) + "}"
    with guarded(tmp_path, text) as server:
        assert status(server, credentials("a")) == 200
        assert status(server, credentials("b", long)) == 200


def test_curl_with_a_wrong_password_gets_401(tmp_path: Path) -> None:
    with guarded(tmp_path, f"basic_auth_users: {{prometheus: '{hashed()}'}}") as server:
        url = f"http://127.0.0.1:{server.address.port}/metrics"
        options = ("-s", "--max-time", "5", "-o", str(tmp_path / "page"), "-w", "%{http_code}")
        for password, code in (("wrong", "401"), (PASSWORD, "200")):
            command = [need("curl"), *options, "-u", f"prometheus:{password}", url]
            assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == code


def test_who_waits_for_a_check_while_the_users_change_is_told_to_come_again(tmp_path: Path) -> None:
    with guarded(tmp_path, f"basic_auth_users: {{prometheus: '{hashed(cost=11)}'}}") as server, ExitStack() as stack:
        guesses = [stack.enter_context(connected(server)) for _ in range(4)]
        for n, guess in enumerate(guesses):
            guess.sendall(ask("/metrics", "GET", "Connection: close", credentials(password=f"guess {n}")))
        until(lambda: server.connections == 4)
        (tmp_path / "web-config.yml").write_text(f"basic_auth_users: {{prometheus: '{hashed('another')}'}}")
        answers = [rest(guess)[:12] for guess in guesses]
        assert b"HTTP/1.1 429" in answers
        assert set(answers) <= {b"HTTP/1.1 429", b"HTTP/1.1 401"}


def test_a_known_password_waits_for_no_guess_and_guesses_beyond_a_few_are_refused(tmp_path: Path) -> None:
    """Guesses at cost 12 take a quarter of a second each, and all that wait are of one address."""
    text = f"basic_auth_users: {{prometheus: '{hashed(cost=12)}'}}"
    with guarded(tmp_path, text) as server, ExitStack() as stack:
        assert status(server, credentials()) == 200
        guesses = [stack.enter_context(connected(server)) for _ in range(30)]
        for n, guess in enumerate(guesses):
            guess.sendall(ask("/metrics", "GET", "Connection: close", credentials(password=f"guess {n}")))
        until(lambda: server.refused.get("429") == 26)
        for _ in range(20):
            began = time.monotonic()
            assert status(server, credentials()) == 200
            assert time.monotonic() - began < 1
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 1
        assert {rest(guess)[:12] for guess in guesses} <= {b"HTTP/1.1 429", b"HTTP/1.1 401", b"", b"<reset>"}


def test_an_unknown_user_costs_as_much_time_as_a_wrong_password(tmp_path: Path) -> None:
    with guarded(tmp_path, f"basic_auth_users: {{prometheus: '{hashed(cost=10)}'}}") as server:

        def took(user: str, n: int) -> float:
            began = time.process_time()  # of the server's threads, too, and not of who else runs here
            assert status(server, credentials(user, f"wrong {n}")) == 401
            return time.process_time() - began

        known = min(took("prometheus", n) for n in range(2))
        unknown = min(took("nobody", n) for n in range(2))
        assert 0.2 < unknown / known < 5
        assert unknown > 0.01


def test_a_changed_file_changes_who_may_come_in_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with guarded(tmp_path, f"basic_auth_users: {{prometheus: '{hashed()}'}}") as server:
        assert status(server, credentials()) == 200
        file = tmp_path / "web-config.yml"
        for broken in ("basic_auth_users: {prometheus: nonsense}", "rate_limit: 2024-99-99"):
            caplog.clear()
            file.write_text(broken)
            until(lambda: "web configuration not reloaded" in caplog.text)
            assert status(server, credentials()) == 200
            assert "nonsense" not in caplog.text
        file.write_text(f"basic_auth_users: {{prometheus: '{hashed('another')}'}}")
        until(lambda: status(server, credentials()) == 401)
        assert status(server, credentials("prometheus", "another")) == 200


def test_headers_are_added_to_every_answer_but_never_in_the_place_of_the_pages_own(tmp_path: Path) -> None:
    text = "http_server_config: {headers: {X-Frame-Options: deny, Strict-Transport-Security: max-age=1}}"
    with guarded(tmp_path, text) as server:
        head = say(server, ask("/", "GET", "Connection: close")).partition(b"\r\n\r\n")[0]
    assert {b"X-Frame-Options: deny", b"Strict-Transport-Security: max-age=1", b"X-Test: yes"} <= set(
        head.split(b"\r\n")
    )
    assert b"\r\nserver:" not in head.lower()


def test_a_rate_limit_refuses_what_is_beyond_it_but_never_a_probe(tmp_path: Path) -> None:
    with guarded(tmp_path, "rate_limit: {interval: 1h, burst: 3}") as server:
        assert [status(server) for _ in range(5)] == [200, 200, 200, 429, 429]
        assert status(server, target="/-/healthy") == 200
        assert server.refused["429"] == 2


def test_without_bcrypt_it_does_not_start_and_names_the_command_that_mends_it(tmp_path: Path) -> None:
    file = tmp_path / "web-config.yml"
    file.write_text(f"basic_auth_users: {{prometheus: '{hashed()}'}}")
    (tmp_path / "bcrypt.py").write_text("raise ImportError('none here')")
    command = [sys.executable, "-m", "carbon_exporter", "serve", f"--web.config.file={file}", "--storage.path="]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environ)
    assert done.returncode == 2
    assert "pip install 'carbon-exporter[auth]'" in done.stderr
    assert "Traceback" not in done.stderr
