"""Spans through the real OpenTelemetry SDK: names, units, its cardinality limit, forks and dead collectors."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import View

from carbon_exporter.carbon.runs import RunFacts, RunKey, RunTotal
from carbon_exporter.carbon.spans import SpanAccount, SpanEntry, SpanKey, Trace
from carbon_exporter.jobs.base import Job
from carbon_exporter.sdk.base import Identity, Outlet
from carbon_exporter.sdk.otel_outlet import MOST_POINTS, OtelOutlet
from carbon_exporter.sensors.base import Kind
from carbon_exporter.units import Grams, Joules

ME = Identity("train")
Points = dict[tuple[tuple[str, str], ...], float]


@contextmanager
def collected(account: SpanAccount, **more: Any) -> Iterator[InMemoryMetricReader]:
    """A reader of a provider that an outlet hands its account to."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False, **more)
    outlet: Outlet = OtelOutlet(provider)
    outlet.start(account, ME)
    try:
        yield reader
    finally:
        outlet.close(5.0)
        provider.shutdown()


def metrics_of(reader: InMemoryMetricReader) -> dict[str, Any]:
    """What a collection gives, by name."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {m.name: m for r in data.resource_metrics for scope in r.scope_metrics for m in scope.metrics}


def points_of(metric: Any) -> Points:
    """Attributes and value of each point."""
    return {tuple(sorted(p.attributes.items())): p.value for p in metric.data.data_points}


def entry(span: str = "epoch", job: Job = Job("train", "research"), kind: Kind = "cpu", **more: Any) -> SpanEntry:  # noqa: B008
    """One span that ended."""
    known: dict[str, Any] = {"joules": {kind: Joules(7.0)}, "grams": Grams(0.5), "seconds": 2.0, "ended": 1}
    return SpanEntry(SpanKey(job, "FR", span, "3"), **{**known, **more})


def test_energy_emissions_time_count_and_values_go_out_in_base_units() -> None:
    account = SpanAccount()
    account.post(entry(values={"loss": 0.25}))
    whole = {"carbon.job.name": "train", "carbon.job.namespace": "research", "carbon.rank": "3"}
    span = {**whole, "carbon.span.name": "epoch"}
    with collected(account) as reader:
        found = metrics_of(reader)
    assert {name: metric.unit for name, metric in found.items()} == {
        "carbon.span.energy": "J",
        "carbon.span.co2e": "g",
        "carbon.span.duration": "s",
        "carbon.spans": "{span}",
        "carbon.span.value": "",
    }
    expected = {
        "carbon.span.energy": ({**span, "carbon.region": "FR", "carbon.kind": "cpu"}, 7.0),
        "carbon.span.co2e": ({**span, "carbon.region": "FR"}, 0.5),
        "carbon.span.duration": (span, 2.0),
        "carbon.spans": (span, 1.0),
        "carbon.span.value": ({**span, "carbon.value.name": "loss"}, 0.25),
    }
    for name, (attributes, value) in expected.items():
        assert points_of(found[name]) == {tuple(sorted(attributes.items())): value}, name
        assert getattr(found[name].data, "is_monotonic", None) == (None if name == "carbon.span.value" else True)


def test_runs_go_out_with_what_is_predicted_of_them() -> None:
    account = SpanAccount()
    facts = RunFacts("resnet", "", "256")
    total = RunTotal(Joules(7.0), Grams(0.5), Joules(3.0), Grams(0.25), facts)
    account.runs = lambda: {RunKey(Job("train"), "4711", "3"): total, RunKey(Job("train"), "4712", "3"): unpredicted}
    unpredicted = RunTotal(Joules(1.0), Grams(0.1))
    with collected(account) as reader:
        found = metrics_of(reader)
    run = {"carbon.job.name": "train", "carbon.rank": "3", "carbon.run": "4711"}
    expected = {
        "carbon.run.energy": (run, 7.0),
        "carbon.run.co2e": (run, 0.5),
        "carbon.run.predicted.energy": (run, 10.0),
        "carbon.run.predicted.co2e": (run, 0.75),
        "carbon.run.info": ({**run, "carbon.run.model": "resnet", "carbon.run.batch_size": "256"}, 1.0),
    }
    for name, (attributes, value) in expected.items():
        points = points_of(found[name])
        assert points[tuple(sorted(attributes.items()))] == value, name
        assert len(points) == (1 if "predicted" in name else 2), name


def test_what_is_empty_is_no_attribute() -> None:
    account = SpanAccount()
    account.post(SpanEntry(SpanKey(Job("train"), "FR", "epoch"), {"cpu": Joules(1.0)}))
    with collected(account) as reader:
        (attributes,) = points_of(metrics_of(reader)["carbon.span.energy"])
    assert {name for name, _ in attributes} == {"carbon.job.name", "carbon.span.name", "carbon.region", "carbon.kind"}


def test_each_collection_sees_the_account_as_it_stands() -> None:
    account = SpanAccount()
    with collected(account) as reader:
        assert metrics_of(reader) == {}
        for total in (7.0, 14.0):
            account.post(entry())
            assert list(points_of(metrics_of(reader)["carbon.span.energy"]).values()) == [total]


@pytest.mark.parametrize("jobs", [1, 2500], ids=["one job", "a job each"])
def test_the_limit_of_the_sdk_swallows_no_energy(jobs: int) -> None:
    account = SpanAccount()
    for n in range(2500):
        three: dict[Kind, Joules] = {"gpu": Joules(3.0), "cpu": Joules(2.0), "dram": Joules(1.0)}
        account.post(entry(f"span-{n}", Job(f"job-{n % jobs}"), joules=three))
    with collected(account) as reader:
        for metric in metrics_of(reader).values():
            for point in metric.data.data_points:
                assert "otel.metric.overflow" not in point.attributes
        points = points_of(metrics_of(reader)["carbon.span.energy"])
    by_kind = {kind: sum(v for a, v in points.items() if ("carbon.kind", kind) in a) for kind in ("gpu", "cpu", "dram")}
    assert by_kind == {"gpu": 7500.0, "cpu": 5000.0, "dram": 2500.0}


def test_more_than_the_limit_is_folded_by_us_with_its_sum_and_never_falls() -> None:
    account = SpanAccount(per_job=5000, most=5000)
    with collected(account) as reader:
        last: Points = {}
        for first in (0, 1000, 2000):
            account.post_all(entry(f"span-{n}") for n in range(first, first + 1000))
            account.post(entry("span-5"))
            points = points_of(metrics_of(reader)["carbon.span.energy"])
            assert all(points[attributes] >= value for attributes, value in last.items())
            assert sum(points.values()) == 7.0 * sum(total.count for total in account.totals.values())
            last = points
    folded = [dict(attributes) for attributes in last if ("carbon.span.name", "_overflow_") in attributes]
    assert len(last) == MOST_POINTS + 1
    assert [attributes["carbon.job.name"] for attributes in folded] == ["_overflow_"]


def test_a_view_with_a_limit_of_its_own_is_the_applications_choice() -> None:
    account = SpanAccount(per_job=100)
    for n in range(50):
        account.post(entry(f"span-{n}"))
    view = View(instrument_name="carbon.*", aggregation_cardinality_limit=10)
    with collected(account, views=[view]) as reader:
        assert len(points_of(metrics_of(reader)["carbon.span.energy"])) == 11
    raised = View(instrument_name="carbon.*", aggregation_cardinality_limit=10_000)
    with collected(account, views=[raised]) as reader:
        assert len(points_of(metrics_of(reader)["carbon.span.energy"])) == 50


def test_the_trace_of_a_span_is_its_energys_exemplar() -> None:
    account = SpanAccount()
    account.post(entry(trace=Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", Joules(7.0), 1.0)))
    with collected(account) as reader:
        (point,) = metrics_of(reader)["carbon.span.energy"].data.data_points
    assert [f"{e.trace_id:032x}" for e in point.exemplars] == ["0af7651916cd43dd8448eb211c80319c"]


def test_a_lone_surrogate_does_not_stop_an_export() -> None:
    account = SpanAccount()
    account.post(SpanEntry(SpanKey(Job("bad \udc80 byte"), "FR", "epoch"), {"cpu": Joules(1.0)}))
    with collected(account) as reader:
        ((attributes, _),) = points_of(metrics_of(reader)["carbon.span.energy"]).items()
    assert ("carbon.job.name", "bad ? byte") in attributes


def test_a_second_outlet_of_the_same_provider_takes_over() -> None:
    first, second = SpanAccount(), SpanAccount()
    first.post(entry("first"))
    second.post(entry("second"))
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    outlets = [OtelOutlet(provider), OtelOutlet(provider)]
    outlets[0].start(first, ME)
    outlets[1].start(second, ME)
    (attributes,) = points_of(metrics_of(reader)["carbon.span.energy"])
    assert ("carbon.span.name", "second") in attributes
    for outlet in outlets:
        outlet.close(5.0)
    provider.shutdown()


def test_a_forked_child_says_nothing_of_its_parents_energy_and_its_own_once_it_has_some() -> None:
    account = SpanAccount()
    account.post(entry())
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    outlet = OtelOutlet(provider)
    outlet.start(account, ME)
    child = os.fork()
    if child == 0:
        try:
            silent = metrics_of(reader) == {}
            mine = SpanAccount()
            mine.post(entry("child"))
            OtelOutlet(provider).start(mine, ME)
            (attributes,) = points_of(metrics_of(reader)["carbon.span.energy"])
            os._exit(0 if silent and ("carbon.span.name", "child") in attributes else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(points_of(metrics_of(reader)["carbon.span.energy"])) == 1
    outlet.close(5.0)
    provider.shutdown()


class Collector(MetricExporter):
    """An exporter of the application's: it takes its time, or fails."""

    def __init__(self, seconds: float = 0.0, *, fails: bool = False) -> None:
        super().__init__()
        self._seconds, self._fails = seconds, fails
        self.exports: list[MetricsData] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 0, **_: Any) -> MetricExportResult:
        time.sleep(min(self._seconds, timeout_millis / 1000))
        if self._fails:
            return MetricExportResult.FAILURE
        self.exports.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        if self._fails:
            raise ConnectionError("no collector")
        return bool(timeout_millis)

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        """Nothing is held."""


