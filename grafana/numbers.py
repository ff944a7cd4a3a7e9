"""Panels of numbers: one large, or a bar for each series."""

from __future__ import annotations

from collections.abc import Sequence

from grafana.palette import BLUE
from grafana.panels import Json, Panel, Query, thresholds

__all__ = ["bars", "stat"]

_LAST: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def stat(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 4,
    steps: Sequence[Json] | None = None,
    links: Sequence[Json] = (),
    defaults: Json | None = None,
) -> Panel:
    """One number, or one for each series, of the end of the range."""
    return Panel(
        type="stat",
        title=title,
        description=description,
        unit=unit,
        queries=queries,
        width=width,
        height=4,
        instant=True,
        defaults=_shown(steps, {}, defaults),
        links=links,
        options={
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "percentChangeColorMode": "standard",
            "reduceOptions": _LAST,
            "showPercentChange": False,
            "textMode": "auto",
            "wideLayout": True,
        },
    )


def bars(
    title: str,
    description: str,
    unit: str,
    query: Query,
    *,
    width: int = 12,
    steps: Sequence[Json] | None = None,
    links: Sequence[Json] = (),
    defaults: Json | None = None,
) -> Panel:
    """One bar for each series, of the end of the range."""
    return Panel(
        type="bargauge",
        title=title,
        description=description,
        unit=unit,
        queries=(query,),
        width=width,
        height=8,
        instant=True,
        defaults=_shown(steps, {"min": 0}, defaults),
        links=links,
        options={
            "displayMode": "basic",
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": False},
            "maxVizHeight": 300,
            "minVizHeight": 16,
            "minVizWidth": 8,
            "namePlacement": "auto",
            "orientation": "horizontal",
            "reduceOptions": _LAST,
            "showUnfilled": True,
            "sizing": "auto",
            "valueMode": "color",
        },
    )


def _shown(steps: Sequence[Json] | None, own: Json, wanted: Json | None) -> Json:
    """How a number is shown: in the colour of its step, or in the one colour where there are none."""
    color = {"mode": "thresholds"} if steps else {"mode": "fixed", "fixedColor": BLUE}
    return {"color": color, **own, "thresholds": thresholds(steps or ()), "noValue": "none", **(wanted or {})}
