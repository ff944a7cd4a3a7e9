"""Panels of lines: over time, or of one query against another."""

from __future__ import annotations

from collections.abc import Sequence

from grafana.palette import BLUE, KINDS, MANY
from grafana.panels import Json, Panel, Query, thresholds

__all__ = ["by_kind", "scatter", "trend"]


def trend(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 12,
    stacked: bool = False,
    steps: Sequence[Json] | None = None,
    interval: str = "1m",
    overrides: Sequence[Json] = (),
    links: Sequence[Json] = (),
    defaults: Json | None = None,
) -> Panel:
    """Lines over time, or areas one on the other; `steps` are lines at limits."""
    color = {"mode": "fixed", "fixedColor": BLUE} if len(queries) == 1 and "{{" not in queries[0].name else dict(MANY)
    custom: Json = {
        "drawStyle": "line",
        "fillOpacity": 60 if stacked else 5,
        "lineWidth": 1 if stacked else 2,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }
    return Panel(
        type="timeseries",
        title=title,
        description=description,
        unit=unit,
        queries=queries,
        width=width,
        height=8,
        interval=interval,
        defaults={"color": color, "thresholds": thresholds(steps or ()), **(defaults or {})},
        custom=custom,
        overrides=overrides,
        links=links,
        options={
            "legend": {
                "calcs": ["mean", "lastNotNull"],
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
            },
            "tooltip": {"hideZeros": True, "mode": "multi", "sort": "desc"},
        },
    )


def scatter(title: str, description: str, x: Query, y: Query, *, of: str, interval: str, width: int = 12) -> Panel:
    """One query against the other, moment by moment, a series for each value of the label `of`."""
    hidden = {"Time": True}
    renamed = {"Value #A": x.name, "Value #B": y.name}
    return Panel(
        type="xychart",
        title=title,
        description=description,
        unit=y.unit,
        queries=(x, y),
        width=width,
        height=8,
        format="table",
        interval=interval,
        defaults={"color": {"mode": "shades", "fixedColor": BLUE}},
        custom={"pointSize": {"fixed": 5}, "show": "points+lines", "lineWidth": 2},
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": hidden, "indexByName": {}, "renameByName": renamed}},
            {"id": "partitionByValues", "options": {"fields": [of], "keepFields": False}},
        ],
        options={
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "mapping": "manual",
            "series": [
                {
                    "x": {"matcher": {"id": "byName", "options": x.name}},
                    "y": {"matcher": {"id": "byName", "options": y.name}},
                }
            ],
            "tooltip": {"mode": "single", "sort": "none"},
        },
    )


def by_kind() -> list[Json]:
    """Overrides that give the series of each kind of device its colour."""
    return [
        {
            "matcher": {"id": "byName", "options": kind},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
        }
        for kind, color in KINDS.items()
    ]
