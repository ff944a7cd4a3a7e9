"""How a server may fail to answer, how it lets us in, and what never leaves: secrets, and anything to elsewhere."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from support.answering import answering
from support.bmc import make_certificate
from support.reporting import trouble

from deploy.demo.server import free_port

EMPTY = b'{"status":"success","data":[]}'
TRAIN = ("--job=train", "--from=now-1d")


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, b"", "--bearer-token-file"),
        (403, b'{"status":"forbidden"}', "refuses with HTTP status 403"),
        (404, b"<html>", "is no Prometheus (HTTP status 404)"),
        (200, b"[]", "is no Prometheus"),
        (200, b'{"status":"success","data":7}', "not one of Prometheus's"),
        (503, b"Service Unavailable", "is not ready"),
        (
            400,
            b'{"status":"error","errorType":"bad_data","error":"parse error: x"}',
            "HTTP status 400): parse error: x",
        ),
        (422, b'{"status":"error","error":"too many samples"}', "HTTP status 422): too many samples"),
    ],
)
def test_what_the_server_says_is_told_with_what_mends_it(
    capsys: pytest.CaptureFixture[str], status: int, body: bytes, told: str
) -> None:
    with answering(status, body) as server:
        code, said = trouble(capsys, f"--prometheus={server.url}", *TRAIN)
    assert code == 1
    assert told in said
    assert "Traceback" not in said
    assert said.count("\n") == 1


def test_a_server_that_is_not_there_or_does_not_answer_is_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = trouble(capsys, f"--prometheus=http://127.0.0.1:{free_port()}", *TRAIN)
    assert (code, "cannot be reached" in said, "refused" in said) == (1, True, True)
    with answering(200, EMPTY, pause=1) as server:
        code, said = trouble(capsys, f"--prometheus={server.url}", "--timeout=0.2", *TRAIN)
    assert (code, "did not answer within 0.2 s" in said) == (1, True)


def test_a_redirect_is_not_followed(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(200, EMPTY) as other, answering(302, location=f"{other.url}/api/v1/query") as server:
        code, said = trouble(capsys, f"--prometheus={server.url}", *TRAIN)
    assert (code, "redirects elsewhere" in said, other.asked) == (1, True, [])


def test_a_certificate_is_checked_against_the_file_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate = make_certificate(tmp_path)
    with answering(200, EMPTY, certificate=certificate) as server:
        code, said = trouble(capsys, f"--prometheus={server.url}", *TRAIN)
        assert (code, "is not trusted" in said, "--ca-file=FILE" in said, server.asked) == (1, True, True, [])
        trouble(capsys, f"--prometheus={server.url}", f"--ca-file={certificate.certificate}", *TRAIN)
        assert server.asked


def test_credentials_come_from_files_or_the_environment_and_are_never_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    said = ""
    with answering(401, b"") as server:
        address = f"--prometheus={server.url}/prefix/"
        said += trouble(capsys, address, f"--bearer-token-file={secret}", "--tenant=team", *TRAIN)[1]
        said += trouble(capsys, address, "--username=Zoë", f"--password-file={secret}", *TRAIN)[1]
        monkeypatch.setenv("PROMETHEUS_URL", f"{server.url}/prefix")
        monkeypatch.setenv("PROMETHEUS_USERNAME", "max")
        monkeypatch.setenv("PROMETHEUS_PASSWORD", "s3cret")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        said += trouble(capsys, *TRAIN)[1]
    token, file, environment = server.asked
    assert (token["authorization"], token["x-scope-orgid"]) == ("Bearer s3cret", "team")
    assert base64.b64decode(file["authorization"].removeprefix("Basic ")).decode() == "Zoë:s3cret"
    assert base64.b64decode(environment["authorization"].removeprefix("Basic ")).decode() == "max:s3cret"
    assert all(one["path"].startswith("/prefix/api/v1/") for one in server.asked)
    assert "s3cret" not in said


@pytest.mark.parametrize(
    "flags",
    [
        ("--prometheus=localhost:9090",),
        ("--prometheus=http://me:s3cret@localhost",),
        ("--prometheus=http://[",),
        ("--prometheus=",),
        ("--prometheus=http://x", "--from=yesterday"),
        ("--prometheus=http://x", "--from=now", "--to=now-1h"),
        ("--prometheus=http://x", "--timeout=0"),
        ("--prometheus=http://x", "--ca-file=/nothing"),
        ("--prometheus=http://x", "--bearer-token-file=/nothing"),
        ("--prometheus=http://x", "--username=me", "--password-file=/nothing"),
    ],
)
def test_a_command_line_that_cannot_be_is_refused_before_anything_is_asked(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROMETHEUS_URL", raising=False)
    code, said = trouble(capsys, "--job=train", *flags)
    assert code == 2
    assert "accepted:" in said
    assert "s3cret" not in said
