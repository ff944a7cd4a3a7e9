"""The socket's server: one thread, one asyncio loop, and a limit on everything that a script may take.

It knows nothing of jobs and devices, and touches no hardware: a desk, which others man, says who somebody is and has
the news of the devices.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from carbon_exporter.errors import ListenError
from carbon_exporter.jobs.base import Job
from carbon_exporter.publish.handoff_doors import BACKLOG, JOB_SOCKET, Door, job_rooms, open_door
from carbon_exporter.publish.handoff_limits import REASONS, Bucket, HandoffLimits
from carbon_exporter.publish.handoff_peer import Credentials, Peer

__all__ = ["Desk", "HandoffServer"]

_log = logging.getLogger(__name__)
_RESCAN_SECONDS = 3.0
_ROOT_CALLS = 8


class Desk(Protocol):
    """Who stands behind the counter. All of it is called on the server's thread, and must not wait."""

    def look(self, who: Credentials) -> Any:
        """Whatever can be found out of somebody who has just knocked, while it is surely there."""

    def ring(self) -> None:
        """Somebody has said hello, or has left: `HandoffServer.take` has them."""

    def watch(self, on: bool) -> None:
        """Whether anybody wants news of the devices; told again and again."""

    def news(self) -> Sequence[bytes]:
        """What has happened since the last call, as lines for all who watch."""


