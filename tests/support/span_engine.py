"""An engine for spans whose process draws known power: no meters, but clocks and a thread as in life."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from carbon_exporter.carbon.spans import SpanAccount
from carbon_exporter.sdk import tracker as tracker_module
from carbon_exporter.sdk.base import Edge, Identity, Price, Sum, Tally
from carbon_exporter.sdk.lanes import Moment
from carbon_exporter.sdk.laps import Lap
from carbon_exporter.sdk.odometer import span_bound
from carbon_exporter.sdk.options import Options
from carbon_exporter.sdk.reckoning import Meter
from carbon_exporter.sdk.settling import Settler
from carbon_exporter.sdk.tracker import Tracker
from carbon_exporter.sensors.base import Quality
from carbon_exporter.units import GramsPerKwh, Joules

if TYPE_CHECKING:
    from carbon_exporter.sdk.engine import Engine

METERS = {
    "cpu0": Meter("cpu", Quality.MEASURED),
    "dram0": Meter("dram", Quality.MODELLED),
    "gpu0": Meter("gpu", Quality.MEASURED),
}
IDENTITY = Identity("train", "", "run-7", "3")
PRICE = Price("FR", GramsPerKwh(360.0), 1.5, "static/yearly")


@dataclass
class SteadyOdometer:
    """A hundred watts for each busy processor, ten for memory, two hundred of a board."""

    cpu_watts: float = 100.0
    watts: Mapping[str, float] = field(default_factory=lambda: {"dram0": 10.0, "gpu0": 200.0})
    lag: float = 0.05
    """How long the newest reading is behind."""
    now: float | None = None
    """Where time stands; None: where it is."""

    @property
    def settled_until(self) -> float:
        return (time.monotonic() if self.now is None else self.now) - self.lag

    def settled_edge(self) -> Edge:
        return Edge(self.settled_until, time.process_time() if self.now is None else self.settled_until)

    def tally(self, edge: Edge) -> Tally:
        joules = {"cpu0": Joules(self.cpu_watts * edge.cpu_seconds)}
        joules |= {device: Joules(watts * edge.at) for device, watts in self.watts.items()}
        settled = edge.at <= self.settled_until
        return Tally(joules, dict.fromkeys(joules, Joules(0.3 if settled else 3.0)), settled)

    def between(self, start: Moment, end: Moment) -> Sum:
        before, after = self.tally(Edge(*start)), self.tally(Edge(*end))
        joules = {device: Joules(max(0.0, own - before.joules[device])) for device, own in after.joules.items()}
        return Sum(joules, span_bound(before, after), before.settled and after.settled)


@dataclass
class Told:
    """An outlet that remembers."""

    name = "page"
    account: SpanAccount | None = None
    told: int = 0
    closed: bool = False

    def start(self, account: SpanAccount, identity: Identity) -> None:
        self.account = account
        assert identity == IDENTITY

    def tell(self) -> None:
        self.told += 1

    def close(self, patience: float) -> None:
        assert patience >= 0
        self.closed = True


@dataclass
class PlainChoice:
    """Who this is and what its energy costs the air."""

    path: str = "page"

    def identity(self) -> Identity:
        return IDENTITY

    def price(self) -> Price:
        return PRICE


class PlainEngine:
    """What a tracker asks of its engine."""

    def __init__(self, tracker: Tracker, odometer: SteadyOdometer, period: float = 0.01) -> None:
        self.choice, self.outlet, self.account = PlainChoice(), Told(), SpanAccount()
        self.outlet.start(self.account, IDENTITY)
        self.held, self.most_held, self.forgotten = 0, 0, False
        self.settler = Settler(
            lanes=tracker.lanes,
            odometer=odometer,
            account=self.account,
            outlet=self.outlet,
            identity=self.choice.identity,
            price=self.choice.price,
            meters=lambda: METERS,
            release=lambda _: self.release(),
            boards=lambda lap: frozenset(str(one) for one in lap.devices or ()),
        )
        self._tracker, self._period = tracker, period
        self._lock, self._ending = threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def hold(self) -> None:
        with self._lock:
            self.held += 1
            self.most_held = max(self.held, self.most_held)

    def release(self) -> None:
        with self._lock:
            self.held -= 1

    def hurry(self) -> None:
        """It is never late."""

    def catch_up(self) -> None:
        """Likewise."""

    def finish(self, laps: Iterable[Lap], ended: deque[Lap], until: float) -> None:
        self._ending.set()
        self._thread.join(max(0.0, until - time.monotonic()))
        self.settler.finish(laps, ended)
        self.outlet.close(0.0)

    def forget(self) -> None:
        self.forgotten = True

    def _run(self) -> None:
        while not self._ending.wait(self._period):
            self.settler.tick(tuple(self._tracker.laps), self._tracker.ended)


@contextmanager
def tracked(
    odometer: SteadyOdometer | None = None, options: Options | None = None, *, delay: float = 0.0, ready: bool = True
) -> Iterator[Tracker]:
    """A tracker of this process with such an engine, as if it were its first; `delay` is how long it takes to start."""

    def build(tracker: Tracker) -> Engine:
        time.sleep(delay)
        return cast("Engine", PlainEngine(tracker, odometer or SteadyOdometer()))

    tracker_module._hook()
    before, tracker = tracker_module._tracker, Tracker(options, build)
    tracker_module._tracker = tracker
    try:
        if ready:
            tracker.start()
            assert tracker.ready.wait(10.0) or tracker.options.path == "off"
        yield tracker
    finally:
        tracker.finish()
        tracker_module._tracker = before


def plain(tracker: Tracker) -> PlainEngine:
    """The engine of such a tracker."""
    assert isinstance(tracker.engine, PlainEngine)
    return tracker.engine


def names(account: SpanAccount) -> Sequence[str]:
    """The spans that an account knows."""
    return sorted(key.span for key in account.totals)
