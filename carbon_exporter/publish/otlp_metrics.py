"""What goes out over OTLP: every instrument once, and how its points come out of a snapshot.

Joules, watts and grams under the semantic conventions' `hw.*` names where there are some: other units are spelt
differently by every receiver. `grafana/rules/otlp.yml` makes the names of `/metrics` of what a Prometheus receives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from carbon_exporter.carbon.account import DeviceKey, JobKey, JobTotal
from carbon_exporter.carbon.runs import RunKey, RunTotal
from carbon_exporter.carbon.spans import SpanKey, SpanTotal
from carbon_exporter.publish import samples
from carbon_exporter.publish.samples import LabelValues, Samples
from carbon_exporter.snapshot import NodeState, Snapshot
from carbon_exporter.units import Joules

__all__ = ["COUNTERS", "GAUGES", "Counter", "Gauge", "Totals", "totals_of"]

Totals = Mapping[Any, Any]
"""Cumulative numbers by key, as a snapshot has them."""

_HARDWARE_TYPES = {"gpu": "gpu", "cpu": "cpu", "dram": "memory"}
"""Kinds that the conventions' `hw.type` has a value for; the others go by their own name."""


class Counter(NamedTuple):
    """A sum that only grows. A point whose attribute is empty goes without it."""

    name: str
    unit: str
    help: str
    attributes: tuple[str, ...]
    totals: Callable[[Snapshot], Totals]
    points: Callable[[Any, Any], Iterable[tuple[LabelValues, float]]]
    """Attribute values and number of one key and its total."""


class Gauge(NamedTuple):
    """A number of now."""

    name: str
    unit: str
    help: str
    attributes: tuple[str, ...]
    samples: Callable[[Snapshot], Samples]


def _devices(snapshot: Snapshot) -> Mapping[DeviceKey, Joules]:
    return snapshot.device_totals


def _nodes(snapshot: Snapshot) -> Mapping[str, NodeState]:
    return {node.source: node for node in snapshot.nodes}


def _jobs(snapshot: Snapshot) -> Mapping[JobKey, JobTotal]:
    return snapshot.job_totals


def _spans(snapshot: Snapshot) -> Mapping[SpanKey, SpanTotal]:
    return snapshot.spans


def _hardware_type(kind: str) -> str:
    return _HARDWARE_TYPES.get(kind, kind)


def _device_energy(key: DeviceKey, joules: Joules) -> Samples:
    yield (key.device, _hardware_type(key.kind), key.region), joules


def _device_power(snapshot: Snapshot) -> Samples:
    for (device, kind, region), watts in samples.device_power(snapshot):
        yield (device, _hardware_type(kind), region), watts


def _node_energy(source: str, node: NodeState) -> Samples:
    yield (source,), node.joules


def _job_values(key: JobKey) -> LabelValues:
    return (key.job.name, key.job.namespace, key.device.region, key.device.device, key.device.kind)


def _job_energy(key: JobKey, total: JobTotal) -> Samples:
    yield _job_values(key), total.joules


def _job_grams(key: JobKey, total: JobTotal) -> Samples:
    yield _job_values(key), total.grams


def _span_values(key: SpanKey) -> LabelValues:
    return (key.job.name, key.job.namespace, key.span, key.rank)


def _span_energy(key: SpanKey, total: SpanTotal) -> Samples:
    return (((*_span_values(key), key.region, kind), joules) for kind, joules in total.joules.items())


def _span_grams(key: SpanKey, total: SpanTotal) -> Samples:
    yield (*_span_values(key), key.region), total.grams


def _runs(snapshot: Snapshot) -> Mapping[RunKey, RunTotal]:
    return snapshot.runs


def _run_energy(key: RunKey, total: RunTotal) -> Samples:
    yield samples.run_values(key), total.joules


def _run_grams(key: RunKey, total: RunTotal) -> Samples:
    yield samples.run_values(key), total.grams


def _run_ahead(snapshot: Snapshot) -> Samples:
    for key, total in snapshot.runs.items():
        if total.predicted_joules is not None:
            yield samples.run_values(key), total.predicted_joules


class _Sums(NamedTuple):
    """What has no region: the spans of one name add up over regions."""

    seconds: float
    ended: float


