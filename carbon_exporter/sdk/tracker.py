"""The tracker: one a process, made with the first span. It keeps the laps and lets a thread prepare all the rest.

    span ── enter, leave ──► tracker ── laps ──► engine: sampler, odometer, settler, outlet

The thread that enters a span pays for two clocks and a few lists. Everything that takes longer (imports, the choice of
a path, opening meters) is done by a thread of ours; laps that began before that is done get their energy afterwards.
A forked child gets a tracker of its own with its first span; what its parent had open does nothing there.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections import deque
from threading import Event, Lock, RLock, Thread, get_ident

from carbon_exporter.sdk.lanes import Lane, Lanes
from carbon_exporter.sdk.options import Options
from carbon_exporter.sdk.trouble import trouble

TYPE_CHECKING = False  # as type checkers know it; a training script pays for every import
if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_exporter.sdk.engine import Engine
    from carbon_exporter.sdk.lanes import Moment
    from carbon_exporter.sdk.laps import Lap
    from carbon_exporter.sdk.reckoning import Figures
    from carbon_exporter.sdk.run_record import RunRecord

__all__ = ["Tracker", "configure", "current", "finish", "own_clock"]

EXIT_SECONDS = 1.0
"""What the end of the process may be delayed by, at the most."""
SETTLE_SECONDS = 0.45
"""Of these, how long the last laps may wait for their readings,"""
SEND_SECONDS = 0.25
"""and what is kept for sending."""
GATE_SECONDS = 1.0
"""How long a fork waits for our thread to be done with importing, lest the child inherit an import that never ends."""
MOST_WAITING = 100_000
"""Laps that have ended and wait to be settled; more than that are lost, and said to be."""


class Tracker:
    """The laps of this process. Any thread."""

    def __init__(self, options: Options | None = None, build: Callable[[Tracker], Engine] | None = None) -> None:
        """`build` makes what measures, on a thread of ours; by default from the environment."""
        self.options = options or Options()
        self.lanes = Lanes(_now, _thread_seconds)
        self.laps: dict[Lap, None] = {}
        """What is open, in order."""
        self.ended: deque[Lap] = deque()
        """What waits for its readings."""
        self.runs: list[RunRecord] = []
        """The whole runs of this process."""
        self.engine: Engine | None = None
        self.gate = Lock()
        """Held while modules are loaded or meters opened."""
        self.started = False
        self._build = build or _engine
        self.ready = Event()
        """Set once there is an engine, or there will be none."""
        self._off = (self.options.path or os.environ.get("CARBON_SDK", "")) == "off"

    def start(self) -> None:
        """Let the thread prepare. Returns at once, and does nothing the second time."""
        with self.lanes.lock:
            if self.started or self._off:
                return
            self.started = True
        _finish_with_worker()
        Thread(target=self._prepare, name="carbon-start", daemon=True).start()

    def enter(self, lap: Lap, parent: Lane | None) -> None:
        """A lap begins."""
        engine = self.engine
        if engine is not None:
            lap.sampled = True
            engine.hold()
            self.lanes.enter(lap, parent)
            self.laps[lap] = None  # only now: the sampler's thread looks at what stands here
            return
        self.start()
        self.lanes.enter(lap, parent)
        with self.lanes.lock:
            self.laps[lap] = None
            late = None if lap.sampled else self.engine
            lap.sampled = late is not None
        if late is not None:
            late.hold()

    def leave(self, lap: Lap) -> None:
        """A lap ends; the sampler goes on for it until it is settled. Raises `ValueError` if it is not open."""
        self.lanes.leave(lap, get_ident())
        with self.lanes.lock:
            self.laps.pop(lap, None)
            if not self._off:
                self.ended.append(lap)
        if len(self.ended) > MOST_WAITING:
            why = OverflowError("spans end faster than they can be settled, and the oldest are lost")
            trouble("settling spans", why)
            lost = self.ended.popleft()
            if lost.sampled and self.engine is not None:
                self.engine.release()

    def figures(self, lap: Lap) -> Figures | None:
        """What a lap has cost, None while nothing is known."""
        engine = self.engine
        if lap.figures is None and engine is not None:
            engine.catch_up()
            return engine.settler.figures(lap)
        return lap.figures

    def wait(self, lap: Lap, timeout: float | None) -> bool:
        """Wait until a lap that has ended is settled, at most `timeout` seconds; whether it is."""
        until = float("inf") if timeout is None else time.monotonic() + timeout
        lap.event = event = lap.event or Event()
        if self.started:
            self.ready.wait(timeout)
        engine = self.engine
        if lap.figures is None and engine is not None:
            engine.hold()  # the sampler may have gone to sleep
            engine.release()
        while engine is not None and lap.figures is None and time.monotonic() < until:
            engine.hurry()
            event.wait(min(1.0, until - time.monotonic()))
        return lap.figures is not None

    def finish(self, patience: float = EXIT_SECONDS) -> None:
        """Settle and send what there is, within `patience` seconds; nothing is measured after that."""
        with self.lanes.lock:
            started, self.started, self._off = self.started, True, True
        until = time.monotonic() + patience
        if not started or not self.ready.wait(max(0.0, patience - SEND_SECONDS)) or self.engine is None:
            return
        engine, settled = self.engine, min(time.monotonic() + SETTLE_SECONDS, until - SEND_SECONDS)
        engine.hurry()
        while self.ended and time.monotonic() < settled:
            time.sleep(0.005)
        engine.finish(tuple(self.laps), self.ended, until)

    def forget(self) -> None:
        """In a forked child: let go of what is the parent's."""
        engine, self.engine, self._off = self.engine, None, True
        if engine is not None:
            engine.forget()

    def _prepare(self) -> None:
        """On the thread: make the engine, and let it look after all laps that there are by then."""
        try:
            with self.gate:
                from carbon_exporter.sdk.hurry import hurried  # noqa: PLC0415 - within the gate, as all that is loaded

                with hurried():
                    engine = self._build(self)
            with self.lanes.lock:
                self.engine = engine
                waiting = [lap for lap in (*self.laps, *self.ended) if not lap.sampled]
                for lap in waiting:
                    lap.sampled = True
            for _ in waiting:
                engine.hold()
        except Exception as error:  # noqa: BLE001 - whatever it is, the program goes on without us
            trouble("nothing is measured", error)
        finally:
            self.ready.set()


