"""A real socket's server with somebody behind the counter who welcomes all, and tells what the test says."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from carbon_exporter.publish import handoff_wire as wire
from carbon_exporter.publish.handoff import HandoffServer
from carbon_exporter.publish.handoff_limits import HandoffLimits
from carbon_exporter.publish.handoff_peer import Credentials, Peer

__all__ = ["WELCOME", "Counter", "counter"]

WELCOME = wire.Welcome(wire.VERSION, "train", "", 2, 2.0**30, "separate", 0.1, ())


class Counter:
    """Welcomes on a thread of its own, as the sampling thread does."""

    def __init__(self, path: Path | None, rooms: Path | None, limits: HandoffLimits | None, period: float) -> None:
        self.looked: list[Credentials] = []
        self.watched: list[bool] = []
        self.left: list[Peer] = []
        self.lines: Sequence[bytes] = ()
        self.told: dict[tuple[str, str], wire.SpanRow] = {}
        self._rung = threading.Event()
        self._closing = False
        self.server = HandoffServer(path, self, rooms=rooms, period=period, limits=limits)
        self._thread = threading.Thread(target=self._work, daemon=True)

    def look(self, who: Credentials) -> Credentials:
        self.looked.append(who)
        return who

    def ring(self) -> None:
        self._rung.set()

    def watch(self, on: bool) -> None:
        self.watched.append(on)

    def news(self) -> Sequence[bytes]:
        return self.lines

    def forget(self) -> None:
        """Remember nothing of what has been, so that only the server can grow."""
        for one in (self.looked, self.watched, self.left, self.told):
            one.clear()

    def start(self) -> None:
        self.server.start()
        self._thread.start()

    def stop(self) -> None:
        self.server.stop()
        self._closing = True
        self._rung.set()
        self._thread.join(5)

    def _work(self) -> None:
        while not self._closing:
            self._rung.wait()
            self._rung.clear()
            for peer in self.server.take():
                if peer.gone:
                    self.left.append(peer)
                    self.told.update(peer.take().rows)
                elif peer.hello is not None:
                    self.server.welcome(peer, wire.encode(WELCOME))


@contextmanager
def counter(
    path: Path | None, *, rooms: Path | None = None, limits: HandoffLimits | None = None, period: float = 0.1
) -> Iterator[Counter]:
    """One that is open, and closed at the end."""
    one = Counter(path, rooms, limits, period)
    one.start()
    try:
        yield one
    finally:
        one.stop()
