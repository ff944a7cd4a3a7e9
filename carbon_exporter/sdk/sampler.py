"""The sampler: one daemon thread that reads meters while somebody measures, and rests when nobody does.

Each time it wakes up it notes what counters show, and what this process has used. Half a second of that at a time is
made into energy: code that runs ten times a second finds the processor's caches full of other programs' data, and costs
five to ten times what it costs when it goes on for longer. Who asks for energy meanwhile makes it of what was noted
until then (`catch_up`); who waits has the thread do so each time (`hurry`).

How often it reads is its cadence's to say, which goes by the blocks that are open (cadence.py). The next `hold` or
`hurry` has it read at once, so that a block which begins then has its edge between readings as close as ever.

It starts with the first `hold`, goes on for two seconds after the last `release`, so that the edges of the last spans
settle, and then waits without waking up until the next `hold`. What fails is said once and tried again later; boards
and processors do without each other.

`hold` and `release` take no lock, so that they may interrupt each other anywhere, in a signal's handler too: a list
grows and shrinks, and `Bell.ring` is reentrant.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.sdk.base import BoardUse, Meters
from carbon_exporter.sdk.cadence import Cadence, Plan
from carbon_exporter.sdk.odometer import Odometer
from carbon_exporter.sdk.own_use import UsePoint
from carbon_exporter.sdk.trouble import trouble
from carbon_exporter.sensors.mailbox import Bell
from carbon_exporter.sensors.pace import STEADY_SECONDS

__all__ = ["Sampler"]

ENERGY_SECONDS, COARSER_ENERGY_SECONDS = 0.45, 0.95
"""Between two times that energy is made of what was noted: every fifth time of ten a second, later of five; with three
every fourth."""
HURRY_SECONDS = 1.0
"""So long somebody who waits is thought to do so."""
MOST_LOOKS = 1024
LINGER_SECONDS = 2.0
"""So long after the last user it goes on."""
LONGEST_WAIT_SECONDS = 0.35
SHORTEST_WAIT_SECONDS = 0.005
"""Meters that are always in a hurry must not make it a busy loop."""
LONGEST_LOOK_SECONDS = 0.2
"""Between two looks at this process, if there is no energy to be counted."""
FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0
"""Meters that failed are left alone for so long, each time twice as long."""

_T = TypeVar("_T")


class Use(Protocol):
    """What looks at this process: `OwnUse`."""

    def look(self) -> UsePoint:
        """What was used until now."""


class Sampler:
    """Reads meters into an odometer. One a process: after a fork the child calls `forget` and makes a new one."""

    def __init__(
        self,
        meters: Meters,
        own_use: Use,
        boards: Callable[[], BoardUse],
        on_tick: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        cadence: Callable[[float, float], Plan] | None = None,
    ) -> None:
        """Nothing is started or opened before the first `hold`.

        Args:
            meters: opened, read and closed on the sampler's thread only.
            own_use: looked at there too.
            boards: what this process pays of each board now; called there.
            on_tick: called there after each time that readings were added, also if there were none.
            clock: monotonic seconds, the clock of the meters' slices.
            cadence: how often to read from now on, the last `hold` having been then; called there.
        """
        self._meters, self._own_use, self._boards, self._on_tick = meters, own_use, boards, on_tick
        self._clock = clock
        self._cadence = cadence or Cadence().plan
        self.odometer = Odometer(meters)
        """Knows no devices until the meters are open and have told of the first."""
        self._users: list[None] = []
        self._released_at = -math.inf
        self._bell = Bell()
        self._resting = True
        self._closed = False
        self._starting = threading.Lock()  # only ever tried, never waited for
        self._thread: threading.Thread | None = None
        self._is_open = False
        self._retry_at, self._retry_after = -math.inf, FIRST_RETRY_SECONDS
        self._due = self._hurried_at = self._held_at = -math.inf
        self._grain = STEADY_SECONDS
        """How often the meters have been told to read,"""
        self._planned_at = self._planned_until = -math.inf
        """when that was found, and for how long it holds."""
        self._adding = threading.Lock()
        """Held while energy is made and added."""
        self._looks: deque[UsePoint] = deque(maxlen=MOST_LOOKS)
        """Since energy was added last."""
        self._last_use = UsePoint(0.0, 0.0, 0.0, 0.0, 0.0)
        self._last_boards: BoardUse | None = None
        """None until it has been asked: energy of a board that is nobody's is let go."""

    def hold(self) -> None:
        """One more user. Any thread, about a microsecond; the very first starts the thread. Never raises."""
        self._users.append(None)
        self._held_at = self._clock()
        if (self._resting or self._grain > STEADY_SECONDS) and not self._closed:
            self._rouse()

    def release(self) -> None:
        """One user less. Any thread, about a microsecond."""
        self._released_at = self._clock()
        with suppress(IndexError):
            self._users.pop()

    def hurry(self) -> None:
        """Somebody waits: make energy of each reading at once, for a second."""
        self._hurried_at = self._clock()
        if self._grain > STEADY_SECONDS and not self._closed:
            self._rouse()

    def catch_up(self) -> None:
        """Make energy of what was noted until now. Any thread; asks neither meters nor the system, and never waits."""
        if self._looks and self._last_boards is not None and self._adding.acquire(blocking=False):
            try:
                if self._looks:
                    self._add(self._meters.take())
            except Exception as error:  # noqa: BLE001 - it is a guest in somebody's program
                trouble("counting energy", error)
            finally:
                self._adding.release()

    def close(self, patience: float) -> None:
        """Read once more, close the meters and stop. Waits for that at most `patience` seconds."""
        self._closed = True
        self._starting.acquire(blocking=False)
        self._bell.ring()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(patience)

    def forget(self) -> None:
        """In a forked child, where the thread does not exist: do nothing any more, and touch nothing of the parent."""
        self._closed = True
        self._starting = threading.Lock()
        self._starting.acquire(blocking=False)
        self._thread = None
        self._adding = threading.Lock()
        self._users = []

    def _rouse(self) -> None:
        """Wake the thread, or start it."""
        if not self._starting.acquire(blocking=False):
            self._bell.ring()
            return
        try:
            thread = threading.Thread(target=self._run, name="carbon-sampler", daemon=True)
            thread.start()
            self._thread = thread
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            self._closed = True
            trouble("starting the thread that measures", error)

    def _run(self) -> None:
        """The thread's life: awake and asleep in turns."""
        while not self._closed:
            self._resting = False
            with self._adding:
                self._begin()
            while not self._closed and self._is_wanted():
                self._step()
                self._bell.wait(self._wait())
            if not self._closed:
                self._rest()
        if self._is_open:
            self._tick()
            _attempt("closing meters", self._meters.close, None)

    def _is_wanted(self) -> bool:
        """Whether somebody measures, or has done so a moment ago."""
        return bool(self._users) or self._clock() - self._released_at < LINGER_SECONDS

    def _rest(self) -> None:
        """Wait for the next user without waking up."""
        if self._is_open:
            _attempt("pausing meters", self._meters.pause, None)
        self._resting = True
        while not self._closed and not self._is_wanted():
            self._bell.wait()

    def _wait(self) -> float:
        """Seconds until the next reading."""
        wait = _attempt("asking meters when to read them", self._meters.wait, math.inf) if self._is_open else math.inf
        return min(LONGEST_WAIT_SECONDS, max(SHORTEST_WAIT_SECONDS, wait))

    def _begin(self) -> None:
        """From now on this process is looked at."""
        self._looks.clear()
        self._last_use = self._look()
        self.odometer.begin(self._last_use)

    def _step(self) -> None:
        """Note what counters show; from time to time, and at once if it is waited for, make energy of it and tell."""
        now = self._clock()
        self._adapt(now)
        if self._is_open and now < self._due and now - self._hurried_at > HURRY_SECONDS:
            at_once = _attempt("reading meters", self._meters.glance, True)
            if not at_once:
                self._looks.append(self._look())
                return
        self._due = now + (COARSER_ENERGY_SECONDS if self._grain > STEADY_SECONDS else ENERGY_SECONDS)
        self._tick()

    def _adapt(self, now: float) -> None:
        """Have the meters read as often as is of use now."""
        if not self._is_open:
            return
        if now - self._hurried_at <= HURRY_SECONDS:
            grain, until = STEADY_SECONDS, now
        elif now < self._planned_until and self._held_at < self._planned_at:
            return
        else:
            grain, until = _attempt(
                "finding how often to read", lambda: self._cadence(now, self._held_at), (STEADY_SECONDS, now)
            )
        self._planned_at, self._planned_until = now, until
        if grain != self._grain:
            self._grain = grain
            _attempt("changing how often meters are read", lambda: self._meters.ease(grain), None)
            self._due = min(self._due, now + ENERGY_SECONDS)

    def _tick(self) -> None:
        """Read everything once, and tell."""
        with self._adding:
            slices = self._read()
            if slices or self._clock() - self._last_use.at >= LONGEST_LOOK_SECONDS:
                self._looks.append(self._look())
                self._last_boards = _attempt("finding out whose boards these are", self._boards, self._last_boards)
                _attempt("counting energy", lambda: self._add(slices), None)
        _attempt("settling spans", self._on_tick, None)

    def _add(self, slices: Sequence[EnergySlice]) -> None:
        """Count these, with what was seen of this process since the last time."""
        looks = [self._looks.popleft() for _ in range(len(self._looks))]
        for use in looks[:-1]:
            self.odometer.look(use)
        self._last_use = looks[-1]
        self.odometer.add(slices, self._last_use, self._last_boards)

    def _read(self) -> Sequence[EnergySlice]:
        """Energy since the last tick; nothing from meters that have just failed."""
        if self._clock() < self._retry_at:
            return ()
        try:
            if not self._is_open:
                self._meters.open()
                self._is_open = True
                self._begin()  # the devices are waited for from now on
            slices = self._meters.read()
        except Exception as error:  # noqa: BLE001 - whatever a driver's library raises
            trouble("reading meters" if self._is_open else "opening meters", error)
            self._retry_at = self._clock() + self._retry_after
            self._retry_after = min(LAST_RETRY_SECONDS, 2 * self._retry_after)
            return ()
        self._retry_after = FIRST_RETRY_SECONDS
        return slices

    def _look(self) -> UsePoint:
        """What this process used; if that cannot be told, its own CPU time at least."""
        try:
            return self._own_use.look()
        except Exception as error:  # noqa: BLE001 - psutil's and the system's
            trouble("looking at this process", error)
            return self._last_use._replace(at=self._clock(), cpu_seconds=time.process_time())


def _attempt(doing: str, call: Callable[[], _T], otherwise: _T) -> _T:
    """What `call` returns, or `otherwise` if it raises."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - it is a guest in somebody's program
        trouble(doing, error)
        return otherwise
