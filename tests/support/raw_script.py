"""A script at the exporter's socket, without the SDK: the wire's lines, one by one."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from carbon_exporter.publish import handoff_wire as wire

__all__ = ["RawScript", "row", "session_name"]

_M = TypeVar("_M")


def session_name() -> str:
    """A new session's."""
    return os.urandom(16).hex()


def row(span: str, joules: float, *, seconds: float = 0.0, count: int = 0, **values: float) -> wire.SpanRow:
    """A running total of one kind."""
    return wire.SpanRow(span, {"cpu": joules}, seconds, count, values)


class RawScript:
    """One connection. All that comes is kept in `heard`."""

    def __init__(self, path: Path, *, session: str = "", job: str = "", rank: str = "", hello: bool = True) -> None:
        self.session = session or session_name()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(5)
        self.socket.connect(str(path))
        self.heard: list[wire.FromExporter] = []
        self.ended = False
        self._rest = b""
        self._number = 0
        if hello:
            self.send(wire.Hello(wire.VERSION, self.session, job, "", rank))

    def __enter__(self) -> RawScript:  # noqa: PYI034 - Self is of Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def send(self, message: wire.FromScript) -> None:
        """One line."""
        self.socket.sendall(wire.encode(message))

    def tell(self, *rows: wire.SpanRow) -> int:
        """Running totals; returns the message's number."""
        self._number += 1
        self.send(wire.Spans(self._number, rows))
        return self._number

    def listen(self, seconds: float = 0.0) -> None:
        """Read what comes within some seconds, or until the exporter hangs up."""
        until = time.monotonic() + seconds
        while not self.ended and select.select([self.socket], [], [], max(0.0, until - time.monotonic()))[0]:
            try:
                chunk = self.socket.recv(65536)
            except ConnectionResetError:
                chunk = b""
            self.ended = not chunk
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            self.heard += [wire.decode_exporter(line) for line in lines]

    def wait_for(self, kind: type[_M], wanted: Callable[[_M], bool] = lambda _: True, seconds: float = 10.0) -> _M:
        """The first message of a kind that is as wanted; those before it stay in `heard`."""
        until = time.monotonic() + seconds
        while True:
            for message in self.heard:
                if isinstance(message, kind) and wanted(message):
                    return message
            assert not self.ended, f"the exporter hung up: {self.heard[-3:]}"
            assert time.monotonic() < until, f"no {kind.__name__} in time; heard {self.heard[-3:]}"
            self.listen(0.02)

    def refusal(self, seconds: float = 10.0) -> wire.Refused:
        """The reason why it was turned away."""
        refused = self.wait_for(wire.Refused, seconds=seconds)
        until = time.monotonic() + seconds
        while not self.ended:
            assert time.monotonic() < until, "it was refused and not hung up on"
            self.listen(0.02)
        return refused


def _main(path: str, session: str, job: str, span: str, joules: str) -> None:
    """As a process of its own: tell of one span, print whose it is or why it was refused, and end with the input."""
    with RawScript(Path(path), session=session, job=job) as script:
        script.wait_for((wire.Welcome, wire.Refused))  # type: ignore[arg-type]
        (answer,) = (one for one in script.heard if isinstance(one, (wire.Welcome, wire.Refused)))
        if isinstance(answer, wire.Refused):
            sys.stdout.write(f"refused: {answer.reason}; {answer.remedy}\n")
            return
        script.tell(row(span, float(joules), seconds=1.0, count=1))
        boards = script.wait_for(wire.Boards)
        sys.stdout.write(
            f"{answer.namespace}/{answer.job} {boards.known} {[(one.device, one.share) for one in boards.shares]}\n"
        )
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    _main(*sys.argv[1:])
