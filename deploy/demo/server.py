"""A Prometheus process on a data directory of ours, and its query API."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

__all__ = ["MissingProgram", "Server", "find_program", "free_port", "prometheus", "started"]

START_SECONDS = 60.0
RETENTION = "400d"
"""Long enough that nothing of a month is thrown away while it is being looked at."""


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


class Server:
    """Answers queries at `url`, by the API that Prometheus and VictoriaMetrics share."""

    def __init__(self, url: str) -> None:
        """`url` without a slash at its end."""
        self.url = url

    def query(self, expression: str, at: float) -> list[Any]:
        """The series of an instant query, at a Unix time."""
        return self._result("query", {"query": expression, "time": f"{at:.3f}"})

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Any]:
        """The series of a range query, its ends included."""
        times = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        return self._result("query_range", {"query": expression, **times})

    def _result(self, endpoint: str, arguments: Mapping[str, str]) -> list[Any]:
        body = urllib.parse.urlencode(arguments).encode()
        request = urllib.request.Request(f"{self.url}/api/v1/{endpoint}", body)  # noqa: S310 - our own process
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
            return list(json.load(answer)["data"]["result"])


@contextmanager
def started(command: list[str], health: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs while the block does, from when `health` answers. Raises `RuntimeError` with its log."""
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
    place: Path, config: Mapping[str, Any] | None = None, *, port: int | None = None, most_samples: int = 200_000_000
) -> Iterator[Server]:
    """A Prometheus on `place`/data while the block runs. Raises `MissingProgram`, or `RuntimeError` with its log."""
    port = port or free_port()
    file = place / "prometheus.yml"
    file.write_text(yaml.safe_dump({"global": {"scrape_interval": "15s"}, **(config or {})}, sort_keys=False))
    url = f"http://127.0.0.1:{port}"
    command = [
        find_program("prometheus", "prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={place / 'data'}",
        f"--storage.tsdb.retention.time={RETENTION}",
        f"--query.max-samples={most_samples}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with started(command, f"{url}/-/ready", place / "prometheus.log"):
        yield Server(url)
