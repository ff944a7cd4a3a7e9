"""Runs and spans: what an epoch costs beside what it gains, and runs compared with each other."""

from __future__ import annotations

from grafana import links, variables
from grafana.board import Board, job_starts
from grafana.graphs import scatter, trend
from grafana.numbers import stat
from grafana.palette import BLUE, ORANGE, VERMILION
from grafana.panels import Query
from grafana.promql import WORK, accumulated, total
from grafana.tables import table

__all__ = ["RUNS"]

_SPANS = f'{WORK},span=~"$span"'
_VALUES = f'{_SPANS},name="$value"'
_NEWEST = f"avg by (cluster, job_namespace, job_name) (span_value:carbon_span_value:avg{{{_VALUES}}})"
_JOBS = "cluster, job_namespace, job_name"
_RANKS = "job_namespace, job_name, span, rank"
_RUNS = f"{_JOBS}, run, rank"
_RUN = f"{_JOBS}, run, model, dataset, batch_size"
_OF_RUNS = " Of scripts that use CarbonRun; without any it is empty."


def _of_runs(series: str) -> str:
    """A counter of a run begins at 0 and stands still at its end: its greatest value in the range, over all ranks."""
    info = f"max by ({_RUNS}, model, dataset, batch_size) (max_over_time(carbon_run_info{{{WORK}}}[$__range]))"
    value = f"max by ({_RUNS}) (max_over_time({series}{{{WORK}}}[$__range]))"
    return f"sum by ({_RUN}) ({info} * on ({_RUNS}) group_left () {value})"


def _by_rank(what: str) -> str:
    return f"sum by ({_RANKS}) ({total(f'span:carbon_span_{what}:increase5m', _SPANS)})"


_FINAL = (
    f"max by ({_RUN}) (max_over_time(carbon_run_info{{{WORK}}}[$__range])) * on ({_JOBS}) group_left () "
    f"avg by ({_JOBS}) (last_over_time(span_value:carbon_span_value:avg{{{_VALUES}}}[$__range]))"
)

_NOW = (
    stat(
        "Newest value",
        "What the spans recorded last in the range under the chosen name, the mean over ranks.",
        "none",
        Query(
            "avg by (job_namespace, job_name) "
            f"(last_over_time(span_value:carbon_span_value:avg{{{_VALUES}}}[$__range]))",
            "{{job_name}}",
        ),
        defaults={"decimals": 3},
    ),
    stat(
        "Energy of a span",
        "Mean of the spans that ended in the last hour, over all ranks and jobs chosen.",
        "joule",
        Query(
            f"3.6e6 * sum(span:carbon_span_energy_kwh:sum1h{{{_SPANS}}}) "
            f"/ (sum(span:carbon_spans:sum1h{{{_SPANS}}}) > 0)"
        ),
    ),
    stat(
        "Cost of the value",
        "Energy of a unit of the value (of a sample, where a step records how many it took), and CO2e of a unit by "
        "which it grew in the last hour (of a point of accuracy, where an epoch records it).",
        "joule",
        Query(f"avg(span_value:carbon_span_energy_joules_per_value:ratio1h{{{_VALUES}}})", "of a unit"),
        Query(f"avg(span_value:carbon_span_co2e_grams_per_gain:ratio1h{{{_VALUES}}})", "of a unit gained", "massg"),
    ),
)

_TOTAL = (
    stat(
        "Energy of spans in range",
        "Exact. Of the chosen names: a span contains its children, so choose either those or these.",
        "kwatth",
        Query(f"sum({total('span:carbon_span_energy_kwh:increase5m', _SPANS)})"),
        width=6,
    ),
    stat(
        "CO2e of spans in range",
        "Exact. Of the chosen names: a span contains its children, so choose either those or these.",
        "massg",
        Query(f"sum({total('span:carbon_span_co2e_grams:increase5m', _SPANS)})"),
        width=6,
    ),
)

