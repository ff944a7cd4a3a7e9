"""How long a Prometheus takes to evaluate the recording rules, group by group."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from deploy.demo.server import Server

__all__ = ["Rules", "groups"]

_FOLDER: Final = Path(__file__).parents[1] / "grafana/rules"
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Rules:
    """A group of recording rules."""

    name: str
    interval: int
    """Seconds: it must take less."""
    expressions: dict[str, str]
    """By what they record."""

    def __call__(self, server: Server, at: float) -> float:
        """Seconds for all of them, one after the other, as Prometheus does it; without writing what comes of it."""
        begin = time.perf_counter()
        for expression in self.expressions.values():
            server.query(f"count({expression})", at)
        return time.perf_counter() - begin


def groups(name: str) -> Iterator[Rules]:
    """Those of grafana/rules/`name`.yml."""
    for group in yaml.safe_load((_FOLDER / f"{name}.yml").read_text(encoding="utf-8"))["groups"]:
        found = re.fullmatch(r"(\d+)([smh])", group["interval"])
        assert found, group
        expressions = {rule["record"]: rule["expr"] for rule in group["rules"]}
        yield Rules(group["name"], int(found[1]) * _SECONDS[found[2]], expressions)
