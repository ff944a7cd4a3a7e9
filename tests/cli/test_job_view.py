"""What `carbon-exporter jobs` makes of a snapshot: columns, long names, quiet units, slices, members, troubles."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from support.snapshots import snapshot, snapshots

from carbon_exporter.carbon.account import DeviceKey, JobKey
from carbon_exporter.cli.job_look import FirstAnswers, latest_shares
from carbon_exporter.cli.job_view import View, as_json, as_text
from carbon_exporter.jobs.base import IDLE, OVERFLOW, UNATTRIBUTED, Job, PartitionHolder, ResolverHealth
from carbon_exporter.jobs.naming import JobInfo
from carbon_exporter.jobs.roll import JobTold
from carbon_exporter.sensors.base import Device, Quality
from carbon_exporter.snapshot import DeviceState, SensorHealth, Snapshot
from carbon_exporter.units import Watts

TRAIN, PLAIN, BRIEF = Job("bert-large-pretraining-run-17", "team-language"), Job("plain"), Job("brief")
UNITS = [Job(f"unit-{number}.service") for number in range(40)]
DEVICES = (("cpu0", "cpu", 62.5), ("gpu0", "gpu", 400.0), ("gpu1", "gpu", 300.0))
POWER: Mapping[Job, Mapping[str, float]] = {
    TRAIN: {"cpu0": 20.0, "gpu0": 400.0, "gpu1": 250.0},
    PLAIN: {"cpu0": 30.0},
    BRIEF: {"cpu0": 2.5},
    IDLE: {"cpu0": 10.0, "gpu1": 50.0},
    UNATTRIBUTED: {"cpu0": 0.0},
}
TOLD = {
    TRAIN: JobTold(
        JobInfo("wl-7", "kueue", "research", "carol"),
        tuple((f"bert-worker-{number}", "main") for number in range(12)),
        ("labels", "owner"),
        "training.kubeflow.org/job-name",
    ),
    PLAIN: JobTold(rules=("environment",), why="CARBON_JOB"),
    BRIEF: JobTold(rules=("environment",), why="CARBON_JOB"),
    **{unit: JobTold(rules=("unit",), why="unit") for unit in UNITS},
}


def key(job: Job, device: str) -> JobKey:
    kind = next(kind for name, kind, _ in DEVICES if name == device)
    return JobKey(job, DeviceKey(device, kind, "FR"))  # type: ignore[arg-type]


def full(**changes: Any) -> Snapshot:
    """Three devices; a job on all of them, one on the CPU, one that has just ended, and forty units that do nothing."""
    states = tuple(
        DeviceState(Device(name, kind, "test"), Quality.MEASURED, Watts(watts), 0.0)  # type: ignore[arg-type]
        for name, kind, watts in DEVICES
    )
    plain: dict[str, Any] = {
        "devices": states,
        "partitions": (PartitionHolder(TRAIN, "gpu1", "gi1", "1g.10gb"),),
        "job_power": {key(job, device): Watts(watts) for job, of in POWER.items() for device, watts in of.items()},
        "jobs": TOLD,
        "running": {TRAIN: "", PLAIN: "CARBON_JOB", **dict.fromkeys(UNITS, "unit")},
        "sensors": (),
        "resolvers": (),
    }
    return snapshot(**{**plain, **changes})


def view(shown: Snapshot, **more: Any) -> View:
    return View(shown, latest_shares({}, shown), **more)


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_every_line_fits_the_terminal_and_nothing_is_lost(width: int) -> None:
    lines = as_text(view(full()), width).splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for part in (
        "team-language/bert-large-pretraining-run-17", "670.0 W", "gpu1 250.0 W (gi1 1g.10gb)",
        "training.kubeflow.org/job-name, parts by owner, kueue, queue research, id wl-7, user carol",
        "bert-worker-0 (main)", "762.5 W", "gpu0 400.0 W measured",
    ):  # fmt: skip
        assert part in text, part


def test_rows_go_by_power_with_the_reserved_names_and_the_sum_below() -> None:
    lines = as_text(view(full()), 120).splitlines()
    first = [line.partition(" ")[0] for line in lines if not line.startswith(" ")]
    assert first == [
        "JOB",
        "team-language/bert-large-pretraining-run-17",
        "plain",
        "brief",
        "(40",
        "_idle_",
        "_unattributed_",
        "all",
    ]
    assert next(line for line in lines if line.startswith("brief")).endswith("cpu0 2.5 W; CARBON_JOB, has just ended")


def test_units_that_do_nothing_share_a_row_and_of_many_pods_some_are_named() -> None:
    text = " ".join(as_text(view(full()), 120).split())
    assert "(40 more) 0.0 W unit unit-0.service, unit-1.service," in text
    assert "and 32 more" in text
    assert "bert-worker-6 (main)" in text
    assert "bert-worker-7 (main), and 4 more" in text


def test_a_unit_that_works_and_a_unit_of_unknown_power_have_rows_of_their_own() -> None:
    busy = {**full().job_power, key(UNITS[3], "cpu0"): Watts(1.0)}
    text = as_text(view(full(job_power=busy)), 120)
    assert "\nunit-3.service" in text
    assert "(39 more)" in text
    dark = tuple(dataclasses.replace(state, power=None) for state in full().devices)
    text = as_text(view(full(devices=dark, job_power={})), 120)
    assert "\nunit-3.service  " in text
    assert "more)  " not in text
    assert "\nall" in text
    assert " - " in text.partition("\nall")[2]


def test_units_alone_bring_the_hint_how_to_name_a_job() -> None:
    only = full(running=dict.fromkeys(UNITS, "unit"), job_power={key(IDLE, "cpu0"): Watts(62.5)})
    assert as_text(view(only), 120).startswith("No job here has a name of its own, only units and sessions.")
    assert "CARBON_JOB=name" in as_text(view(full(running={}, job_power={})), 120)
    assert "CARBON_JOB=name" not in as_text(view(full()), 120)


def test_what_could_not_be_read_stands_below_with_why_and_the_remedy() -> None:
    shown = full(
        resolvers=(
            ResolverHealth("processes", success=True),
            ResolverHealth("engine", success=True, reason="names are ids", remedy="let it use the socket"),
            ResolverHealth("pods", success=False, reason="this node's pods are not known yet"),
        ),
        sensors=(
            SensorHealth("rapl", "denied", reason="energy_uj may not be read", remedy="sudo"),
            SensorHealth("ipmi", "missing", reason="no such device"),
        ),
    )
    seen = view(shown, unanswered=("pods", "pod-resources"), notes=("pods: no name of the node",))
    below = as_text(seen, 120).partition("NOT SEEN")[2].splitlines()[1:]
    assert [" ".join(line.split()) for line in below] == [
        "engine names are ids",
        "→ let it use the socket",
        "pods this node's pods are not known yet",
        "pod-resources has not answered yet: what it knows of jobs is not here",
        "pods no name of the node",
        "rapl energy_uj may not be read",
        "→ sudo",
    ]
    assert as_json(seen, "n")["unanswered"] == ["pods", "pod-resources"]


def test_overflow_is_shown_only_if_there_is_some() -> None:
    assert "_overflow_" not in as_text(view(full()), 120)
    some = {**full().job_power, key(OVERFLOW, "cpu0"): Watts(1.0)}
    text = " ".join(as_text(view(full(job_power=some)), 120).split())
    assert "_overflow_ 1.0 W jobs beyond jobs.max or series.max" in text


def test_a_meter_without_news_keeps_its_shares_until_its_power_is_old() -> None:
    first = latest_shares({}, full())
    slow = full(job_power={key(PLAIN, "cpu0"): Watts(5.0)})
    second = latest_shares(first, slow)
    assert second["gpu0"] == {TRAIN: 400.0}
    assert second["cpu0"] == {PLAIN: 5.0}
    gone = dataclasses.replace(slow.devices[1], power=None)
    assert "gpu0" not in latest_shares(second, full(devices=(slow.devices[0], gone, slow.devices[2])))


class Directory:
    """Says what it is told to."""

    revision = 0

    def __init__(self, said: ResolverHealth, *, anew: bool = False) -> None:
        self.said, self._anew = said, anew

    def start(self) -> None:
        """Nothing."""

    def health(self) -> ResolverHealth:
        return dataclasses.replace(self.said) if self._anew else self.said

    def close(self) -> None:
        """Nothing."""


def test_a_directory_is_unanswered_until_it_says_something_of_its_own() -> None:
    engine = Directory(ResolverHealth("engine", success=True))
    pods = Directory(ResolverHealth("pods", success=False, reason="not known yet"), anew=True)
    answers = FirstAnswers([engine, pods])
    assert list(answers.missing) == ["engine", "pods"]
    engine.said = ResolverHealth("engine", success=True)
    assert list(answers.missing) == ["pods"]
    pods.said = ResolverHealth("pods", success=False, reason="not allowed")
    assert list(answers.missing) == []
    assert not answers.all_well
    pods.said = ResolverHealth("pods", success=True)
    assert answers.all_well


@given(snapshots())
def test_no_snapshot_makes_it_fail(shown: Snapshot) -> None:
    seen = view(shown)
    assert as_text(seen, 80)
    json.dumps(as_json(seen, "node"))
