"""Container engines: what Docker and Podman call their containers, from the list that they serve on a Unix socket.

One question is asked, `GET /containers/json` (Docker Engine API; Podman serves it too), without a version, so that old
and new engines answer it. Whoever may write to such a socket is root on the machine, so access to it is used where it
is given and never asked for: without it containers are named by their ids.

An engine is asked at the start, when somebody meets a container that is not known, and once a minute while containers
are looked up at all. So an engine that its socket starts (Podman with systemd) is left asleep where none run.
"""

from __future__ import annotations

import contextlib
import io
import logging
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from carbon_exporter.jobs.base import ResolverHealth, clean_name
from carbon_exporter.jobs.workload import Container

__all__ = ["EngineTrouble", "Engines", "default_sockets", "parse_answer", "parse_containers"]

_log = logging.getLogger(__name__)

RESOLVER = "engine"
REQUEST = b"GET /containers/json?all=0 HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"
"""HTTP/1.0: the answer ends with the connection, and one deadline holds for all of it."""

ANSWER_SECONDS = 5.0
MOST_BYTES = 16 << 20
"""Engines tell about 1 to 3 KB a container."""
MOST_CONTAINERS = 4096
MOST_LABELS = 256
LONGEST_LABEL = 512

AGAIN_SECONDS = 2.0
"""The shortest time between two lists, however many containers are met that are not known."""
PERIOD_SECONDS = 60.0
"""A container may be renamed."""
LONGEST_PAUSE_SECONDS = 30.0
TRIES = 3
"""So many lists without it, and a container is another engine's: nobody asks for it again before the next minute."""
LINGER_SECONDS = 600.0
"""A container that has ended is known so much longer: its energy may still be posted."""

_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


class EngineTrouble(Exception):
    """An engine that is there and does not answer as it should."""


@dataclass(slots=True)
class _Socket:
    """One engine's socket, and how it fared when it was last asked."""

    path: str
    trouble: str = ""
    denied: bool = False


class _Entry(msgspec.Struct, rename="pascal"):
    """What is read of a container in the list."""

    id: str
    names: list[str] | None = None
    labels: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """A container, and when (monotonic seconds) it was last in a list."""

    container: Container
    seen: float


@dataclass(frozen=True, slots=True)
class _Answer:
    """All that an engine sent, in the place of the socket that it came by."""

    content: bytes = field(repr=False)

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self.content)


def default_sockets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Where engines listen: Docker's, Podman's, and that of a Podman without root of this process's user."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    own = (f"{runtime}/podman/podman.sock",) if runtime.startswith("/") else ()
    return ("/var/run/docker.sock", "/run/podman/podman.sock", *own)


