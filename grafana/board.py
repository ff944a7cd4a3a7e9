"""A board: its panels in one fixed order, laid out from left to right, with variables, annotations and links."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from grafana.palette import PURPLE
from grafana.panels import DATASOURCE, Json, Panel

__all__ = ["Board", "job_starts", "node_job_starts"]

_COLUMNS = 24
_SCHEMA = 42
"""Of dashboards: what Grafana 12 and 13 write; older ones read it as far as they can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard. The order of its panels is that of these fields."""

    uid: str
    title: str
    description: str
    now: Sequence[Panel]
    total: Sequence[Panel]
    trend: Sequence[Panel]
    who: Sequence[Panel]
    detail: Sequence[Panel]
    variables: Sequence[Json]
    annotations: Sequence[Json] = ()
    range: str = "now-24h"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them, in order."""
        return (*self.now, *self.total, *self.trend, *self.who, *self.detail)

    def json(self) -> Json:
        """The board as Grafana imports it: of any data source, by file, provisioning or a ConfigMap."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["carbon-exporter", "energy", "co2e"],
            "schemaVersion": _SCHEMA,
            "editable": False,
            "graphTooltip": 1,
            "fiscalYearStartMonth": 0,
            "timezone": "browser",
            "time": {"from": self.range, "to": "now"},
            "timepicker": {},
            "refresh": "1m",
            "links": [_others()],
            "templating": {"list": list(self.variables)},
            "annotations": {"list": list(self.annotations)},
            "panels": [panel.json(number, x, y) for number, (panel, x, y) in enumerate(self._placed(), 1)],
        }

    def _placed(self) -> Iterator[tuple[Panel, int, int]]:
        """Each panel with its place: as many in a row as fit."""
        x = y = height = 0
        for panel in self.panels:
            if x + panel.width > _COLUMNS:
                x, y, height = 0, y + height, 0
            yield panel, x, y
            x, height = x + panel.width, max(height, panel.height)


def job_starts(matchers: str, *, shown: bool = True) -> Json:
    """Marks where a job begins: it is there now and was not five minutes ago. Reserved names are no jobs."""
    return _starts(f'job:carbon_job_power_watts:sum{{{matchers},job_name!~"_.*_"}}', shown=shown)


def node_job_starts(matchers: str) -> Json:
    """The same of the jobs of one node."""
    return _starts(f'carbon_job_info{{{matchers},job_name!~"_.*_"}}', shown=True)


def _starts(jobs: str, *, shown: bool) -> Json:
    by = "group by (cluster, job_namespace, job_name)"  # its value is 1: Grafana marks nothing where a job draws 0 W
    return {
        "name": "Job starts",
        "datasource": DATASOURCE,
        "enable": shown,
        "hide": False,
        "iconColor": PURPLE,
        "target": {
            "refId": "Anno",
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": f"{by} ({jobs}) unless {by} ({jobs} offset 5m)",
            "interval": "1m",
            "range": True,
        },
        "titleFormat": "{{job_name}} starts",
        "textFormat": "{{job_namespace}}",
        "tagKeys": "job_namespace",
        "useValueForTime": False,
    }


def _others() -> Json:
    return {
        "type": "dashboards",
        "title": "carbon-exporter",
        "tooltip": "The other boards, with this range and these variables",
        "tags": ["carbon-exporter"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "url": "",
    }
