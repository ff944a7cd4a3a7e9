"""A small real exporter's end of the socket: it records what scripts say, says what it is told, dies and comes back."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from carbon_exporter.publish.handoff_wire import (
    VERSION,
    DeviceRow,
    Energy,
    FromExporter,
    FromScript,
    Grid,
    Hello,
    SliceRow,
    SpanRow,
    Spans,
    Watch,
    Welcome,
    decode_script,
    encode,
)

__all__ = ["GRID", "HandoffPeer", "energy", "handoff_peer", "hello", "welcome"]

SESSION = "0123456789abcdef" * 2
GRID = Grid("FR", 44.5, 1.25, "static", "yearly", "Ember, 2025")


def welcome(**changes: Any) -> Welcome:
    """A node with two devices."""
    known: dict[str, Any] = {
        "version": VERSION,
        "job": "train",
        "namespace": "research",
        "cpus": 8,
        "memory_total": 2.0**34,
        "idle": "separate",
        "period": 0.1,
        "devices": (
            DeviceRow("cpu0", "cpu", "rapl", "Intel", "Xeon", "1", "measured", 300.0, 0.001),
            DeviceRow("gpu0", "gpu", "nvidia", "NVIDIA", "H100", "GPU-1", "integrated", None, 0.1),
        ),
    }
    return Welcome(**{**known, **changes})


def hello(**changes: Any) -> Hello:
    """What a script says first."""
    return Hello(**{"version": VERSION, "session": SESSION, "job": "mine", "run": "r1", "rank": "0", **changes})


def energy(device: str = "cpu0", start: float = 1.0, end: float = 1.1, joules: float = 5.0) -> Energy:
    """One slice of one device."""
    return Energy((SliceRow(device, start, end, joules, 0.002),))


class HandoffPeer:
    """Listens at a path. Connections and lines are recorded; `answers` are what every hello gets."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.answers: tuple[FromExporter, ...] = (welcome(), GRID)
        self.heard: list[FromScript] = []
        self.lengths: list[int] = []
        """Of the lines heard, in bytes."""
        self.connections = 0
        self.endings = 0
        """Connections that the script ended itself."""
        self.acknowledges = False
        self.reads = True
        """Whether it listens to what a script says after its hello."""
        self._live: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None

    @property
    def spans(self) -> dict[str, SpanRow]:
        """The newest row of each span."""
        return {row.span: row for message in self.messages(Spans) for row in message.rows}

    def messages(self, kind: type[Any]) -> list[Any]:
        """What was said, of one kind."""
        return [message for message in self.heard if isinstance(message, kind)]

    @property
    def watched(self) -> bool | None:
        """What was said last about energy."""
        said = [message.on for message in self.heard if isinstance(message, Watch)]
        return said[-1] if said else None

    def say(self, *messages: FromExporter) -> None:
        """Tell all scripts that are connected."""
        self.say_bytes(b"".join(encode(message) for message in messages))

    def say_bytes(self, data: bytes) -> None:
        """Tell them just this."""
        for connection in self._live:
            connection.sendall(data)

    def come(self) -> None:
        """Begin to listen, as an exporter that was started."""
        Path(self.path).unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(16)
        self._begin(self._accept, self._listener)

    def die(self) -> None:
        """End at once, as one that was killed; its socket file stays."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            listener.close()
        for connection in self._live:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for connection in self._live:
            connection.close()
        self._live, self._threads = [], []

    def _begin(self, what: Callable[[socket.socket], None], about: socket.socket) -> None:
        thread = threading.Thread(target=what, args=(about,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self._live.append(connection)
                self.connections += 1
                self._begin(self._listen, connection)

    def _listen(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection.makefile("rb") as lines:
            for line in lines:
                message = decode_script(line)
                self.heard.append(message)
                self.lengths.append(len(line))
                if isinstance(message, Hello):
                    connection.sendall(b"".join(encode(answer) for answer in self.answers))
                elif isinstance(message, Spans) and self.acknowledges:
                    connection.sendall(b'{"type":"seen","number":%d}\n' % message.number)
                while not self.reads and self._listener is not None:
                    time.sleep(0.01)
            self.endings += 1
            connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def handoff_peer() -> Iterator[HandoffPeer]:
    """One that has come, in a short directory, for a socket's path has 107 characters."""
    with tempfile.TemporaryDirectory(prefix="peer") as directory:
        peer = HandoffPeer(str(Path(directory) / "sdk.sock"))
        peer.come()
        try:
            yield peer
        finally:
            peer.die()
