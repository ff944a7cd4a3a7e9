"""Where a click leads: from the fleet to a job, from there to its nodes and spans, and from those to traces."""

from __future__ import annotations

import json
from urllib.parse import quote

from grafana.panels import Json, link

__all__ = [
    "EXPORTER_HEALTH",
    "FLEET",
    "GRID",
    "JOB",
    "NODE",
    "RUNS",
    "TRACES_OF_JOB",
    "job_of_bar",
    "job_of_row",
    "node_of_row",
    "runs_of_row",
]

FLEET, JOB, RUNS = "carbon-fleet", "carbon-job", "carbon-runs"
NODE, GRID, EXPORTER_HEALTH = "carbon-node", "carbon-grid", "carbon-exporter-health"

_KEPT = "${datasource:queryparam}&${cluster:queryparam}&${__url_time_range}"
_JOB = "var-namespace=${__data.fields.job_namespace}&var-job=${__data.fields.job_name}"


def job_of_row() -> Json:
    """From a table with the job's labels as columns to the job."""
    return link("The job", f"/d/{JOB}?{_KEPT}&{_JOB}")


def runs_of_row() -> Json:
    """From such a table to the job's runs and spans."""
    return link("Its runs and spans", f"/d/{RUNS}?{_KEPT}&{_JOB}")


def job_of_bar() -> Json:
    """From a bar or line with the job's labels to the job."""
    labels = "var-namespace=${__field.labels.job_namespace}&var-job=${__field.labels.job_name}"
    return link("The job", f"/d/{JOB}?{_KEPT}&{labels}")


def node_of_row() -> Json:
    """From a table with the column instance to the node."""
    return link("The node", f"/d/{NODE}?{_KEPT}&var-instance=${{__data.fields.instance}}")


def _traces() -> Json:
    """Grafana's Explore, with a search of Tempo for the job's spans by the attribute that the SDK sets."""
    search = '{ span.carbon.job.name = "JOB" }'
    query = {"refId": "A", "queryType": "traceql", "query": search, "limit": 20}
    pane = {"datasource": "TEMPO", "queries": [query], "range": {"from": "FROM", "to": "TO"}}
    panes = quote(json.dumps({"carbon": pane}))
    for word, variable in {
        "JOB": "${__field.labels.job_name}",
        "TEMPO": "${tempo_datasource}",
        "FROM": "${__from}",
        "TO": "${__to}",
    }.items():
        panes = panes.replace(word, variable)
    return link("Its traces", f"/explore?schemaVersion=1&panes={panes}")


TRACES_OF_JOB = _traces()
