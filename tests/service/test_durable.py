"""Totals against a known trace: through wraps, at any interval, and through deaths (fifty of them by `make soak`)."""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.driven import driven_tree, two_sockets
from support.exporter import Exporter, Series, state_of
from support.powercap_driver import Truth, share_of, shown_at

DEVICES = {"cpu0": "package-0", "cpu1": "package-1", "dram0": "dram", "dram1": "dram"}
TRACE = "40:100:3"
"""Watts of each package; 70 W in the mean."""
RANGE = 2300
"""Joules at which the counters wrap: after 23 s of 100 W. Twice the limit is believed, so that a counter may be moved
half a second late; 15 s of that must be less than the range, or it may have wrapped twice between two samples."""
ROOM = ("--jobs.max=1000", "--series.max=100000")
"""Other tests make groups on this machine meanwhile: none of them is to push a job off the page."""
LATE_JOULES = 2.0
"""What a package draws at 100 W between three moves of its counter."""


def counted(state: Any, device: str) -> float:
    """Joules of a device in a state file, announced ones included."""
    posted = sum(row[3] for row in state["devices"] if row[0] == device)
    return float(posted + sum(row[5] for row in state["pending"] if row[2] == device))


def assert_true(first: Any, last: Any, expected: dict[str, float]) -> None:
    """Within 0.1 % of the truth, all devices together and each; but a counter may be moved while it is read."""
    assert set(last["marks"]) == set(expected)
    found = {device: counted(last, device) - counted(first, device) for device in expected}
    assert sum(found.values()) == pytest.approx(sum(expected.values()), rel=1e-3)
    assert found == pytest.approx(expected, rel=1e-3, abs=LATE_JOULES)


def true_joules(sysfs: Path, truth: Truth, device: str, first: Any, last: Any) -> float:
    """What the device drew by its counter between the marks of two states."""
    began, ended = (truth.package_joules(shown_at(sysfs, state["marks"][device]["at"])) for state in (first, last))
    return (ended - began) * share_of(DEVICES[device])


@pytest.mark.timeout(180)
def test_two_wraps_two_sockets_psys_and_a_mirror_change_nothing_at_any_interval(
    tmp_path: Path, in_memory: Path
) -> None:
    sysfs = in_memory / "sys"
    two_sockets(sysfs, range_uj=RANGE * 1_000_000, limit_watts=70)
    with driven_tree(sysfs, TRACE) as truth:
        lives = {}
        for interval in (1, 5, 15):
            storage = tmp_path / f"every-{interval}"
            lives[storage] = Exporter(
                f"--sample.interval={interval}s", f"--path.sysfs={sysfs}", f"--storage.path={storage}"
            )
        for life in lives.values():
            life.__enter__()
        first = {storage: state_of(storage) for storage in lives}
        time.sleep(68)
        for storage, life in lives.items():
            assert life.stop() == 0
            last = state_of(storage)
            expected = {device: true_joules(sysfs, truth, device, first[storage], last) for device in DEVICES}
            assert min(expected["cpu0"], expected["cpu1"]) > 2 * RANGE, "two wraps"
            assert_true(first[storage], last, expected)
            assert set(last["gap_seconds"].values()) == {0.0}


def decreases(before: Series, after: Series) -> dict[Any, tuple[float, float]]:
    """Counters that fell, or vanished."""
    counters = {key: value for key, value in before.items() if key[0].endswith(("_kwh_total", "_grams_total"))}
    return {key: (value, after.get(key, -1.0)) for key, value in counters.items() if after.get(key, -1.0) < value}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kills", [15, pytest.param(50, marks=pytest.mark.soak)])
def test_kills_lose_nothing_that_was_scraped_and_no_energy(tmp_path: Path, in_memory: Path, kills: int) -> None:
    sysfs, storage = in_memory / "sys", tmp_path / "state"
    two_sockets(sysfs, range_uj=RANGE * 1_000_000, limit_watts=100)
    chance = random.Random(20)  # noqa: S311 - moments to die at, not secrets
    flags = ("--sample.interval=200ms", f"--path.sysfs={sysfs}", f"--storage.path={storage}", "--grid.region=FR", *ROOM)
    scraped: Series = {}
    first = None
    with driven_tree(sysfs, TRACE) as truth:
        for _ in range(kills):
            with Exporter(*flags) as life:
                first = first or state_of(storage)
                assert decreases(scraped, life.series()) == {}
                time.sleep(chance.uniform(0.0, 1.5))
                scraped = life.series()
                life.kill()
        with Exporter(*flags) as life:
            assert decreases(scraped, life.series()) == {}
            life.wait_for_samples(3)
            scraped = life.series()
            assert life.stop() == 0
        last = state_of(storage)
        assert_true(first, last, {device: true_joules(sysfs, truth, device, first, last) for device in DEVICES})
        assert set(last["gap_seconds"].values()) == {0.0}
    away = sum(row[5] for row in last["jobs"] if row[0] == "_unattributed_" and row[2] == "cpu0")
    assert away > 0.2 * counted(last, "cpu0"), "energy of the time between two lives belongs to nobody known"


def test_two_scrapers_one_or_none_make_no_difference_to_the_totals(tmp_path: Path, in_memory: Path) -> None:
    sysfs = in_memory / "sys"
    two_sockets(sysfs, range_uj=RANGE * 1_000_000, limit_watts=100)
    done = threading.Event()

    def scrape(exporter: Exporter) -> None:
        while not done.is_set():
            exporter.get("/metrics")

    with driven_tree(sysfs, TRACE) as truth, ExitStack() as stack:
        lives = []
        for scrapers in range(3):
            flags = (
                "--sample.interval=500ms",
                f"--path.sysfs={sysfs}",
                f"--storage.path={tmp_path / str(scrapers)}",
                *ROOM,
            )
            life = stack.enter_context(Exporter(*flags))
            lives.append((life, tmp_path / str(scrapers), state_of(tmp_path / str(scrapers))))
            for _ in range(scrapers):
                threading.Thread(target=scrape, args=(life,), daemon=True).start()
        time.sleep(12)
        done.set()
        for life, storage, first in lives:
            assert life.stop() == 0
            last = state_of(storage)
            for device in DEVICES:
                expected = true_joules(sysfs, truth, device, first, last)
                assert counted(last, device) == pytest.approx(expected, rel=5e-3, abs=LATE_JOULES), device
                jobs = sum(row[5] for rows in (last["jobs"], last["pending"]) for row in rows if row[2] == device)
                assert jobs == pytest.approx(counted(last, device), rel=1e-9)
