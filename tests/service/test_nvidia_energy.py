"""Boards of known power, at the C ABI: the energy that an exporter counts, and the calls of NVML that this costs.

One run of a bit more than a minute at the default interval serves all tests here: boards with a counter, boards whose
power is read at an instant, and boards whose power register shows the mean of the last second.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.exporter import Exporter, state_of
from support.fakenvml import Board, FakeNvml, Process, environment
from support.states import counted_joules, gap_seconds, marked_at
from support.traces import burst, constant, square

TRACES = {
    "constant": constant(300),
    "square of 0.7 s": square(100, 500, 0.7),
    "square of 3 s": square(80, 650, 3.0),
    "bursts of 0.5 s": burst(80, 600, 0.5, 2.0),
    "bursts of 1 s": burst(90, 500, 1.0, 5.0),
    "bursts of 2 s": burst(80, 600, 2.0, 10.0),
    "short pauses": burst(80, 600, 2.0, 2.5),
    "idle": constant(75),
}
COUNTERS = range(8)
INSTANTS = range(8, 16)
AVERAGES = range(16, 24)
INTERVAL = 5.0
TICKS = 13
"""A minute, and once more what is asked every twelfth tick."""
CALLS = 12
SLOW_TICKS = 12
STATIC = ("identity", "limit", "mig")
"""Families of calls for what never or seldom changes."""

Calls = list[dict[str, int]]


@dataclass
class Minute:
    """What the run left behind."""

    boards: tuple[Board, ...]
    first: Any = None
    last: Any = None
    """State files, as they were after the second tick and after the last."""
    calls: list[tuple[int, Calls]] = field(default_factory=list)
    """By board with a counter and family, in the middle of each interval between the two, with the tick's number."""
    scrapes: list[tuple[Calls, Calls]] = field(default_factory=list)
    """The same before and after many scrapes within one interval."""

    def error(self, slot: int) -> float:
        """Counted energy against the truth between the two, relative."""
        device = f"gpu{slot}"
        counted = counted_joules(self.last, device) - counted_joules(self.first, device)
        start, end = marked_at(self.first, device), marked_at(self.last, device)
        assert end - start > 0.9 * TICKS * INTERVAL - 2 * INTERVAL
        return counted / self.boards[slot].true_joules(start, end) - 1


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minute]:
    """The run."""
    folder = tmp_path_factory.mktemp("minute")
    fake = FakeNvml(folder / "nvml", boards=24)
    for board in fake.boards:
        board.draw(list(TRACES.values())[board.slot % len(TRACES)])
    for slot in COUNTERS:
        kinds = (Process(os.getpid(), sm=40), Process(os.getppid(), kind="graphics"), Process(1, sm=10, kind="mps"))
        fake.boards[slot].processes(kinds)
    for slot in INSTANTS:
        fake.boards[slot].without_counter()
        fake.boards[slot].refresh(0.0)
    for slot in AVERAGES:
        fake.boards[slot].without_counter()
        fake.boards[slot].averaging()
    storage = folder / "state"
    flags = (f"--sample.interval={INTERVAL:.0f}s", f"--storage.path={storage}")
    with Exporter(*flags, environ=environment(fake)) as exporter:
        yield follow(exporter, fake, storage)


def follow(exporter: Exporter, fake: FakeNvml, storage: Path) -> Minute:
    """Look on, in the middle of each interval."""
    minute = Minute(fake.boards)
    samples = exporter.status()["samples"]
    until = time.monotonic() + 1.5 * (TICKS + 2) * INTERVAL
    while not minute.calls or samples < minute.calls[0][0] + TICKS:
        assert time.monotonic() < until, exporter.text
        now = exporter.status()["samples"]
        if now == samples:
            time.sleep(0.1)
            continue
        samples = now
        time.sleep(INTERVAL / 3)
        before = calls(fake)
        if exporter.status()["samples"] == samples:
            minute.calls.append((samples, before))
            minute.last = state_of(storage)
            minute.first = minute.first or minute.last
        for _ in range(10):
            for path in ("/metrics", "/api/v1/status", "/"):
                exporter.get(path)
        after = calls(fake)
        if exporter.status()["samples"] == samples:
            minute.scrapes.append((before, after))
    return minute


def calls(fake: FakeNvml) -> Calls:
    return [dict(fake.boards[slot].calls) for slot in COUNTERS]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("slot", COUNTERS, ids=TRACES)
def test_with_a_counter_energy_is_within_half_a_percent(minute: Minute, slot: int) -> None:
    assert abs(minute.error(slot)) < 0.005
    assert gap_seconds(minute.last, f"gpu{slot}") == 0.0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("slot", INSTANTS, ids=TRACES)
def test_with_power_at_an_instant_energy_is_within_3_percent(minute: Minute, slot: int) -> None:
    assert abs(minute.error(slot)) < 0.03


@pytest.mark.timeout(240)
@pytest.mark.parametrize("slot", AVERAGES, ids=TRACES)
def test_with_means_of_a_second_energy_is_within_3_percent(minute: Minute, slot: int) -> None:
    assert abs(minute.error(slot)) < 0.03


def per_tick(minute: Minute) -> Iterator[tuple[int, dict[str, int]]]:
    """For each tick and board, the calls by family; ticks that were not seen apart are left out."""
    for (before, old), (number, new) in itertools.pairwise(minute.calls):
        if number == before + 1:
            for earlier, later in zip(old, new, strict=True):
                yield number, {family: later[family] - earlier[family] for family in later}


@pytest.mark.timeout(240)
def test_power_and_energy_take_one_call_a_tick_and_all_things_twelve(minute: Minute) -> None:
    ticks = list(per_tick(minute))
    assert len(ticks) >= len(COUNTERS) * (TICKS - 2)
    for _, grown in ticks:
        assert grown["fields"] == 1, grown
        assert grown["power"] == grown["energy"] == 0
        assert grown["procs"] >= 3
        assert sum(grown.values()) <= CALLS, grown


@pytest.mark.timeout(240)
def test_what_never_changes_is_asked_every_twelfth_tick(minute: Minute) -> None:
    for board in range(len(COUNTERS)):
        ticks = list(per_tick(minute))[board :: len(COUNTERS)]
        slow = [number for number, grown in ticks if any(grown[family] for family in STATIC)]
        assert 1 <= len(slow) <= 2, "a minute has one such tick, or two"
        assert all(later - earlier >= SLOW_TICKS for earlier, later in itertools.pairwise(slow))


@pytest.mark.timeout(240)
def test_a_scrape_calls_nothing(minute: Minute) -> None:
    assert len(minute.scrapes) > TICKS // 2
    for before, after in minute.scrapes:
        assert before == after
