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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import h11

from carbon_exporter.errors import ListenError
from carbon_exporter.publish.unix_socket import listen_unix

__all__ = ["Address", "Handler", "Limits", "Request", "Response", "Server"]

_log = logging.getLogger(__name__)
_BACKLOG = 128
_OWNER_AND_GROUP = 0o660
_READ_BYTES = 65536
_NOT_MODIFIED = 304
"""Has no body, and its length would be that of the body that it stands for."""
_LINGER_SECONDS = 1.0
"""How long a client that was turned away in mid-sentence may go on talking before its connection is closed."""


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
    """For a response to be taken whole."""


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request; header names in lower case, the values of a repeated one joined by commas."""

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

    def __init__(self, status: int, reason: str, method: str = "") -> None:
        super().__init__(reason)
        self.method = method
        self.response = Response(status, f"{reason}\n".encode(), headers=(("Connection", "close"),))


class Server:
    """Listens at one address on a thread of its own, from `start` to `stop`."""

    def __init__(self, address: Address, handler: Handler, limits: Limits | None = None) -> None:
        """Nothing is bound before `start`. `handler` runs on the server's thread and must not block."""
        self.address = address
        self._handler = handler
        self._limits = limits or Limits()
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._refused = {"connections": 0, "deadline": 0}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._open)

    @property
    def refused(self) -> dict[str, int]:
        """Requests and connections turned away, by reason."""
        return dict(self._refused)

    def start(self) -> None:
        """Bind and begin to answer. Raises `ListenError`."""
        listener = _listen(self.address)
        if not self.address.path:
            self.address = Address(self.address.host, listener.getsockname()[1])
        # Not new_event_loop(): the policy of a program that this is a guest of may give another kind.
        self._loop, self._stopping = asyncio.SelectorEventLoop(), asyncio.Event()
        self._listener = listener
        self._thread = threading.Thread(target=self._run, args=(self._loop, listener), name="http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the listener and all connections. May be called twice, and also when `start` has failed."""
        if self._loop is None or self._thread is None:
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=2)
        self._loop = self._thread = None
        if self.address.path:
            with contextlib.suppress(OSError):
                Path(self.address.path).unlink()

    def forget(self) -> None:
        """In a forked child: let go of the listening socket, which would hold the port beyond its parent's end."""
        if self._listener is not None:
            self._listener.close()

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve(listener))
        finally:
            loop.close()

    async def _serve(self, listener: socket.socket) -> None:
        """Accept until told to stop. No task is ever cancelled: each ends by itself once its connection is gone."""
        accepting = asyncio.start_unix_server if self.address.path else asyncio.start_server
        server = await accepting(self._accept, sock=listener, backlog=_BACKLOG, limit=_READ_BYTES)
        await self._stopping.wait()
        # Not server.close() yet: asyncio loses the sockets of clients that it is about to hand over.
        asyncio.get_running_loop().remove_reader(listener)
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for writer in self._open:
                writer.transport.abort()
            await asyncio.wait(tasks)
        server.close()
        await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= self._limits.connections:
            self._refuse("connections")
            writer.transport.abort()
            return
        self._open[writer] = task = asyncio.create_task(self._converse(reader, writer))
        task.add_done_callback(lambda _: self._open.pop(writer))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer request after request until one side closes."""
        writer.transport.set_write_buffer_limits(0)  # drain() waits until the kernel has all, not all but 64 KiB
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.header_bytes)
        patience = self._limits.request_seconds
        try:
            while await self._exchange(connection, reader, writer, patience):
                connection.start_next_cycle()
                patience = self._limits.idle_seconds
                await asyncio.sleep(0)  # others have their turn between two pipelined requests
        except OSError:
            _log.debug("a client broke its connection", exc_info=True)
        except Exception:  # noqa: BLE001 - one bad connection must not end the server; the log has the traceback
            _log.exception("a connection failed")
        finally:
            writer.close()

    async def _exchange(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float
    ) -> bool:
        """One request and its response; whether there may be another."""
        try:
            with _within(patience, lambda: self._cut(connection, writer)):
                request = await self._receive(connection, reader)
        except _Refused as refusal:
            if not writer.is_closing():
                await self._turn_away(refusal, connection, reader, writer)
            return False
        if request is None:
            return False
        await self._send(connection, writer, self._answer(request), request.method)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    async def _receive(self, connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
        """The next complete request, None if the client has gone."""
        request = Request("", "", {})
        body = 0
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                raise _Refused(error.error_status_hint, "malformed or too large request") from error
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    raise _Refused(417, "no request body is expected", request.method)
                connection.receive_data(await reader.read(_READ_BYTES))
            elif isinstance(event, h11.Request):
                request = _request(event)
            elif isinstance(event, h11.Data):
                body += len(event.data)
                if body > self._limits.body_bytes:
                    raise _Refused(413, "request body too large", request.method)
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
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", response.content_type),
            *(() if response.status == _NOT_MODIFIED else (("Content-Length", str(len(response.body))),)),
            *response.headers,
        ]
        head = connection.send(h11.Response(status_code=response.status, headers=headers)) or b""
        body = b"" if method == "HEAD" else connection.send(h11.Data(data=response.body)) or b""
        # Not writelines(): in Python 3.12.0 to 3.12.8 drain() does not wait for it (CVE-2024-12254).
        writer.write(head + body + (connection.send(h11.EndOfMessage()) or b""))
        with _within(self._limits.write_seconds, lambda: self._cut(connection, writer)):
            await writer.drain()

    async def _turn_away(
        self, refusal: _Refused, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Say why, and hear the client out: closing on unread input makes the kernel take the answer back."""
        self._refuse(str(refusal.response.status))
        await self._send(connection, writer, refusal.response, refusal.method)
        writer.write_eof()
        with _within(_LINGER_SECONDS, writer.transport.abort):
            while await reader.read(_READ_BYTES):
                pass

    def _cut(self, connection: h11.Connection, writer: asyncio.StreamWriter) -> None:
        """End a connection that is too slow. One that lies idle between requests is turned away from nothing."""
        if connection.their_state is not h11.IDLE or connection.trailing_data[0]:
            self._refuse("deadline")
        writer.transport.abort()

    def _refuse(self, reason: str) -> None:
        self._refused[reason] = self._refused.get(reason, 0) + 1


