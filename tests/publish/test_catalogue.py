"""The catalogue keeps the metric contract: what is named there is what is published."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from support.snapshots import grid, many_jobs, snapshot, snapshots

from carbon_exporter.jobs.base import RESERVED
from carbon_exporter.publish.catalogue import CATALOGUE, JOB_LABELS, Metric, label_names, utf8
from carbon_exporter.snapshot import Snapshot, StoreHealth

TARGET_LABELS = {"job", "namespace", "pod", "container", "node", "service", "instance", "endpoint", "cluster", "env"}
"""Prometheus and its operator put these on every series; one of ours would become `exported_*`."""
DEVICE = {"device", "kind", "region"}
JOB = {"job_name", "job_namespace", *DEVICE}
SPAN = {"job_name", "job_namespace", "span", "rank"}
RUN = {"job_name", "job_namespace", "run", "rank"}
CONTRACT = {
    "carbon_device_power_watts": ("gauge", DEVICE),
    "carbon_device_energy_kwh_total": ("counter", DEVICE),
    "carbon_device_info": ("gauge", {"device", "kind", "vendor", "model", "uuid", "sensor", "quality"}),
    "carbon_job_power_watts": ("gauge", JOB),
    "carbon_job_energy_kwh_total": ("counter", JOB),
    "carbon_job_co2e_grams_total": ("counter", JOB),
    "carbon_job_info": ("gauge", {"job_name", "job_namespace", "job_id", "scheduler", "queue", "job_user"}),
    "carbon_job_member_info": ("gauge", {"job_name", "job_namespace", "job_pod", "job_container"}),
    "carbon_span_energy_kwh_total": ("counter", {*SPAN, "region", "kind"}),
    "carbon_span_co2e_grams_total": ("counter", {*SPAN, "region"}),
    "carbon_span_duration_seconds_total": ("counter", SPAN),
    "carbon_spans_total": ("counter", SPAN),
    "carbon_span_value": ("gauge", {*SPAN, "name"}),
    "carbon_run_info": ("gauge", {*RUN, "model", "dataset", "batch_size"}),
    "carbon_run_energy_kwh_total": ("counter", RUN),
    "carbon_run_co2e_grams_total": ("counter", RUN),
    "carbon_run_predicted_energy_kwh": ("gauge", RUN),
    "carbon_run_predicted_co2e_grams": ("gauge", RUN),
    "carbon_spans_folded_total": ("counter", set[str]()),
    "carbon_handoff_peers": ("gauge", set[str]()),
    "carbon_handoff_refused_total": ("counter", {"reason"}),
    "carbon_grid_intensity_grams_per_kwh": ("gauge", {"region", "provider", "scope", "basis"}),
    "carbon_grid_intensity_timestamp_seconds": ("gauge", {"region", "provider"}),
    "carbon_grid_intensity_info": ("gauge", {"region", "provider", "quality", "source", "year"}),
    "carbon_pue_ratio": ("gauge", {"region"}),
    "carbon_sensor_success": ("gauge", {"sensor"}),
    "carbon_sensor_duration_seconds": ("gauge", {"sensor"}),
    "carbon_sensor_last_sample_timestamp_seconds": ("gauge", {"sensor"}),
    "carbon_sensor_errors_total": ("counter", {"sensor", "reason"}),
    "carbon_resolver_success": ("gauge", {"resolver"}),
    "carbon_resolver_duration_seconds": ("gauge", {"resolver"}),
    "carbon_energy_gap_seconds_total": ("counter", {"device"}),
    "carbon_jobs_tracked": ("gauge", set[str]()),
    "carbon_jobs_folded_total": ("counter", set[str]()),
    "carbon_store_last_write_timestamp_seconds": ("gauge", set[str]()),
    "carbon_http_connections": ("gauge", set[str]()),
    "carbon_http_refused_total": ("counter", {"reason"}),
    "carbon_web_config_success": ("gauge", set[str]()),
    "carbon_exporter_build_info": ("gauge", {"version", "revision", "python"}),
}
"""What dashboards and rules may rely on: a label more is allowed, one less or another type is not."""

each_metric = pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)


def of(name: str, seen: Snapshot) -> dict[tuple[str, ...], float]:
    """The samples of one metric."""
    (metric,) = (metric for metric in CATALOGUE if metric.name == name)
    return dict(metric.samples(seen))


def test_every_metric_of_the_contract_is_there_with_its_type_and_labels() -> None:
    here = {metric.name: metric for metric in CATALOGUE}
    assert len(here) == len(CATALOGUE)
    for name, (kind, labels) in CONTRACT.items():
        assert here[name].type == kind, name
        assert labels <= set(here[name].labels), name


@each_metric
def test_names_are_prefixed_snake_case_and_tell_counters_from_gauges(metric: Metric) -> None:
    assert re.fullmatch(r"carbon_[a-z0-9]+(_[a-z0-9]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.type == "counter")
    assert metric.family == metric.name.removesuffix("_total")
    assert not re.search(r"joules|kilo|hours|percent|milli|gauge|counter", metric.name)


@each_metric
def test_no_label_collides_with_one_that_prometheus_attaches(metric: Metric) -> None:
    assert not TARGET_LABELS & set(label_names(metric, "job_name"))
    assert len(set(metric.labels)) == len(metric.labels)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in metric.labels)


@each_metric
@pytest.mark.parametrize("spelling", JOB_LABELS)
def test_only_the_jobs_own_label_is_spelt_as_the_user_chose(metric: Metric, spelling: str) -> None:
    (chosen,) = (label for label in JOB_LABELS if label == spelling)
    there = label_names(metric, chosen)
    assert [label for label in there if label != spelling] == [label for label in metric.labels if label != "job_name"]
    assert (spelling in there) == ("job_name" in metric.labels)


@each_metric
def test_help_is_a_sentence_on_one_line(metric: Metric) -> None:
    assert metric.help.endswith(".")
    assert metric.help[0].isupper()
    assert metric.help == metric.help.strip()
    assert "\n" not in metric.help


@each_metric
def test_the_unit_is_what_the_family_ends_in(metric: Metric) -> None:
    assert metric.family.endswith(metric.unit)
    if re.search(r"_(watts|kwh|grams|seconds|ratio|per_kwh)(_total)?$", metric.name):
        assert metric.unit


@each_metric
def test_a_full_snapshot_gives_every_metric_a_sample(metric: Metric) -> None:
    values = dict(metric.samples(snapshot()))
    assert values
    assert all(math.isfinite(value) for value in values.values())


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_samples_have_a_value_for_each_label_and_no_two_share_their_labels(seen: Snapshot) -> None:
    for metric in CATALOGUE:
        samples = [(tuple(utf8(text) for text in values), value) for values, value in metric.samples(seen)]
        assert all(len(values) == len(metric.labels) for values, _ in samples), metric.name
        assert all(type(value) is float for _, value in samples), metric.name
        assert len({values for values, _ in samples}) == len(samples), metric.name
        if metric.type == "counter":
            assert all(value >= 0 for _, value in samples), metric.name


def test_energy_leaves_in_kilowatt_hours_and_emissions_in_grams() -> None:
    assert of("carbon_device_energy_kwh_total", snapshot())["cpu0", "cpu", "FR"] == 3.0
    assert of("carbon_job_energy_kwh_total", snapshot())["train", "", "FR", "cpu0", "cpu"] == 2.0
    assert of("carbon_job_co2e_grams_total", snapshot())["eval", "research", "FR", "dram0", "dram"] == 27.5


def test_the_jobs_kilowatt_hours_add_up_to_the_devices() -> None:
    jobs, devices = (of(f"carbon_{what}_energy_kwh_total", snapshot()) for what in ("job", "device"))
    assert sum(jobs.values()) == pytest.approx(sum(devices.values()), rel=1e-12)


def test_each_job_has_one_info_and_reserved_names_have_none() -> None:
    infos = of("carbon_job_info", many_jobs(70))
    assert len(infos) == 70
    assert not {values[0] for values in of("carbon_job_info", snapshot())} & {job.name for job in RESERVED}
    assert of("carbon_jobs_tracked", snapshot()) == {(): 2.0}
    known = of("carbon_job_info", snapshot())
    assert known == {("train", "", "", "", "", ""): 1.0, ("eval", "research", "eval-1", "kueue", "team", "ada"): 1.0}


def test_the_pods_and_containers_of_a_job_are_told_apart_from_its_info() -> None:
    members = of("carbon_job_member_info", snapshot())
    assert members == {
        ("eval", "research", "eval-x2b4d", ""): 1.0,
        ("eval", "research", "eval-x2b4d", "main"): 1.0,
    }


def test_what_is_not_known_is_absent_and_not_zero() -> None:
    quiet = snapshot(grid=grid(at=None, year=None), store=StoreHealth("", "off"), devices=(), job_power={})
    for name in ("device_power_watts", "grid_intensity_timestamp_seconds", "store_last_write_timestamp_seconds"):
        assert of(f"carbon_{name}", quiet) == {}
    assert of("carbon_store_last_write_timestamp_seconds", snapshot(store=StoreHealth("/x", "failing"))) == {(): 0.0}


def test_a_sensor_that_is_here_and_does_not_work_is_zero_and_one_that_is_absent_is_silent() -> None:
    assert of("carbon_sensor_success", snapshot()) == {("rapl",): 1.0, ("model",): 0.0}
    assert of("carbon_sensor_errors_total", snapshot()) == {("model", "read"): 2.0, ("model", "deadline"): 1.0}