def current() -> Tracker:
    """This process's tracker."""
    global _tracker  # noqa: PLW0603 - one a process is what it is
    tracker = _tracker
    if tracker is None:
        with _making:
            if _tracker is None:
                _hook()
                _tracker = Tracker(_options)
            tracker = _tracker
    return tracker


def configure(
    *,
    path: str = "",
    job: str = "",
    run: str = "",
    rank: str = "",
    region: str = "",
    pue: float = 1.0,
    socket: str = "",
    pushgateway: str = "",
    whole_tree: bool = False,
) -> None:
    """Say what the environment would say, before the first span: later it changes nothing, which is logged.

    Args:
        path: Where spans go: `auto`, `exporter`, `opentelemetry`, `page`, `pushgateway`, or `off`. `CARBON_SDK`.
        job: The job's name. `CARBON_JOB`.
        run: The run's name. `CARBON_RUN`.
        rank: Which of many processes this is. `RANK` and its like.
        region: Where the electricity comes from: `FR`, `US-CA`. `CARBON_REGION`. An exporter knows better.
        pue: Power usage effectiveness of the site. An exporter knows better.
        socket: Where the node's exporter listens. `CARBON_SDK_SOCKET`.
        pushgateway: The URL of one. `CARBON_PUSHGATEWAY`.
        whole_tree: Count what started processes use even if they track themselves, as a launcher may want to know it.

    Raises:
        ConfigError: there is no such path, or no such PUE.
    """
    global _options  # noqa: PLW0603 - what the one tracker will be made of
    options = Options(
        path=path,
        job=job,
        run=run,
        rank=rank,
        region=region,
        pue=pue,
        socket=socket,
        pushgateway=pushgateway,
        whole_tree=whole_tree,
    )
    with _making:
        _options = options
        if _tracker is not None:
            trouble("configure", RuntimeError("spans have been opened already, nothing is changed"))


def finish() -> None:
    """Settle and send what this process has, as its end does."""
    tracker = _tracker
    if tracker is not None:
        try:
            tracker.finish()
        except Exception as error:  # noqa: BLE001 - the exit code is the program's
            trouble("finishing", error)


def own_clock() -> int | None:
    """The id of the calling thread's CPU clock; None where the system has none."""
    return None if _clock_of is None else _clock_of(get_ident())


def _engine(tracker: Tracker) -> Engine:
    from carbon_exporter.sdk.engine import Engine  # noqa: PLC0415 - loads half the package, on our own thread

    return Engine(
        tracker.options,
        os.environ,
        lanes=tracker.lanes,
        laps=lambda: tuple(tracker.laps),
        ended=tracker.ended,
        gate=tracker.gate,
        runs=tracker.runs,
    )


def _now() -> Moment:
    return time.monotonic(), time.process_time()


def _thread_seconds(clock: int) -> float | None:
    try:
        return time.clock_gettime(clock)
    except OSError:
        return None  # its thread has ended


def _hook() -> None:
    """Once in the life of an interpreter: at its end, and at its forks."""
    global _hooked  # noqa: PLW0603 - as said
    if _hooked:
        return
    _hooked = True
    import logging  # noqa: F401, PLC0415 - it hooks forks, which must not come to be in the middle of one

    atexit.register(finish)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)


def _finish_with_worker() -> None:
    """Workers of multiprocessing end without `atexit`: they have an exit of their own."""
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and process.parent_process() is not None:
        util.Finalize(None, finish, exitpriority=0)


def _before_fork() -> None:
    global _gate  # noqa: PLW0603 - from here to `_after_fork`, on one thread
    tracker = _tracker
    if tracker is not None and tracker.gate.acquire(timeout=GATE_SECONDS):
        _gate = tracker.gate


def _after_fork() -> None:
    global _gate
    gate, _gate = _gate, None
    if gate is not None:
        gate.release()


def _in_child() -> None:
    global _tracker, _making, _gate
    tracker, _tracker, _making, _gate = _tracker, None, RLock(), None
    if tracker is not None:
        try:
            tracker.forget()
        except Exception as error:  # noqa: BLE001 - nor here
            trouble("letting go after a fork", error)


_clock_of = getattr(time, "pthread_getcpuclockid", None)
_making = RLock()
_tracker: Tracker | None = None
_options: Options | None = None
_gate: Lock | None = None
_hooked = False