def test_the_end_sends_what_is_left_without_waiting_for_the_interval() -> None:
    collector, account = Collector(), SpanAccount()
    provider = MeterProvider([PeriodicExportingMetricReader(collector, 3_600_000)], shutdown_on_exit=False)
    outlet = OtelOutlet(provider)
    outlet.start(account, ME)
    account.post(entry())
    outlet.tell()
    outlet.close(10.0)
    assert len(collector.exports) == 1
    provider.shutdown()


@pytest.mark.parametrize("collector", [Collector(1.5), Collector(fails=True)], ids=["slow", "dead"])
def test_a_collector_that_is_slow_or_dead_delays_the_end_by_the_patience_at_most(collector: Collector) -> None:
    provider = MeterProvider([PeriodicExportingMetricReader(collector, 3_600_000)], shutdown_on_exit=False)
    account = SpanAccount()
    account.post(entry())
    outlet = OtelOutlet(provider)
    outlet.start(account, ME)
    began = time.monotonic()
    outlet.close(0.2)
    assert time.monotonic() - began < 1.4
    provider.shutdown()


CONFIGURED = """
import sys
from carbon_exporter.sdk.otel_outlet import is_configured
assert not any(name.startswith("opentelemetry") for name in sys.modules)
assert is_configured() is None
assert not any(name.startswith("opentelemetry") for name in sys.modules)
from opentelemetry import metrics
assert is_configured() is None
metrics.get_meter_provider()
assert is_configured() is None
from opentelemetry.sdk.metrics import MeterProvider
assert is_configured() is None
provider = MeterProvider()
assert is_configured() is None
metrics.set_meter_provider(provider)
print("real" if is_configured() is provider else is_configured())
"""


def ask_configured(*lines: str, **environ: str) -> str:
    """What `is_configured` says in a fresh process, at the end of a story."""
    script = "\n".join([*lines, CONFIGURED])
    root = str(Path(__file__).parents[2])
    environ = {**os.environ, "PYTHONPATH": root, **environ}
    return subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True
    ).stdout.strip()  # fmt: skip


def test_only_a_real_provider_that_the_application_has_set_counts() -> None:
    assert ask_configured() == "real"


def test_an_sdk_that_is_switched_off_does_not_count() -> None:
    assert ask_configured(OTEL_SDK_DISABLED="true") == "None"
