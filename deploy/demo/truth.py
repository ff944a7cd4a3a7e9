"""What the synthetic cluster really used and emitted, added up second by second of its plan: no counter, no scrape.

This is what totals on dashboards are held against. It shares the plan with `history`, and none of its arithmetic.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from deploy.demo.cluster import Scenario, Use, Window
from deploy.demo.grid import HALF_HOUR, intensity, zone

__all__ = ["Amount", "Who", "total", "truth"]


class Who(NamedTuple):
    """Whose energy it was, and where."""

    job: str
    namespace: str
    node: str
    region: str
    kind: str


@dataclass(slots=True)
class Amount:
    """Energy in kilowatt-hours, and emissions in grams."""

    kwh: float = 0.0
    grams: float = 0.0


def truth(scenario: Scenario, window: Window) -> dict[Who, Amount]:
    """What each used in a window, in seconds from the history's start."""
    regions = {node.name: node.region for node in scenario.nodes}
    kinds = {(node.name, device.name): device.kind for node in scenario.nodes for device in node.devices}
    found: dict[Who, Amount] = defaultdict(Amount)
    for use in scenario.uses:
        region = regions[use.node]
        amount = found[Who(use.job, use.namespace, use.node, region, kinds[use.node, use.device])]
        for begin, end, watts in _pieces(use, window, scenario.start):
            kwh = watts * (end - begin) / 1000 / 3600
            amount.kwh += kwh
            amount.grams += kwh * intensity(region, scenario.start + begin) * zone(region).pue
    return {who: amount for who, amount in found.items() if amount.kwh > 0}


def total(amounts: dict[Who, Amount], **chosen: str) -> Amount:
    """The sum over all that has these fields: `total(amounts, job="train", region="SE")`."""
    parts = [one for who, one in amounts.items() if chosen.items() <= who._asdict().items()]
    return Amount(sum(one.kwh for one in parts), sum(one.grams for one in parts))


def _pieces(use: Use, window: Window, start: float) -> Iterator[tuple[float, float, float]]:
    """Begin, end and watts of each time within the window in which neither power nor price changes."""
    at, end = use.start, min(use.end, window[1])
    phase = 0
    while at < end:
        cycles, busy = divmod(phase, 2)
        edge = use.start + (cycles + (1 if busy else use.duty)) * use.period
        until = min(edge, end)
        while at < until:
            priced = min(until, (at + start) // HALF_HOUR * HALF_HOUR + HALF_HOUR - start)
            if priced > window[0]:
                yield max(at, window[0]), priced, use.low if busy else use.high
            at = priced
        at = max(at, edge) if until == edge else end
        phase += 1
