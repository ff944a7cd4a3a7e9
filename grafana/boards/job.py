"""Job: what one job draws, used and emitted, on which nodes and devices."""

from __future__ import annotations

from grafana import links, variables
from grafana.board import Board, job_starts
from grafana.graphs import by_kind, trend
from grafana.numbers import stat
from grafana.palette import BLUE, ORANGE, VERMILION
from grafana.panels import Query
from grafana.promql import CLUSTER, ONE_JOB, accumulated, total
from grafana.tables import table

__all__ = ["JOB"]

_JOB = f'{ONE_JOB},region=~"$region"'
_ENERGY = "job_kind:carbon_job_energy_kwh:increase5m"
_CO2E = "job:carbon_job_co2e_grams:increase5m"
_REALISED = f"sum(job:carbon_job_co2e_grams:sum1h{{{_JOB}}}) / (sum(job:carbon_job_energy_kwh:sum1h{{{_JOB}}}) > 0)"

_NOW = (
    stat(
        "Power now",
        "What the job pays for now, on all its nodes.",
        "watt",
        Query(f"sum(job:carbon_job_power_watts:sum{{{_JOB}}})"),
    ),
    stat(
        "CO2e of the last hour",
        "The job's operational emissions, PUE included.",
        "massg",
        Query(f"sum(job:carbon_job_co2e_grams:sum1h{{{_JOB}}})"),
    ),
    stat(
        "CO2e of a kWh",
        "Realised by the job in the last hour, PUE included.",
        "suffix: g/kWh",
        Query(_REALISED),
    ),
    stat(
        "Nodes",
        "Machines on which the job has energy now.",
        "none",
        Query(f"count(count by (cluster, instance) (carbon_job_power_watts{{{_JOB}}}))"),
    ),
)

_TOTAL = (
    stat(
        "Energy in range",
        "Exact: the recorded five-minute increases in the range, added up. Lags by up to five minutes.",
        "kwatth",
        Query(f"sum({total(_ENERGY, _JOB)})"),
    ),
    stat(
        "CO2e in range",
        "Exact: the recorded five-minute increases in the range, added up. Each was priced when it was used.",
        "massg",
        Query(f"sum({total(_CO2E, _JOB)})"),
    ),
)

_TREND = (
    trend(
        "Power by kind",
        "What the job pays for of each kind of device, one on the other.",
        "watt",
        Query(f"sum by (kind) (job_kind:carbon_job_power_watts:sum{{{_JOB}}})", "{{kind}}"),
        stacked=True,
        overrides=by_kind(),
    ),
    trend(
        "Energy and CO2e so far",
        "Added up from the left edge of the graph; at the right edge they are the totals of the range.",
        "kwatth",
        Query(f"sum({accumulated(_ENERGY, _JOB)})", "energy", color=BLUE),
        Query(f"sum({accumulated(_CO2E, _JOB)})", "CO2e", "massg", VERMILION),
        interval="5m",
    ),
)

_WHO = (
    table(
        "Nodes of the job",
        "Power that the job pays for on each node now. A name leads to the node.",
        Query(f"sum by (instance) (carbon_job_power_watts{{{_JOB}}})", "Power", "watt"),
        links={"instance": links.node_of_row()},
        sort="Power",
    ),
    table(
        "Whose it is",
        "What the scheduler says of the job; a label is missing where nobody knows it.",
        Query(
            "count by (job_namespace, job_name, job_id, scheduler, queue, job_user) "
            f"(last_over_time(carbon_job_info{{{ONE_JOB}}}[$__range]))",
            "Nodes",
            "none",
        ),
        links={"job_name": links.runs_of_row()},
    ),
)

_DETAIL = (
    trend(
        "Power by device",
        "Mean between the points, from the counters of each device.",
        "watt",
        Query(
            f"sum by (instance, device) (rate(carbon_job_energy_kwh_total{{{_JOB}}}[$__rate_interval])) * 3.6e6",
            "{{instance}} {{device}}",
        ),
    ),
    trend(
        "CO2e of a kWh, and the grid's",
        "Realised by the job, PUE included, beside the intensity of the grids that it ran on.",
        "suffix: g/kWh",
        Query(_REALISED, "realised", color=BLUE),
        Query(
            f"avg by (region) (carbon_grid_intensity_grams_per_kwh{{{CLUSTER}}} and on (region) "
            f"job:carbon_job_power_watts:sum{{{_JOB}}})",
            "grid {{region}}",
            color=ORANGE,
        ),
    ),
)

JOB = Board(
    uid=links.JOB,
    title="Carbon / Job",
    description="Power, energy and CO2e of one job, on all its nodes.",
    now=_NOW,
    total=_TOTAL,
    trend=_TREND,
    who=_WHO,
    detail=_DETAIL,
    variables=(variables.DATASOURCES, variables.CLUSTER, variables.REGION, variables.NAMESPACE, variables.JOB),
    annotations=(job_starts(_JOB),),
)
