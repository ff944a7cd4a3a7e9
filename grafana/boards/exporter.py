"""Exporter health: are all exporters there, do they see everything, and since when does one not."""

from __future__ import annotations

from grafana import links, variables
from grafana.board import Board
from grafana.graphs import trend
from grafana.numbers import stat
from grafana.palette import BLUE, ORANGE, VERMILION
from grafana.panels import Query, limits
from grafana.promql import CLUSTER
from grafana.tables import table

__all__ = ["EXPORTER"]

_HERE = f'{CLUSTER},instance=~"$instance"'
_ANY = f"0 * count(carbon_exporter_build_info{{{_HERE}}})"
_AGE = f"time() - carbon_sensor_last_sample_timestamp_seconds{{{_HERE}}}"
_NONE_IS_GOOD = limits((None, BLUE), (1, VERMILION))

_NOW = (
    stat(
        "Exporters",
        "How many answer Prometheus now.",
        "none",
        Query(f"count(carbon_exporter_build_info{{{_HERE}}})"),
    ),
    stat(
        "Gone since yesterday",
        "Exporters that answered in the last day and do not now: down, or taken away.",
        "none",
        Query(
            f"count(last_over_time(carbon_exporter_build_info{{{_HERE}}}[1d]) unless on (cluster, instance) "
            f"carbon_exporter_build_info{{{_HERE}}}) or {_ANY}"
        ),
        steps=_NONE_IS_GOOD,
    ),
    stat(
        "Sensors failing",
        "Sensors whose last reading failed, or that may not read.",
        "none",
        Query(f"count(carbon_sensor_success{{{_HERE}}} == 0) or {_ANY}"),
        steps=_NONE_IS_GOOD,
    ),
    stat(
        "Oldest reading",
        "Of all sensors that have ever read: how long ago.",
        "s",
        Query(f"max({_AGE})"),
        steps=limits((None, BLUE), (60, ORANGE), (120, VERMILION)),
    ),
)

_TOTAL = (
    stat(
        "Jobs and spans folded in range",
        "Beyond the limits, counted together as _overflow_: no energy is lost, but names are.",
        "none",
        Query(
            f"sum(increase(carbon_jobs_folded_total{{{_HERE}}}[$__range])) "
            f"+ sum(increase(carbon_spans_folded_total{{{_HERE}}}[$__range]))"
        ),
        steps=_NONE_IS_GOOD,
    ),
    stat(
        "Time without knowledge in range",
        "Of the worst device: its energy in that time is in no total, for nothing is invented.",
        "s",
        Query(f"max(increase(carbon_energy_gap_seconds_total{{{_HERE}}}[$__range]))"),
        steps=limits((None, BLUE), (300, ORANGE)),
    ),
)

_TREND = (
    trend(
        "Age of readings",
        "The oldest of each sensor, over all exporters.",
        "s",
        Query(f"max by (sensor) ({_AGE})", "{{sensor}}"),
        steps=limits((None, BLUE), (120, VERMILION)),
    ),
    trend(
        "Errors of sensors",
        "Readings that failed, per second: read is an error of the device, deadline a driver that hangs.",
        "suffix: /s",
        Query(
            f"sum by (sensor, reason) (rate(carbon_sensor_errors_total{{{_HERE}}}[$__rate_interval]))",
            "{{sensor}} {{reason}}",
        ),
    ),
)

_WHO = (
    table(
        "What does not see everything",
        "Sensors and ways of naming jobs that fail or are blind. The status page of that exporter has the remedy.",
        Query(
            f"count by (instance, sensor) (carbon_sensor_success{{{_HERE}}} == 0)",
            "Sensor failing",
            "none",
        ),
        Query(
            f"count by (instance, resolver) (carbon_resolver_success{{{_HERE}}} == 0)",
            "Resolver blind",
            "none",
        ),
        links={"instance": links.node_of_row()},
    ),
    table(
        "Versions",
        "What runs on how many nodes.",
        Query(f"count by (version, revision, python) (carbon_exporter_build_info{{{_HERE}}})", "Nodes", "none"),
        sort="Nodes",
    ),
)

_DETAIL = (
    trend(
        "Duration of readings",
        "The slowest of each sensor and way of naming jobs, over all exporters. Scrapes do not wait for them.",
        "s",
        Query(f"max by (sensor) (carbon_sensor_duration_seconds{{{_HERE}}})", "sensor {{sensor}}"),
        Query(f"max by (resolver) (carbon_resolver_duration_seconds{{{_HERE}}})", "resolver {{resolver}}"),
    ),
    trend(
        "Turned away, and totals not written",
        "Scripts and HTTP requests that were refused, per second; at the right how long ago totals "
        "were last written: some seconds.",
        "suffix: /s",
        Query(
            f"sum by (reason) (rate(carbon_handoff_refused_total{{{_HERE}}}[$__rate_interval]))", "script {{reason}}"
        ),
        Query(f"sum by (reason) (rate(carbon_http_refused_total{{{_HERE}}}[$__rate_interval]))", "HTTP {{reason}}"),
        Query(f"max(time() - carbon_store_last_write_timestamp_seconds{{{_HERE}}})", "totals written", "s", ORANGE),
    ),
)

EXPORTER = Board(
    uid=links.EXPORTER_HEALTH,
    title="Carbon / Exporter health",
    description="Whether all exporters are there and see everything.",
    now=_NOW,
    total=_TOTAL,
    trend=_TREND,
    who=_WHO,
    detail=_DETAIL,
    variables=(variables.DATASOURCES, variables.CLUSTER_OF_EXPORTERS, variables.EXPORTER),
)
