"""The grid as a process without an exporter sees it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from carbon_exporter.carbon.grid import Grid, locate_grid
from carbon_exporter.carbon.static import WORLD, StaticProvider
from carbon_exporter.errors import IntensityError
from carbon_exporter.sdk.trouble import trouble

__all__ = ["own_grid"]

_log = logging.getLogger("carbon_exporter.sdk")


def own_grid(environ: Mapping[str, str] = os.environ, *, region: str = "", pue: float = 1.0) -> Grid:
    """Where this is by the script's word, `CARBON_REGION`, or a guess; the world where that names nothing."""
    provider = StaticProvider("lifecycle")
    try:
        grid = locate_grid(region, provider, pue, environ)
    except IntensityError as error:
        trouble("the grid's region is not known, priced at the world's average", error)
        grid = locate_grid(WORLD, provider, pue, environ)
    for warning in grid.warnings:
        _log.info("grid: %s", warning)
    return grid
