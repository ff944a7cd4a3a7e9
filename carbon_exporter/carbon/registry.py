"""The providers of grid intensity, by the name that the setting `grid.provider` gives.

A new one is a file with a class and a line here.
"""

from __future__ import annotations

from collections.abc import Callable

from carbon_exporter.carbon.base import Provider, Scope
from carbon_exporter.carbon.static import StaticProvider

__all__ = ["PROVIDERS"]

PROVIDERS: dict[str, Callable[[Scope], Provider]] = {
    "static": StaticProvider,
}
"""The first is the default: it needs no network."""
