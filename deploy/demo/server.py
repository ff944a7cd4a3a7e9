"""A Prometheus process on a data directory of ours, and its query API."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

__all__ = ["MissingProgram", "Server", "check_port", "find_program", "free_port", "prometheus", "started"]

START_SECONDS = 300.0
"""Within which a server has to answer, however many blocks it has to load."""
PATIENCE_SECONDS = 600.0
"""For a query."""
_FLAGS: Mapping[str, str] = {
    # Long enough that nothing of a month is thrown away while it is being looked at.
    "storage.tsdb.retention.time": "400d",
    "query.max-samples": "200000000",
    "query.timeout": f"{PATIENCE_SECONDS:.0f}s",
    "log.level": "warn",
}


class MissingProgram(Exception):
    """A program that the demonstration needs is not here; the message says how to get it."""


def find_program(name: str, package: str) -> str:
    """The path of a program in PATH. Raises `MissingProgram`."""
    path = shutil.which(name)
    if path is None:
        where = "https://prometheus.io/download/"
        raise MissingProgram(f"{name} is not installed; on Debian: apt-get install {package}; elsewhere: {where}")
    return path


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(port: int) -> None:
    """Whether one can listen on that TCP port of this machine. Raises `RuntimeError` where somebody does already."""
    with socket.socket() as probe:
        # As servers do it: a connection that has just ended is nobody who listens.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise RuntimeError(f"nothing can listen on port {port} of 127.0.0.1: {error}") from None


class Server:
    """Answers queries at `url`, by the API that Prometheus and VictoriaMetrics share."""

    def __init__(self, url: str) -> None:
        """`url` without a slash at its end."""
        self.url = url

    def query(self, expression: str, at: float) -> list[Any]:
        """The series of an instant query, at a Unix time. Raises `RuntimeError` with the reason of a refusal."""
        return self._result("query", {"query": expression, "time": f"{at:.3f}"})

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Any]:
        """The series of a range query, its ends included. Raises as `query` does."""
        times = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        return self._result("query_range", {"query": expression, **times})

    def _result(self, endpoint: str, arguments: Mapping[str, str]) -> list[Any]:
        body = urllib.parse.urlencode(arguments).encode()
        request = urllib.request.Request(f"{self.url}/api/v1/{endpoint}", body)  # noqa: S310 - our own process
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
                return list(json.load(answer)["data"]["result"])
        except urllib.error.HTTPError as error:
            reason = error.read().decode(errors="replace")
            raise RuntimeError(f"{self.url} refuses {arguments['query']}: {reason}") from None


@contextmanager
def started(command: list[str], health: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs while the block does, from when `health` answers. Raises `RuntimeError` with its log."""
    if _answers(health):
        raise RuntimeError(f"{command[0]} did not start: another process answers at {health}")
    # A session of its own: Ctrl-C is for the program, which then ends the process.
    options: dict[str, Any] = {"start_new_session": True}
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, **options) as process:  # noqa: S603
        try:
            until = time.monotonic() + START_SECONDS
            while not _answers(health):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.1)
            yield process
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own process
        return True
    return False


@contextmanager
def prometheus(
    place: Path,
    config: Mapping[str, Any] | None = None,
    *,
    port: int | None = None,
    flags: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Server]:
    """A Prometheus on `place`/data while the block runs; where `flags` name one of ours, theirs counts.

    Raises `MissingProgram`, or `RuntimeError` with its log.
    """
    port = port or free_port()
    file = place / "prometheus.yml"
    file.write_text(yaml.safe_dump({"global": {"scrape_interval": "15s"}, **(config or {})}, sort_keys=False))
    url = f"http://127.0.0.1:{port}"
    given = {
        "config.file": str(file),
        "storage.tsdb.path": str(place / "data"),
        "web.listen-address": f"127.0.0.1:{port}",
        **_FLAGS,
        **flags,
    }
    command = [find_program("prometheus", "prometheus"), *(f"--{name}={value}" for name, value in given.items())]
    with started(command, f"{url}/-/ready", place / "prometheus.log"):
        yield Server(url)
