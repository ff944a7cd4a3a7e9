"""Panels as data, and the JSON that Grafana reads of them. Options are those of Grafana's published schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana.palette import BLUE

__all__ = ["DATASOURCE", "Json", "Panel", "Query", "letter", "limits", "link", "thresholds"]

Json = dict[str, Any]
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression of a panel."""

    expr: str
    name: str = ""
    """In a graph the legend, in a table the column of the values; a table hides the values of a query without one."""
    unit: str = ""
    """Another than the panel's, and in a graph on an axis of its own at the right."""
    color: str = ""
    exemplars: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel. Its number, which links to it contain, is its place on the board."""

    type: str
    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    width: int
    height: int
    options: Json
    instant: bool = False
    format: str = "time_series"
    interval: str = ""
    """The least distance of two points."""
    defaults: Json = field(default_factory=dict)
    custom: Json = field(default_factory=dict)
    overrides: Sequence[Json] = ()
    transformations: Sequence[Json] = ()
    links: Sequence[Json] = ()

    def json(self, number: int, x: int, y: int) -> Json:
        """The panel as Grafana stores it, at this place of the grid of 24 columns."""
        defaults = {"unit": self.unit, "links": list(self.links), **self.defaults, "custom": self.custom}
        panel: Json = {
            "id": number,
            "type": self.type,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "targets": [self._target(place, query) for place, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": defaults, "overrides": [*self._of_queries(), *self.overrides]},
            "options": self.options,
        }
        if self.interval:
            panel["interval"] = self.interval
        if self.transformations:
            panel["transformations"] = list(self.transformations)
        return panel

    def _target(self, place: int, query: Query) -> Json:
        return {
            "refId": letter(place),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "legendFormat": query.name,
            "format": self.format,
            "instant": self.instant,
            "range": not self.instant,
            "exemplar": query.exemplars,
        }

    def _of_queries(self) -> list[Json]:
        """What a query has apart: unit and axis, colour. A table knows it by its column, a graph by its letter."""
        found = []
        for place, query in enumerate(self.queries):
            properties: list[Json] = []
            if query.unit:
                properties.append({"id": "unit", "value": query.unit})
            if query.unit and self.type == "timeseries":
                properties.append({"id": "custom.axisPlacement", "value": "right"})
            if query.color:
                properties.append({"id": "color", "value": {"mode": "fixed", "fixedColor": query.color}})
            matcher: Json = {"id": "byFrameRefID", "options": letter(place)}
            if self.format == "table":
                matcher = {"id": "byName", "options": query.name}
            if properties:
                found.append({"matcher": matcher, "properties": properties})
        return found


def link(title: str, url: str) -> Json:
    """A link of a field; `url` may contain Grafana's `${__data.fields…}` and `${__field.labels…}`."""
    return {"title": title, "url": url, "targetBlank": False}


def limits(*steps: tuple[float | None, str]) -> list[Json]:
    """Colours from values on; the first value is None, which stands for everything below."""
    return [{"color": color, "value": value} for value, color in steps]


def thresholds(steps: Sequence[Json]) -> Json:
    """A field's limits; without any, one colour."""
    return {"mode": "absolute", "steps": list(steps) or limits((None, BLUE))}


def letter(place: int) -> str:
    """What Grafana calls the query at this place of its panel, from 0: A, B and so on."""
    return chr(ord("A") + place)
