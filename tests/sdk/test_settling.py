"""The account is told what spans used: progress while they run, the rest at their end, nothing twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.span_engine import IDENTITY, METERS, PRICE, SteadyOdometer, Told

from carbon_exporter.carbon.spans import SpanAccount, SpanTotal
from carbon_exporter.sdk.base import Price
from carbon_exporter.sdk.lanes import Lane, Lanes, Moment
from carbon_exporter.sdk.laps import Lap
from carbon_exporter.sdk.settling import PATIENCE_SECONDS, Settler
from carbon_exporter.units import GramsPerKwh


class Bench:
    """A settler on a clock that is moved by hand; its process keeps one CPU busy."""

    def __init__(self, price: Callable[[], Price | None] = lambda: PRICE) -> None:
        self.time, self.ended, self.open = 0.0, deque[Lap](), list[Lap]()
        self.odometer, self.account, self.outlet = SteadyOdometer(now=0.0), SpanAccount(), Told()
        self.lanes = Lanes(self.now, lambda _: self.time)
        self.settler = Settler(
            lanes=self.lanes,
            odometer=self.odometer,
            account=self.account,
            outlet=self.outlet,
            identity=lambda: IDENTITY,
            price=price,
            meters=lambda: METERS,
            now=self.now,
        )

    def now(self) -> Moment:
        return self.time, self.time

    def enter(self, name: str, parent: Lane | None = None) -> Lap:
        lap = Lap(name, 0, 0)
        self.lanes.enter(lap, parent)
        self.open.append(lap)
        return lap

    def leave(self, lap: Lap) -> None:
        self.lanes.leave(lap, 0)
        self.open.remove(lap)
        self.ended.append(lap)

    def run(self, seconds: float, steps: int = 10) -> None:
        for _ in range(steps):
            self.time += seconds / steps
            self.odometer.now = self.time
            self.settler.tick(self.open, self.ended)

    def total(self, name: str) -> SpanTotal:
        return {key.span: total for key, total in self.account.totals.items()}[name]


def test_what_runs_is_told_once_a_second_and_what_ended_as_soon_as_it_is_settled() -> None:
    bench = Bench()
    lap = bench.enter("epoch")
    bench.run(10.0, 100)
    told = bench.total("epoch")
    assert told.count == 0
    assert told.joules["gpu"] == pytest.approx(200 * 10, rel=0.15)
    assert told.seconds == pytest.approx(10, rel=0.15)
    bench.leave(lap)
    bench.run(0.2)
    told = bench.total("epoch")
    assert told.count == 1
    assert told.seconds == pytest.approx(10)
    assert told.joules == {"gpu": pytest.approx(2000), "cpu": pytest.approx(1000), "dram": pytest.approx(100)}
    assert lap.figures is not None
    assert lap.figures.energy == pytest.approx(3100)
    assert lap.figures.bound["gpu0"] == pytest.approx(0.3 * 2**0.5), "edges within it do not count"
    assert bench.outlet.told >= 10


def test_each_joule_has_the_price_of_its_second() -> None:
    prices = [PRICE]
    bench = Bench(lambda: prices[0])
    lap = bench.enter("epoch")
    bench.run(10.0, 100)
    prices[0] = Price("FR", GramsPerKwh(0.0))
    bench.run(10.0, 100)
    bench.leave(lap)
    bench.run(0.2)
    kwh = bench.total("epoch").joules["gpu"] / 3.6e6
    assert kwh == pytest.approx(4000 / 3.6e6)
    assert bench.total("epoch").grams == pytest.approx(3100 / 3.6e6 * 360 * 1.5, rel=0.1)
    assert lap.figures is not None
    assert lap.figures.grams == bench.total("epoch").grams


def test_a_lap_whose_readings_never_come_is_settled_with_what_there_is() -> None:
    bench = Bench()
    bench.odometer.lag = 100.0
    lap = bench.enter("epoch")
    bench.run(1.0)
    bench.leave(lap)
    bench.run(PATIENCE_SECONDS - 0.5)
    assert lap.figures is None
    bench.run(1.0)
    assert lap.figures is not None
    assert lap.figures.energy == pytest.approx(310)
    assert bench.total("epoch").count == 1


def test_the_end_of_the_process_tells_what_is_open() -> None:
    bench = Bench()
    bench.enter("epoch")
    step = bench.enter("step", bench.open[0])
    bench.time = 0.5
    bench.leave(step)
    bench.settler.finish(bench.open, bench.ended)
    assert bench.total("epoch").joules["gpu"] == pytest.approx(100)
    assert bench.total("epoch").count == 0
    assert bench.total("step").count == 1


def test_what_ended_long_ago_is_not_kept_by_what_came_after_it() -> None:
    bench = Bench()
    first = last = bench.enter("hand over hand")
    for _ in range(5):
        after = bench.enter("hand over hand", last)
        bench.run(0.5)
        bench.leave(last)
        last = after
    bench.run(0.5)
    bench.leave(last)
    bench.run(0.5)
    assert last.parent is None
    assert first.figures is not None
    assert bench.total("hand over hand").count == 6


@settings(deadline=None)
@given(st.data())
def test_the_account_adds_up_to_what_the_process_used(data: st.DataObject) -> None:
    """Whatever overlaps: roots of one name, told in pieces, come to the energy of the time that any was open in."""
    bench, covered = Bench(), 0.0
    for _ in range(data.draw(st.integers(1, 25))):
        ends: bool = data.draw(st.booleans())
        if bench.open and ends:
            bench.leave(data.draw(st.sampled_from(bench.open)))
        elif len(bench.open) < 4:
            bench.enter("root")
        seconds = data.draw(st.sampled_from([0.05, 0.4, 2.5]))
        covered += seconds if bench.open else 0.0
        bench.run(seconds, data.draw(st.integers(1, 4)))
    while bench.open:
        bench.leave(bench.open[0])
    bench.run(1.0)
    assert not bench.ended
    if bench.account.totals:
        total = bench.total("root")
        assert total.joules["gpu"] == pytest.approx(200 * covered, abs=1e-6)
        assert total.joules["cpu"] == pytest.approx(100 * covered, abs=1e-6)
        assert total.count > 0
