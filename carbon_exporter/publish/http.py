"""The HTTP server: one thread, one asyncio loop, h11 for the protocol, and a deadline on everything a client may do.

It knows nothing of metrics. A handler, which must only read memory, turns a request into a response.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h11

from carbon_exporter.errors import ListenError

__all__ = ["Address", "Handler", "Limits", "Request", "Response", "Server"]

_log = logging.getLogger(__name__)
_BACKLOG = 128
_READ_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a TCP port (of one host, or of all with an empty one), or a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """As the user writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.path else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may take. Times are in seconds."""

    connections: int = 256
    header_bytes: int = 16384
    body_bytes: int = 65536
    request_seconds: float = 10.0
    """From a connection's first wait to a complete request."""
    idle_seconds: float = 120.0
    """Between two requests of a connection that is kept alive; longer than any usual scrape interval."""
    write_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request; header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    """What to answer."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Response]


class _Refused(Exception):
    """A request that gets an error for an answer, after which the connection is closed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(slots=True)
class _Counts:
    """What the server has seen."""

    connections: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class Server:
    """Listens at one address on a thread of its own, from `start` to `stop`."""

    def __init__(self, address: Address, handler: Handler, limits: Limits | None = None) -> None:
        """Nothing is bound before `start`. `handler` runs on the server's thread and must not block."""
        self.address = address
        self._handler = handler
        self._limits = limits or Limits()
        self._counts = _Counts()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """Open connections."""
        return self._counts.connections

    @property
    def refused(self) -> dict[str, int]:
        """Requests and connections turned away, by reason."""
        return dict(self._counts.refused)

    def start(self) -> None:
        """Bind and begin to answer. Raises `ListenError`."""
        listener = _listen(self.address)
        if not self.address.path:
            self.address = Address(self.address.host, listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop, listener), name="http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the listener and all connections. May be called twice."""
        if self._loop is not None and self._thread is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=2)
        self._loop = self._thread = None
        if self.address.path:
            with contextlib.suppress(OSError):
                Path(self.address.path).unlink()

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        asyncio.set_event_loop(loop)
        accepting = asyncio.start_server if not self.address.path else asyncio.start_unix_server
        server = loop.run_until_complete(accepting(self._accept, sock=listener, limit=_READ_BYTES))
        try:
            loop.run_forever()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._counts.connections >= self._limits.connections:
            self._refuse("connections")
            writer.transport.abort()
            return
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._counts.connections += 1
        try:
            await self._converse(reader, writer)
        except (OSError, asyncio.TimeoutError, asyncio.CancelledError, h11.ProtocolError):
            pass
        finally:
            self._counts.connections -= 1
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer request after request until one side closes."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.header_bytes)
        patience = self._limits.request_seconds
        while True:
            try:
                request = await asyncio.wait_for(self._receive(connection, reader), patience)
            except asyncio.TimeoutError:
                self._refuse("deadline")
                return
            except _Refused as refusal:
                self._refuse(str(refusal.status))
                await self._send(connection, writer, Response(refusal.status, f"{refusal.reason}\n".encode()), "")
                return
            if request is None:
                return
            await self._send(connection, writer, self._answer(request), request.method)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()
            patience = self._limits.idle_seconds

    async def _receive(self, connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
        """The next complete request, None if the client has gone."""
        request: Request | None = None
        body = 0
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                raise _Refused(error.error_status_hint, "malformed or too large request") from error
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(_READ_BYTES))
            elif isinstance(event, h11.Request):
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                request = Request(event.method.decode("latin-1"), event.target.decode("latin-1"), headers)
            elif isinstance(event, h11.Data):
                body += len(event.data)
                if body > self._limits.body_bytes:
                    raise _Refused(413, "request body too large")
            elif isinstance(event, h11.EndOfMessage):
                return request
            else:
                return None

    def _answer(self, request: Request) -> Response:
        try:
            return self._handler(request)
        except Exception:  # noqa: BLE001 - one bad answer must not end the server; the log has the traceback
            _log.exception("cannot answer %s", request.target)
            return Response(500, b"internal error; the log says more\n")

    async def _send(
        self, connection: h11.Connection, writer: asyncio.StreamWriter, response: Response, method: str
    ) -> None:
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            *response.headers,
        ]
        head = connection.send(h11.Response(status_code=response.status, headers=headers)) or b""
        body = b"" if method == "HEAD" else connection.send(h11.Data(data=response.body)) or b""
        writer.writelines((head, body, connection.send(h11.EndOfMessage()) or b""))
        await asyncio.wait_for(writer.drain(), self._limits.write_seconds)

    def _refuse(self, reason: str) -> None:
        self._counts.refused[reason] = self._counts.refused.get(reason, 0) + 1


def _listen(address: Address) -> socket.socket:
    """A listening socket. Raises `ListenError` with what to do about it."""
    try:
        if address.path:
            return _listen_unix(address.path)
        return _listen_tcp(address.host, address.port)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {address}: {error.strerror or error}", remedy=_remedy(error, address)
        ) from error


def _listen_tcp(host: str, port: int) -> socket.socket:
    """TCP on one host, or on all addresses of both families where the kernel has IPv6."""
    if not host:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=_BACKLOG)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return socket.create_server(found[0][4][:2], family=found[0][0], backlog=_BACKLOG)


def _listen_unix(path: str) -> socket.socket:
    """A Unix socket that its owner and group may use; one left behind by a dead server is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if Path(path).exists() and Path(path).is_socket() and not _answers(path):
            Path(path).unlink()
        listener.bind(path)
        Path(path).chmod(0o660)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _answers(path: str) -> bool:
    """Whether someone listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True


def _remedy(error: OSError, address: Address) -> str:
    """What to do when an address cannot be had."""
    other = "choose another with --web.listen-address=HOST:PORT"
    if error.errno == errno.EADDRINUSE:
        who = f"ss -ltnp 'sport = :{address.port}'" if not address.path else f"ss -lxp src {address.path}"
        return f"another program listens there ({who} shows which): stop it, or {other}"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"ports below 1024 need the capability CAP_NET_BIND_SERVICE, a socket's folder must be writable: {other}"
    return other
