"""Grid and budgets: what a kilowatt-hour costs the air where, by whose word, and what is left of each budget."""

from __future__ import annotations

from grafana import links, variables
from grafana.board import Board
from grafana.graphs import trend
from grafana.numbers import bars, stat
from grafana.palette import BLUE, ORANGE, VERMILION
from grafana.panels import Query, limits
from grafana.promql import CLUSTER, SITE, total
from grafana.tables import table

__all__ = ["GRID"]

_BUDGET = f'{variables.CLUSTER_OF_BUDGETS},budget=~"$budget"'
_LEFT = f"budget:carbon_budget_left:ratio{{{_BUDGET}}}"
_ENERGY = "region:carbon_job_energy_kwh:increase5m"
_CO2E = "region:carbon_job_co2e_grams:increase5m"
_OF_NAMESPACES = "namespace:carbon_job_energy_kwh:increase5m"
_OF_NAMESPACES_CO2E = "namespace:carbon_job_co2e_grams:increase5m"
_INTENSITY = f"avg by (region) (carbon_grid_intensity_grams_per_kwh{{{SITE}}})"
_RENDERED = " Needs the rules that `carbon-exporter budgets` renders."
_PLANNED = " which a later release exports; until then it is empty."

_NOW = (
    stat(
        "Grid intensity now",
        "By the providers of the exporters of each region, the mean where they differ; without the site's overhead.",
        "suffix: g/kWh",
        Query(_INTENSITY, "{{region}}"),
        width=8,
    ),
    stat(
        "Budgets overspent",
        "How many have nothing left in their window." + _RENDERED,
        "none",
        Query(f"count({_LEFT} <= 0) or 0 * count({_LEFT})"),
        steps=limits((None, BLUE), (1, VERMILION)),
    ),
    stat(
        "Oldest live intensity",
        "How long ago the moment is that it describes; none where all intensities are a year's mean.",
        "s",
        Query(f"max(time() - carbon_grid_intensity_timestamp_seconds{{{SITE}}})"),
        steps=limits((None, BLUE), (7200, ORANGE)),
    ),
)

_TOTAL = (
    stat(
        "CO2e in range",
        "Exact: the recorded five-minute increases in the range, added up. Lags by up to five minutes.",
        "massg",
        Query(f"sum({total(_CO2E, SITE)})"),
    ),
    stat(
        "CO2e of a kWh in range",
        "Realised: grams over the kWh of the same time, PUE included.",
        "suffix: g/kWh",
        Query(f"sum({total(_CO2E, SITE)}) / (sum({total(_ENERGY, SITE)}) > 0)"),
    ),
)

_TREND = (
    trend(
        "Intensity, used and realised",
        "What the exporters price with, and what came of it: the hour's grams over its kWh, PUE included.",
        "suffix: g/kWh",
        Query(_INTENSITY, "grid {{region}}", color=ORANGE),
        Query(
            f"avg by (region) (region:carbon_job_co2e_grams_per_kwh:ratio1h{{{SITE}}})",
            "realised {{region}}",
            color=BLUE,
        ),
    ),
    trend(
        "Burn of budgets",
        "How fast a budget is being spent: at 1 it lasts exactly for its window, at 2 for half of it." + _RENDERED,
        "none",
        Query(f"max by (budget) (budget:carbon_budget_burn:ratio1h{{{_BUDGET}}})", "{{budget}} 1 h"),
        Query(f"max by (budget) (budget:carbon_budget_burn:ratio6h{{{_BUDGET}}})", "{{budget}} 6 h"),
        Query(f"max by (budget) (budget:carbon_budget_burn:ratio1d{{{_BUDGET}}})", "{{budget}} 1 d"),
        steps=limits((None, BLUE), (1, VERMILION)),
    ),
    trend(
        "Forecast",
        "The grid's intensity as it is forecast. Needs carbon_grid_forecast_grams_per_kwh," + _PLANNED,
        "suffix: g/kWh",
        Query(f"avg by (region, horizon) (carbon_grid_forecast_grams_per_kwh{{{SITE}}})", "{{region}} {{horizon}}"),
    ),
)

_WHO = (
    bars(
        "Left of each budget",
        "Share that is left of the budget in its window; below nothing it is overspent." + _RENDERED,
        "percentunit",
        Query(f"min by (budget) ({_LEFT})", "{{budget}}"),
        steps=limits((None, VERMILION), (0, ORANGE), (0.25, BLUE)),
        defaults={"max": 1},
    ),
    table(
        "Namespaces that could wait",
        "CO2e of jobs in the range beyond what the same kWh emit in the cleanest tenth of a week's hours there. "
        "Nothing where intensity is the year's mean.",
        Query(
            f"topk(10, sum by (job_namespace) (sum by (job_namespace, region) ({total(_OF_NAMESPACES_CO2E, SITE)}) "
            f"- sum by (job_namespace, region) ({total(_OF_NAMESPACES, SITE)}) * on (region) group_left () "
            f"(quantile_over_time(0.1, {_INTENSITY}[7d:1h]) * avg by (region) (carbon_pue_ratio{{{SITE}}}))))",
            "CO2e beyond",
            "massg",
        ),
        sort="CO2e beyond",
    ),
)

_DETAIL = (
    table(
        "Where the intensity comes from",
        "Provider, source, year and quality, how the region was found, and how many nodes price so.",
        Query(
            f"count by (region, provider, quality, source, year, located_by) (carbon_grid_intensity_info{{{SITE}}})",
            "Nodes",
            "none",
        ),
        sort="Nodes",
    ),
    trend(
        "Providers",
        "Share of the nodes at which each provider answers. Needs carbon_provider_success," + _PLANNED,
        "percentunit",
        Query(f"avg by (provider) (carbon_provider_success{{{CLUSTER}}})", "{{provider}}"),
        defaults={"min": 0, "max": 1},
    ),
)

GRID = Board(
    uid=links.GRID,
    title="Carbon / Grid and budgets",
    description="What a kilowatt-hour emits where, by whose word, and what is left of each budget.",
    now=_NOW,
    total=_TOTAL,
    trend=_TREND,
    who=_WHO,
    detail=_DETAIL,
    variables=(variables.DATASOURCES, variables.CLUSTER, variables.REGION, variables.BUDGET),
    range="now-7d",
)