_TREND = (
    trend(
        "Energy of a span, beside the value",
        "Energy of a span of the hour before each moment (of an epoch, if that is the chosen span), and at the right "
        "what the spans recorded.",
        "joule",
        Query(
            f"avg by (job_name) (span:carbon_span_energy_joules_per_span:ratio1h{{{_SPANS}}})",
            "energy {{job_name}}",
            color=BLUE,
        ),
        Query(_NEWEST, "$value {{job_name}}", "none", ORANGE),
    ),
    trend(
        "CO2e of a span, beside the value",
        "CO2e of a span of the hour before each moment, and at the right what the spans recorded.",
        "massg",
        Query(
            f"sum by (job_name) (span:carbon_span_co2e_grams:sum1h{{{_SPANS}}}) "
            f"/ (sum by (job_name) (span:carbon_spans:sum1h{{{_SPANS}}}) > 0)",
            "CO2e {{job_name}}",
            color=VERMILION,
        ),
        Query(_NEWEST, "$value {{job_name}}", "none", ORANGE),
    ),
    scatter(
        "CO2e so far against the value",
        "Each job's CO2e since the left edge of the range (across) and what its spans recorded at that moment (up): "
        "choose the validation loss.",
        Query(
            f"sum by (job_name) ({accumulated('job:carbon_job_co2e_grams:increase5m', WORK)})", "CO2e so far", "massg"
        ),
        Query(f"avg by (job_name) (span_value:carbon_span_value:avg{{{_VALUES}}})", "value", "none"),
        of="job_name",
        interval="5m",
    ),
    trend(
        "Power of spans",
        "Mean between the points. The dots are exemplars: single spans, whose trace is a click away.",
        "watt",
        Query(
            f"sum by (job_name, span) (rate(carbon_span_energy_kwh_total{{{_SPANS}}}[$__rate_interval])) * 3.6e6",
            "{{job_name}} {{span}}",
            exemplars=True,
        ),
        links=(links.TRACES_OF_JOB,),
    ),
)

_WHO = (
    table(
        "Spans by energy in range",
        "Each name and rank: a span contains its children, so these do not add up. A name leads to the job.",
        Query(_by_rank("energy_kwh"), "Energy", "kwatth"),
        Query(_by_rank("co2e_grams"), "CO2e", "massg"),
        Query(_by_rank("duration_seconds"), "Time", "s"),
        Query(f"sum by ({_RANKS}) ({total('span:carbon_spans:increase5m', _SPANS)})", "Spans", "none"),
        links={"job_name": links.job_of_row()},
        sort="Energy",
        width=24,
    ),
)

_DETAIL = (
    table(
        "Runs compared",
        "Energy, CO2e and the job's newest value of each run in the range, with what it trained." + _OF_RUNS,
        Query(_of_runs("carbon_run_energy_kwh_total"), "Energy", "kwatth"),
        Query(_of_runs("carbon_run_co2e_grams_total"), "CO2e", "massg"),
        Query(_FINAL, "Value", "none"),
        links={"job_name": links.job_of_row()},
        sort="Energy",
    ),
    trend(
        "Runs and their predictions",
        "CO2e of each run so far, and what it will be at its end by the prediction of now." + _OF_RUNS,
        "massg",
        Query(
            f"sum by ({_JOBS}, run) (max_over_time(carbon_run_co2e_grams_total{{{WORK}}}[1h]))",
            "{{run}} so far",
            color=BLUE,
        ),
        Query(f"sum by ({_JOBS}, run) (carbon_run_predicted_co2e_grams{{{WORK}}})", "{{run}} predicted", color=ORANGE),
    ),
)

RUNS = Board(
    uid=links.RUNS,
    title="Carbon / Runs and spans",
    description="What epochs and other blocks of scripts cost, beside what they record; runs compared.",
    now=_NOW,
    total=_TOTAL,
    trend=_TREND,
    who=_WHO,
    detail=_DETAIL,
    variables=(
        variables.DATASOURCES,
        variables.TRACES,
        variables.CLUSTER,
        variables.NAMESPACE_OF_SPANS,
        variables.JOBS_WITH_SPANS,
        variables.SPAN,
        variables.VALUE,
    ),
    annotations=(job_starts(WORK),),
)
