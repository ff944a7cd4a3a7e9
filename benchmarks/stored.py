"""A real Prometheus that answers questions about blocks and does nothing else: no scrape, no rule, no compaction."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

__all__ = ["Stored", "stored"]

_PATIENCE: Final = 600.0
"""Seconds for a query."""


class Stored:
    """Answers queries."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def instant(self, expression: str, at: float) -> list[Any]:
        """The result at a Unix time. Raises RuntimeError with the reason of a query that is refused."""
        return self._ask("query", {"query": expression, "time": f"{at:.3f}"})

    def range(self, expression: str, start: float, end: float, step: float) -> list[Any]:
        """The result at each step."""
        return self._ask("query_range", {"query": expression, "start": start, "end": end, "step": step})

    def ready(self) -> bool:
        """Whether it has loaded its blocks."""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as answer:  # noqa: S310 - its own address
                return bool(answer.status == 200)
        except OSError:
            return False

    def _ask(self, what: str, arguments: Mapping[str, object]) -> list[Any]:
        body = urllib.parse.urlencode(arguments).encode()
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{what}", body, timeout=_PATIENCE) as answer:  # noqa: S310
                return list(json.load(answer)["data"]["result"])
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["error"]) from error


@contextmanager
def stored(folder: Path, samples: int = 50_000_000) -> Iterator[Stored]:
    """Serves the blocks in `folder` while the block runs; a query may hold so many samples, Prometheus' own default."""
    config = folder / "prometheus.json"
    config.write_text("{}")
    port = _free_port()
    command = [
        *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}", "--log.level=error"),
        *(
            f"--web.listen-address=127.0.0.1:{port}",
            f"--query.timeout={_PATIENCE:.0f}s",
            f"--query.max-samples={samples}",
        ),
        # Equal, so that blocks stay as they are; and none is too old.
        *("--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h"),
        "--storage.tsdb.retention.time=100y",
    ]
    with subprocess.Popen(command) as process:
        try:
            server = Stored(port)
            until = time.monotonic() + 300
            while not server.ready():
                assert process.poll() is None, "prometheus has ended"
                assert time.monotonic() < until, "prometheus does not load its blocks"
                time.sleep(0.2)
            yield server
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
