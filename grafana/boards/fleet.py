"""Fleet: what everything draws and emits, and who is behind it. It reads recorded series only."""

from __future__ import annotations

from grafana import links, variables
from grafana.board import Board, job_starts
from grafana.graphs import by_kind, trend
from grafana.numbers import bars, stat
from grafana.palette import PURPLE, VERMILION
from grafana.panels import Query
from grafana.promql import CLUSTER, SITE, WORK, hours, of_chosen_jobs, total
from grafana.tables import table

__all__ = ["FLEET"]

_HOUR_KWH = f"sum(region:carbon_job_energy_kwh:sum1h{{{SITE}}})"
_ENERGY = "region:carbon_job_energy_kwh:increase5m"
_CO2E = "region:carbon_job_co2e_grams:increase5m"
_NAMESPACES = f'{CLUSTER},region=~"$region",job_namespace=~"$namespace"'
_JOBS_CO2E = of_chosen_jobs(hours("job_top:carbon_job_co2e_grams:hourly", _NAMESPACES))
# Which jobs these are, their CO2e says.
_JOBS_ENERGY = f"sum by (job_namespace, job_name) ({hours('job_top:carbon_job_energy_kwh:hourly', _NAMESPACES)})"

_NOW = (
    stat(
        "Power now",
        "What all devices draw, idle included, without the site's overhead.",
        "watt",
        Query(f"sum(region:carbon_job_power_watts:sum{{{SITE}}})"),
    ),
    stat(
        "CO2e of the last hour",
        "Operational emissions of all jobs, idle included, with the site's overhead (PUE).",
        "massg",
        Query(f"sum(region:carbon_job_co2e_grams:sum1h{{{SITE}}})"),
    ),
    stat(
        "CO2e of a kWh",
        "Realised in the last hour: grams over the kWh that they were emitted for, PUE included.",
        "suffix: g/kWh",
        Query(f"sum(region:carbon_job_co2e_grams:sum1h{{{SITE}}}) / ({_HOUR_KWH} > 0)"),
    ),
    stat(
        "Idle",
        "Share of the last hour's energy that was powered and nobody's (_idle_).",
        "percentunit",
        Query(f'sum(job:carbon_job_energy_kwh:sum1h{{{SITE},job_name="_idle_"}}) / ({_HOUR_KWH} > 0)'),
    ),
)

_TOTAL = (
    stat(
        "Energy in range",
        "Exact: the recorded five-minute increases in the range, added up. Lags by up to five minutes.",
        "kwatth",
        Query(f"sum({total(_ENERGY, SITE)})"),
    ),
    stat(
        "CO2e in range",
        "Exact: the recorded five-minute increases in the range, added up. Each was priced when it was used.",
        "massg",
        Query(f"sum({total(_CO2E, SITE)})"),
    ),
)

_TREND = (
    trend(
        "Power by kind",
        "What the devices of each kind draw, one on the other.",
        "watt",
        Query(f"sum by (kind) (region_kind:carbon_device_power_watts:sum{{{SITE}}})", "{{kind}}"),
        stacked=True,
        overrides=by_kind(),
    ),
    trend(
        "CO2e of an hour by region",
        "Emissions of the hour before each moment, by the grid zone whose price was used.",
        "massg",
        Query(f"sum by (region) (region:carbon_job_co2e_grams:sum1h{{{SITE}}})", "{{region}}"),
    ),
)

_WHO = (
    bars(
        "Namespaces by CO2e in range",
        "The ten that emitted most, reserved names left out; follows the variable namespace. "
        "Jobs without a namespace are one nameless bar.",
        "massg",
        Query(
            f"topk(10, sum by (job_namespace) ({total('namespace:carbon_job_co2e_grams:increase5m', _NAMESPACES)}))",
            "{{job_namespace}}",
        ),
    ),
    table(
        "Jobs by CO2e in range",
        "The twenty that emitted most, and their energy, in the whole hours of the range: nothing yet of the hour that "
        "runs. Of an hour in which a job was not among the hundred of its cluster that emitted most, it has nothing. "
        "Follows the variables namespace and job. A name leads to the job.",
        Query(f"topk(20, {_JOBS_CO2E})", "CO2e", "massg"),
        Query(
            f"{_JOBS_ENERGY} and on (job_namespace, job_name) topk(20, {_JOBS_CO2E})",
            "Energy",
            "kwatth",
        ),
        links={"job_name": links.job_of_row()},
        sort="CO2e",
    ),
)

_DETAIL = (
    table(
        "Nodes by power",
        "The twenty that draw most now. A name leads to the node.",
        Query(f"topk(20, sum by (instance) (node_kind:carbon_device_power_watts:sum{{{SITE}}}))", "Power", "watt"),
        links={"instance": links.node_of_row()},
        sort="Power",
    ),
    trend(
        "Energy that is no job's",
        "Shares of the hour's energy: idle was powered and nobody's, unattributed was used by somebody unknown.",
        "percentunit",
        Query(f"avg by (region) (region:carbon_idle_energy:ratio1h{{{SITE}}})", "idle {{region}}", color=PURPLE),
        Query(
            f"avg by (region) (region:carbon_unattributed_energy:ratio1h{{{SITE}}})",
            "unattributed {{region}}",
            color=VERMILION,
        ),
    ),
)

FLEET = Board(
    uid=links.FLEET,
    title="Carbon / Fleet",
    description="Power, energy and CO2e of all nodes, and who is behind them.",
    now=_NOW,
    total=_TOTAL,
    trend=_TREND,
    who=_WHO,
    detail=_DETAIL,
    variables=(
        variables.DATASOURCES,
        variables.CLUSTER,
        variables.REGION,
        variables.NAMESPACE,
        variables.JOBS,
    ),
    annotations=(job_starts(f'{WORK},region=~"$region"', shown=False),),
)
