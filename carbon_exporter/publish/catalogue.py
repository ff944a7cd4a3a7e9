"""The catalogue: every metric once, with its type, labels, help, and how its samples come out of a snapshot.

The names are the product's public API. Text exposition, the Collector, `carbon-exporter metrics` and docs/metrics.md
are all made from this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from carbon_exporter.publish import samples
from carbon_exporter.publish.samples import Exemplar, LabelValues, Samples
from carbon_exporter.snapshot import Snapshot

__all__ = ["CATALOGUE", "JOB_LABELS", "JobLabel", "LabelValues", "Metric", "label_names", "utf8"]

JobLabel = Literal["job_name", "job", "hpc_job"]
JOB_LABELS: tuple[JobLabel, ...] = ("job_name", "job", "hpc_job")
"""How the job's label may be spelt; `job_name` is the catalogue's spelling."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. A sample whose label value is empty goes without that label, as Prometheus sees it anyway."""

    name: str
    type: Literal["gauge", "counter"]
    labels: tuple[str, ...]
    help: str
    samples: Callable[[Snapshot], Samples]
    exemplars: Callable[[Snapshot], Mapping[LabelValues, Exemplar]] | None = None
    """Cases in point by the labels of a sample: in OpenMetrics only."""

    @property
    def family(self) -> str:
        """The name of the family as OpenMetrics has it: a counter's without `_total`."""
        return self.name.removesuffix("_total") if self.type == "counter" else self.name

    @property
    def unit(self) -> str:
        """The unit that ends the family's name, as OpenMetrics wants it told; empty for dimensionless ones."""
        return next((unit for unit in _UNITS if self.family.endswith(f"_{unit}")), "")


_UNITS = ("grams_per_kwh", "watts", "kwh", "grams", "seconds", "ratio", "bytes", "celsius")


def label_names(metric: Metric, job_label: JobLabel) -> tuple[str, ...]:
    """The metric's labels with the job's spelt as the user chose."""
    return tuple(job_label if label == "job_name" else label for label in metric.labels)


