"""The HTTP server: one thread, one asyncio loop, h11 for the protocol, and a deadline on everything a client may do.

It knows nothing of metrics. A handler, which must only read memory or be awaited, turns a request into a response.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from carbon_exporter.publish.connection import Connection
from carbon_exporter.publish.listening import Address, listen, peer_of
from carbon_exporter.publish.messages import Handler, Limits, Request, Response
from carbon_exporter.publish.room import first_to_go
from carbon_exporter.publish.tls import Tls

__all__ = ["Address", "Handler", "Limits", "Request", "Response", "Server"]

_log = logging.getLogger(__name__)
_AT_ONCE = 128
_PAUSE_SECONDS = 1.0
"""Until connections are accepted again after the kernel had no room for one."""


class Server:
    """Listens at one address on a thread of its own, from `start` to `stop`."""

    def __init__(
        self,
        address: Address,
        handler: Handler,
        limits: Limits | None = None,
        *,
        tls: Callable[[], Tls | None] = lambda: None,
        listener: socket.socket | None = None,
    ) -> None:
        """Nothing is bound before `start`. `handler` runs on the server's thread and must not block.

        `tls` is asked for each new connection. `listener` is a socket that listens already, in place of `address`.
        """
        self.address = address if listener is None else _address_of(listener)
        self._handler = handler
        self._limits = limits or Limits()
        self._tls = tls
        self._given = listener
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
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
        listener = self._given or listen(self.address)
        listener.setblocking(False)
        self.address = _address_of(listener, self.address.host)
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
        """Accept until told to stop. No connection's task is ever cancelled: each ends by itself once it is aborted."""
        loop = asyncio.get_running_loop()
        loop.add_reader(listener, self._accept, listener)
        await self._stopping.wait()
        loop.remove_reader(listener)
        self._shut(listener)
        while self._tasks:
            for connection in self._open:
                connection.abort()
            await asyncio.wait(self._tasks, timeout=0.1)
        await asyncio.sleep(0)

    def _shut(self, listener: socket.socket) -> None:
        """A path goes first, while it is ours: once the socket is closed a successor may have put its own there."""
        if self.address.path and self._given is None:
            with contextlib.suppress(OSError):
                Path(self.address.path).unlink()
        listener.close()

    def _accept(self, listener: socket.socket) -> None:
        """Take in who waits at the door, but no more than a few before those inside have their turn."""
        for _ in range(_AT_ONCE):
            try:
                client, where = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                _log.warning("cannot accept connections for %g s: %s", _PAUSE_SECONDS, error.strerror)
                self._pause(listener)
                return
            client.setblocking(False)
            if self._has_room():
                self._take_in(client, peer_of(where))
            else:
                client.close()

    def _has_room(self) -> bool:
        """Whether one more may come in; if it is full somebody goes first, and is counted, or the newcomer is."""
        if len(self._open) < self._limits.connections:
            return True
        self._refuse("connections")
        leaving = first_to_go(self._open, asyncio.get_running_loop().time())
        if leaving is None:
            return False
        leaving.abort()
        self._open.discard(leaving)
        return True

    def _take_in(self, client: socket.socket, peer: str) -> None:
        connection = Connection(
            client,
            peer,
            handler=self._handler,
            limits=self._limits,
            refuse=self._refuse,
            is_crowded=lambda: len(self._open) > self._limits.crowd,
        )
        self._open.add(connection)
        task = asyncio.get_running_loop().create_task(connection.serve(self._tls()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._open.discard(connection))

    def _pause(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        resume = lambda: self._stopping.is_set() or loop.add_reader(listener, self._accept, listener)  # noqa: E731
        loop.call_later(_PAUSE_SECONDS, resume)

    def _refuse(self, reason: str) -> None:
        self._refused[reason] = self._refused.get(reason, 0) + 1


def _address_of(listener: socket.socket, host: str | None = None) -> Address:
    """Where it listens; `host` as it was asked for, if it was."""
    where = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return Address(path=str(where))
    return Address(where[0] if host is None else host, where[1])
