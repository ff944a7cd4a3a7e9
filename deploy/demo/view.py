"""What a page of the history is made from: one node, its jobs, and a time in which its target has one name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.demo.account import Life
from deploy.demo.cluster import Node, Scenario, Window
from deploy.demo.labels import Target

__all__ = ["View"]


@dataclass(frozen=True, slots=True)
class View:
    """A node as it is scraped."""

    scenario: Scenario
    node: Node
    lives: Sequence[Life]
    """All that the node has seen."""
    window: Window
    """Only what is shown in it is looked at."""
    step: float
    """Seconds between scrapes."""
    target: Target
