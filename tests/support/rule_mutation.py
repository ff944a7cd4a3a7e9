"""Mutants of rules: each number of an expression, and each `for`, a tenth smaller and a tenth greater.

A test of rules that passes with a mutant does not hold that number. `python -m support.rule_mutation` in tests prints
which mutants the tests in grafana/rules/tests catch, and which are equivalent, with the reason.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["EQUIVALENT", "RULES", "SUITES", "Mutant", "caught", "mutants", "reason"]

ROOT = Path(__file__).parents[2]
RULES = ROOT / "grafana" / "rules"
SUITES = {
    RULES / "otlp.yml": ("otlp_test.yml",),
    RULES / "leaf.yml": ("leaf_test.yml",),
    RULES / "global.yml": ("global_test.yml", "global_hourly_test.yml", "global_top_test.yml", "global_month_test.yml"),
    RULES / "users.yml": ("users_test.yml", "users_windows_test.yml", "users_hourly_test.yml"),
    RULES / "alerts.yml": ("alerts_slow_test.yml", "alerts_test.yml"),
    ROOT / "examples" / "budgets-rules.yml": ("budgets_test.yml", "budget_alerts_test.yml"),
}
"""Each file of rules and its tests in grafana/rules/tests."""

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = r"(?:\d+(?:ms|[smhdw]))+"
_NUMBER = re.compile(
    rf"""(?P<skip>"(?:[^"\\]|\\.)*"|[A-Za-z_:][\w:]*)|(?P<duration>{_DURATION})|(?P<number>\d+(?:\.\d+)?(?:e\d+)?)"""
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One number changed in one rule of a file."""

    file: Path
    rule: str
    place: int
    """Which of the rule's numbers it is, in the order of the text; `for` is -1."""
    old: str
    new: str
    group: int
    index: int
    """Where the rule stands."""
    key: str
    value: str
    """What is put in place of its `expr` or `for`."""

    @property
    def text(self) -> str:
        """The whole file with that change."""
        content = yaml.safe_load(self.file.read_text())
        content["groups"][self.group]["rules"][self.index][self.key] = self.value
        return str(yaml.safe_dump(content, sort_keys=False, width=1000))


def mutants(file: Path) -> Iterator[Mutant]:
    """Every mutant of a file of rules."""
    groups = enumerate(yaml.safe_load(file.read_text())["groups"])
    for group, index, rule in ((group, *found) for group, held in groups for found in enumerate(held["rules"])):
        name = rule.get("alert") or f"{rule['record']}{rule.get('labels', {}).get('budget', '')}"
        for key, place, old, new, value in [*_of_expression(rule["expr"]), *_of_wait(rule.get("for"))]:
            yield Mutant(file, name, place, old, new, group, index, key, value)


def _of_expression(text: str) -> Iterator[tuple[str, int, str, str, str]]:
    tokens = [found for found in _NUMBER.finditer(text) if not found["skip"] and found[0] != "0"]
    for place, found in enumerate(tokens):
        for factor in (9, 11):
            new = _scaled(found[0], factor)
            yield "expr", place, found[0], new, text[: found.start()] + new + text[found.end() :]


def _of_wait(wait: str | None) -> Iterator[tuple[str, int, str, str, str]]:
    for factor in (9, 11) if wait else ():
        new = _scaled(str(wait), factor)
        yield "for", -1, str(wait), new, new


def _scaled(number: str, factor: int) -> str:
    """Tenths of a number or of a duration, as PromQL writes it."""
    if not re.fullmatch(_DURATION, number):
        return repr(float(number) * factor / 10)
    parts = re.findall(r"(\d+)(ms|[smhdw])", number)
    return f"{sum(int(count) * _UNITS[unit] for count, unit in parts) * factor // 10}ms"


def caught(mutant: Mutant, promtool: str) -> bool:
    """Whether a test of its file fails with it."""
    with tempfile.TemporaryDirectory() as place:
        tests = Path(place, "grafana", "rules", "tests")
        tests.mkdir(parents=True)
        changed = Path(place, mutant.file.relative_to(ROOT))
        changed.parent.mkdir(exist_ok=True)
        changed.write_text(mutant.text)
        for name in SUITES[mutant.file]:
            (tests / name).write_text((RULES / "tests" / name).read_text())
            if subprocess.run([promtool, "test", "rules", tests / name], capture_output=True, check=False).returncode:
                return True
    return False


_LONGER = "a longer range has the same newest sample; where it alone has one, what is subtracted is empty"
EQUIVALENT: Sequence[tuple[str, str, str, str]] = (
    (r".*:increase5m", "0", "330000ms", _LONGER),
    (r".*:increase5m", "3", "330000ms", _LONGER),
    (r"(job|user):.*:hourly", "0", "1.8", "a minute is a whole number"),
    (r"job_top:carbon_job_co2e_grams:hourly", "1", "1.8", "a minute is a whole number"),
    (r"job_top:carbon_job_energy_kwh:hourly", "0", "1.8", "a minute is a whole number"),
    (r"user:.*", ".*", "1.1", "topk takes the whole part of its parameter"),
)
"""Of mutants that no test can catch: rule, place and new number (patterns), and why."""


def reason(mutant: Mutant) -> str:
    """Why the mutant gives the same results; empty if it does not."""
    told = (mutant.rule, str(mutant.place), mutant.new)
    return next((why for *patterns, why in EQUIVALENT if all(map(re.fullmatch, patterns, told))), "")


def main() -> int:
    """Try every mutant, print each, and return 1 if one was not caught or one that is called equivalent was."""
    found: list[Mutant] = [mutant for file in SUITES for mutant in mutants(file)]
    with ThreadPoolExecutor(2) as pool:
        results: Iterator[Any] = pool.map(lambda mutant: caught(mutant, "promtool"), found)
        wrong = 0
        for mutant, is_caught in zip(found, results, strict=True):
            why = reason(mutant)
            verdict = "caught" if is_caught else f"equivalent: {why}" if why else "NOT CAUGHT"
            wrong += is_caught == bool(why)
            where = "for" if mutant.place < 0 else f"number {mutant.place + 1}"
            sys.stdout.write(f"{mutant.file.name} {mutant.rule} {where}: {mutant.old} -> {mutant.new}: {verdict}\n")
    sys.stdout.write(
        f"{len(found)} mutants, {sum(bool(reason(mutant)) for mutant in found)} equivalent, {wrong} wrong\n"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
