"""The engine: what a tracker's thread makes once the path is chosen, and what it is ended by."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from threading import Lock

from carbon_exporter.carbon.spans import SpanAccount
from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.sdk.base import BoardUse, Machine, Meters, Outlet
from carbon_exporter.sdk.cadence import Cadence, Plan
from carbon_exporter.sdk.choice import Choice, choose
from carbon_exporter.sdk.hurry import hurried
from carbon_exporter.sdk.journal import RunJournal, journal_directory
from carbon_exporter.sdk.lanes import Lanes
from carbon_exporter.sdk.laps import Lap
from carbon_exporter.sdk.options import Options
from carbon_exporter.sdk.own_boards import own_boards
from carbon_exporter.sdk.own_use import OwnUse
from carbon_exporter.sdk.presence import Presence
from carbon_exporter.sdk.reckoning import Meter
from carbon_exporter.sdk.run_record import RunRecord, other_totals, run_totals
from carbon_exporter.sdk.sampler import Sampler
from carbon_exporter.sdk.settling import Settler
from carbon_exporter.sensors.base import Device

__all__ = ["Engine", "GatedMeters"]

JOIN_SECONDS = 0.2
OUTLET_SECONDS = 0.3
BOARDS_SECONDS = 1.0
MOST_NAMED = 256


class GatedMeters:
    """Meters that are opened behind a gate, and whose devices' kinds and qualities are noted."""

    def __init__(self, meters: Meters, gate: Lock) -> None:
        """A fork waits for the gate: loading modules or a driver's library must not be cut in two by it."""
        self._meters, self._gate = meters, gate
        self.name = meters.name
        self.slack: Callable[[str], float] = meters.slack
        self.glance: Callable[[], bool] = meters.glance
        self.wait: Callable[[], float] = meters.wait
        """As the meters have them."""
        self.known: Mapping[str, Meter] = {}
        """All devices that have given energy; replaced as a whole."""

    def open(self) -> None:
        """Find the devices."""
        with self._gate, hurried():
            self._meters.open()

    @property
    def devices(self) -> tuple[Device, ...]:
        """What is measured now."""
        return self._meters.devices

    @property
    def machine(self) -> Machine:
        """What CPU time and memory are shares of."""
        return self._meters.machine

    def read(self) -> Sequence[EnergySlice]:
        """Energy since the last call."""
        return self._noted(self._meters.read())

    def ease(self, grain: float) -> None:
        """How finely to read."""
        self._meters.ease(grain)

    def take(self) -> Sequence[EnergySlice]:
        """Energy by what was noted."""
        return self._noted(self._meters.take())

    def _noted(self, slices: Sequence[EnergySlice]) -> Sequence[EnergySlice]:
        """The same, with their devices noted."""
        for one in slices:
            device = one.device
            known = self.known.get(device.name)
            if known is None or known.quality is not one.quality or known.kind != device.kind:
                self.known = {**self.known, device.name: Meter(device.kind, one.quality)}
        return slices

    def boards(self) -> BoardUse | None:
        """As the driver lists them."""
        return self._meters.boards()

    def pause(self) -> None:
        """Nobody measures any more."""
        self._meters.pause()

    def close(self) -> None:
        """Give everything back."""
        self._meters.close()