def utf8(text: str) -> str:
    """The text as it can leave this process: a lone surrogate, which stands for a byte of no UTF-8, becomes `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


_DEVICE = ("device", "kind", "region")
_VITAL = ("device", "kind")
_JOB = ("job_name", "job_namespace", "region", "device", "kind")
_SPAN = ("job_name", "job_namespace", "region", "span", "rank")
_RUN = ("job_name", "job_namespace", "run", "rank")
_SPAN_ANYWHERE = ("job_name", "job_namespace", "span", "rank")

CATALOGUE: tuple[Metric, ...] = (
    Metric(
        "carbon_device_power_watts",
        "gauge",
        _DEVICE,
        "Electric power of the device, mean over its last sampling interval.",
        samples.device_power,
    ),
    Metric(
        "carbon_device_energy_kwh_total",
        "counter",
        _DEVICE,
        "Energy the device has used. IT energy, without the site's overhead; survives restarts of the exporter.",
        samples.device_energy,
    ),
    Metric(
        "carbon_device_power_limit_watts",
        "gauge",
        _VITAL,
        "Power that the device is held to now.",
        samples.vital(lambda vitals: vitals.power_limit),
    ),
    Metric(
        "carbon_device_utilization_ratio",
        "gauge",
        _VITAL,
        "Share of the time in which the device computed, as it says itself; absent on a board that is partitioned.",
        samples.vital(lambda vitals: vitals.utilization),
    ),
    Metric(
        "carbon_device_memory_used_bytes",
        "gauge",
        _VITAL,
        "Memory of the device that is in use.",
        samples.vital(lambda vitals: vitals.memory_used),
    ),
    Metric(
        "carbon_device_temperature_celsius",
        "gauge",
        _VITAL,
        "Temperature of the device.",
        samples.vital(lambda vitals: vitals.temperature),
    ),
    Metric(
        "carbon_device_meter_divergence_ratio",
        "gauge",
        ("device",),
        "Energy by the device's counter over its integrated power in the last ten minutes, minus 1: 0 if they agree.",
        samples.divergence,
    ),
    Metric(
        "carbon_device_info",
        "gauge",
        ("device", "kind", "vendor", "model", "uuid", "sensor", "quality"),
        "What the device is, which sensor measures it and how good that is: measured, integrated, modelled or default.",
        samples.device_info,
    ),
    Metric(
        "carbon_energy_gap_seconds_total",
        "counter",
        ("device",),
        "Time for which the device's energy is not known. It is missing from all totals, never invented.",
        samples.device_gap,
    ),
    Metric(
        "carbon_node_power_watts",
        "gauge",
        ("source",),
        "Power of the whole machine by a meter that contains all devices and more: never in a sum with them.",
        samples.node_power,
    ),
    Metric(
        "carbon_node_energy_kwh_total",
        "counter",
        ("source",),
        "Energy of the whole machine by a meter that contains all devices and more: never in a sum with them.",
        samples.node_energy,
    ),
    Metric(
        "carbon_job_power_watts",
        "gauge",
        _JOB,
        "Share of the device's power that the job pays for, mean over the last sampling interval.",
        samples.job_power,
    ),
    Metric(
        "carbon_job_energy_kwh_total",
        "counter",
        _JOB,
        "Energy the job pays for. With _idle_, _unattributed_ and _overflow_ the jobs add up to the device.",
        samples.job_energy,
    ),
    Metric(
        "carbon_job_co2e_grams_total",
        "counter",
        _JOB,
        "Operational emissions of the job: energy, times grid intensity when it was used, times PUE.",
        samples.job_grams,
    ),
    Metric(
        "carbon_job_info",
        "gauge",
        ("job_name", "job_namespace", "job_id", "scheduler", "queue", "job_user"),
        "What is known of the job; exactly one series for each.",
        samples.job_info,
    ),
    Metric(
        "carbon_job_member_info",
        "gauge",
        ("job_name", "job_namespace", "job_pod", "job_container"),
        "Which pods and containers the job consists of on this node now; never to be joined with group_left.",
        samples.job_members,
    ),
    Metric(
        "carbon_job_slice_info",
        "gauge",
        ("job_name", "job_namespace", "device", "slice", "profile"),
        "Which slice of a board that is divided in hardware (MIG) the job runs on.",
        samples.job_slices,
    ),
    Metric(
        "carbon_span_energy_kwh_total",
        "counter",
        (*_SPAN, "kind"),
        "Energy of the spans of this name, as the script measures it; with their children's, and within the job's.",
        samples.span_energy,
        samples.span_traces,
    ),
    Metric(
        "carbon_span_co2e_grams_total",
        "counter",
        _SPAN,
        "Operational emissions of the spans of this name: energy, times grid intensity when it was told, times PUE.",
        samples.span_grams,
    ),
    Metric(
        "carbon_span_duration_seconds_total",
        "counter",
        _SPAN_ANYWHERE,
        "Time for which the spans of this name ran, those of several threads added up.",
        samples.span_seconds,
    ),
    Metric(
        "carbon_spans_total",
        "counter",
        _SPAN_ANYWHERE,
        "Spans of this name that have ended.",
        samples.span_count,
    ),
    Metric(
        "carbon_span_value",
        "gauge",
        (*_SPAN_ANYWHERE, "name"),
        "What the script recorded last under this name in a span: a loss, an accuracy.",
        samples.span_values,
    ),
    Metric(
        "carbon_run_info",
        "gauge",
        (*_RUN, "model", "dataset", "batch_size"),
        "What the script said of the run; exactly one series for each run and rank.",
        samples.run_info,
    ),
    Metric(
        "carbon_run_energy_kwh_total",
        "counter",
        _RUN,
        "Energy of the run, as its script measures it: within the job's, and containing the run's spans.",
        samples.run_energy,
    ),
    Metric(
        "carbon_run_co2e_grams_total",
        "counter",
        _RUN,
        "Operational emissions of the run: energy, times grid intensity when it was told, times PUE.",
        samples.run_grams,
    ),
    Metric(
        "carbon_run_predicted_energy_kwh",
        "gauge",
        _RUN,
        "Energy that the run is likely to have used in the end, by its epochs so far; absent where nobody can tell.",
        samples.run_predicted_energy,
    ),
    Metric(
        "carbon_run_predicted_co2e_grams",
        "gauge",
        _RUN,
        "Emissions that the run is likely to have caused in the end; absent where nobody can tell.",
        samples.run_predicted_grams,
    ),
    Metric(
        "carbon_grid_intensity_grams_per_kwh",
        "gauge",
        ("region", "provider", "scope", "basis"),
        "CO2e emitted for a kilowatt-hour of the region's electricity, as used for pricing now.",
        samples.intensity,
    ),
    Metric(
        "carbon_grid_intensity_timestamp_seconds",
        "gauge",
        ("region", "provider"),
        "Unix time that a live intensity describes; absent for yearly values.",
        samples.intensity_time,
    ),
    Metric(
        "carbon_grid_intensity_info",
        "gauge",
        ("region", "provider", "quality", "source", "year", "located_by"),
        "Where the intensity comes from, how good it is, and how the region was found.",
        samples.intensity_info,
    ),
    Metric(
        "carbon_pue_ratio",
        "gauge",
        ("region",),
        "Power usage effectiveness of the site, by which grams (not energy) are multiplied.",
        samples.pue,
    ),
    Metric(
        "carbon_sensor_success",
        "gauge",
        ("sensor",),
        "Whether the sensor's last reading succeeded; 0 also where permission is missing.",
        samples.sensor_success,
    ),
    Metric(
        "carbon_sensor_duration_seconds",
        "gauge",
        ("sensor",),
        "How long the sensor's last reading took.",
        samples.sensor_duration,
    ),
    Metric(
        "carbon_sensor_last_sample_timestamp_seconds",
        "gauge",
        ("sensor",),
        "Unix time of the sensor's last good reading.",
        samples.sensor_time,
    ),
    Metric(
        "carbon_sensor_errors_total",
        "counter",
        ("sensor", "reason"),
        "Readings that failed: read (an error of the device), deadline (no answer in time).",
        samples.sensor_errors,
    ),
    Metric(
        "carbon_resolver_success",
        "gauge",
        ("resolver",),
        "Whether this way of naming jobs sees all it should; the status page names what is missing.",
        samples.resolver_success,
    ),
    Metric(
        "carbon_resolver_duration_seconds",
        "gauge",
        ("resolver",),
        "How long this way of naming jobs last took.",
        samples.resolver_duration,
    ),
    Metric(
        "carbon_jobs_tracked",
        "gauge",
        (),
        "Jobs that are published now, reserved names left out.",
        samples.jobs_tracked,
    ),
    Metric(
        "carbon_jobs_folded_total",
        "counter",
        (),
        "Jobs beyond the limit, counted together as _overflow_, each time that one was.",
        samples.jobs_folded,
    ),
    Metric(
        "carbon_spans_folded_total",
        "counter",
        (),
        "Spans beyond a limit, counted together as _overflow_.",
        samples.spans_folded,
    ),
    Metric(
        "carbon_handoff_peers",
        "gauge",
        (),
        "Scripts that are connected; absent where there is no socket for them.",
        samples.handoff_peers,
    ),
    Metric(
        "carbon_handoff_refused_total",
        "counter",
        ("reason",),
        "Scripts turned away: too many (peers, calls), too much (too_long, flood, slow, spans), or not understood.",
        samples.handoff_refused,
    ),
    Metric(
        "carbon_store_last_write_timestamp_seconds",
        "gauge",
        (),
        "Unix time at which the totals were last written to disk; 0 if never, absent if turned off.",
        samples.store_time,
    ),
    Metric("carbon_http_connections", "gauge", (), "Open connections to this server.", samples.http_connections),
    Metric(
        "carbon_http_refused_total",
        "counter",
        ("reason",),
        "Requests turned away: connections (too many), deadline, tls (no handshake), or the HTTP status given.",
        samples.http_refused,
    ),
    Metric(
        "carbon_web_config_success",
        "gauge",
        (),
        "Whether the web configuration and its certificates were last read without error; absent without one.",
        samples.web_config_success,
    ),
    Metric(
        "carbon_exporter_build_info",
        "gauge",
        ("version", "revision", "python"),
        "What runs here.",
        samples.build_info,
    ),
)