def _spans_anywhere(snapshot: Snapshot) -> Mapping[LabelValues, _Sums]:
    sums: dict[LabelValues, _Sums] = {}
    for key, total in snapshot.spans.items():
        before = sums.get(_span_values(key), _Sums(0.0, 0.0))
        sums[_span_values(key)] = _Sums(before.seconds + total.seconds, before.ended + total.count)
    return sums


def _span_seconds(values: LabelValues, sums: _Sums) -> Samples:
    yield values, sums.seconds


def _span_count(values: LabelValues, sums: _Sums) -> Samples:
    yield values, sums.ended


def _span_recorded(snapshot: Snapshot) -> Samples:
    for key, total in snapshot.spans.items():
        for name, value in total.values.items():
            yield (*_span_values(key), name), value


_HARDWARE = ("hw.id", "hw.type", "carbon.region")
_JOB = ("carbon.job.name", "carbon.job.namespace", "carbon.region", "carbon.device", "carbon.kind")
_SPAN = ("carbon.job.name", "carbon.job.namespace", "carbon.span.name", "carbon.rank")
_RUN = ("carbon.job.name", "carbon.job.namespace", "carbon.run", "carbon.rank")

COUNTERS: tuple[Counter, ...] = (
    Counter("hw.energy", "J", "Energy the device has used.", _HARDWARE, _devices, _device_energy),
    Counter("hw.host.energy", "J", "Energy by a meter of the whole machine.", ("hw.id",), _nodes, _node_energy),
    Counter("carbon.job.energy", "J", "Energy the job has used of the device.", _JOB, _jobs, _job_energy),
    Counter("carbon.job.co2e", "g", "Operational CO2e of the job's energy.", _JOB, _jobs, _job_grams),
    Counter(
        "carbon.span.energy",
        "J",
        "Energy that spans of this name used, inclusive of their children.",
        (*_SPAN, "carbon.region", "carbon.kind"),
        _spans,
        _span_energy,
    ),
    Counter(
        "carbon.span.co2e",
        "g",
        "Operational CO2e of the spans' energy.",
        (*_SPAN, "carbon.region"),
        _spans,
        _span_grams,
    ),
    Counter("carbon.span.duration", "s", "Time that spans were open.", _SPAN, _spans_anywhere, _span_seconds),
    Counter("carbon.run.energy", "J", "Energy the run has used.", _RUN, _runs, _run_energy),
    Counter("carbon.run.co2e", "g", "Operational CO2e of the run's energy.", _RUN, _runs, _run_grams),
    Counter("carbon.spans", "{span}", "Spans that ended.", _SPAN, _spans_anywhere, _span_count),
)

GAUGES: tuple[Gauge, ...] = (
    Gauge("hw.power", "W", "Mean power of the device over the last interval.", _HARDWARE, _device_power),
    Gauge("hw.host.power", "W", "Power by a meter of the whole machine.", ("hw.id",), samples.node_power),
    Gauge(
        "carbon.grid.intensity",
        "g/kWh",
        "Carbon intensity of the grid that prices are made of.",
        ("carbon.region", "carbon.intensity.provider", "carbon.intensity.scope", "carbon.intensity.basis"),
        samples.intensity,
    ),
    Gauge(
        "carbon.span.value",
        "",
        "What scripts recorded last: loss, accuracy.",
        (*_SPAN, "carbon.value.name"),
        _span_recorded,
    ),
    Gauge(
        "carbon.run.info",
        "",
        "What the script said of the run.",
        (*_RUN, "carbon.run.model", "carbon.run.dataset", "carbon.run.batch_size"),
        samples.run_info,
    ),
    Gauge("carbon.run.predicted.energy", "J", "Energy the run is likely to use in all.", _RUN, _run_ahead),
    Gauge("carbon.run.predicted.co2e", "g", "CO2e the run is likely to cause.", _RUN, samples.run_predicted_grams),
)


def totals_of(snapshot: Snapshot) -> dict[Any, Any]:
    """All cumulative numbers of a snapshot. No two keys are equal, for each table has keys of another shape."""
    found: dict[Any, Any] = {}
    for read in dict.fromkeys(counter.totals for counter in COUNTERS):
        found.update(read(snapshot))
    return found