class Engines:
    """All engines of this machine: a directory with a thread of its own. Lookups are for one thread."""

    def __init__(
        self,
        sockets: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
        *,
        period: float = PERIOD_SECONDS,
        again: float = AGAIN_SECONDS,
        patience: float = ANSWER_SECONDS,
    ) -> None:
        """Nothing is asked before `start`. `patience` is the time in seconds that an engine has for its answer."""
        self._sockets = tuple(_Socket(path) for path in sockets)
        self._clock = clock
        self._period = period
        self._again = again
        self._patience = patience
        self._known: Mapping[str, _Known] = MappingProxyType({})
        self._wanted: dict[str, None] = {}
        """Ids that were looked up and not known since the last list."""
        self._strangers: Mapping[str, int] = MappingProxyType({})
        """Ids that no list had, and in how many they were looked for."""
        self._looked_up = False
        self._failures = 0
        self._health = ResolverHealth(RESOLVER, success=True)
        self._revision = 0
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._open: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def revision(self) -> int:
        """Rises with each change of what it knows."""
        return self._revision

    def start(self) -> None:
        """Begin to ask."""
        self._thread = threading.Thread(target=self._run, name="container-engines", daemon=True)
        self._thread.start()

    def health(self) -> ResolverHealth:
        """Whether each engine that is there answers; a socket that may not be used is no failure, but is told."""
        return self._health

    def close(self) -> None:
        """Stop asking; an answer that is awaited is dropped."""
        self._closed.set()
        self._wake.set()
        if self._open is not None:
            with contextlib.suppress(OSError):
                self._open.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(1.0)

    def by_id(self, container_id: str) -> Container | None:
        """The container with this id (64 hex digits), also for a while after its end; None if no engine knows it."""
        self._looked_up = True
        known = self._known.get(container_id)
        if known is not None:
            return known.container
        if self._strangers.get(container_id, 0) < TRIES and len(self._wanted) < MOST_CONTAINERS:
            self._wanted[container_id] = None
            self._wake.set()
        return None

    def _run(self) -> None:
        while not self._closed.is_set():
            pause = self._refresh()
            if self._closed.wait(pause):
                return
            while not self._wake.wait(max(0.0, self._period - pause)) and not self._looked_up:
                pass
            self._wake.clear()

    def _refresh(self) -> float:
        """Ask each engine once; returns how many seconds to wait at least before the next time."""
        wanted, self._wanted, self._looked_up = self._wanted, {}, False
        listed: dict[str, Container] = {}
        for one in self._sockets:
            listed.update(self._ask(one))
        if self._closed.is_set():
            return 0.0
        self._remember(listed)
        self._tell()
        if any(one.trouble for one in self._sockets):
            self._failures += 1
            longest = min(LONGEST_PAUSE_SECONDS, self._again * 2.0 ** min(self._failures, 10))
            return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._failures = 0
        strangers = {key: tries for key, tries in self._strangers.items() if key not in listed} if wanted else {}
        strangers.update((key, strangers.get(key, 0) + 1) for key in wanted if key not in listed)
        self._strangers = MappingProxyType(dict(list(strangers.items())[-MOST_CONTAINERS:]))
        return self._again

    def _remember(self, listed: Mapping[str, Container]) -> None:
        now = self._clock()
        ended = {key: one for key, one in self._known.items() if key not in listed and now - one.seen < LINGER_SECONDS}
        living = {key: _Known(container, now) for key, container in listed.items()}
        newest = sorted(ended.items(), key=lambda item: item[1].seen)[-MOST_CONTAINERS:]
        before = {key: one.container for key, one in self._known.items()}
        self._known = MappingProxyType({**dict(newest), **living})
        if before != {key: one.container for key, one in self._known.items()}:
            self._revision += 1

    def _ask(self, one: _Socket) -> dict[str, Container]:
        """One engine's containers by id; none if it does not answer: what it had is known for a while longer."""
        trouble = ""
        one.denied = False
        found: dict[str, Container] = {}
        try:
            found = {container.id: container for container in self._list(one.path)}
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            pass  # no such engine here, or it has left its socket behind
        except PermissionError:
            one.denied = True
        except TimeoutError:
            trouble = f"{one.path}: no answer in time"
        except EngineTrouble as error:
            trouble = f"{one.path}: {error}"
        except OSError as error:
            trouble = f"{one.path}: {error.strerror or 'it cannot be used'}"
        if self._closed.is_set():
            return found
        if trouble and not one.trouble:
            _log.warning("%s; containers that it starts are named by their ids", trouble)
        elif one.trouble and not trouble:
            _log.info("%s answers again", one.path)
        one.trouble = trouble
        return found

    def _list(self, path: str) -> tuple[Container, ...]:
        deadline = time.monotonic() + self._patience
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self._patience)
            connection.connect(path)
            self._open = connection
            try:
                connection.sendall(REQUEST)
                content = b"".join(_receive(connection, deadline))
            finally:
                self._open = None
        return parse_answer(content)

    def _tell(self) -> None:
        """What health says from now on."""
        troubles = [one.trouble for one in self._sockets if one.trouble]
        denied = [one.path for one in self._sockets if one.denied]
        if troubles:
            self._health = ResolverHealth(RESOLVER, success=False, reason="; ".join(troubles), remedy="is it running?")
        elif denied:
            reason = f"names of containers are their ids: {', '.join(denied)} may not be used by this user"
            remedy = (
                "to see names, let the exporter's user use it (`docker` is the group of Docker's socket): whoever may "
                "is root on this machine"
            )
            self._health = ResolverHealth(RESOLVER, success=True, reason=reason, remedy=remedy)
        else:
            self._health = ResolverHealth(RESOLVER, success=True)


def parse_answer(content: bytes) -> tuple[Container, ...]:
    """The containers in all that an engine sent, head and body. Raises `EngineTrouble`."""
    import http.client  # noqa: PLC0415 - it brings TLS and mail along, for machines that have engines

    try:
        response = http.client.HTTPResponse(_Answer(content))  # type: ignore[arg-type]  # it asks for makefile only
        response.begin()
        body = response.read()
    except (http.client.HTTPException, ValueError):
        raise EngineTrouble("it does not speak HTTP, or breaks off") from None
    if response.status != http.client.OK:
        raise EngineTrouble(f"it answers with status {response.status}")
    podman = response.getheader("Libpod-API-Version") or "libpod" in (response.getheader("Server") or "").lower()
    return parse_containers(body, "podman" if podman else "docker")


def parse_containers(body: bytes, engine: str) -> tuple[Container, ...]:
    """The containers of a list, at most 4096; entries that are none are left out. Raises `EngineTrouble`."""
    try:
        entries = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise EngineTrouble("it answers with something that is no list of containers") from None
    found = (_container(entry, engine) for entry in entries[:MOST_CONTAINERS])
    return tuple(container for container in found if container is not None)


def _container(raw: msgspec.Raw, engine: str) -> Container | None:
    try:
        entry = msgspec.json.decode(raw, type=_Entry)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    # Links to other containers are names with a second slash.
    names = (name.removeprefix("/") for name in entry.names or ())
    name = next((cleaned for name in names if "/" not in name and (cleaned := clean_name(name))), "")
    if not _ID.fullmatch(entry.id) or not name:
        return None
    labels = {
        key: value[:LONGEST_LABEL]
        for key, value in list((entry.labels or {}).items())[:MOST_LABELS]
        if len(key) <= LONGEST_LABEL
    }
    return Container(entry.id, name, engine, MappingProxyType(labels))


def _receive(connection: socket.socket, deadline: float) -> Iterator[bytes]:
    """All that is sent. Raises `TimeoutError` after the deadline, however small the drops it comes in."""
    size = 0
    while True:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = connection.recv(65536)
        if not chunk:
            return
        size += len(chunk)
        if size > MOST_BYTES:
            raise EngineTrouble(f"its answer is longer than {MOST_BYTES >> 20} MiB")
        if time.monotonic() >= deadline:
            raise TimeoutError
        yield chunk
