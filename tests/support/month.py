"""A synthetic history in a real Prometheus with its rules recorded, and what a board shows of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.dashboards import Asked, queries, substitute
from support.tools import need

from deploy.demo.blocks import write_history
from deploy.demo.cluster import Scenario
from deploy.demo.mix import scenario
from deploy.demo.recording import load_rules, record
from deploy.demo.rules import rule_files
from deploy.demo.server import Server, prometheus

__all__ = ["START", "Month", "month"]

START = 1_760_000_400.0
"""Unix time at which every history here begins: a full hour."""
RECORDED_EVERY = 300.0


@dataclass(frozen=True)
class Month:
    """What was, who answers for it, and how its jobs are spelt."""

    scenario: Scenario
    server: Server
    job_label: str = "job_name"

    @property
    def end(self) -> float:
        """Seconds at which all has been recorded: rules that read rules are recorded some seconds later."""
        return self.scenario.seconds + 30

    def asked(self, asked: Asked, at: float, values: Mapping[str, str]) -> list[tuple[dict[str, str], float]]:
        """Labels and values that a panel's query has `at` seconds of the history."""
        return self.ask(substitute(asked.expr, values), at)

    def ask(self, expression: str, at: float) -> list[tuple[dict[str, str], float]]:
        found = self.server.query(expression, self.scenario.start + at)
        return [(row["metric"], float(row["value"][1])) for row in found]

    def queries(self) -> list[Asked]:
        return queries(self.job_label)

    def total(self, board: str, panel: str, at: float, values: Mapping[str, str]) -> dict[str, float]:
        """What a panel's one total shows, by the job's label where it has one."""
        asked = next(one for one in self.queries() if (one.board, one.panel) == (board, panel))
        return {labels.get(self.job_label, ""): value for labels, value in self.asked(asked, at, values)}


@contextmanager
def month(place: Path, *, days: float, boards: int, step: float = 60, job_label: str = "job_name") -> Iterator[Month]:
    """Such a history, scraped every `step` seconds, while the block runs."""
    need("prometheus")
    need("promtool")
    plan = scenario(START, days, boards=boards)
    write_history(plan, step, place / "data", job_label=job_label)
    rules = load_rules(rule_files(place / "rules", job_label))
    record(place, rules, (plan.start, plan.start + plan.seconds), RECORDED_EVERY)
    with prometheus(place) as server:
        yield Month(plan, server, job_label)
