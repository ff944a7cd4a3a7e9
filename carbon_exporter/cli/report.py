"""`carbon-exporter report`: what a job used and emitted, asked of a Prometheus and written as a document."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from carbon_exporter.errors import CarbonExporterError, ConfigError
from carbon_exporter.report.model_card import TRAINING_TYPES

__all__ = ["register", "run"]

JOB_LABELS = ("job_name", "job", "hpc_job")
MOST_SECRET_BYTES = 1 << 16

_EPILOG = """\
times: 2026-03-01T12:00:00Z (RFC 3339), 2026-03-01 (midnight UTC), Unix seconds, now, now-7d (s, m, h, d, w)

Totals are differences of the job's counters, as the recording rules of grafana/rules make them: nothing is
extrapolated. A Prometheus that holds the recorded series alone will do, with less to say.

What is asked goes to the address of --prometheus and nowhere else; no redirect is followed, and proxies and netrc of
the environment are left alone. Passwords and tokens come from files or from the environment, never from the command
line: PROMETHEUS_URL, PROMETHEUS_USERNAME, PROMETHEUS_PASSWORD.

exit codes:
  0  written
  1  the server did not answer, or knows no such job
  2  the command line or the environment is wrong; nothing was asked

examples:
  carbon-exporter report --prometheus=http://localhost:9090 --job=train --from=now-7d
  carbon-exporter report --job=train --from=2026-03-01 --to=2026-03-08 --format=html --output=train.html
  carbon-exporter report --job=train --format=model-card --training-type=fine-tuning
"""


def register(commands: Any) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "report",
        help="write what a job used and emitted: Markdown, HTML, JSON or a model card's block",
        description="Ask a Prometheus what a job used and emitted, how that is known, and write it down.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--job", required=True, metavar="NAME", help="the job")
    parser.add_argument("--namespace", metavar="NAME", help="its namespace; needed if there are several of its name")
    parser.add_argument("--cluster", default="", metavar="NAME", help="the label cluster of its series; default: all")
    parser.add_argument("--from", dest="begin", default="now-30d", metavar="TIME", help="default: %(default)s")
    parser.add_argument("--to", dest="end", default="now", metavar="TIME", help="default: %(default)s")
    parser.add_argument("--format", choices=("markdown", "html", "json", "model-card"), default="markdown")
    parser.add_argument("--output", metavar="FILE", type=Path, help="where to; default: standard output")
    parser.add_argument("--training-type", choices=TRAINING_TYPES, default="", help="of a model card's block")
    parser.add_argument("--job-label", choices=JOB_LABELS, default="job_name", help="as labels.job has it")
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
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Ask and write. Raises `ConfigError`, or `QueryError` if there is nothing to write."""
    from carbon_exporter.report.client import PrometheusClient  # noqa: PLC0415 - --help needs none of the room
    from carbon_exporter.report.counters import Selection  # noqa: PLC0415
    from carbon_exporter.report.gather import gather  # noqa: PLC0415
    from carbon_exporter.report.moment import parse_moment  # noqa: PLC0415
    from carbon_exporter.report.search import the_only_namespace  # noqa: PLC0415

    now = time.time()
    begin, end = parse_moment(parsed.begin, "--from", now), parse_moment(parsed.end, "--to", now)
    if begin >= end:
        raise ConfigError("command line", "--from", parsed.begin, "a time before --to")
    client = PrometheusClient(_access(parsed))
    selection = Selection(parsed.job, parsed.namespace or "", parsed.cluster, parsed.job_label)
    if parsed.namespace is None:
        selection = replace(selection, namespace=the_only_namespace(client, selection, begin, end))
    facts = gather(client, selection, begin, end)
    _write(_formatted(facts, parsed), parsed.output)
    for warning in client.warnings:
        print(f"carbon-exporter: the server warns: {warning}", file=sys.stderr)
    return 0


def _formatted(facts: Any, parsed: argparse.Namespace) -> str:
    from carbon_exporter.report.document import as_json  # noqa: PLC0415
    from carbon_exporter.report.html import as_html  # noqa: PLC0415
    from carbon_exporter.report.markdown import as_markdown  # noqa: PLC0415
    from carbon_exporter.report.model_card import as_model_card  # noqa: PLC0415

    if parsed.format == "model-card":
        return as_model_card(facts, parsed.training_type)
    return {"markdown": as_markdown, "html": as_html, "json": as_json}[parsed.format](facts)


def _write(text: str, output: Path | None) -> None:
    """To the file, whole or not at all, or to standard output."""
    if output is None:
        sys.stdout.write(text)
        return
    part = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(output)
    except (OSError, ValueError) as error:
        part.unlink(missing_ok=True)
        why = getattr(error, "strerror", None) or str(error)
        raise CarbonExporterError(f"{output} cannot be written: {why}", remedy="--output is a file to make") from None


def _access(parsed: argparse.Namespace) -> Any:
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
