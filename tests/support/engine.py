"""A container engine: a real HTTP server on a Unix socket that lists containers as Docker and Podman do."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

__all__ = ["Engine", "listed"]

HEADERS = {
    "docker": {"Api-Version": "1.41", "Server": "Docker/20.10.24 (linux)"},
    "podman": {"Api-Version": "1.41", "Libpod-Api-Version": "4.3.1", "Server": "Libpod/4.3.1 (linux)"},
}


def listed(container_id: str, name: str, **labels: str) -> dict[str, Any]:
    """A container as the list has it, with some of what else stands there."""
    return {
        "Id": container_id,
        "Names": [f"/{name}"],
        "Image": "registry.example/train:1",
        "Command": "python train.py --token=s3cret",
        "Created": 1700000000,
        "Ports": [],
        "Labels": labels,
        "State": "running",
        "HostConfig": {"NetworkMode": "default"},
        "Mounts": [],
    }


@dataclass
class Engine:
    """Serves while the block lasts; the socket is gone after it."""

    path: Path
    kind: str = "docker"
    containers: list[Any] = field(default_factory=list)
    answer: Callable[[_Handler], object] | None = None
    """Writes a whole answer by itself, in the place of the list."""
    requests: list[str] = field(default_factory=list)
    """First lines of all requests."""

    def __enter__(self) -> Engine:  # noqa: PYI034 - Self is of Python 3.11
        self._server = _Server(str(self.path), _Handler)
        self._server.engine = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
        os.unlink(self.path)  # noqa: PTH108


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    engine: Engine

    def handle_error(self, *_: object) -> None:
        """A client that goes away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 20

    @property
    def engine(self) -> Engine:
        return cast("_Server", self.server).engine

    def log_message(self, *_: object) -> None:
        """Silent."""

    def send_error(self, code: int, *_: object, **__: object) -> None:
        self.engine.requests.append(f"refused with {code}: {self.requestline}")

    def do_GET(self) -> None:
        self.engine.requests.append(self.requestline)
        if self.engine.answer is not None:
            self.engine.answer(self)
        elif self.path.partition("?")[0] == "/containers/json":
            self.send(200, json.dumps(self.engine.containers).encode())
        else:
            self.send(404, b'{"message":"page not found"}')

    def send(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        for name, value in HEADERS[self.engine.kind].items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
