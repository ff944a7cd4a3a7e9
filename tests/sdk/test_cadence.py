"""How often meters are read: as seldom as the open blocks allow, and as often as their ends ask for."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support.fakenvml import FakeNvml, environment

from carbon_exporter.sdk.cadence import COARSEST, MOST_NAMES, Cadence
from carbon_exporter.sdk.laps import Lap
from carbon_exporter.sdk.odometer import SHORT_SECONDS
from carbon_exporter.sdk.sampler import COARSER_ENERGY_SECONDS, ENERGY_SECONDS, LONGEST_WAIT_SECONDS
from carbon_exporter.sdk.settling import PROGRESS_SECONDS
from carbon_exporter.sensors.pace import STEADY_SECONDS

NAMES = st.sampled_from(["step", "epoch", "run"])
SECONDS = st.floats(0.01, 100.0)

SCRIPT = """
import time
from carbon_exporter import carbon_span
for _ in range(5):
    with carbon_span("epoch"):
        print("began", flush=True)
        time.sleep(2.5)
"""


def opened(name: str, began: float) -> Lap:
    lap = Lap(name, 1, None)
    lap.began = (began, 0.0)
    return lap


def used_to(*lasted: float, name: str = "epoch") -> Cadence:
    cadence = Cadence()
    for seconds in lasted:
        cadence.note(name, seconds)
    return cadence


def grain(cadence: Cadence, age: float, *names: str) -> float:
    """With blocks of these names open, that old."""
    return cadence.plan(age, 0.0, [opened(name, 0.0) for name in names])[0]


@given(
    ended=st.lists(st.tuples(NAMES, SECONDS), max_size=12),
    ages=st.lists(st.tuples(NAMES, SECONDS), max_size=4),
    since=SECONDS,
)
def test_it_is_never_finer_or_coarser_than_meters_are_read_and_holds_for_a_while(
    ended: list[tuple[str, float]], ages: list[tuple[str, float]], since: float
) -> None:
    cadence = Cadence()
    for name, seconds in ended:
        cadence.note(name, seconds)
    now = 1000.0
    laps = [opened(name, now - age) for name, age in ages]
    seconds, until = cadence.plan(now, now - since, laps)
    assert STEADY_SECONDS <= seconds <= COARSEST
    assert until > now
    if math.isfinite(until):
        meanwhile = now + 0.99 * (until - now)
        assert cadence.plan(meanwhile, now - since, laps)[0] == seconds


@given(lasted=st.lists(SECONDS, min_size=2, max_size=6), part=st.floats(0.0, 1.0))
def test_readings_are_close_again_before_a_block_of_a_usual_length_ends(lasted: list[float], part: float) -> None:
    shortest = min(lasted[-3:])
    last_quarter = max(0.0, 0.9 * shortest - 0.25) + part * shortest
    assert grain(used_to(*lasted), last_quarter, "epoch") == grain(Cadence(), last_quarter, "epoch")


@given(age=SECONDS, outer=SECONDS)
def test_of_several_blocks_the_one_that_needs_the_closest_readings_decides(age: float, outer: float) -> None:
    cadence = used_to(50.0, 50.0, 50.0)
    laps = [opened("epoch", -outer), opened("step", 0.0)]
    assert cadence.plan(age, 0.0, laps)[0] == min(cadence.plan(age, 0.0, [lap])[0] for lap in laps)


def test_a_block_that_is_expected_to_last_is_read_seldom_from_its_begin_until_its_end_is_near() -> None:
    cadence = used_to(2.6, 2.5, 2.7)
    assert [grain(cadence, age, "epoch") for age in (0.05, 0.2, 1.6, 1.8, 2.4, 5.0)] == [0.1, 0.3, 0.3, 0.1, 0.1, 0.1]
    assert grain(cadence, 0.2, "other") == STEADY_SECONDS
    assert grain(used_to(2.5), 0.2, "epoch") == STEADY_SECONDS, "once is no habit"
    assert grain(used_to(60.0, 60.0, 1.0), 2.0, "epoch") == STEADY_SECONDS, "nor is it expected to last longer"
    assert grain(used_to(1.0, 60.0, 60.0, 60.0), 2.0, "epoch") == COARSEST, "what is long past is forgotten"


def test_a_block_of_which_nothing_is_known_is_read_the_more_seldom_the_longer_it_lasts() -> None:
    assert [grain(Cadence(), age, "run") for age in (0.05, 5.9, 6.1, 11.9, 12.1)] == [0.1, 0.1, 0.2, 0.2, 0.3]
    assert Cadence().plan(6.1, 0.0) == (0.2, 12.0), "likewise after the last one"


def test_the_rarest_readings_suit_those_who_go_by_them() -> None:
    assert COARSEST < LONGEST_WAIT_SECONDS, "nobody wakes up for nothing between two of them"
    assert COARSEST < SHORT_SECONDS, "what lies between two of them is settled with the next"


def test_open_blocks_are_told_of_once_a_second_however_often_they_are_read() -> None:
    assert ENERGY_SECONDS < PROGRESS_SECONDS < 2 * ENERGY_SECONDS, "at every second time that energy is made"
    assert PROGRESS_SECONDS < COARSER_ENERGY_SECONDS, "and at each where that is done half as often"


def test_any_number_of_names_takes_no_more_room() -> None:
    cadence = used_to(9.0, 9.0, name="kept")
    for number in range(10 * MOST_NAMES):
        cadence.note(f"step {number}", 1.0)
        cadence.note("kept", 9.0)
    assert len(cadence._lasted) == MOST_NAMES
    assert grain(cadence, 1.0, "kept") == COARSEST


def test_the_driver_is_asked_less_often_within_blocks_of_a_usual_length(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path / "nvml", boards=1)
    fake.boards[0].square(60, 300, 1.9)
    own = {key: value for key, value in os.environ.items() if not key.startswith(("CARBON_", "CUDA_"))}
    places = {"CARBON_SDK_SOCKET": str(tmp_path / "none"), "CARBON_EXPORTER_PATH_SYSFS": str(tmp_path)}
    asked = []
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env={**own, **environment(fake), **places}, stdout=subprocess.PIPE, text=True
    ) as script:
        assert script.stdout is not None
        for _ in script.stdout:
            time.sleep(0.3)
            before = fake.boards[0].calls["fields"]
            time.sleep(1.3)
            asked.append(fake.boards[0].calls["fields"] - before)
    assert script.returncode == 0
    assert len(asked) == 5
    assert asked[1] >= 9, "in 1.3 s, ten a second"
    assert max(asked[3:]) <= 6, "one in 0.3 s"
