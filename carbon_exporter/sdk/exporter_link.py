"""The link to the node's exporter: whole devices' energy in, running totals of spans out, over one Unix socket.

It has no thread. The sampler's thread looks in about ten times a second: what has come is kept, what is due is handed
to the kernel as far as that takes it, and nothing ever waits but `connect`, `wait` not even that, and `close` for a
given time. If the exporter dies, the link calls again on the same path, with the same session, and tells what was not
yet safe; energy of the time in between is not known, and nothing else steps in for it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import msgspec

from carbon_exporter.carbon.spans import SpanAccount
from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.errors import CarbonExporterError
from carbon_exporter.publish import handoff_wire as wire
from carbon_exporter.sdk.base import BoardUse, Identity, Machine, Price
from carbon_exporter.sdk.line_socket import LineSocket, knock
from carbon_exporter.sdk.told_energy import ToldEnergy
from carbon_exporter.sdk.told_rows import ToldRows
from carbon_exporter.sensors.base import Device
from carbon_exporter.units import GramsPerKwh

__all__ = ["ExporterLink"]

_log = logging.getLogger("carbon_exporter.sdk")

CONNECT_SECONDS = 1.0
FIRST_RETRY, LONGEST_RETRY = 1.0, 5.0
"""Seconds between two calls on an exporter that is away."""
ANSWER_SECONDS = 5.0
"""An exporter that has not welcomed a call by then has hung."""
BYTES_PER_SECOND = 131072.0
"""Of spans, on average: half of what an exporter takes from one script before it calls it a flood."""
LAST_WORDS_SECONDS = 0.05
"""How long an exporter may take to read the end of a session: it may lose what it had not read when we hang up."""
_LATE_SECONDS = 0.02
"""How soon to look again for a message that is late."""
_BEHIND_SECONDS = 0.004
"""How far behind its period a message may be and still be on time."""
_POLL_SECONDS = 0.005
_MOST_WARNINGS = 8


class ExporterLink:
    """One session with the exporter at `path`: `Meters` and `Outlet` in one. For the sampler's thread alone.

    Properties may be read from any thread.
    """

    name = "exporter"

    def __init__(self, path: str, hello: Callable[[], wire.Hello], clock: Callable[[], float] = time.monotonic) -> None:
        """`hello` is asked at the first call and repeated at each; `clock` gives monotonic seconds."""
        self._path, self._make_hello, self._clock = path, hello, clock
        self._hello: wire.Hello | None = None
        self._welcome: wire.Welcome | None = None
        self._price: Price | None = None
        self._energy = ToldEnergy()
        self.slack: Callable[[str], float] = self._energy.slack
        self._boards: BoardUse | None = None
        self._grain = 0.0
        self._account: SpanAccount | None = None
        self._rows = ToldRows()
        self.run_sums: Mapping[str, wire.RunSum] = {}
        """What all ranks of this process's runs have used on this node, as the exporter told last."""
        self._socket: LineSocket | None = None
        self._welcomed = False
        self._watch_wanted = self._watch_told = False
        self._called = self._news = -math.inf
        self._retry = FIRST_RETRY / 2
        self._pace, self._patient_until = BYTES_PER_SECOND, -math.inf
        self._warned: set[str] = set()

    @property
    def alive(self) -> bool:
        """Whether the exporter is there now and has accepted this session."""
        return self._welcomed

    @property
    def price(self) -> Price | None:
        """What a kilowatt-hour costs the air, as the exporter told last."""
        return self._price

    @property
    def identity(self) -> Identity | None:
        """Who this process is, as the exporter found it; None before it has."""
        if self._welcome is None or self._hello is None:
            return None
        return Identity(self._welcome.job, self._welcome.namespace, self._hello.run, self._hello.rank)

    @property
    def devices(self) -> tuple[Device, ...]:
        """All devices that the exporter measures."""
        return self._energy.devices

    @property
    def machine(self) -> Machine:
        """What CPU time and memory are shares of."""
        if self._welcome is None:
            return Machine(os.cpu_count() or 1, 0.0)
        return Machine(self._welcome.cpus, self._welcome.memory_total, self._welcome.idle)

    def connect(self, timeout: float = CONNECT_SECONDS) -> bool:
        """Call and wait to be welcomed and told the price. False if nobody listens, or not to this process."""
        until = self._clock() + timeout
        if not self._knock(until):
            return False
        self._turn()
        while self._socket is not None:  # None once it was hung up on: refused, or ended just then
            if self._welcomed and self._price is not None:
                return True
            if self._clock() >= until:
                self._hang_up()
                break
            self._wait_for_news(until)
            self._turn()
        return False

    def open(self) -> None:
        """Connect, if that was never done; an exporter that is away comes back. Raises `CarbonExporterError`."""
        if self._welcome is None and not self.connect():
            raise CarbonExporterError(
                f"no exporter answers at {self._path}", remedy="start it: systemctl start carbon-exporter"
            )

    def read(self) -> Sequence[EnergySlice]:
        """Energy that has come since the last look. Asks for more where `pause` had said enough."""
        self._watch_wanted = True
        self._turn()
        return self.take()

    def glance(self) -> bool:
        """Keep what has come; whether `read` is wanted, to ask for more."""
        self._turn()
        return not self._watch_wanted

    def ease(self, grain: float) -> None:
        """Look in every `grain` seconds; if that is more often, soon, to be there again when messages come."""
        finer, self._grain = grain < self._grain, grain
        if finer and self._welcome is not None:
            self._news = min(self._news, self._clock() - self._welcome.period)

    def take(self) -> Sequence[EnergySlice]:
        """Energy by what has come since the last time. Any thread, one at a time with `read`."""
        return self._energy.take(self._warn)

    def wait(self) -> float:
        """Seconds until the next message is due; seconds until the next call while the exporter is away."""
        now = self._clock()
        if self._socket is None:
            return max(0.0, self._called + self._retry - now)
        period = self._welcome.period if self._welcome else FIRST_RETRY
        period = max(period, self._grain)
        due = self._news + period + _BEHIND_SECONDS - now
        if due > 0:
            return due
        return _LATE_SECONDS if due > -period else period

    def boards(self) -> BoardUse | None:
        """What this process tree pays of each board; None if the exporter cannot tell."""
        return self._boards

    def pause(self) -> None:
        """No energy is wanted until the next `read`."""
        self._watch_wanted = False
        self._turn()
        self._energy.clear()

    def start(self, account: SpanAccount, identity: Identity) -> None:
        """Tell of this account from now on; `identity` as the exporter has told it."""
        self._account = account
        self._rows.own_job = identity.job

    def tell(self) -> None:
        """Hand to the kernel what has changed, as far as it takes that at once; the rest stays due."""
        if self._account is not None:
            self._rows.note(self._account.totals)
            self._rows.note_runs(self._account.all_runs())
        self._turn()

    def close(self, patience: float | None = None) -> None:
        """Tell what is left, within `patience` seconds, and hang up. Without a number no energy is wanted any more.

        For that is how meters are closed, and the last spans follow when they are.
        """
        if patience is None and self._account is not None:
            self.pause()
            return
        patience = patience or 0.0
        self._watch_wanted = False
        until = self._clock() + patience
        if self._account is not None:
            self._rows.note(self._account.totals)
            self._rows.note_runs(self._account.all_runs())
        if self._socket is None and not self._rows.unsafe:
            return
        self._called = -math.inf  # one that is back gets its last chance now
        self._pace, self._patient_until = math.inf, -math.inf
        self._turn()
        while self._socket is not None and not self._all_said() and self._clock() < until:
            self._wait_for_news(until)
            self._turn()
        if self._all_said():
            self._rows.trust()
            self._say_farewell(min(until, self._clock() + LAST_WORDS_SECONDS))
        self._hang_up()

    def forget(self) -> None:
        """In a forked child: let go of the parent's connection without a word on it."""
        connection, self._socket, self._welcomed = self._socket, None, False
        if connection is not None:
            connection.close()

    def _turn(self) -> None:
        """Take what has come, hand over what is due, and call again if the exporter was away long enough."""
        if self._socket is None and self._clock() >= self._called + self._retry:
            self._call()
        try:
            self._hear()
            self._say()
        except (OSError, EOFError):
            self._hang_up()
        if self._socket is not None and not self._welcomed and self._clock() > self._called + ANSWER_SECONDS:
            self._hang_up()

    def _knock(self, until: float) -> bool:
        """Call, and again while too many others do; whether somebody is there."""
        while self._socket is None:
            trouble = self._call()
            if trouble and (trouble != errno.EAGAIN or self._clock() >= until):
                return False
            if trouble:
                time.sleep(_POLL_SECONDS)
        return True

    def _call(self) -> int:
        """Connect and say hello; the welcome comes later, or not. Returns 0, or the error's number."""
        self._called = self._clock()
        self._retry = min(self._retry * 2, LONGEST_RETRY)
        found = knock(self._path)
        if isinstance(found, int):
            return found
        if self._hello is None:
            self._hello = _within_limits(self._make_hello())
        self._socket = LineSocket(found, wire.LONGEST_LINE)
        with contextlib.suppress(OSError):  # gone already, which the next look finds
            self._socket.say(wire.encode(self._hello))
        return 0

    def _hang_up(self) -> None:
        connection, self._socket = self._socket, None
        self._welcomed = self._watch_told = False
        self._rows.lost()
        if connection is not None:
            connection.close()

    def _hear(self) -> None:
        """All that has come. Raises `EOFError` once the exporter has hung up."""
        for line in self._socket.hear() if self._socket else ():
            if self._energy.note(line):
                self._news = self._clock()
            else:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = wire.decode_exporter(line)
        except msgspec.ValidationError as error:
            self._warn(f"a message of the exporter is not understood, and left out: {error}")
        except msgspec.DecodeError:
            self._give_up(f"what listens at {self._path} is no exporter")
        else:
            self._on(message)

    def _on(self, message: wire.FromExporter) -> None:
        """What a message of the exporter changes here."""
        if isinstance(message, wire.Energy):
            self._news = self._clock()
            self._energy.note_understood(message)
        elif isinstance(message, wire.Seen):
            self._rows.seen(message.number)
            self.run_sums = {one.run: one for one in message.runs}
        elif isinstance(message, wire.Boards):
            shares = {row.device: min(max(row.share, 0.0), 1.0) for row in message.shares}
            self._boards = BoardUse(shares, message.certain) if message.known else None
        elif isinstance(message, wire.Grid):
            source = f"{message.provider}/{message.quality}"
            self._price = Price(message.region, GramsPerKwh(message.grams_per_kwh), message.pue, source)
        elif isinstance(message, wire.Welcome):
            self._on_welcome(message)
        else:
            self._give_up(f"the exporter at {self._path} refuses this process: {message.reason}; {message.remedy}")

    def _on_welcome(self, welcome: wire.Welcome) -> None:
        if welcome.version != wire.VERSION:
            self._give_up(f"the exporter speaks version {welcome.version}, not {wire.VERSION}: install one release")
        self._welcome, self._welcomed, self._retry = welcome, True, FIRST_RETRY / 2
        self._news = self._clock()
        self._energy.know(welcome.devices)

    def _say(self) -> None:
        """Hand lines to the kernel until it takes no more or nothing is due."""
        while self._socket is not None and self._socket.say():
            line = self._next_line()
            if not line:
                return
            self._socket.say(line)

    def _next_line(self) -> bytes | None:
        """Made of what stands now; nothing if there is nothing to say, or before the welcome."""
        if not self._welcomed:
            return None
        if self._watch_told != self._watch_wanted:
            self._watch_told = self._watch_wanted
            return wire.encode(wire.Watch(self._watch_wanted))
        if self._clock() < self._patient_until:
            return None
        line = self._rows.take()
        self._patient_until = self._clock() + len(line or b"") / self._pace
        return line

    def _all_said(self) -> bool:
        return self._socket is not None and self._socket.silent and not self._rows.due

    def _wait_for_news(self, until: float) -> None:
        """Wait until something has come, or a moment has passed."""
        if self._socket is not None:
            self._socket.wait(min(_POLL_SECONDS, until - self._clock()))

    def _say_farewell(self, until: float) -> None:
        """End our side, and read the other until it has ended too: else the kernel may take our last words back."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError, EOFError):
            self._socket.end()
            while self._clock() < until:
                self._hear()
                self._wait_for_news(until)

    def _give_up(self, why: str) -> NoReturn:
        """End this connection; the next call may fare better."""
        self._warn(why)
        raise EOFError

    def _warn(self, text: str) -> None:
        """Once each."""
        if text not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add(text)
            _log.warning("%s", text)


def _within_limits(hello: wire.Hello) -> wire.Hello:
    """The same with texts that the wire takes."""
    texts = {field: wire.fit(getattr(hello, field)) for field in ("job", "run", "rank")}
    return msgspec.structs.replace(hello, **texts)
