"""How the samples of each metric come out of a snapshot: label values in the catalogue's order, and the value."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from carbon_exporter import __version__
from carbon_exporter.carbon.runs import RunKey
from carbon_exporter.carbon.spans import SpanKey, SpanTotal
from carbon_exporter.jobs.base import RESERVED
from carbon_exporter.jobs.naming import JobInfo
from carbon_exporter.sensors.base import Vitals
from carbon_exporter.snapshot import SensorHealth, Snapshot
from carbon_exporter.units import kilowatt_hours

LabelValues = tuple[str, ...]


class Exemplar(NamedTuple):
    """One case in point of a counter, which OpenMetrics shows beside it."""

    labels: Mapping[str, str]
    value: float
    """In the counter's unit."""
    at: float
    """Unix seconds."""


Samples = Iterable[tuple[LabelValues, float]]


def device_power(snapshot: Snapshot) -> Samples:
    region = snapshot.grid.region
    return (((s.device.name, s.device.kind, region), s.power) for s in snapshot.devices if s.power is not None)


def device_energy(snapshot: Snapshot) -> Samples:
    totals = snapshot.device_totals.items()
    return (((key.device, key.kind, key.region), kilowatt_hours(joules)) for key, joules in totals)


def device_info(snapshot: Snapshot) -> Samples:
    for state in snapshot.devices:
        d, quality = state.device, state.quality.value if state.quality else ""
        yield (d.name, d.kind, d.vendor, d.model, d.uuid, d.sensor, quality), 1.0


def vital(read: Callable[[Vitals], float | None]) -> Callable[[Snapshot], Samples]:
    """Samples of one thing that devices say of themselves, for those that say it."""

    def samples(snapshot: Snapshot) -> Samples:
        for state in snapshot.devices:
            value = read(state.vitals) if state.vitals else None
            if value is not None:
                yield (state.device.name, state.device.kind), float(value)

    return samples


def divergence(snapshot: Snapshot) -> Samples:
    told = ((state.device.name, state.vitals.divergence) for state in snapshot.devices if state.vitals)
    return (((name,), value) for name, value in told if value is not None)


def node_power(snapshot: Snapshot) -> Samples:
    return (((node.source,), node.power) for node in snapshot.nodes if node.power is not None)


def node_energy(snapshot: Snapshot) -> Samples:
    return (((node.source,), kilowatt_hours(node.joules)) for node in snapshot.nodes)


def job_slices(snapshot: Snapshot) -> Samples:
    return (((p.job.name, p.job.namespace, p.device, p.slice, p.profile), 1.0) for p in snapshot.partitions)


def device_gap(snapshot: Snapshot) -> Samples:
    return (((state.device.name,), state.gap_seconds) for state in snapshot.devices)


def job_power(snapshot: Snapshot) -> Samples:
    powers = snapshot.job_power.items()
    return (
        ((name, namespace, region, device, kind), watts)
        for ((name, namespace), (device, kind, region)), watts in powers
    )


def job_energy(snapshot: Snapshot) -> Samples:
    totals = snapshot.job_totals.items()
    return (
        ((name, namespace, region, device, kind), kilowatt_hours(joules))
        for ((name, namespace), (device, kind, region)), (joules, _) in totals
    )


def job_grams(snapshot: Snapshot) -> Samples:
    totals = snapshot.job_totals.items()
    return (
        ((name, namespace, region, device, kind), grams)
        for ((name, namespace), (device, kind, region)), (_, grams) in totals
    )


def job_info(snapshot: Snapshot) -> Samples:
    for job in sorted({key.job for key in snapshot.job_totals} - RESERVED):
        info = snapshot.jobs[job].info if job in snapshot.jobs else JobInfo()
        yield (job.name, job.namespace, info.job_id, info.scheduler, info.queue, info.user), 1.0


def job_members(snapshot: Snapshot) -> Samples:
    for job, told in snapshot.jobs.items():
        for pod, container in told.members:
            yield (job.name, job.namespace, pod, container), 1.0


def intensity(snapshot: Snapshot) -> Samples:
    i = snapshot.grid.intensity
    yield (snapshot.grid.region, i.provider, i.scope, i.basis), i.grams_per_kwh


def intensity_time(snapshot: Snapshot) -> Samples:
    i = snapshot.grid.intensity
    return [((snapshot.grid.region, i.provider), i.at)] if i.at is not None else []


def intensity_info(snapshot: Snapshot) -> Samples:
    i, location = snapshot.grid.intensity, snapshot.grid.location
    yield (location.zone, i.provider, i.quality, i.source, str(i.year or ""), location.located_by), 1.0


def pue(snapshot: Snapshot) -> Samples:
    yield (snapshot.grid.region,), snapshot.grid.pue


def _looked_at(snapshot: Snapshot) -> Iterator[SensorHealth]:
    """Sensors that are here, working or not: absence is normal and quiet."""
    return (health for health in snapshot.sensors if health.state in {"active", "denied", "failed"})


def sensor_success(snapshot: Snapshot) -> Samples:
    return (((health.sensor,), float(health.state == "active")) for health in _looked_at(snapshot))


