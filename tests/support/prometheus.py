"""A real Prometheus that scrapes one target, and its query API."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.tools import need

__all__ = ["Prometheus", "prometheus"]


class Prometheus:
    """Answers queries."""

    def __init__(self, port: int) -> None:
        self._port = port

    def query(self, expression: str, at: float | None = None) -> list[Any]:
        """The result of an instant query."""
        arguments = {"query": expression} | ({"time": f"{at:.3f}"} if at else {})
        return list(self.get(f"/api/v1/query?{urllib.parse.urlencode(arguments)}")["data"]["result"])

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=10) as answer:
            return json.load(answer)


@contextmanager
def prometheus(
    directory: Path,
    target: int,
    *,
    interval: str = "1s",
    labels: Mapping[str, str] | None = None,
    honor: bool = False,
    client: Mapping[str, object] | None = None,
) -> Iterator[Prometheus]:
    """Scrapes 127.0.0.1:`target` every `interval`, with `labels` on the target, while the block runs.

    `client` is what the scrape needs to get in: scheme, tls_config, basic_auth.
    """
    program = need("prometheus")
    config = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [
            {
                "job_name": "carbon-exporter",
                "honor_labels": honor,
                **(client or {}),
                "static_configs": [{"targets": [f"127.0.0.1:{target}"], "labels": dict(labels or {})}],
            }
        ],
    }
    file = directory / "prometheus.json"
    file.write_text(json.dumps(config))
    port = _free_port()
    command = [
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with subprocess.Popen(command) as process:
        try:
            server = Prometheus(port)
            _wait_until_ready(server, process)
            yield server
        finally:
            process.terminate()


def _wait_until_ready(server: Prometheus, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while True:
        assert process.poll() is None, "prometheus has ended"
        try:
            if server.query("up == 1"):
                return
        except OSError:
            pass
        assert time.monotonic() < until, "prometheus does not scrape"
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