class HandoffServer:
    """Listens from `start` to `stop`."""

    def __init__(
        self,
        path: Path | None,
        desk: Desk,
        *,
        rooms: Path | None = None,
        period: float = 0.1,
        limits: HandoffLimits | None = None,
    ) -> None:
        """Nothing is bound before `start`.

        Args:
            path: of the node's socket, None for none.
            desk: asked for all that is not the socket's own business.
            rooms: a directory with one sub-directory for each job that gets a socket of its own.
            period: seconds between two lots of news.
            limits: what a peer may take.
        """
        self.path = path
        self._desk, self._rooms, self._period = desk, rooms, period
        self.limits = limits or HandoffLimits()
        self.refused = dict.fromkeys(REASONS, 0)
        """Who was turned away, by reason."""
        self._peers: set[Peer] = set()
        self._users: Counter[int] = Counter()
        self._calls: dict[int, Bucket] = {}
        self._waiting: deque[Peer] = deque()
        self._doors: dict[Path, tuple[Door, asyncio.Server]] = {}
        self._trouble: dict[Path, str] = {}
        self._first: Door | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._thread: threading.Thread | None = None

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Who is connected and has said hello; any thread."""
        return tuple(peer for peer in tuple(self._peers) if peer.hello is not None)

    @property
    def listens(self) -> bool:
        """Whether anybody could connect."""
        return self._loop is not None

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._peers)

    def start(self) -> None:
        """Bind and begin to listen. A socket that cannot be had is logged; with none at all nothing runs."""
        if self.path is not None:
            try:
                self._first = open_door(self.path)
            except ListenError as error:
                _log.error("scripts: %s", error)
        if self._first is None and self._rooms is None:
            return
        self._loop, self._stopping, self._changed = asyncio.new_event_loop(), asyncio.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="handoff", daemon=True)
        self._thread.start()
        if self._first is not None:
            _log.info("scripts are heard on %s", self.path)

    def stop(self) -> None:
        """Hang up on everybody and take the sockets away. May be called twice."""
        if self._loop is None or self._thread is None:
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(timeout=2)
        self._loop = self._thread = None

    def take(self) -> list[Peer]:
        """Those who have said hello or have left since the last call; any thread."""
        found = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._waiting.popleft())
        return found

    def say(self, peer: Peer, *lines: bytes) -> None:
        """Send a peer something; any thread."""
        self._soon(peer.send, b"".join(lines))

    def welcome(self, peer: Peer, *lines: bytes) -> None:
        """Send a peer its welcome: from now on it may have news; any thread."""
        peer.welcomed = True
        self._soon(peer.send, b"".join(lines))
        self._soon(self.recount)

    def refuse(self, peer: Peer, reason: str, why: str, remedy: str) -> None:
        """Turn a peer away; any thread."""
        self._soon(peer.refuse, reason, why, remedy)

    def admit(self, peer: Peer) -> None:
        """Somebody knocks."""
        uid, limits = peer.credentials.uid, self.limits
        self._peers.add(peer)
        self._users[uid] += 1
        calls = self._calls.get(uid)
        if calls is None:
            self._calls = {user: bucket for user, bucket in self._calls.items() if not bucket.full}
            many = 1 if uid else _ROOT_CALLS
            calls = self._calls[uid] = Bucket(many * limits.calls_per_second, many * limits.calls_at_once)
        if not calls.take():
            peer.refuse("calls", "too many connections in too short a time", "keep one connection for a process")
        elif len(self._peers) > limits.peers or self._users[uid] > (limits.per_user if uid else limits.per_root):
            peer.refuse("peers", "too many connections at a time", "keep one connection for a process")
        else:
            peer.caller = self._desk.look(peer.credentials)

    def bring(self, peer: Peer) -> None:
        """Somebody has said hello."""
        self._waiting.append(peer)
        self._desk.ring()

    def leave(self, peer: Peer) -> None:
        """Somebody has gone."""
        self._peers.discard(peer)
        self._users[peer.credentials.uid] -= 1
        self._users += Counter()  # forgets those without
        self.recount()
        if peer.hello is not None:
            self.bring(peer)

    def recount(self) -> None:
        """Somebody watches, or does so no more."""
        self._changed.set()

    def count_refused(self, reason: str) -> None:
        """Somebody was turned away."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def _soon(self, call: Any, *arguments: Any) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(call, *arguments)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve())
        except Exception:  # noqa: BLE001 - the log has the traceback; the exporter goes on without scripts
            _log.exception("the scripts' socket failed")
        finally:
            loop.close()

    async def _serve(self) -> None:
        """Until told to stop."""
        tasks = [asyncio.create_task(self._keep_doors()), asyncio.create_task(self._tell_news())]
        await self._stopping.wait()
        self._changed.set()
        await asyncio.wait(tasks)
        for path in tuple(self._doors):
            await self._close(path)
        while self._peers:
            for peer in tuple(self._peers):
                peer.abort()
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _keep_doors(self) -> None:
        """Open what is to be open, again where somebody took it away, and close what is not wanted any more."""
        while not self._stopping.is_set():
            wanted: dict[Path, Job | None] = {} if self.path is None else {self.path: None}
            wanted.update(self._wanted_rooms())
            for path in [path for path, (door, _) in self._doors.items() if path not in wanted or not door.stands]:
                await self._close(path)
            for path in wanted.keys() - self._doors.keys():
                await self._open(path, wanted[path])
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _RESCAN_SECONDS)

    def _wanted_rooms(self) -> Iterable[tuple[Path, Job | None]]:
        if self._rooms is None:
            return []
        try:
            found = [(folder / JOB_SOCKET, job) for folder, job in job_rooms(self._rooms)]
        except OSError as error:
            self._complain(self._rooms, f"cannot look for jobs' sockets in {self._rooms}: {error.strerror}")
            return [(path, door.job) for path, (door, _) in self._doors.items() if door.job is not None]
        self._trouble.pop(self._rooms, None)
        return found

    async def _open(self, path: Path, job: Job | None) -> None:
        door, self._first = self._first if job is None else None, None if job is None else self._first
        try:
            door = door or open_door(path, job)
        except ListenError as error:
            self._complain(path, str(error))
            return
        self._trouble.pop(path, None)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(
            lambda: Peer(self, door, self.limits), sock=door.listener, backlog=BACKLOG
        )
        self._doors[path] = (door, server)

    async def _close(self, path: Path) -> None:
        """Listen there no more; who is connected by it stays so."""
        door, server = self._doors.pop(path)
        asyncio.get_running_loop().remove_reader(door.listener)
        for _ in range(3):
            await asyncio.sleep(0)  # asyncio would lose the sockets of clients that it is about to hand over
        server.close()
        door.close()

    def _complain(self, path: Path, text: str) -> None:
        """Say it once, until it changes."""
        if self._trouble.get(path) != text:
            self._trouble[path] = text
            _log.error("scripts: %s", text)

    async def _tell_news(self) -> None:
        """Every period, while anybody watches."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            self._changed.clear()
            watchers = any(peer.watching and peer.welcomed for peer in self._peers)
            self._desk.watch(watchers)
            if not watchers:
                await self._changed.wait()
                continue
            due = loop.time() + self._period
            self._tell(self._desk.news())
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), max(0.0, due - loop.time()))

    def _tell(self, lines: Sequence[bytes]) -> None:
        for peer in tuple(self._peers):
            if peer.watching and peer.welcomed:
                peer.check_reading()
                for line in lines:
                    peer.send(line, news=True)
