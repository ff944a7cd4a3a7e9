"""One script at the socket: its lines in, messages out, and what it may take. All on the server's thread.

What it says is kept as state, not as a queue: of each span the newest running total, so that however much a peer
says before somebody listens, it takes no more room.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from carbon_exporter.publish import handoff_wire as wire
from carbon_exporter.publish.handoff_doors import Door
from carbon_exporter.publish.handoff_limits import Bucket, HandoffLimits

if TYPE_CHECKING:
    from carbon_exporter.publish.handoff import HandoffServer

__all__ = ["Credentials", "Peer", "Told"]

_REMEDIES = {
    "deadline": "say hello first",
    "malformed": "use the carbon_exporter of the exporter's own release",
    "too_long": f"a line may have {wire.LONGEST_LINE} bytes",
    "flood": "tell of changes only, about once a second",
    "version": "use the carbon_exporter of the exporter's own release",
    "spans": "give spans few names; numbers belong into their attributes",
}


class Credentials(NamedTuple):
    """Who connected, as the kernel saw it at that moment."""

    pid: int
    """0 if it is in a pid namespace that is none of ours or below."""
    uid: int


class Told(NamedTuple):
    """What a peer has said since somebody last asked."""

    rows: Mapping[tuple[str, str], wire.SpanRow]
    number: int
    """Of the newest message of them; -1 if there is none."""
    runs: Mapping[tuple[str, str], wire.RunRow] = {}


class Peer(asyncio.Protocol):
    """A connection. `take` may be called from any thread, the rest belongs to the server's."""

    def __init__(self, server: HandoffServer, door: Door, limits: HandoffLimits) -> None:
        self._server, self._limits = server, limits
        self.door = door
        self.credentials = Credentials(0, -1)
        self.caller: Any = None
        """What `Desk.look` has found of it."""
        self.session: Any = None
        """For whoever answers hellos: what it has made of this peer."""
        self.hello: wire.Hello | None = None
        self.welcomed = self.watching = self.gone = False
        self._transport: asyncio.Transport | None = None
        self._heard = bytearray()
        self._messages = Bucket(limits.messages_per_second, limits.messages_at_once)
        self._bytes = Bucket(limits.bytes_per_second, limits.bytes_at_once)
        self._deadline: asyncio.TimerHandle | None = None
        self._refused = False
        self._stuck_since: float | None = None
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str], wire.SpanRow] = {}
        self._runs: dict[tuple[str, str], wire.RunRow] = {}
        self._names: set[tuple[str, str]] = set()
        self._number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody knocked."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(self._limits.most_lag_bytes)
        self.credentials = _credentials(self._transport)
        self._deadline = asyncio.get_running_loop().call_later(self._limits.hello_seconds, self._too_late)
        self._server.admit(self)

    def data_received(self, data: bytes) -> None:
        """Some bytes more."""
        if self._refused:
            return
        if not self._bytes.take(len(data)):
            self.refuse("flood")
            return
        self._heard += data
        while not self._refused and (end := self._heard.find(b"\n")) >= 0:
            line = bytes(self._heard[:end])
            del self._heard[: end + 1]
            self._read(line)
        if len(self._heard) > wire.LONGEST_LINE:
            self.refuse("too_long")

    def connection_lost(self, exc: Exception | None) -> None:
        """It has hung up, or we have. What it had said before is read to the end."""
        if exc is not None and not self._refused:
            self._read_rest()
        self._cancel_deadline()
        self.gone = True
        self.watching = False
        self._server.leave(self)

    def send(self, line: bytes, *, news: bool = False) -> None:
        """Say something; `news` may be left out for a peer that does not read."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        lag = transport.get_write_buffer_size()
        if lag > self._limits.most_lag_bytes:
            self.refuse("slow")
        elif not (news and lag > self._limits.lag_bytes):
            transport.write(line)

    def check_reading(self) -> None:
        """Cut it off if it has read nothing for long. To be called now and then."""
        lag = self._transport.get_write_buffer_size() if self._transport else 0
        now = time.monotonic()
        if lag == 0:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > self._limits.lag_seconds:
            self.refuse("slow")

    def refuse(self, reason: str, why: str = "", remedy: str = "") -> None:
        """Say why, and hang up."""
        if self._refused or self._transport is None:
            return
        self._refused = True
        self._cancel_deadline()
        self._server.count_refused(reason)
        if reason == "slow":
            self._transport.abort()
            return
        self._transport.write(wire.encode(wire.Refused(why or reason, remedy or _REMEDIES.get(reason, ""))))
        self._transport.close()
        asyncio.get_running_loop().call_later(self._limits.farewell_seconds, self._transport.abort)

    def abort(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()

    def take(self) -> Told:
        """All that it has said since the last call; any thread."""
        with self._lock:
            rows, self._rows = self._rows, {}
            runs, self._runs = self._runs, {}
            number, self._number = self._number, -1
        return Told(rows, number, runs)

    @property
    def has_told(self) -> bool:
        """Whether `take` would give something."""
        return bool(self._rows) or bool(self._runs) or self._number >= 0

    def _read(self, line: bytes) -> None:
        if len(line) > wire.LONGEST_LINE:
            self.refuse("too_long")
            return
        if not self._messages.take():
            self.refuse("flood")
            return
        try:
            message = wire.decode_script(line)
        except (ValueError, RecursionError) as error:
            self.refuse("malformed", f"malformed: {str(error)[:200]}")
            return
        if isinstance(message, wire.Hello):
            self._on_hello(message)
        elif self.hello is None:
            self.refuse("malformed", "the first message is not hello")
        elif isinstance(message, wire.Watch):
            self.watching = message.on
            self._server.recount()
        else:
            self._on_spans(message)

    def _on_hello(self, hello: wire.Hello) -> None:
        if self.hello is not None:
            self.refuse("malformed", "hello is said once")
        elif hello.version != wire.VERSION:
            self.refuse("version", f"this exporter speaks version {wire.VERSION}, the script {hello.version}")
        else:
            self._cancel_deadline()
            self.hello = hello
            self._server.bring(self)

    def _on_spans(self, spans: wire.Spans) -> None:
        self._names.update((row.span, row.job) for row in spans.rows)
        self._names.update((f"run {row.run}", row.job) for row in spans.runs)
        if len(self._names) > self._limits.spans:
            self.refuse("spans", f"more than {self._limits.spans} different spans and runs")
            return
        with self._lock:
            self._rows.update(((row.span, row.job), row) for row in spans.rows)
            self._runs.update(((row.run, row.job), row) for row in spans.runs)
            self._number = max(self._number, spans.number)

    def _too_late(self) -> None:
        self.refuse("deadline", "no hello in time")

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _read_rest(self) -> None:
        """What was still in the kernel when a write of ours failed, because the script had said it and hung up."""
        handle = self._transport.get_extra_info("socket").fileno() if self._transport else -1
        if handle < 0:
            return
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(handle)) as rest:
            rest.setblocking(False)
            while not self._refused and (data := rest.recv(wire.LONGEST_LINE)):
                self.data_received(data)


def _credentials(transport: asyncio.Transport) -> Credentials:
    """SO_PEERCRED of unix(7): of the process that called connect, in our own namespaces."""
    size = struct.calcsize("3i")
    raw = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, uid, _ = struct.unpack("3i", raw)
    return Credentials(pid, uid)