@contextlib.contextmanager
def _within(seconds: float, otherwise: Callable[[], None]) -> Iterator[None]:
    """Calls `otherwise` if what stands in the block takes longer."""
    timer = asyncio.get_running_loop().call_later(seconds, otherwise)
    try:
        yield
    finally:
        timer.cancel()


def _request(event: h11.Request) -> Request:
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Request(event.method.decode("latin-1"), event.target.decode("latin-1"), headers)


def _listen(address: Address) -> socket.socket:
    """A listening socket. Raises `ListenError` with what to do about it."""
    try:
        if address.path:
            return listen_unix(Path(address.path), _OWNER_AND_GROUP, _BACKLOG)
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
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:
        raise OSError(f"{host!r} is not a host name") from error
    family, *_, where = found[0]
    return socket.create_server(where, family=family, backlog=_BACKLOG)


def _remedy(error: OSError, address: Address) -> str:
    """What to do when an address cannot be had."""
    other = "choose another with --web.listen-address=HOST:PORT"
    if error.errno == errno.EADDRINUSE and address.path and not Path(address.path).is_socket():
        return f"there is a file of that name: move it away (mv {address.path} {address.path}.old), or {other}"
    if error.errno == errno.EADDRINUSE:
        who = f"ss -ltnp 'sport = :{address.port}'" if not address.path else f"ss -lxp src {address.path}"
        return f"another program listens there ({who} shows which): stop it, or {other}"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"ports below 1024 need the capability CAP_NET_BIND_SERVICE, a socket's folder must be writable: {other}"
    return other
