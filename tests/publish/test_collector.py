"""The Collector as people mount it: in a registry of their own, beside their own metrics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.openmetrics import exposition
from support.snapshots import HOSTILE, many_jobs, snapshot

from carbon_exporter.carbon.account import DeviceKey, JobKey
from carbon_exporter.jobs.base import Job
from carbon_exporter.publish.catalogue import CATALOGUE, Metric
from carbon_exporter.publish.collector import CarbonCollector
from carbon_exporter.snapshot import Snapshot
from carbon_exporter.units import Watts

generate_openmetrics: Callable[[CollectorRegistry], bytes] = exposition.generate_latest


def names(page: bytes) -> list[str]:
    """The families of a text page."""
    return [line.split()[2] for line in page.decode().splitlines() if line.startswith("# TYPE")]


def test_a_registry_shows_the_whole_catalogue_beside_its_own_metrics() -> None:
    registry = CollectorRegistry()
    Gauge("mine", "My own.", registry=registry).set(1)
    registry.register(CarbonCollector(snapshot))
    assert names(generate_latest(registry)) == ["mine", *(metric.name for metric in CATALOGUE)]


def test_before_the_first_snapshot_there_is_nothing() -> None:
    assert list(CarbonCollector(lambda: None).collect()) == []
    registry = CollectorRegistry()
    registry.register(CarbonCollector(lambda: None))
    assert generate_latest(registry) == b""
    assert generate_openmetrics(registry) == b"# EOF\n"


def test_each_scrape_shows_the_newest_snapshot_and_nothing_of_older_ones() -> None:
    latest = [many_jobs(3, "old")]
    registry = CollectorRegistry()
    registry.register(CarbonCollector(lambda: latest[0]))
    assert b'job_name="old-2"' in generate_latest(registry)
    latest[0] = many_jobs(3, "new")
    page = generate_latest(registry)
    assert b'job_name="new-2"' in page
    assert b"old-" not in page


def test_describe_names_every_metric_without_reading_a_snapshot() -> None:
    def never() -> Snapshot:
        raise AssertionError("describe must not collect")

    described = list(CarbonCollector(never).describe())
    assert [family.name for family in described] == [metric.family for metric in CATALOGUE]
    assert not any(family.samples for family in described)


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_a_registry_finds_each_metric_by_its_name(metric: Metric) -> None:
    registry = CollectorRegistry()
    registry.register(CarbonCollector(snapshot))
    assert names(generate_latest(registry.restricted_registry([metric.name]))) == [metric.name]


def test_mounting_it_twice_in_one_registry_is_refused() -> None:
    registry = CollectorRegistry()
    registry.register(CarbonCollector(snapshot))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(CarbonCollector(snapshot))


def test_the_jobs_label_is_spelt_as_chosen() -> None:
    registry = CollectorRegistry()
    registry.register(CarbonCollector(snapshot, "hpc_job"))
    page = generate_latest(registry)
    assert b'hpc_job="train"' in page
    assert b"job_name=" not in page


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_does_not_take_the_registrys_page_away(name: str) -> None:
    key = JobKey(Job(name, name), DeviceKey("cpu0", "cpu", "FR"))
    registry = CollectorRegistry()
    registry.register(CarbonCollector(lambda: snapshot(job_power={key: Watts(7.0)})))
    assert b"carbon_job_power_watts{" in generate_latest(registry)
    assert generate_openmetrics(registry).endswith(b"# EOF\n")
