"""The catalogue: every metric once, with its type, labels, help, and how its samples come out of a snapshot.

The names are the product's public API. Text exposition, the Collector, `carbon-exporter metrics` and docs/metrics.md
are all made from this table.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from carbon_exporter import __version__
from carbon_exporter.carbon.account import JobKey
from carbon_exporter.jobs.base import RESERVED
from carbon_exporter.snapshot import SensorHealth, Snapshot
from carbon_exporter.units import kilowatt_hours

__all__ = ["CATALOGUE", "JOB_LABELS", "JobLabel", "LabelValues", "Metric", "label_names", "utf8"]

JobLabel = Literal["job_name", "job", "hpc_job"]
JOB_LABELS: tuple[JobLabel, ...] = ("job_name", "job", "hpc_job")
"""How the job's label may be spelt; `job_name` is the catalogue's spelling."""

LabelValues = tuple[str, ...]
Samples = Iterable[tuple[LabelValues, float]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. A sample whose label value is empty goes without that label, as Prometheus sees it anyway."""

    name: str
    type: Literal["gauge", "counter"]
    labels: tuple[str, ...]
    help: str
    samples: Callable[[Snapshot], Samples]

    @property
    def family(self) -> str:
        """The name of the family as OpenMetrics has it: a counter's without `_total`."""
        return self.name.removesuffix("_total") if self.type == "counter" else self.name

    @property
    def unit(self) -> str:
        """The unit that ends the family's name, as OpenMetrics wants it told; empty for dimensionless ones."""
        return next((unit for unit in _UNITS if self.family.endswith(f"_{unit}")), "")


_UNITS = ("grams_per_kwh", "watts", "kwh", "grams", "seconds", "ratio")


def label_names(metric: Metric, job_label: JobLabel) -> tuple[str, ...]:
    """The metric's labels with the job's spelt as the user chose."""
    return tuple(job_label if label == "job_name" else label for label in metric.labels)


