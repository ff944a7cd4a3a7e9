"""The hour that the exporter remembers: complete, true to the samples, bounded, and cheap."""

from __future__ import annotations

import json
import math
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.snapshots import snapshot, snapshots

from carbon_exporter.carbon.account import DeviceKey, JobKey
from carbon_exporter.jobs.base import IDLE, RESERVED, Job
from carbon_exporter.publish.history import HOUR_SECONDS, JOBS_OF_A_POINT, POINTS, SLOT_SECONDS, History
from carbon_exporter.publish.http import Request
from carbon_exporter.publish.prometheus import Renderer
from carbon_exporter.publish.web import Web
from carbon_exporter.sensors.base import Device, Kind, Quality
from carbon_exporter.snapshot import DeviceState, Snapshot
from carbon_exporter.units import Watts

NOON = 1795348800.0


def power(of: dict[str, float], at: float = NOON, interval: float = 5.0, **devices: float | None) -> Snapshot:
    """A sample at which jobs drew this on a CPU; devices are named after their kind."""
    kinds: dict[str, Kind] = {"cpu": "cpu", "gpu": "gpu", "dram": "dram"}
    states = tuple(
        DeviceState(Device(name, kinds[name], "model"), Quality.MODELLED, None if watts is None else Watts(watts), 0.0)
        for name, watts in devices.items()
    )
    keys = {JobKey(Job(name), DeviceKey("cpu0", "cpu", "FR")): Watts(watts) for name, watts in of.items()}
    return snapshot(at=at, interval=interval, devices=states, job_power=keys)


def hour(history: History) -> Any:
    """The hour as a client reads it."""
    return json.loads(history.encoded()[1])


def columns(shown: Any) -> dict[str, list[float | None]]:
    """The power of each kind and job."""
    return {row.get("kind") or row["job_name"]: row["power_watts"] for row in (*shown["kinds"], *shown["jobs"])}


def test_an_hour_holds_every_sample_of_a_usual_interval() -> None:
    history, last = History(), 1500
    for n in range(last + 1):
        history.note(power({"train": 30.0 + n, "_idle_": 10.0}, NOON + 5 * n + 0.2 * (n % 2), cpu=40.0 + n))
    shown = hour(history)
    assert shown["times"] == [NOON + 5 * n + 0.2 * (n % 2) for n in range(last - 720, last + 1)]
    assert columns(shown)["train"][-1] == 30.0 + last
    assert columns(shown)["cpu"] == [40.0 + n for n in range(last - 720, last + 1)]


@pytest.mark.parametrize("interval", [0.5, 1.0, 2.0, 3.0, 4.6, 5.0, 60.0])
def test_an_hour_is_an_hour_at_any_interval_and_keeps_the_energy(interval: float) -> None:
    history, count = History(), int(1.2 * HOUR_SECONDS / interval)
    for n in range(count):
        history.note(power({"train": float(n % 7)}, NOON + n * interval, cpu=float(n % 7), interval=interval))
    moments = history.moments
    covered = moments[-1].at - moments[0].at
    assert HOUR_SECONDS - 2 * max(interval, SLOT_SECONDS) <= covered <= HOUR_SECONDS
    steps = [(later.at - earlier.at, later) for earlier, later in pairwise(moments)]
    known = math.fsum(seconds * moment.power["cpu"] for seconds, moment in steps)
    true = math.fsum(interval * (n % 7) for n in range(count) if moments[0].at + interval / 2 < NOON + n * interval)
    assert known == pytest.approx(true, rel=1e-3)


def test_a_job_that_was_there_for_a_part_of_a_slot_has_its_part_and_a_silent_device_is_not_zero() -> None:
    history = History()
    for n, (jobs, gpu) in enumerate([({"short": 8.0}, 100.0), ({}, None), ({}, None), ({}, 300.0)]):
        history.note(power(dict(jobs), NOON + n, 1.0, cpu=8.0, gpu=gpu))
    history.note(power({}, NOON + 5, cpu=1.0, gpu=None))
    assert columns(hour(history)) == {"short": [2.0, None], "cpu": [8.0, 1.0], "gpu": [200.0, None]}


def test_the_newest_point_grows_with_each_sample() -> None:
    history = History()
    history.note(power({}, NOON, cpu=10.0))
    first = history.encoded()
    history.note(power({}, NOON + 1, cpu=20.0))
    assert [json.loads(body)["kinds"][0]["power_watts"] for _, body in (first, history.encoded())] == [[10.0], [15.0]]
    assert first[0] != history.encoded()[0]


def test_after_a_clock_was_set_back_there_is_no_future() -> None:
    history = History()
    for n in range(10):
        history.note(power({}, NOON + 5 * n, cpu=float(n)))
    history.note(power({}, NOON + 12, cpu=99.0))
    assert (hour(history)["times"][-1], columns(hour(history))["cpu"]) == (NOON + 12, [0.0, 1.0, 2.0, 99.0])


def test_many_jobs_are_the_most_powerful_ones_and_the_rest_is_what_devices_have_more() -> None:
    history = History()
    jobs = {f"job-{n}": float(n) for n in range(64)}
    for n in range(3):
        history.note(power({**jobs, "_idle_": 0.5}, NOON + 5 * n, cpu=math.fsum(jobs.values()) + 0.5))
    names = {row["job_name"] for row in hour(history)["jobs"]}
    assert names == {IDLE.name, *(f"job-{n}" for n in range(64 - JOBS_OF_A_POINT, 64))}


@pytest.mark.parametrize(("fresh", "limit"), [(False, 250_000), (True, 3_000_000)])
def test_an_hour_of_many_jobs_takes_little_memory_also_when_all_are_new_each_time(*, fresh: bool, limit: int) -> None:
    history = History()
    tracemalloc.start()
    try:
        for n in range(POINTS + 10):
            jobs = {f"{'x' * 100}-{n * fresh}-{k}": float(k) for k in range(16)}
            history.note(power({**jobs, **{job.name: 1.0 for job in RESERVED}}, NOON + 5 * n, cpu=1.0, gpu=2.0))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 720 <= len(history.moments) <= POINTS
    assert taken < limit
    assert len(history.encoded()[1]) < 100_000


def test_a_client_that_has_the_newest_hour_is_told_so_in_a_few_bytes() -> None:
    history, renderer = History(), Renderer()
    web = Web(lambda: None, renderer, "node-7", history)
    history.note(power({}, NOON, cpu=10.0))
    first = web.answer(Request("GET", "/api/v1/history", {}))
    tag = dict(first.headers)["ETag"]
    again = web.answer(Request("GET", "/api/v1/history", {"if-none-match": f'"other", {tag}'}))
    assert (first.status, again.status, again.body) == (200, 304, b"")
    assert dict(again.headers)["ETag"] == tag
    history.note(power({}, NOON + 5, cpu=10.0))
    assert web.answer(Request("GET", "/api/v1/history", {"if-none-match": tag})).status == 200


@settings(max_examples=15, deadline=None)
@given(st.lists(snapshots(), max_size=3))
def test_any_hour_is_json_of_equal_columns_without_nan_or_infinity(seen: list[Snapshot]) -> None:
    history = History()
    for one in seen:
        history.note(one)

    def never(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    shown = json.loads(history.encoded()[1], parse_constant=never)
    rows = [*shown["kinds"], *shown["jobs"]]
    assert {len(row["power_watts"]) for row in rows} <= {len(shown["times"])}
    assert shown["times"] == sorted(set(shown["times"]))
