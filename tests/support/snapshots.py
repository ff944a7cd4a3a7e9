"""Snapshots without a machine: a small full one to change at will, and a strategy of hostile ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from carbon_exporter.carbon.account import DeviceKey, JobKey, JobTotal
from carbon_exporter.carbon.base import Intensity, Location
from carbon_exporter.carbon.grid import Grid
from carbon_exporter.carbon.runs import RunFacts, RunKey, RunTotal
from carbon_exporter.carbon.spans import SpanKey, SpanTotal
from carbon_exporter.jobs.base import IDLE, UNATTRIBUTED, Job, PartitionHolder, ResolverHealth
from carbon_exporter.jobs.naming import JobInfo
from carbon_exporter.jobs.roll import JobTold
from carbon_exporter.publish.catalogue import utf8
from carbon_exporter.sensors.base import Device, Kind, Quality, Vitals
from carbon_exporter.snapshot import DeviceState, NodeState, SensorHealth, Snapshot, StoreHealth, Today
from carbon_exporter.units import Grams, GramsPerKwh, Joules, Watts

__all__ = ["HOSTILE", "grid", "many_jobs", "snapshot", "snapshots"]

HOSTILE = (
    'say "cheese"', "back\\slash", "ends in \\", "two\nlines", "\\n", "carriage\rreturn", "\U0001f525 emoji",
    "lone \udc80 surrogate", 'x{y="z"} 1', "# EOF", "nul\x00", "\u2028", "{", "}", ",", "=", " ", "<script>", "é",
)  # fmt: skip
"""Texts that break writers and parsers of expositions."""


def grid(zone: str = "FR", **changes: Any) -> Grid:
    """A grid whose price is live, so that all of its metrics have samples."""
    price = Intensity(
        zone, GramsPerKwh(44.5), "static", "lifecycle", "average", "yearly", "Ember, 2025, CC BY 4.0", 2024, 1.7953e9
    )
    return Grid(Location(zone, "setting"), dataclasses.replace(price, **changes), 1.25)


def snapshot(**changes: Any) -> Snapshot:
    """A small machine after a few samples, on which every metric of the catalogue has something to say."""
    cpu, dram = DeviceKey("cpu0", "cpu", "FR"), DeviceKey("dram0", "dram", "FR")
    totals = {
        JobKey(IDLE, cpu): JobTotal(Joules(3.6e6), Grams(55.0)),
        JobKey(UNATTRIBUTED, cpu): JobTotal(Joules(0.0), Grams(0.0)),
        JobKey(Job("train"), cpu): JobTotal(Joules(7.2e6), Grams(110.0)),
        JobKey(Job("eval", "research"), dram): JobTotal(Joules(1.8e6), Grams(27.5)),
    }
    known = Snapshot(
        at=1795310000.25,
        started=1795300000.0,
        interval=5.0,
        samples=12,
        grid=grid(),
        store=StoreHealth("/var/lib/carbon-exporter", "ok", 1795310000.0),
        today=Today("2026-11-22", Joules(12.6e6), Grams(192.5)),
        devices=(
            DeviceState(
                Device("cpu0", "cpu", "rapl", "Intel", "Xeon", "1"),
                Quality.MEASURED,
                Watts(40.5),
                0.0,
                Vitals("cpu0", Watts(205.0), 0.5, 2**30, 61.0, -0.02),
            ),
            DeviceState(Device("dram0", "dram", "model", method="0.375 W/GiB"), Quality.MODELLED, Watts(3.0), 12.0),
        ),
        nodes=(NodeState("redfish", "PowerConsumedWatts", Watts(240.0), Joules(36e6)),),
        partitions=(PartitionHolder(Job("train"), "gpu0", "gi1", "1g.10gb"),),
        device_totals={cpu: Joules(10.8e6), dram: Joules(1.8e6)},
        job_totals=totals,
        job_power={JobKey(IDLE, cpu): Watts(10.0), JobKey(Job("train"), cpu): Watts(30.5)},
        jobs={
            Job("train"): JobTold(rules=("environment",), why="CARBON_JOB"),
            Job("eval", "research"): JobTold(
                JobInfo("eval-1", "kueue", "team", "ada"),
                (("eval-x2b4d", ""), ("eval-x2b4d", "main")),
                ("labels",),
                "batch.kubernetes.io/job-name",
            ),
        },
        running={Job("train"): "CARBON_JOB"},
        sensors=(
            SensorHealth("rapl", "active", ("cpu0",), Quality.MEASURED, seconds=0.0004, last_sample=1795310000.0),
            SensorHealth("model", "failed", ("dram0",), Quality.MODELLED, "gone", errors={"read": 2, "deadline": 1}),
            SensorHealth("redfish", "missing", reason="no such meter here"),
        ),
        resolvers=(ResolverHealth("environment", success=False, reason="hidden", remedy="sudo", seconds=0.002),),
        spans={
            SpanKey(Job("train"), "FR", "epoch", "0"): SpanTotal(
                {"gpu": Joules(3.6e6), "cpu": Joules(1.8e6)},
                Grams(66.0),
                120.5,
                3,
                {"loss": 0.25},
            ),
            SpanKey(Job("eval", "research"), "FR", "epoch"): SpanTotal({"cpu": Joules(0.0)}),
        },
        runs={
            RunKey(Job("train"), "4711", "0"): RunTotal(
                Joules(7.2e6), Grams(60.0), Joules(3.6e6), Grams(30.0), RunFacts("resnet", "imagenet", "256")
            ),
            RunKey(Job("eval", "research"), "4712"): RunTotal(Joules(0.0), Grams(0.0)),
        },
        spans_folded=2,
        handoff_peers=1,
        handoff_refused={"peers": 0, "flood": 3},
        http_connections=1,
        web_config_well=True,
        http_refused={"connections": 0, "431": 2},
    )
    return dataclasses.replace(known, **changes)


def many_jobs(count: int, prefix: str = "job") -> Snapshot:
    """The small machine with this many jobs more: two series each."""
    cpu = DeviceKey("cpu0", "cpu", "FR")
    totals = {JobKey(Job(f"{prefix}-{n}"), cpu): JobTotal(Joules(n * 1e5), Grams(n / 7)) for n in range(count)}
    return snapshot(job_totals=totals, job_power={}, jobs={}, partitions=(), spans={}, runs={})


def _as_watts(value: float | None) -> Watts | None:
    return None if value is None else Watts(value)


_KINDS: tuple[Kind, ...] = ("gpu", "cpu", "dram", "accelerator", "other")
_texts = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=()), max_size=12)
_names = _texts.filter(bool)
_numbers = st.floats(0, 1e15) | st.integers(0, 10**12).map(float)
_odd = _numbers | st.sampled_from([float("nan"), float("inf")])
_zones = st.sampled_from(["FR", "US-CA", "world", "NO-NO2"])
_jobs = st.builds(Job, _names, _texts)
_joules, _grams, _watts = _numbers.map(Joules), _numbers.map(Grams), _odd.map(Watts)
_qualities = st.none() | st.sampled_from(Quality)
_keys = st.builds(DeviceKey, _names, st.sampled_from(_KINDS), _zones)
_devices = st.builds(
    Device, _names, st.sampled_from(_KINDS), _names, vendor=_texts, model=_texts, uuid=_texts, method=_texts
)
_maybe = st.none() | _odd
_vitals = st.builds(Vitals, _names, _maybe.map(_as_watts), _maybe, st.none() | st.integers(0, 2**50), _maybe, _maybe)
_states = st.builds(DeviceState, _devices, _qualities, st.none() | _watts, _numbers, st.none() | _vitals)
_nodes = st.builds(NodeState, _names, _texts, st.none() | _watts, _joules)
_health = st.builds(
    SensorHealth,
    _names,
    st.sampled_from(["active", "covered", "missing", "denied", "failed"]),
    st.lists(_names, max_size=2).map(tuple),
    _qualities,
    _texts,
    _texts,
    _numbers,
    st.none() | _numbers,
    st.dictionaries(st.sampled_from(["read", "deadline"]), st.integers(0, 10**9)),
)
_grids = st.builds(
    grid,
    _zones,
    grams_per_kwh=_numbers.map(GramsPerKwh),
    provider=_names,
    source=_texts,
    year=st.none() | st.integers(1990, 2100),
    at=st.none() | _numbers,
    note=_texts,
)


_infos = st.builds(JobInfo, _texts, _texts, _texts, _texts)
_members = st.lists(
    st.tuples(_texts, _texts).filter(any), max_size=3, unique_by=lambda member: (utf8(member[0]), utf8(member[1]))
)
_told = st.builds(JobTold, _infos, _members.map(tuple), st.lists(_names, max_size=2).map(tuple), _texts)


def _as_sent(key: JobKey) -> tuple[str, ...]:
    return (utf8(key.job.name), utf8(key.job.namespace), utf8(key.device.device), key.device.kind, key.device.region)


@st.composite
def _job_tables(draw: st.DrawFn) -> tuple[Mapping[JobKey, JobTotal], Mapping[JobKey, Watts]]:
    """Totals of some jobs, and the power of those of them that run."""
    jobs = draw(st.lists(_jobs, min_size=1, max_size=4, unique_by=lambda job: (utf8(job.name), utf8(job.namespace))))
    keys = draw(st.lists(st.builds(JobKey, st.sampled_from(jobs), _keys), max_size=6, unique_by=_as_sent))
    totals = {key: draw(st.builds(JobTotal, _joules, _grams)) for key in keys}
    running = draw(st.sets(st.sampled_from(keys))) if keys else set()
    return totals, {key: draw(_watts) for key in sorted(running, key=keys.index)}


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Any snapshot, with names as hostile as an environment variable or a firmware table can make them."""
    totals, power = draw(_job_tables())
    devices = draw(st.lists(_states, max_size=4, unique_by=lambda state: utf8(state.device.name)))
    keys = draw(st.lists(_keys, max_size=5, unique_by=lambda key: (utf8(key.device), key.kind, key.region)))
    return snapshot(
        grid=draw(_grids),
        store=draw(st.builds(StoreHealth, _texts, st.sampled_from(["ok", "off", "failing"]), st.none() | _numbers)),
        devices=tuple(devices),
        nodes=tuple(draw(st.lists(_nodes, max_size=2, unique_by=lambda node: utf8(node.source)))),
        partitions=tuple(PartitionHolder(key.job, key.device.device, "gi1", "1g.10gb") for key in list(power)[:1]),
        device_totals={key: draw(_joules) for key in keys},
        job_totals=totals,
        job_power=power,
        jobs={job: draw(_told) for job in dict.fromkeys(key.job for key in totals) if draw(st.booleans())},
        running={key.job: draw(_texts) for key in power},
        jobs_folded=draw(st.integers(0, 10**6)),
        sensors=tuple(draw(st.lists(_health, max_size=4, unique_by=lambda health: utf8(health.sensor)))),
        http_refused=draw(st.dictionaries(st.sampled_from(["connections", "deadline", "400"]), st.integers(0, 9))),
    )
