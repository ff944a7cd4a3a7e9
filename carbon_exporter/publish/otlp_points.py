"""A snapshot as OpenTelemetry's data: the points that its OTLP exporter encodes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from carbon_exporter import __version__
from carbon_exporter.publish.catalogue import utf8
from carbon_exporter.publish.otlp_lives import Lives
from carbon_exporter.publish.otlp_metrics import COUNTERS, GAUGES, Counter, Gauge
from carbon_exporter.publish.samples import LabelValues
from carbon_exporter.snapshot import Snapshot

__all__ = ["metrics_data"]

_SCOPE = "carbon_exporter"


def metrics_data(
    snapshot: Snapshot, lives: Lives, models: Mapping[str, str], resource: Mapping[str, str]
) -> Any:  # MetricsData
    """All points of a snapshot that `lives` has looked at; `models` names the devices for people."""
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

    metrics = [metric for metric in _metrics(snapshot, lives, models) if metric.data.data_points]
    scope = ScopeMetrics(InstrumentationScope(_SCOPE, __version__), metrics, "")
    clean = {utf8(key): utf8(value) for key, value in resource.items()}
    return MetricsData([ResourceMetrics(Resource(clean), [scope], "")])


def _metrics(snapshot: Snapshot, lives: Lives, models: Mapping[str, str]) -> Iterator[Any]:
    """One for each instrument."""
    from opentelemetry.sdk.metrics import export  # noqa: PLC0415 - only who pushes loads it

    cumulative = export.AggregationTemporality.CUMULATIVE
    for counter in COUNTERS:
        points = list(_counter_points(counter, snapshot, lives, models))
        yield export.Metric(counter.name, counter.help, counter.unit, export.Sum(points, cumulative, is_monotonic=True))
    for gauge in GAUGES:
        points = list(_gauge_points(gauge, snapshot, models))
        yield export.Metric(gauge.name, gauge.help, gauge.unit, export.Gauge(points))


def _counter_points(counter: Counter, snapshot: Snapshot, lives: Lives, models: Mapping[str, str]) -> Iterator[Any]:
    """The newest number of each series, after what it was first where that was not told yet."""
    from opentelemetry.sdk.metrics.export import NumberDataPoint  # noqa: PLC0415

    for key, total in counter.totals(snapshot).items():
        start = _nanoseconds(min(lives.since(key), snapshot.at))
        first = lives.first(key, snapshot.at)
        told = [] if first is None else [(first.at, first.total)]
        for at, what in (*told, (snapshot.at, total)):
            for values, number in counter.points(key, what):
                attributes = _attributes(counter.attributes, values, models)
                yield NumberDataPoint(attributes, start, _nanoseconds(at), float(number))


def _gauge_points(gauge: Gauge, snapshot: Snapshot, models: Mapping[str, str]) -> Iterator[Any]:
    from opentelemetry.sdk.metrics.export import NumberDataPoint  # noqa: PLC0415

    at = _nanoseconds(snapshot.at)
    for values, number in gauge.samples(snapshot):
        if math.isfinite(number):
            yield NumberDataPoint(_attributes(gauge.attributes, values, models), 0, at, float(number))


def _attributes(names: tuple[str, ...], values: LabelValues, models: Mapping[str, str]) -> dict[str, str]:
    found = {name: utf8(value) for name, value in zip(names, values, strict=True) if value}
    if "hw.type" in names and models.get(values[0]):
        found["hw.name"] = utf8(models[values[0]])
    return found


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
