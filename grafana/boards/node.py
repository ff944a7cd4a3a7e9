"""Node and devices: what one machine's devices draw, whether its energy adds up, and which jobs run there."""

from __future__ import annotations

from grafana import links, variables
from grafana.board import Board, node_job_starts
from grafana.graphs import trend
from grafana.numbers import stat
from grafana.palette import BLUE, ORANGE
from grafana.panels import Query, limits
from grafana.promql import CLUSTER, SITE, total
from grafana.tables import table

__all__ = ["NODE"]

_NODE = f'{CLUSTER},instance="$instance"'
_PRICED = f'{SITE},instance="$instance"'

_NOW = (
    stat(
        "Power of the devices",
        "What all devices of the node draw now.",
        "watt",
        Query(f"sum(node_kind:carbon_device_power_watts:sum{{{_PRICED}}})"),
    ),
    stat(
        "Power of the whole machine",
        "By each meter that contains all devices and more (fans, boards, losses); none where there is no such meter.",
        "watt",
        Query(f"max by (source) (carbon_node_power_watts{{{_NODE}}})", "{{source}}"),
    ),
    stat(
        "Idle",
        "Share of the devices' power that is nobody's.",
        "percentunit",
        Query(
            f'sum(carbon_job_power_watts{{{_PRICED},job_name="_idle_"}}) '
            f"/ (sum(carbon_device_power_watts{{{_PRICED}}}) > 0)"
        ),
    ),
)

_TOTAL = (
    stat(
        "Energy in range",
        "Of all devices. Exact: the recorded five-minute increases in the range, added up. Lags by up to five minutes.",
        "kwatth",
        Query(f"sum({total('node_kind:carbon_device_energy_kwh:increase5m', _PRICED)})"),
        width=6,
    ),
    stat(
        "Time without knowledge",
        "Of the worst device in the range: its energy in that time is in no total, for nothing is invented.",
        "s",
        Query(f"max(increase(carbon_energy_gap_seconds_total{{{_NODE}}}[$__range]))"),
        width=6,
    ),
)

_TREND = (
    trend(
        "Power by device",
        "Mean over each sampling interval.",
        "watt",
        Query(f"sum by (device, kind) (carbon_device_power_watts{{{_PRICED}}})", "{{device}}"),
    ),
    trend(
        "Jobs over devices",
        "Energy of all jobs, reserved names included, over the energy of the devices: 1, or something is lost.",
        "percentunit",
        Query(
            f"sum(rate(carbon_job_energy_kwh_total{{{_PRICED}}}[$__rate_interval])) "
            f"/ (sum(rate(carbon_device_energy_kwh_total{{{_PRICED}}}[$__rate_interval])) > 0)",
            "jobs over devices",
        ),
        defaults={"min": 0.9, "max": 1.1, "decimals": 1},
    ),
    trend(
        "Load of the devices",
        "Share of the time in which the device computed, as it says itself; those that say nothing are absent.",
        "percentunit",
        Query(f"max by (device) (carbon_device_utilization_ratio{{{_NODE}}})", "{{device}}"),
        defaults={"min": 0, "max": 1},
    ),
)

_WHO = (
    table(
        "Jobs on this node",
        "Power that each pays for now, reserved names included. A name leads to the job.",
        Query(f"sum by (job_namespace, job_name) (carbon_job_power_watts{{{_PRICED}}})", "Power", "watt"),
        links={"job_name": links.job_of_row()},
        sort="Power",
    ),
)

_DETAIL = (
    table(
        "Devices",
        "What each is, which sensor measures it and how good that is: measured, integrated, modelled or default.",
        Query(
            "max by (device, kind, vendor, model, sensor, quality) "
            f"(carbon_device_info{{{_NODE}}} * on (device) group_left () sum by (device) "
            f"(carbon_device_power_watts{{{_NODE}}}))",
            "Power",
            "watt",
        ),
        sort="Power",
        width=24,
    ),
    trend(
        "Temperature",
        "As each device says itself.",
        "celsius",
        Query(f"max by (device) (carbon_device_temperature_celsius{{{_NODE}}})", "{{device}}"),
    ),
    trend(
        "Counter against power meter",
        "Energy by a board's counter over its integrated power in ten minutes, minus 1. Beyond the lines "
        "one of the two is wrong; the exporter goes on with the counter.",
        "percentunit",
        Query(f"max by (device) (carbon_device_meter_divergence_ratio{{{_NODE}}})", "{{device}}"),
        steps=limits((None, ORANGE), (-0.1, BLUE), (0.1, ORANGE)),
    ),
)

NODE = Board(
    uid=links.NODE,
    title="Carbon / Node and devices",
    description="One machine: its devices, whether its energy adds up, and which jobs run there.",
    now=_NOW,
    total=_TOTAL,
    trend=_TREND,
    who=_WHO,
    detail=_DETAIL,
    variables=(variables.DATASOURCES, variables.CLUSTER, variables.REGION, variables.NODE),
    annotations=(node_job_starts(_NODE),),
)
