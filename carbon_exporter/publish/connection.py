"""One client's connection: a handshake if there is TLS, then request after request, each step with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import traceback
from collections.abc import Callable, Iterator
from email.utils import formatdate

import h11

from carbon_exporter.publish.messages import Handler, Limits, Request, Response
from carbon_exporter.publish.tls import Tls

__all__ = ["Connection"]

_log = logging.getLogger(__name__)
_READ_BYTES = 65536
_WRITE_BYTES = 65536
"""What a response may take of memory at a time, however big it is and however slowly it is read."""
_NOT_MODIFIED = 304
"""Has no body, and its length would be that of the body that it stands for."""
_TURNED_AWAY = frozenset({401, 429})
"""Statuses of the handler's that are refusals, and counted with ours."""
_LINGER_SECONDS = 1.0
"""How long a client that was turned away in mid-sentence may go on talking before its connection is closed."""


class _Refused(Exception):
    """A request that gets an error for an answer, after which the connection is closed."""

    def __init__(self, status: int, reason: str, method: str = "") -> None:
        super().__init__(reason)
        self.method = method
        self.response = Response(status, f"{reason}\n".encode(), headers=(("Connection", "close"),))


class Connection:
    """Made when a client is accepted; `serve` runs until one side closes."""

    def __init__(
        self,
        client: socket.socket,
        peer: str,
        *,
        handler: Handler,
        limits: Limits,
        refuse: Callable[[str], None],
        is_crowded: Callable[[], bool],
    ) -> None:
        """Takes over `client`; `refuse` counts by reason what is turned away, `is_crowded` of the server slows it."""
        self.peer = peer
        self.is_idle = True
        self.is_known = False
        self._client = client
        self._handler = handler
        self._limits = limits
        self._refuse = refuse
        self._is_crowded = is_crowded
        self._loop = asyncio.get_running_loop()
        self.since = self._loop.time()
        self._due = self.since + limits.request_seconds
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header_bytes)
        self._reader = asyncio.StreamReader(_READ_BYTES, self._loop)
        self._writer: asyncio.StreamWriter | None = None
        self._silence: asyncio.Future[bool] | None = None
        self._pending: asyncio.Future[Response] | None = None

    def abort(self) -> None:
        """Close at once; `serve` returns soon after. May be called again."""
        if self._pending is not None:
            self._pending.cancel()
        if self._silence is not None and not self._silence.done():
            self._silence.set_result(False)
        elif self._writer is not None:
            self._writer.transport.abort()
        else:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)

    async def serve(self, tls: Tls | None) -> None:
        """Converse until one side closes. Raises nothing."""
        try:
            if not await self._has_begun():
                return
            writer = self._writer = await self._open(tls)
            if tls is not None and not tls.admits(writer.get_extra_info("peercert")):
                self._refuse("tls")
                writer.transport.abort()
            else:
                await self._converse(writer)
        except OSError as error:
            _log.debug("a client broke its connection", exc_info=True)
            # asyncio's frames hold the error, and it them: a handshake's 256 KiB would wait for the collector.
            traceback.clear_frames(error.__traceback__)
        except Exception:  # noqa: BLE001 - one bad connection must not end the server; the log has the traceback
            _log.exception("a connection failed")
        finally:
            await self._close()

    @property
    def _patience(self) -> float:
        """Seconds until the first request must be complete; never none at all, which asyncio takes for an error."""
        return max(0.001, self._due - self._loop.time())

    async def _has_begun(self) -> bool:
        """Wait for the first byte; whether there is one in time. Who stays silent costs a socket, and no buffers."""
        said: asyncio.Future[bool] = self._loop.create_future()
        self._silence = said
        self._loop.add_reader(self._client, _settle, said, True)
        try:
            with _within(self._patience, self.abort):
                return await said
        finally:
            self._silence = None
            self._loop.remove_reader(self._client)

    async def _open(self, tls: Tls | None) -> asyncio.StreamWriter:
        """Shake hands. Raises `OSError` if that fails, and has counted it."""
        protocol = asyncio.StreamReaderProtocol(self._reader, loop=self._loop)
        context, patience = (tls.context, min(self._limits.handshake_seconds, self._patience)) if tls else (None, None)
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol, self._client, ssl=context, ssl_handshake_timeout=patience
            )
        except ssl.SSLError:
            self._refuse("tls")
            raise
        except ConnectionAbortedError:  # how asyncio says that the handshake took too long
            self._refuse("deadline")
            raise
        return asyncio.StreamWriter(transport, protocol, self._reader, self._loop)

    async def _close(self) -> None:
        """Let the client take what is on its way, and no longer than that may last."""
        self._wait(idle=True)
        if self._writer is None:
            self._client.close()
            return
        self._writer.close()
        with _within(self._limits.write_seconds, self._writer.transport.abort), contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _converse(self, writer: asyncio.StreamWriter) -> None:
        # drain() waits until the kernel has all, not all but 64 KiB. Not high=0: over TLS it would never end.
        writer.transport.set_write_buffer_limits(high=1, low=0)
        patience = self._patience
        while await self._exchange(writer, patience):
            self._http.start_next_cycle()
            self.is_known = True
            patience = self._limits.idle_seconds
            self._wait(idle=True)
            # Others have their turn; in a crowd who asks a few times a second comes before who asks without a pause.
            await asyncio.sleep(self._limits.crowd_seconds if self._is_crowded() else 0)

    async def _exchange(self, writer: asyncio.StreamWriter, patience: float) -> bool:
        """One request and its response; whether there may be another."""
        try:
            self._wait(idle=True)
            with _within(patience, self._cut):
                request = await self._receive()
        except _Refused as refusal:
            if not writer.is_closing():
                await self._turn_away(refusal, writer)
            return False
        if request is None:
            return False
        self._wait(idle=False)
        await self._send(writer, await self._answer(request), request.method)
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _receive(self) -> Request | None:
        """The next complete request, None if the client has gone."""
        request = Request("", "", {})
        body = 0
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise _Refused(error.error_status_hint, "malformed or too large request", request.method) from error
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    raise _Refused(417, "no request body is expected", request.method)
                self._http.receive_data(await self._reader.read(_READ_BYTES))
            elif isinstance(event, h11.Request):
                request = _request(event, self.peer)
            elif isinstance(event, h11.Data):
                body += len(event.data)
                if body > self._limits.body_bytes:
                    raise _Refused(413, "request body too large", request.method)
            elif isinstance(event, h11.EndOfMessage):
                return request
            else:
                return None

    async def _answer(self, request: Request) -> Response:
        try:
            answer = self._handler(request)
            if not isinstance(answer, Response):
                self._pending = asyncio.ensure_future(answer)
                answer = await self._pending
        except asyncio.CancelledError:
            raise ConnectionAbortedError from None  # by `abort`, and by nobody else
        except Exception:  # noqa: BLE001 - one bad answer must not end the server; the log has the traceback
            _log.exception("cannot answer %s", request.target)
            return Response(500, b"internal error; the log says more\n")
        if answer.status in _TURNED_AWAY:
            self._refuse(str(answer.status))
        return answer

    async def _send(self, writer: asyncio.StreamWriter, response: Response, method: str) -> None:
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", response.content_type),
            *(() if response.status == _NOT_MODIFIED else (("Content-Length", str(len(response.body))),)),
            *response.headers,
        ]
        head = self._http.send(h11.Response(status_code=response.status, headers=headers)) or b""
        body = b"" if method == "HEAD" else self._http.send(h11.Data(data=response.body)) or b""
        self._http.send(h11.EndOfMessage())
        self._wait(idle=False)
        with _within(self._limits.write_seconds, self._cut):
            # Not writelines(): in Python 3.12.0 to 3.12.8 drain() does not wait for it (CVE-2024-12254).
            writer.write(head + body[:_WRITE_BYTES])
            await writer.drain()
            for start in range(_WRITE_BYTES, len(body), _WRITE_BYTES):
                writer.write(body[start : start + _WRITE_BYTES])
                await writer.drain()

    async def _turn_away(self, refusal: _Refused, writer: asyncio.StreamWriter) -> None:
        """Say why, and hear the client out: closing on unread input makes the kernel take the answer back."""
        self._refuse(str(refusal.response.status))
        await self._send(writer, refusal.response, refusal.method)
        self._wait(idle=True)
        if writer.can_write_eof():
            writer.write_eof()
        with _within(_LINGER_SECONDS, writer.transport.abort):
            while await self._reader.read(_READ_BYTES):
                pass

    def _cut(self) -> None:
        """End what is too slow. A connection that lies idle between requests is turned away from nothing."""
        if self._http.their_state is not h11.IDLE or self._http.trailing_data[0]:
            self._refuse("deadline")
        self.abort()

    def _wait(self, *, idle: bool) -> None:
        self.is_idle, self.since = idle, self._loop.time()


def _settle(future: asyncio.Future[bool], result: bool) -> None:
    if not future.done():
        future.set_result(result)


@contextlib.contextmanager
def _within(seconds: float, otherwise: Callable[[], None]) -> Iterator[None]:
    """Calls `otherwise` if what stands in the block takes longer."""
    timer = asyncio.get_running_loop().call_later(seconds, otherwise)
    try:
        yield
    finally:
        timer.cancel()


def _request(event: h11.Request, peer: str) -> Request:
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Request(event.method.decode("latin-1"), event.target.decode("latin-1"), headers, peer)
