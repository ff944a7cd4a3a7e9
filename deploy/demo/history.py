"""Writes the history as Prometheus would have scraped it: OpenMetrics with timestamps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from deploy.demo.account import lives
from deploy.demo.cluster import Node, Scenario, Window
from deploy.demo.labels import Target
from deploy.demo.node_page import NodePage
from deploy.demo.script_page import ScriptPage
from deploy.demo.view import View

__all__ = ["History"]


class History:
    """All scrapes of a scenario's nodes."""

    def __init__(self, scenario: Scenario, step: float, *, job_label: str = "job_name") -> None:
        """A scrape every `step` seconds, which is the exporter's interval, too. `job_label` is how jobs are spelt."""
        self._scenario, self._step, self._job_label = scenario, step, job_label
        self._lives = {node.name: lives(scenario, node.name) for node in scenario.nodes}

    def write(self, file: Path, window: Window) -> int:
        """Write what all nodes showed from `window[0]` to `window[1]` seconds; returns the number of samples."""
        count = 0
        with file.open("w", encoding="utf-8") as out:
            for node in self._scenario.nodes:
                for lines, unix in self.scrapes(node, window):
                    stamp = f" {unix:.3f}\n"
                    out.write(stamp.join(lines) + stamp)
                    count += len(lines)
            out.write("# EOF\n")
        return count

    def scrapes(self, node: Node, window: Window) -> Iterator[tuple[list[str], float]]:
        """The lines of each scrape of a node in a window, and its Unix time."""
        renamed = [node.renamed_at] if node.renamed_at and window[0] < node.renamed_at < window[1] else []
        for begin, end in pairwise((window[0], *renamed, window[1])):
            target = Target(node.instance(begin), job_label=self._job_label)
            view = View(self._scenario, node, self._lives[node.name], (begin, end), self._step, target)
            pages = (NodePage(view), ScriptPage(view))
            down = target.series("up") + "0"
            for number in range(-int(-begin // self._step), -int(-end // self._step)):
                t = number * self._step + node.offset
                away = node.away(t)
                yield ([down] if away else [line for page in pages for line in page.lines(t)], self._scenario.start + t)
