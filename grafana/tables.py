"""Panels of rows and columns."""

from __future__ import annotations

from collections.abc import Mapping

from grafana.palette import BLUE
from grafana.panels import Json, Panel, Query, letter

__all__ = ["table"]


def table(
    title: str,
    description: str,
    *queries: Query,
    width: int = 12,
    links: Mapping[str, Json] | None = None,
    sort: str = "",
    unit: str = "none",
) -> Panel:
    """A row for each combination of labels, a column for each label and each named query; links by their column."""
    renamed, hidden = {}, {"Time": True}
    for place, query in enumerate(queries):
        for value in ("Value", f"Value #{letter(place)}") if len(queries) == 1 else (f"Value #{letter(place)}",):
            if query.name:
                renamed[value] = query.name
            else:
                hidden[value] = True
    organize = {"excludeByName": hidden, "indexByName": {}, "renameByName": renamed}
    column_links = [
        {"matcher": {"id": "byName", "options": column}, "properties": [{"id": "links", "value": [target]}]}
        for column, target in (links or {}).items()
    ]
    return Panel(
        type="table",
        title=title,
        description=description,
        unit=unit,
        queries=queries,
        width=width,
        height=8,
        instant=True,
        format="table",
        defaults={"color": {"mode": "fixed", "fixedColor": BLUE}, "noValue": "none"},
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True, "inspect": False},
        overrides=column_links,
        transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": organize}],
        options={
            "cellHeight": "sm",
            "frameIndex": 0,
            "showHeader": True,
            "sortBy": [{"desc": True, "displayName": sort}] if sort else [],
        },
    )