def sensor_duration(snapshot: Snapshot) -> Samples:
    return (((health.sensor,), health.seconds) for health in _looked_at(snapshot))


def sensor_time(snapshot: Snapshot) -> Samples:
    sampled = (health for health in snapshot.sensors if health.last_sample is not None)
    return (((health.sensor,), health.last_sample or 0.0) for health in sampled)


def sensor_errors(snapshot: Snapshot) -> Samples:
    for health in snapshot.sensors:
        for reason, count in health.errors.items():
            yield (health.sensor, reason), float(count)


def resolver_success(snapshot: Snapshot) -> Samples:
    return (((health.resolver,), float(health.success)) for health in snapshot.resolvers)


def resolver_duration(snapshot: Snapshot) -> Samples:
    return (((health.resolver,), health.seconds) for health in snapshot.resolvers)


def jobs_tracked(snapshot: Snapshot) -> Samples:
    yield (), float(len({key.job for key in snapshot.job_totals} - RESERVED))


def jobs_folded(snapshot: Snapshot) -> Samples:
    yield (), float(snapshot.jobs_folded)


def _span_values(key: SpanKey) -> LabelValues:
    return (key.job.name, key.job.namespace, key.region, key.span, key.rank)


def span_energy(snapshot: Snapshot) -> Samples:
    for key, total in snapshot.spans.items():
        for kind, joules in total.joules.items():
            yield (*_span_values(key), kind), kilowatt_hours(joules)


def span_grams(snapshot: Snapshot) -> Samples:
    return ((_span_values(key), float(total.grams)) for key, total in snapshot.spans.items())


def _over_regions(snapshot: Snapshot, amount: Callable[[SpanTotal], float]) -> Samples:
    """Of a span whose job went on when the price came from another region, the sum."""
    sums: dict[LabelValues, float] = {}
    for key, total in snapshot.spans.items():
        values = (key.job.name, key.job.namespace, key.span, key.rank)
        sums[values] = sums.get(values, 0.0) + amount(total)
    return sums.items()


def span_seconds(snapshot: Snapshot) -> Samples:
    return _over_regions(snapshot, lambda total: total.seconds)


def span_count(snapshot: Snapshot) -> Samples:
    return _over_regions(snapshot, lambda total: float(total.count))


def span_values(snapshot: Snapshot) -> Samples:
    newest: dict[LabelValues, float] = {}
    for key, total in snapshot.spans.items():
        for name, value in total.values.items():
            newest[key.job.name, key.job.namespace, key.span, key.rank, name] = value
    return newest.items()


def span_traces(snapshot: Snapshot) -> Mapping[LabelValues, Exemplar]:
    """By the labels of the energy of the kind that the span used most of."""
    found: dict[LabelValues, Exemplar] = {}
    for key, total in snapshot.spans.items():
        trace = total.trace
        if trace is not None and total.joules:
            kind = max(total.joules, key=lambda kind: total.joules[kind])
            ids = {"span_id": trace.span_id, "trace_id": trace.trace_id}
            values = (*_span_values(key), kind)
            found[values] = Exemplar(ids, kilowatt_hours(trace.joules), trace.at)
    return found


def spans_folded(snapshot: Snapshot) -> Samples:
    yield (), float(snapshot.spans_folded)


def run_values(key: RunKey) -> LabelValues:
    return (key.job.name, key.job.namespace, key.run, key.rank)


def run_info(snapshot: Snapshot) -> Samples:
    return (((*run_values(key), *total.facts), 1.0) for key, total in snapshot.runs.items())


def run_energy(snapshot: Snapshot) -> Samples:
    return ((run_values(key), kilowatt_hours(total.joules)) for key, total in snapshot.runs.items())


def run_grams(snapshot: Snapshot) -> Samples:
    return ((run_values(key), float(total.grams)) for key, total in snapshot.runs.items())


def run_predicted_energy(snapshot: Snapshot) -> Samples:
    for key, total in snapshot.runs.items():
        if total.predicted_joules is not None:
            yield run_values(key), kilowatt_hours(total.predicted_joules)


def run_predicted_grams(snapshot: Snapshot) -> Samples:
    for key, total in snapshot.runs.items():
        if total.predicted_grams is not None:
            yield run_values(key), float(total.predicted_grams)


def handoff_peers(snapshot: Snapshot) -> Samples:
    return [] if snapshot.handoff_peers is None else [((), float(snapshot.handoff_peers))]


def handoff_refused(snapshot: Snapshot) -> Samples:
    return (((reason,), float(count)) for reason, count in snapshot.handoff_refused.items())


def store_time(snapshot: Snapshot) -> Samples:
    return [((), snapshot.store.last_write or 0.0)] if snapshot.store.state != "off" else []


def http_connections(snapshot: Snapshot) -> Samples:
    yield (), float(snapshot.http_connections)


def http_refused(snapshot: Snapshot) -> Samples:
    return (((reason,), float(count)) for reason, count in snapshot.http_refused.items())


def web_config_success(snapshot: Snapshot) -> Samples:
    return [] if snapshot.web_config_well is None else [((), float(snapshot.web_config_well))]


def build_info(_: Snapshot) -> Samples:
    yield (__version__, "", platform.python_version()), 1.0
