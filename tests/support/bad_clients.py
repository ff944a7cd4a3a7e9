"""Clients that mean no good, in a process of their own: `python -m support.bad_clients PORT [KIND=COUNT …] [tls]`.

They come from 127.0.0.2, and again five seconds after they were closed, until the process is ended. What they are
stands in `_KINDS`.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import selectors
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["bad_clients"]

_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
_KINDS = ("silent", "slow_headers", "slow_readers", "garbage")
_PAUSE_SECONDS = 1.0
"""Between two bytes of a slow one."""
_AWAY_SECONDS = 5.0


@contextmanager
def bad_clients(port: int, *, tls: bool = False, **counts: int) -> Iterator[None]:
    """So many of each kind at 127.0.0.1:`port` while the block runs."""
    words = [f"{kind}={count}" for kind, count in counts.items()] + (["tls"] if tls else [])
    command = [sys.executable, "-m", "support.bad_clients", str(port), *words]
    environ = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))}  # noqa: PTH120
    with subprocess.Popen(command, env=environ) as process:
        try:
            yield
            assert process.poll() is None, "the bad clients have ended"
        finally:
            process.kill()


class _Client:
    """One of them: due to do something at `due`."""

    def __init__(self, kind: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._kind, self._port, self._tls = kind, port, tls
        self._socket: socket.socket | None = None
        self.due = time.monotonic() + random.random()  # noqa: S311 - a spread, no secret

    def act(self, selector: selectors.BaseSelector) -> None:
        """Connect, or do a little of what it does."""
        self.due = time.monotonic() + _PAUSE_SECONDS
        try:
            if self._socket is None:
                self._connect(selector)
            elif self._kind == "slow_headers":
                self._socket.send(b"X")
            elif self._kind == "slow_readers":
                self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self._leave(selector)

    def hear(self, selector: selectors.BaseSelector) -> None:
        """Something came, or the end."""
        try:
            if self._socket is not None and not self._socket.recv(4096):
                self._leave(selector)
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError:
            self._leave(selector)

    def _connect(self, selector: selectors.BaseSelector) -> None:
        client = socket.socket()
        if self._kind == "slow_readers":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.settimeout(2)
        self._socket = client
        client.bind(("127.0.0.2", 0))
        client.connect(("127.0.0.1", self._port))
        if self._tls is not None and self._kind.startswith("slow"):
            client = self._socket = self._tls.wrap_socket(client)
        client.setblocking(False)
        if self._kind == "garbage":
            client.send(os.urandom(4096))
        elif self._kind == "slow_headers":
            client.send(_REQUEST)
        elif self._kind == "slow_readers":
            client.send((_REQUEST + b"\r\n") * 50)
        if self._kind != "slow_readers":
            selector.register(client, selectors.EVENT_READ, self)

    def _leave(self, selector: selectors.BaseSelector) -> None:
        if self._socket is not None:
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
            self.due = time.monotonic() + _AWAY_SECONDS


def _run(port: int, words: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    tls = None
    if "tls" in words:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    counts = dict(word.split("=") for word in words if "=" in word)
    assert set(counts) <= set(_KINDS)
    clients = [_Client(kind, port, tls) for kind, count in counts.items() for _ in range(int(count))]
    with selectors.DefaultSelector() as selector:
        while True:
            for key, _ in selector.select(0.05) if selector.get_map() else ():
                key.data.hear(selector)
            now = time.monotonic()
            for client in clients:
                if client.due <= now:
                    client.act(selector)


if __name__ == "__main__":
    _run(int(sys.argv[1]), sys.argv[2:])
