"""Backfills recording rules: what `promtool tsdb create-blocks-from rules` does, in one query a rule.

promtool asks two hours at a time and writes a block for each, which is thousands of both in a month; and rules that
read what other rules record need a run of their own. Here rules are sorted by what they read, each is asked for once
over the whole range, and what a real Prometheus answers becomes a few blocks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.demo.blocks import Blocks
from deploy.demo.cluster import Window
from deploy.demo.server import Server, prometheus

__all__ = ["Rule", "levels", "load_rules", "record"]

MOST_POINTS = 11_000
"""That a range query may have in a series, by Prometheus' own limit."""
LONG, LONG_SECONDS = "30d", 2 * 86400.0
LATER_SECONDS = 2.0
"""By which rules are recorded later than those that they read; those of the second level on the full step. A running
Prometheus marks where a series ends; blocks cannot, and a value of exactly five minutes ago would be read once more."""
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


@dataclass(frozen=True, slots=True)
class Rule:
    """A recording rule."""

    record: str
    expr: str
    labels: tuple[tuple[str, str], ...] = ()
    interval: str = "1m"
    """How often a running server evaluates it."""


def load_rules(files: Iterable[Path]) -> list[Rule]:
    """The recording rules of these files; alerts are left out."""
    groups = (group for file in files for group in yaml.safe_load(file.read_text())["groups"])
    return [
        Rule(rule["record"], rule["expr"], tuple(rule.get("labels", {}).items()), group.get("interval", "1m"))
        for group in groups
        for rule in group["rules"]
        if "record" in rule
    ]


def levels(rules: Sequence[Rule]) -> list[list[Rule]]:
    """Rules in groups, each of which reads only what groups before it record. Raises `ValueError` for a circle."""
    recorded = {rule.record for rule in rules}
    reads = {rule: recorded.intersection(_NAME.findall(rule.expr)) for rule in rules}
    found: list[list[Rule]] = []
    while reads:
        waiting = {rule.record for rule in reads}
        ready = [rule for rule, names in reads.items() if not names & waiting]
        if not ready:
            raise ValueError(f"these rules read each other: {', '.join(sorted(waiting))}")
        found.append(ready)
        for rule in ready:
            del reads[rule]
    return found


def record(place: Path, rules: Sequence[Rule], between: Window, step: float) -> int:
    """Record `rules` into `place`/data between two Unix times every `step` seconds; returns the number of samples."""
    (start, end), count = between, 0
    for number, level in enumerate(levels(rules)):
        late = (number - 1) * LATER_SECONDS
        with Blocks(place / "data") as blocks, prometheus(place) as server, ThreadPoolExecutor(os.cpu_count()) as pool:
            asked = [pool.submit(_answer, server, rule, (_since(rule, start, end), end), step, late) for rule in level]
            for rule, answer in zip(level, asked, strict=True):
                for series in answer.result():
                    blocks.add(_spelt(rule, series["metric"]), series["values"])
                    count += len(series["values"])
    return count


def _since(rule: Rule, start: float, end: float) -> float:
    """Sums of thirty days are recorded for the last days alone: before, they would be of less than thirty days."""
    return max(start, end - LONG_SECONDS) if LONG in rule.record else start


def _answer(server: Server, rule: Rule, between: Window, step: float, late: float) -> list[Any]:
    start, end = between
    begin, found = start + -start % step + late, []
    while begin <= end + late:
        until = min(end + late, begin + (MOST_POINTS - 1) * step)
        found += server.query_range(rule.expr, begin, until, step)
        begin = until + step
    return found


def _spelt(rule: Rule, metric: Mapping[str, Any]) -> str:
    labels = {**metric, **dict(rule.labels)}
    labels.pop("__name__", None)
    pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{rule.record}{{{pairs}}}"
