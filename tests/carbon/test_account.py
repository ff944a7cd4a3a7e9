"""The account: announced, then posted; priced when used; and never less than it was."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.carbon.account import Account, CarbonEntry, DeviceKey, JobKey, JobTotal
from carbon_exporter.carbon.base import Intensity
from carbon_exporter.jobs.base import IDLE, OVERFLOW, UNATTRIBUTED, Job, JobSlice
from carbon_exporter.sensors.base import Device
from carbon_exporter.units import Grams, GramsPerKwh, Joules

A, B, C = Job("a"), Job("b"), Job("c", "team")
CPU, DRAM = Device("cpu0", "cpu", "rapl"), Device("dram0", "dram", "rapl")
KWH = 3.6e6


def grid(grams_per_kwh: float, zone: str = "FR") -> Intensity:
    return Intensity(zone, GramsPerKwh(grams_per_kwh), "static", "lifecycle", "average", "yearly", "a table")


def used(job: Job, joules: float, device: Device = CPU) -> JobSlice:
    return JobSlice(job, device, 0.0, 5.0, Joules(joules))


def key(job: Job, device: Device = CPU, region: str = "FR") -> JobKey:
    return JobKey(job, DeviceKey(device.name, device.kind, region))


def total(joules: float, grams: float) -> JobTotal:
    return JobTotal(Joules(joules), Grams(grams))


def turn(account: Account, *slices: JobSlice, grams_per_kwh: float = 100.0, pue: float = 1.0) -> list[CarbonEntry]:
    """One tick in France; returns what was announced."""
    entries = account.price(slices, "FR", grid(grams_per_kwh), pue)
    account.turn(entries)
    return entries


def test_a_job_is_announced_at_zero_and_posted_one_turn_later() -> None:
    account = Account()
    entries = turn(account, used(A, KWH))
    assert account.jobs == {key(A): total(0.0, 0.0)}
    assert account.devices == {key(A).device: 0.0}
    assert account.pending == tuple(entries)
    assert account.turn([]) == tuple(entries)
    assert account.jobs == {key(A): total(KWH, 100.0)}
    assert account.devices == {key(A).device: KWH}
    assert account.turn([]) == ()
    assert account.jobs == {key(A): total(KWH, 100.0)}


def test_energy_has_the_price_of_the_time_of_its_use() -> None:
    """A kWh at 100 g and one at 500 g: not two at the price of the end."""
    account = Account()
    for grams_per_kwh in (100.0, 500.0):
        turn(account, used(A, KWH), grams_per_kwh=grams_per_kwh)
    turn(account, grams_per_kwh=9999.0)
    assert account.jobs == {key(A): total(2 * KWH, 600.0)}


def test_overhead_of_the_building_emits_and_is_no_energy_of_the_device() -> None:
    account = Account()
    turn(account, used(A, KWH), pue=1.5)
    turn(account)
    assert account.jobs == {key(A): total(KWH, 150.0)}


def test_another_region_has_counters_of_its_own() -> None:
    account = Account()
    turn(account, used(A, KWH))
    account.turn(account.price([used(A, KWH)], "DE", grid(300.0, "DE"), 1.0))
    account.turn([])
    assert account.jobs == {key(A): total(KWH, 100.0), key(A, region="DE"): total(KWH, 300.0)}


def test_what_was_pending_at_the_end_of_a_life_is_posted_in_the_next() -> None:
    first, second = Account(), Account()
    turn(first, used(A, KWH))
    turn(first, used(A, 2 * KWH), used(B, KWH))
    posted = second.restore(first.jobs, first.devices, first.pending)
    assert [entry.joules for entry in posted] == [2 * KWH, KWH]
    assert second.jobs == {key(A): total(3 * KWH, 300.0), key(B): total(KWH, 100.0)}
    assert second.devices == {key(A).device: 4 * KWH}
    assert first.jobs[key(A)] == total(KWH, 100.0), "the first life's totals are its own"


def test_only_what_nobody_needs_is_forgotten() -> None:
    account = Account()
    everyone = (A, B, C, IDLE, UNATTRIBUTED, OVERFLOW)
    turn(account, *(used(job, KWH) for job in everyone))
    turn(account, used(C, KWH))
    account.keep([A])
    assert {one.job for one in account.jobs} == {*everyone} - {B}, "a is wanted, c has energy to come"
    assert account.devices == {key(A).device: 6 * KWH}
    account.turn([])
    account.keep([A])
    assert {one.job for one in account.jobs} == {A, IDLE, UNATTRIBUTED, OVERFLOW}
    assert account.devices == {key(A).device: 7 * KWH}


def test_a_forgotten_job_that_comes_back_begins_at_zero() -> None:
    account = Account()
    turn(account, used(A, KWH))
    turn(account)
    account.keep([])
    turn(account, used(A, KWH))
    assert account.jobs == {key(A): total(0.0, 0.0)}


slices = st.lists(
    st.builds(used, st.sampled_from([A, B, C, IDLE, UNATTRIBUTED]), st.floats(0.0, 1e6), st.sampled_from([CPU, DRAM])),
    max_size=8,
)
turns = st.lists(st.tuples(slices, st.floats(0.0, 1500.0), st.floats(1.0, 3.0)), max_size=12)


@given(turns=turns)
def test_totals_never_fall_and_the_jobs_add_up_to_the_devices(
    turns: list[tuple[list[JobSlice], float, float]],
) -> None:
    account, expected = Account(), 0.0
    for some, grams_per_kwh, pue in [*turns, ([], 0.0, 1.0)]:
        jobs, devices = dict(account.jobs), dict(account.devices)
        turn(account, *some, grams_per_kwh=grams_per_kwh, pue=pue)
        assert jobs.keys() <= account.jobs.keys()
        for one, before in jobs.items():
            assert account.jobs[one].joules >= before.joules
            assert account.jobs[one].grams >= before.grams
        assert all(account.devices[one] >= joules for one, joules in devices.items())
        for device, joules in account.devices.items():
            parts = (job.joules for one, job in account.jobs.items() if one.device == device)
            assert math.isclose(math.fsum(parts), joules, rel_tol=1e-12)
        expected += sum(one.joules for one in some) / KWH * grams_per_kwh * pue
    assert math.fsum(job.grams for job in account.jobs.values()) == pytest.approx(expected)