def utf8(text: str) -> str:
    """The text as it can leave this process: a lone surrogate, which stands for a byte of no UTF-8, becomes `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _device_power(snapshot: Snapshot) -> Samples:
    region = snapshot.grid.region
    return (((s.device.name, s.device.kind, region), s.power) for s in snapshot.devices if s.power is not None)


def _device_energy(snapshot: Snapshot) -> Samples:
    totals = snapshot.device_totals.items()
    return (((key.device, key.kind, key.region), kilowatt_hours(joules)) for key, joules in totals)


def _device_info(snapshot: Snapshot) -> Samples:
    for state in snapshot.devices:
        d, quality = state.device, state.quality.value if state.quality else ""
        yield (d.name, d.kind, d.vendor, d.model, d.uuid, d.sensor, quality), 1.0


def _device_gap(snapshot: Snapshot) -> Samples:
    return (((state.device.name,), state.gap_seconds) for state in snapshot.devices)


def _job_values(key: JobKey) -> LabelValues:
    return (key.job.name, key.job.namespace, key.device.region, key.device.device, key.device.kind)


def _job_power(snapshot: Snapshot) -> Samples:
    return ((_job_values(key), watts) for key, watts in snapshot.job_power.items())


def _job_energy(snapshot: Snapshot) -> Samples:
    return ((_job_values(key), kilowatt_hours(total.joules)) for key, total in snapshot.job_totals.items())


def _job_grams(snapshot: Snapshot) -> Samples:
    return ((_job_values(key), total.grams) for key, total in snapshot.job_totals.items())


def _job_info(snapshot: Snapshot) -> Samples:
    jobs = sorted({key.job for key in snapshot.job_totals} - RESERVED)
    return (((job.name, job.namespace, "", "", "", ""), 1.0) for job in jobs)


def _intensity(snapshot: Snapshot) -> Samples:
    i = snapshot.grid.intensity
    yield (snapshot.grid.region, i.provider, i.scope, i.basis), i.grams_per_kwh


def _intensity_time(snapshot: Snapshot) -> Samples:
    i = snapshot.grid.intensity
    return [((snapshot.grid.region, i.provider), i.at)] if i.at is not None else []


def _intensity_info(snapshot: Snapshot) -> Samples:
    i, location = snapshot.grid.intensity, snapshot.grid.location
    yield (location.zone, i.provider, i.quality, i.source, str(i.year or ""), location.located_by), 1.0


def _pue(snapshot: Snapshot) -> Samples:
    yield (snapshot.grid.region,), snapshot.grid.pue


def _looked_at(snapshot: Snapshot) -> Iterator[SensorHealth]:
    """Sensors that are here, working or not: absence is normal and quiet."""
    return (health for health in snapshot.sensors if health.state in {"active", "denied", "failed"})


def _sensor_success(snapshot: Snapshot) -> Samples:
    return (((health.sensor,), float(health.state == "active")) for health in _looked_at(snapshot))


def _sensor_duration(snapshot: Snapshot) -> Samples:
    return (((health.sensor,), health.seconds) for health in _looked_at(snapshot))


def _sensor_time(snapshot: Snapshot) -> Samples:
    sampled = (health for health in snapshot.sensors if health.last_sample is not None)
    return (((health.sensor,), health.last_sample or 0.0) for health in sampled)


def _sensor_errors(snapshot: Snapshot) -> Samples:
    for health in snapshot.sensors:
        for reason, count in health.errors.items():
            yield (health.sensor, reason), float(count)


def _resolver_success(snapshot: Snapshot) -> Samples:
    return (((health.resolver,), float(health.success)) for health in snapshot.resolvers)


def _resolver_duration(snapshot: Snapshot) -> Samples:
    return (((health.resolver,), health.seconds) for health in snapshot.resolvers)


def _jobs_tracked(snapshot: Snapshot) -> Samples:
    yield (), float(len({key.job for key in snapshot.job_totals} - RESERVED))


def _jobs_folded(snapshot: Snapshot) -> Samples:
    yield (), float(snapshot.jobs_folded)


def _store_time(snapshot: Snapshot) -> Samples:
    return [((), snapshot.store.last_write or 0.0)] if snapshot.store.state != "off" else []


def _http_connections(snapshot: Snapshot) -> Samples:
    yield (), float(snapshot.http_connections)


def _http_refused(snapshot: Snapshot) -> Samples:
    return (((reason,), float(count)) for reason, count in snapshot.http_refused.items())


def _build_info(_: Snapshot) -> Samples:
    yield (__version__, "", platform.python_version()), 1.0


_DEVICE = ("device", "kind", "region")
_JOB = ("job_name", "job_namespace", "region", "device", "kind")

CATALOGUE: tuple[Metric, ...] = (
    Metric(
        "carbon_device_power_watts",
        "gauge",
        _DEVICE,
        "Electric power of the device, mean over its last sampling interval.",
        _device_power,
    ),
    Metric(
        "carbon_device_energy_kwh_total",
        "counter",
        _DEVICE,
        "Energy the device has used. IT energy, without the site's overhead; survives restarts of the exporter.",
        _device_energy,
    ),
    Metric(
        "carbon_device_info",
        "gauge",
        ("device", "kind", "vendor", "model", "uuid", "sensor", "quality"),
        "What the device is, which sensor measures it and how good that is: measured, integrated, modelled or default.",
        _device_info,
    ),
    Metric(
        "carbon_energy_gap_seconds_total",
        "counter",
        ("device",),
        "Time for which the device's energy is not known. It is missing from all totals, never invented.",
        _device_gap,
    ),
    Metric(
        "carbon_job_power_watts",
        "gauge",
        _JOB,
        "Share of the device's power that the job pays for, mean over the last sampling interval.",
        _job_power,
    ),
    Metric(
        "carbon_job_energy_kwh_total",
        "counter",
        _JOB,
        "Energy the job pays for. With _idle_, _unattributed_ and _overflow_ the jobs add up to the device.",
        _job_energy,
    ),
    Metric(
        "carbon_job_co2e_grams_total",
        "counter",
        _JOB,
        "Operational emissions of the job: energy, times grid intensity when it was used, times PUE.",
        _job_grams,
    ),
    Metric(
        "carbon_job_info",
        "gauge",
        ("job_name", "job_namespace", "job_id", "scheduler", "queue", "job_user"),
        "What is known of the job; exactly one series for each.",
        _job_info,
    ),
    Metric(
        "carbon_grid_intensity_grams_per_kwh",
        "gauge",
        ("region", "provider", "scope", "basis"),
        "CO2e emitted for a kilowatt-hour of the region's electricity, as used for pricing now.",
        _intensity,
    ),
    Metric(
        "carbon_grid_intensity_timestamp_seconds",
        "gauge",
        ("region", "provider"),
        "Unix time that a live intensity describes; absent for yearly values.",
        _intensity_time,
    ),
    Metric(
        "carbon_grid_intensity_info",
        "gauge",
        ("region", "provider", "quality", "source", "year", "located_by"),
        "Where the intensity comes from, how good it is, and how the region was found.",
        _intensity_info,
    ),
    Metric(
        "carbon_pue_ratio",
        "gauge",
        ("region",),
        "Power usage effectiveness of the site, by which grams (not energy) are multiplied.",
        _pue,
    ),
    Metric(
        "carbon_sensor_success",
        "gauge",
        ("sensor",),
        "Whether the sensor's last reading succeeded; 0 also where permission is missing.",
        _sensor_success,
    ),
    Metric(
        "carbon_sensor_duration_seconds",
        "gauge",
        ("sensor",),
        "How long the sensor's last reading took.",
        _sensor_duration,
    ),
    Metric(
        "carbon_sensor_last_sample_timestamp_seconds",
        "gauge",
        ("sensor",),
        "Unix time of the sensor's last good reading.",
        _sensor_time,
    ),
    Metric(
        "carbon_sensor_errors_total",
        "counter",
        ("sensor", "reason"),
        "Readings that failed: read (an error of the device), deadline (no answer in time).",
        _sensor_errors,
    ),
    Metric(
        "carbon_resolver_success",
        "gauge",
        ("resolver",),
        "Whether this way of naming jobs sees all it should; the status page names what is missing.",
        _resolver_success,
    ),
    Metric(
        "carbon_resolver_duration_seconds",
        "gauge",
        ("resolver",),
        "How long this way of naming jobs last took.",
        _resolver_duration,
    ),
    Metric("carbon_jobs_tracked", "gauge", (), "Jobs that are published now, reserved names left out.", _jobs_tracked),
    Metric(
        "carbon_jobs_folded_total",
        "counter",
        (),
        "Jobs beyond the limit, counted together as _overflow_.",
        _jobs_folded,
    ),
    Metric(
        "carbon_store_last_write_timestamp_seconds",
        "gauge",
        (),
        "Unix time at which the totals were last written to disk; 0 if never, absent if turned off.",
        _store_time,
    ),
    Metric("carbon_http_connections", "gauge", (), "Open connections to this server.", _http_connections),
    Metric(
        "carbon_http_refused_total",
        "counter",
        ("reason",),
        "Requests turned away: connections (too many), deadline, or the HTTP status given.",
        _http_refused,
    ),
    Metric(
        "carbon_exporter_build_info",
        "gauge",
        ("version", "revision", "python"),
        "What runs here.",
        _build_info,
    ),
)
