"""The variables at the top of the boards. Each asks series of which there are few: recorded ones, or one of a node.

A label that is absent matches `.*`, so that All takes in series without a cluster or a namespace.
"""

from __future__ import annotations

from grafana.panels import DATASOURCE, Json

__all__ = [
    "BUDGET",
    "CLUSTER",
    "CLUSTER_OF_BUDGETS",
    "CLUSTER_OF_EXPORTERS",
    "DATASOURCES",
    "EXPORTER",
    "JOB",
    "JOBS",
    "JOBS_WITH_SPANS",
    "NAMESPACE",
    "NAMESPACE_OF_SPANS",
    "NODE",
    "REGION",
    "SPAN",
    "TRACES",
    "VALUE",
]

_ALL = {"text": "All", "value": "$__all"}


def _datasource(name: str, label: str, plugin: str, description: str) -> Json:
    return {
        "type": "datasource",
        "name": name,
        "label": label,
        "description": description,
        "query": plugin,
        "current": {"text": "", "value": ""},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }


def _label(name: str, label: str, description: str, series: str, key: str, *, every: str = "") -> Json:
    """Values of a label; `every` is the pattern that stands for all of them, without it exactly one is chosen."""
    variable: Json = {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": DATASOURCE,
        "query": {"qryType": 1, "query": f"label_values({series}, {key})", "refId": f"variable-{name}"},
        "current": _ALL if every else {"text": "", "value": ""},
        "hide": 0,
        "includeAll": bool(every),
        "multi": bool(every),
        "options": [],
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
    }
    return {**variable, "allValue": every} if every else variable


DATASOURCES = _datasource(
    "datasource", "Metrics", "prometheus", "The Prometheus (Thanos, Mimir, VictoriaMetrics) with the recorded series."
)
TRACES = _datasource("tempo_datasource", "Traces", "tempo", "The Tempo that has the spans; only links use it.")
CLUSTER = _label(
    "cluster",
    "Cluster",
    "A label of targets or of the leaf Prometheus; All if there is none.",
    "region:carbon_job_power_watts:sum",
    "cluster",
    every=".*",
)
CLUSTER_OF_EXPORTERS = _label(
    "cluster",
    "Cluster",
    "A label of targets or of the leaf Prometheus; All if there is none.",
    "carbon_exporter_build_info",
    "cluster",
    every=".*",
)
REGION = _label(
    "region",
    "Region",
    "The grid zone whose price was used.",
    'region:carbon_job_power_watts:sum{cluster=~"$cluster"}',
    "region",
    every=".*",
)
_IN_SITE = 'cluster=~"$cluster",region=~"$region"'
NAMESPACE = _label(
    "namespace",
    "Namespace",
    "The job's namespace; All takes in jobs without one.",
    f"job:carbon_job_power_watts:sum{{{_IN_SITE}}}",
    "job_namespace",
    every=".*",
)
_IN_NAMESPACE = f'{_IN_SITE},job_namespace=~"$namespace"'
JOBS = _label(
    "job",
    "Job",
    "Jobs, as the exporter names them.",
    f"job:carbon_job_power_watts:sum{{{_IN_NAMESPACE}}}",
    "job_name",
    every=".*",
)
JOB = _label(
    "job", "Job", "The job, as the exporter names it.", f"job:carbon_job_power_watts:sum{{{_IN_NAMESPACE}}}", "job_name"
)
NODE = _label(
    "instance",
    "Node",
    "The exporter's address, as Prometheus scrapes it.",
    f"node_kind:carbon_device_power_watts:sum{{{_IN_SITE}}}",
    "instance",
)
EXPORTER = _label(
    "instance",
    "Exporter",
    "Its address, as Prometheus scrapes it.",
    'carbon_exporter_build_info{cluster=~"$cluster"}',
    "instance",
    every=".*",
)
CLUSTER_OF_BUDGETS = 'cluster=~"|$cluster"'
"""A budget that names no cluster is of all of them: it is shown whichever is chosen."""
BUDGET = _label(
    "budget",
    "Budget",
    "As the file of budgets names it.",
    f"budget:carbon_budget_left:ratio{{{CLUSTER_OF_BUDGETS}}}",
    "budget",
    every=".*",
)
NAMESPACE_OF_SPANS = _label(
    "namespace",
    "Namespace",
    "The job's namespace; All takes in jobs without one.",
    'span:carbon_spans:sum1h{cluster=~"$cluster"}',
    "job_namespace",
    every=".*",
)
JOBS_WITH_SPANS = _label(
    "job",
    "Job",
    "Jobs whose scripts tell of spans.",
    'span:carbon_spans:sum1h{cluster=~"$cluster",job_namespace=~"$namespace"}',
    "job_name",
    every=".+",
)
_IN_JOB = 'cluster=~"$cluster",job_namespace=~"$namespace",job_name=~"$job"'
SPAN = _label(
    "span", "Span", "The block's name in the script.", f"span:carbon_spans:sum1h{{{_IN_JOB}}}", "span", every=".+"
)
VALUE = _label(
    "value",
    "Value",
    "What the script records: a loss, an accuracy.",
    f'span_value:carbon_span_value:avg{{{_IN_JOB},span=~"$span"}}',
    "name",
)
