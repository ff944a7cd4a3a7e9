"""The flags of commands that ask a Prometheus: where it is, how it lets us in, and about which time."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from carbon_exporter.cli.table import printable
from carbon_exporter.errors import ConfigError
from carbon_exporter.publish.catalogue import JOB_LABELS

__all__ = ["ADDRESSES", "TIMES", "access", "add_server", "add_stretch", "stretch", "warn"]

MOST_SECRET_BYTES = 1 << 16

TIMES = """\
times: 2026-03-01T12:00:00Z (RFC 3339), 2026-03-01 (midnight UTC), Unix seconds, now, now-7d (s, m, h, d, w)
"""
ADDRESSES = """\
What is asked goes to the address of --prometheus and nowhere else; no redirect is followed, and proxies and netrc of
the environment are left alone. Passwords and tokens come from files or from the environment, never from the command
line: PROMETHEUS_URL, PROMETHEUS_USERNAME, PROMETHEUS_PASSWORD.
"""


def add_stretch(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say of which time, of which cluster, and how the job is spelt."""
    parser.add_argument("--cluster", default="", metavar="NAME", help="the label cluster of its series; default: all")
    parser.add_argument("--from", dest="begin", default="now-30d", metavar="TIME", help="default: %(default)s")
    parser.add_argument("--to", dest="end", default="now", metavar="TIME", help="default: %(default)s")
    parser.add_argument("--job-label", choices=JOB_LABELS, default="job_name", help="as labels.job has it")


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where the server is and how it lets us in."""
    server = parser.add_argument_group("the server")
    server.add_argument("--prometheus", metavar="URL", help="before /api/v1; default: PROMETHEUS_URL")
    server.add_argument(
        "--timeout", default=60.0, type=float, metavar="SECONDS", help="of an answer; default: %(default)g"
    )
    server.add_argument("--ca-file", metavar="FILE", type=Path, help="certificates to trust instead of the system's")
    server.add_argument("--bearer-token-file", metavar="FILE", type=Path, help="a token that lets us in")
    server.add_argument("--username", metavar="NAME", help="of basic authentication; default: PROMETHEUS_USERNAME")
    server.add_argument("--password-file", metavar="FILE", type=Path, help="its password; default: PROMETHEUS_PASSWORD")
    server.add_argument("--tenant", default="", metavar="ID", help="X-Scope-OrgID, for Mimir and its like")


def stretch(parsed: argparse.Namespace) -> tuple[int, int]:
    """From when to when, in Unix seconds. Raises `ConfigError`."""
    from carbon_exporter.report.moment import parse_moment  # noqa: PLC0415 - --help needs none of the room

    now = time.time()
    begin, end = parse_moment(parsed.begin, "--from", now), parse_moment(parsed.end, "--to", now)
    if begin >= end:
        raise ConfigError("command line", "--from", parsed.begin, "a time before --to")
    return begin, end


def warn(warnings: Iterable[str]) -> None:
    """Hand on what the server said beside its answers."""
    for warning in warnings:
        print(f"carbon-exporter: the server warns: {printable(warning)}", file=sys.stderr)


def access(parsed: argparse.Namespace) -> Any:
    """Where the server is and how it lets us in: an `Access`. Raises `ConfigError`."""
    from carbon_exporter.report.client import Access  # noqa: PLC0415

    url = parsed.prometheus or os.environ.get("PROMETHEUS_URL", "")
    username = parsed.username or os.environ.get("PROMETHEUS_USERNAME", "")
    _check(url, parsed)
    password = ""
    if username:
        file = parsed.password_file
        password = _secret(file, "--password-file") if file else os.environ.get("PROMETHEUS_PASSWORD", "")
    token = _secret(parsed.bearer_token_file, "--bearer-token-file") if parsed.bearer_token_file else ""
    if token and username:
        raise ConfigError(
            "command line", "--bearer-token-file", str(parsed.bearer_token_file), "no --username beside it"
        )
    return Access(url, parsed.ca_file, token, username, password, parsed.tenant, parsed.timeout)


def _check(url: str, parsed: argparse.Namespace) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.query and not parts.fragment
        secret = "@" in parts.netloc
    except ValueError:
        fits = secret = False
    if secret:
        accepted = "an address without user and password: --username and --password-file, or the environment, have them"
        raise ConfigError("command line", "--prometheus", f"{parts.scheme}://…@{parts.hostname}", accepted)
    if not fits:
        raise ConfigError("command line", "--prometheus", url, "http[s]://HOST[:PORT][/PATH], or it in PROMETHEUS_URL")
    if not 0 < parsed.timeout <= 3600:  # noqa: PLR2004 - an hour is for ever
        raise ConfigError("command line", "--timeout", parsed.timeout, "seconds, up to 3600")
    if parsed.ca_file and not parsed.ca_file.is_file():
        raise ConfigError("command line", "--ca-file", str(parsed.ca_file), "a file of certificates (PEM)")


def _secret(file: Path, key: str) -> str:
    """What the file holds, without the newline at its end."""
    accepted = "a file that holds the secret alone, in UTF-8, and that can be read here"
    try:
        with file.open("rb") as stream:
            secret = stream.read(MOST_SECRET_BYTES).decode().strip()
    except (OSError, ValueError):
        secret = ""
    if not secret or not secret.isprintable():
        raise ConfigError("command line", key, str(file), accepted)
    return secret
