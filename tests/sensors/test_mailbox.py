"""Mailboxes and bells: nothing is lost, and nobody waits for longer than is said."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest

from carbon_exporter.sensors.mailbox import Bell, Mailbox


def test_the_oldest_comes_first_and_none_is_there_in_the_end() -> None:
    box: Mailbox[str] = Mailbox()
    assert not box
    for item in "abc":
        box.put(item)
    assert box
    assert [box.get(), box.get(1.0), box.get(0.0), box.get(0.0)] == ["a", "b", "c", None]
    began = time.monotonic()
    assert box.get(0.05) is None
    assert 0.04 < time.monotonic() - began < 5


@pytest.mark.timeout(60)
@pytest.mark.parametrize("patience", [1e-9, 1e-6, 2e-6, 5e-6, 2e-5])
def test_a_patience_that_is_over_before_the_waiting_begins_is_over(patience: float) -> None:
    box: Mailbox[int] = Mailbox()
    for number in range(2000):
        fresh: Mailbox[int] = Mailbox()
        assert fresh.get(patience) is None
        box.put(number)
        assert box.get(patience) == number
        assert box.get(patience) is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("patience", [None, 1e-6, 1e-3, 5.0])
def test_what_many_threads_put_all_comes_and_in_the_order_of_each(patience: float | None) -> None:
    box: Mailbox[tuple[int, int]] = Mailbox()

    def put(writer: int) -> None:
        chance = random.Random(writer)  # noqa: S311 - pauses, not secrets
        for number in range(3000):
            box.put((writer, number))
            if chance.random() < 0.02:
                time.sleep(1e-4)

    writers = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    found: list[tuple[int, int]] = []
    while len(found) < 4 * 3000:
        item = box.get(patience)
        if item is not None:
            found.append(item)
    for number in range(4):
        assert [place for writer, place in found if writer == number] == list(range(3000))
    assert not box


@pytest.mark.timeout(60)
def test_a_signal_may_put_in_the_middle_of_a_put() -> None:
    box: Mailbox[str] = Mailbox()
    rung = [0]

    def ring(*_: object) -> None:
        rung[0] += 1
        box.put("signal")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    try:
        until = time.monotonic() + 1.0
        own = 0
        while time.monotonic() < until:
            box.put("own")
            own += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    found = [box.get(0.0) for _ in range(own + rung[0])]
    assert rung[0] > 100
    assert (found.count("own"), found.count("signal"), box.get(0.0)) == (own, rung[0], None)


def test_a_bell_ends_the_wait_under_way_or_the_next_one_and_however_often_it_is_rung_no_more() -> None:
    bell, began = Bell(), time.monotonic()
    assert not bell.wait(0.05)
    assert 0.04 < time.monotonic() - began < 5
    bell.ring()
    bell.ring()
    assert bell.wait()
    assert not bell.wait(0.0)
    threading.Timer(0.05, bell.ring).start()
    assert bell.wait(30.0)
    assert time.monotonic() - began < 25
