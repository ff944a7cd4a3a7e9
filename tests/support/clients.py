"""A server for tests of its manners, and clients that speak to it over raw sockets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from carbon_exporter.publish.http import Address, Handler, Limits, Request, Response, Server

__all__ = ["BIG", "BRISK", "SECRET", "ask", "connected", "echo", "is_well", "rest", "say", "serving", "until"]

SECRET = "the-password-in-the-exception"  # noqa: S105 - what must not leak is told apart by its name
BIG = os.urandom(1 << 20) * 8
"""More than the kernel buffers between two sockets of small buffers."""
BRISK = Limits(connections=8, request_seconds=0.4, idle_seconds=0.4, write_seconds=0.6)


def echo(request: Request) -> Response:
    """Method and target; some targets are special."""
    if request.target == "/big":
        return Response(200, BIG)
    if request.target == "/raise":
        raise RuntimeError(SECRET)
    if request.target == "/headers":
        return Response(200, "\n".join(f"{k}: {v}" for k, v in request.headers.items()).encode())
    return Response(200, f"{request.method} {request.target}\n".encode(), headers=(("X-Test", "yes"),))


@contextmanager
def serving(limits: Limits | None = None, handler: Handler = echo, address: Address | None = None) -> Iterator[Server]:
    """A server that has started, stopped at the end."""
    server = Server(address or Address("127.0.0.1"), handler, limits)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def connected(server: Server, receive_buffer: int = 0) -> Iterator[socket.socket]:
    """A client's socket."""
    where = server.address
    family = socket.AF_UNIX if where.path else socket.AF_INET6 if ":" in where.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(where.path or (where.host or "127.0.0.1", where.port))
        yield client


def rest(client: socket.socket) -> bytes:
    """All until the server closes; a reset ends it as well."""
    chunks = []
    try:
        while chunk := client.recv(65536):
            chunks.append(chunk)
    except ConnectionResetError:
        chunks.append(b"<reset>")
    return b"".join(chunks)


def ask(target: str = "/", method: str = "GET", *headers: str, body: str = "", version: str = "1.1") -> bytes:
    """A request's bytes."""
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: x", *headers, "", body]).encode("latin-1")


def say(server: Server, *chunks: bytes, shut: bool = False) -> bytes:
    """Send all, read until the server closes."""
    with connected(server) as client:
        for chunk in chunks:
            client.sendall(chunk)
        if shut:
            client.shutdown(socket.SHUT_WR)
        return rest(client)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for it; fail if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def is_well(server: Server) -> bool:
    """Whether an ordinary request is answered as ever."""
    return say(server, ask("/well", "GET", "Connection: close")).endswith(b"\r\n\r\nGET /well\n")