class Engine:
    """Sampler, odometer, settler and outlet of one process. Made on the tracker's thread."""

    def __init__(
        self,
        options: Options,
        environ: Mapping[str, str],
        *,
        lanes: Lanes,
        laps: Callable[[], tuple[Lap, ...]],
        ended: deque[Lap],
        gate: Lock,
        runs: Sequence[RunRecord] = (),
        choose: Callable[..., Choice] = choose,
    ) -> None:
        """Chooses the path. May take seconds, and raises whatever a broken installation raises."""
        self._laps, self._ended, self._environ = laps, ended, environ
        self._named: dict[str | int, None] = {}
        presence = Presence()
        presence.announce()
        self._presence = presence
        self._known_boards, self._boards_due = BoardUse(), 0.0
        self._asked_for: list[str | int] | None = None
        use = OwnUse(presence=Presence(()) if options.whole_tree else presence)
        self.choice = choose(options, environ, use.pids, self._wanted_names)
        self._outlet = _journalled(self.choice, environ)
        use.needs_busy = self.choice.path == "exporter" and self.choice.meters.machine.idle == "shared"
        self.meters = GatedMeters(self.choice.meters, gate)
        self.account = SpanAccount()
        self.account.runs = lambda: run_totals(runs, self.choice.identity())
        self.account.other_runs = lambda: other_totals(runs, self.choice.identity())
        self._cadence = Cadence()
        self.sampler = Sampler(self.meters, use, self._boards, self._tick, cadence=self._plan)
        self.hold, self.release = self.sampler.hold, self.sampler.release
        self.hurry, self.catch_up = self.sampler.hurry, self.sampler.catch_up
        self.settler: Settler = Settler(
            lanes=lanes,
            odometer=self.sampler.odometer,
            account=self.account,
            outlet=self._outlet,
            identity=self.choice.identity,
            price=self.choice.price,
            meters=lambda: self.meters.known,
            boards=self._boards_of,
            release=self._settled,
        )
        if self._outlet is not None:
            self._outlet.start(self.account, self.choice.identity())

    def finish(self, laps: Iterable[Lap], ended: deque[Lap], until: float) -> None:
        """The process ends: what there is goes out, until `until` on the monotonic clock."""
        self.sampler.close(min(JOIN_SECONDS, max(0.0, until - time.monotonic())))
        self.settler.finish(laps, ended)
        if self._outlet is not None:
            self._outlet.close(min(OUTLET_SECONDS, max(0.0, until - time.monotonic())))
        self._presence.withdraw()

    def forget(self) -> None:
        """In a forked child: let go of the parent's threads and sockets."""
        for part in (self.sampler, self.choice.meters, self._outlet):
            forget = getattr(part, "forget", None)
            if forget is not None:
                forget()

    def _plan(self, now: float, began: float) -> Plan:
        return self._cadence.plan(now, began, self._laps())

    def _settled(self, lap: Lap) -> None:
        """It holds the sampler no more."""
        if lap.ended is not None:
            self._cadence.note(lap.name, lap.ended[0] - lap.began[0])
        self.sampler.release()

    def _tick(self) -> None:
        self.settler.tick(self._laps(), self._ended)

    def _wanted(self) -> list[str | int] | None:
        """The boards that spans were told to use so far; None where none of them was told.

        A board that was named once stays this process's: one that were nobody's between two blocks would look as if its
        load had stepped. Blocks that name boards count those alone.
        """
        for lap in (*self._laps(), *self._ended.copy()):
            if lap.devices is not None and len(self._named) < MOST_NAMED:
                self._named.update(dict.fromkeys(lap.devices))
        return list(self._named) or None

    def _wanted_names(self) -> Collection[str] | None:
        """The boards to read closely: those, else the ones that this process is known to be on; None for all."""
        wanted = self._wanted()
        return frozenset(self._known_boards.shares) or None if wanted is None else self._resolved(wanted)

    def _boards(self) -> BoardUse:
        """What this process pays of each board, asked anew once a second, and when open spans name others."""
        now, wanted = time.monotonic(), self._wanted()
        if now >= self._boards_due or wanted != self._asked_for:
            self._boards_due, self._asked_for = now + BOARDS_SECONDS, wanted
            told = self.meters.boards()
            self._known_boards = own_boards(self.meters.devices, told, self._environ, wanted, sys.modules)
        return self._known_boards

    def _boards_of(self, lap: Lap) -> frozenset[str] | None:
        return None if lap.devices is None else self._resolved(lap.devices)

    def _resolved(self, wanted: Sequence[str | int]) -> frozenset[str]:
        """Names of boards, from names, uuids or the framework's numbers."""
        return frozenset(own_boards(self.meters.devices, None, self._environ, wanted, sys.modules).shares)


def _journalled(choice: Choice, environ: Mapping[str, str]) -> Outlet | None:
    """The way out; where neither exporter nor gateway keeps what runs have used, with a journal of them."""
    is_kept = choice.path in {"exporter", "pushgateway"}
    directory = None if is_kept else journal_directory(environ)
    return choice.outlet if directory is None else RunJournal(choice.outlet, directory)
