"""Budgets as rules of Prometheus: what is spent, left and burnt of each, and the alerts on it.

Every budget has the same rules; only the metric's level (job or user), the matchers, the amount and the window differ.
So a template that can quote and escape renders them, too, as docs/rules.md shows.
"""

from __future__ import annotations

import json
import re

from carbon_exporter.carbon.budget import Budget

__all__ = ["rules"]

_METRICS = {"g": "co2e_grams", "kWh": "energy_kwh"}
_BURNS = {"1h": 1, "6h": 6, "1d": 24}
_HOURS_A_DAY = 24


def rules(budgets: list[Budget], job_label: str) -> dict[str, object]:
    """A file of rules, ready for YAML; `job_label` is how the exporters spell a job's name."""
    records = [rule for budget in budgets for rule in _records(budget, job_label)]
    return {
        "groups": [
            {"name": "carbon-budgets", "interval": "2m", "rules": records},
            {"name": "carbon-budget-alerts", "rules": _ALERTS},
        ]
    }


def _records(budget: Budget, job_label: str) -> list[dict[str, object]]:
    level = "user" if budget.user else "job"
    metric = _METRICS[budget.unit]
    chosen = _matchers(budget, job_label)
    days = f"{budget.days - 1}d" if budget.days > 1 else ""
    # One millisecond short of the window: as many hours at every moment, and on every engine (global.yml).
    window = f"[{days}23h59m59s999ms]"
    spent = f"budget:carbon_budget_spent:sum{budget.days}d"
    itself = f"{spent}{{budget={_quoted(budget.name)}}}"
    amount = _number(budget.amount)
    expressions = {
        spent: f"sum(sum_over_time({level}:carbon_job_{metric}:hourly{chosen}{window})) or vector(0)",
        "budget:carbon_budget_left:sum": f"{amount} - {itself}",
        "budget:carbon_budget_left:ratio": f"1 - {itself} / {amount}",
        "budget:carbon_budget_predicted:sum": f"sum({level}:carbon_run_remaining_{metric}:sum{chosen})",
    }
    for span, hours in _BURNS.items():
        used = f"sum({level}:carbon_job_{metric}:sum{span}{chosen}) or vector(0)"
        even = f"({amount} / {budget.days * _HOURS_A_DAY} * {hours})"
        expressions[f"budget:carbon_budget_burn:ratio{span}"] = f"({used}) / {even}"
    cluster = {"cluster": budget.cluster} if budget.cluster else {}
    labels = {"budget": budget.name, **cluster, "unit": budget.unit, "window": f"{budget.days}d"}
    return [{"record": name, "expr": expression, "labels": {**labels}} for name, expression in expressions.items()]


def _matchers(budget: Budget, job_label: str) -> str:
    exact = {"cluster": budget.cluster, "job_namespace": budget.namespace, "job_user": budget.user}
    parts = [f"{label}={_quoted(value)}" for label, value in exact.items() if value]
    if budget.job:
        parts.append(f"{job_label}=~{_quoted(_regex(budget.job))}")
    return "{" + ", ".join(parts) + "}"


def _regex(pattern: str) -> str:
    """The pattern as RE2 spells it: a backslash before what has a meaning, then `*` and `?` given theirs."""
    escaped = re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", pattern)
    return escaped.replace(r"\*", ".*").replace(r"\?", ".")


def _quoted(text: str) -> str:
    """A string of PromQL: JSON's escapes are Go's, but for the pairs of surrogates that `ensure_ascii` would make."""
    return json.dumps(text, ensure_ascii=False)


def _number(amount: float) -> str:
    """The amount as a person writes it."""
    return f"{amount:.0f}" if amount.is_integer() and amount < 1e15 else repr(amount)  # noqa: PLR2004 - exact below


def _alert(name: str, wait: str, severity: str, expr: str, **annotations: str) -> dict[str, object]:
    return {"alert": name, "expr": expr, "for": wait, "labels": {"severity": severity}, "annotations": annotations}


_OF = "budget {{ $labels.budget }} ({{ $labels.unit }} in {{ $labels.window }})"
_RATE = "{{ $value | humanize }} times its even rate"
_BURNING = "docs/operate.md#a-budget-burns-too-fast"
_ALERTS = [
    _alert(
        "CarbonBudgetBurnFast",
        "15m",
        "warning",
        "budget:carbon_budget_burn:ratio6h > 6 and budget:carbon_budget_burn:ratio1h > 6",
        summary="The carbon budget {{ $labels.budget }} is spent far too fast.",
        description=f"For six hours {_OF} has been used at {_RATE}: it is gone in a sixth of its window, or sooner.",
        runbook_url=_BURNING,
    ),
    _alert(
        "CarbonBudgetBurnSlow",
        "1h",
        "info",
        "budget:carbon_budget_burn:ratio1d > 1.5 and budget:carbon_budget_burn:ratio6h > 1.5",
        summary="The carbon budget {{ $labels.budget }} is spent too fast.",
        description=f"For a day {_OF} has been used at {_RATE}: it is gone in two thirds of its window, or sooner.",
        runbook_url=_BURNING,
    ),
    _alert(
        "CarbonBudgetSpent",
        "15m",
        "warning",
        "budget:carbon_budget_left:ratio < 0",
        summary="The carbon budget {{ $labels.budget }} is spent.",
        description=f"Of {_OF} {{{{ $value | humanizePercentage }}}} is left: more was used than was meant to be.",
        runbook_url=_BURNING,
    ),
    _alert(
        "CarbonRunOverBudget",
        "15m",
        "warning",
        "budget:carbon_budget_predicted:sum > budget:carbon_budget_left:sum",
        summary="Runs will overspend the carbon budget {{ $labels.budget }}.",
        description=f"Runs are predicted to use {{{{ $value | humanize }}}} more of {_OF}, and less than that is left.",
        runbook_url="docs/operate.md#a-run-will-overspend-its-budget",
    ),
]
