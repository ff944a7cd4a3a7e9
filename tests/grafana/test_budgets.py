"""Budgets: what a file may say, what it is told where it is wrong, and rules that Prometheus takes whatever it says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tools import need

from carbon_exporter.carbon.budget import Budget, budgets
from carbon_exporter.carbon.budget_rules import rules
from carbon_exporter.errors import ConfigError

ROOT = Path(__file__).parents[2]
RESEARCH: Mapping[str, object] = {"name": "research", "grams": 1000, "window": "7d"}
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=128)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "carbon_exporter", "budgets", *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=False, cwd=ROOT)


def recorded(*found: Budget, job_label: str = "job_name") -> list[dict[str, Any]]:
    """The records as Prometheus would read them from the printed YAML."""
    groups: Any = rules(list(found), job_label)["groups"]
    return list(yaml.safe_load(yaml.safe_dump(groups[0]["rules"])))


def test_the_example_is_rendered_as_it_stands_in_the_tree() -> None:
    done = command("examples/budgets.yml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (ROOT / "examples/budgets-rules.yml").read_text()


def test_the_page_shows_the_example() -> None:
    page = re.findall(r"```yaml\n(budgets:.+?)```", (ROOT / "docs/rules.md").read_text(), re.DOTALL)[0]
    assert yaml.safe_load(page) == yaml.safe_load((ROOT / "examples/budgets.yml").read_text())


def test_the_label_of_a_job_is_spelt_as_told() -> None:
    done = command("examples/budgets.yml", "--job-label=hpc_job")
    assert 'hpc_job=~"train-.*"' in done.stdout
    assert not re.search(r"\bjob_name\b", done.stdout)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gram": 5}, "budgets[0].gram: 5 is not accepted; accepted: no such key; nearest: grams"),
        ({"grams": -1}, "budgets[0].grams: -1 is not accepted; accepted: a number above 0"),
        ({"grams": True}, "budgets[0].grams: True is not accepted"),
        ({"grams": float("nan")}, "budgets[0].grams: nan is not accepted"),
        ({"grams": "1e3 g"}, "budgets[0].grams: '1e3 g' is not accepted"),
        ({"kwh": 1}, "accepted: either grams or kwh"),
        ({"window": "6h"}, "budgets[0].window: '6h' is not accepted; accepted: whole days or weeks"),
        ({"window": "0d"}, "budgets[0].window"),
        ({"window": 30}, "budgets[0].window: 30 is not accepted"),
        ({"window": "53w"}, "budgets[0].window"),
        ({"name": ""}, "budgets[0].name: '' is not accepted; accepted: a text of 1 to 128 characters"),
        ({"job": ["a"]}, "budgets[0].job: ['a'] is not accepted"),
        ({"user": "a", "job": "b"}, "budgets[0].user: 'a' is not accepted; accepted: a user without namespace and job"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_accepted(change: Mapping[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        budgets({"budgets": [{**RESEARCH, **change}]}, "budgets.yml")


@pytest.mark.parametrize("missing", ["name", "grams", "window"])
def test_what_is_missing_is_named(missing: str) -> None:
    row = {key: value for key, value in RESEARCH.items() if key != missing}
    with pytest.raises(ConfigError, match=rf"budgets\[0\]\.{missing}: None is not accepted"):
        budgets({"budgets": [row]}, "budgets.yml")


@pytest.mark.parametrize(
    "content", [None, [], "budgets", {}, {"budgets": []}, {"budgets": [1]}, {"budget": [RESEARCH]}]
)
def test_a_file_that_holds_no_budgets_is_refused(content: object) -> None:
    with pytest.raises(ConfigError, match="is not accepted"):
        budgets(content, "budgets.yml")


def test_two_budgets_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=re.escape("budgets[1].name: 'research' is not accepted")):
        budgets({"budgets": [RESEARCH, RESEARCH]}, "budgets.yml")


@pytest.mark.parametrize("text", ["budgets: [", None])
def test_a_file_that_cannot_be_read_is_an_error_of_usage(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "budgets.yml"
    if text is not None:
        file.write_text(text)
    done = command(file)
    assert (done.returncode, done.stdout) == (2, "")
    assert str(file) in done.stderr


@pytest.mark.parametrize(("scope", "labels"), [({"cluster": "a"}, {"cluster": "a"}), ({"namespace": "a"}, {})])
def test_records_of_a_clusters_budget_have_its_label_and_those_of_another_none(
    scope: dict[str, str], labels: dict[str, str]
) -> None:
    for rule in recorded(Budget("b", "g", 1.0, 7, **scope)):
        assert rule["labels"] == {"budget": "b", "unit": "g", "window": "7d", **labels}


@settings(deadline=None, max_examples=40)
@given(name=TEXTS, namespace=TEXTS, job=TEXTS, amount=st.floats(1e-9, 1e18), days=st.integers(1, 366))
def test_any_text_gives_rules_that_parse_and_means_itself(
    name: str, namespace: str, job: str, amount: float, days: int
) -> None:
    chosen = Budget(name, "g", amount, days, cluster=name, namespace=namespace, job=job)
    for rule in recorded(chosen):
        promql_parser.parse(rule["expr"])
        assert rule["labels"]["budget"] == name
    whole = promql_parser.parse(recorded(chosen)[0]["expr"])
    matchers = {matcher.name: matcher.value for matcher in innermost(whole).matchers.matchers}
    assert (matchers["cluster"], matchers["job_namespace"]) == (name, namespace)


def innermost(expression: Any) -> Any:
    """The selector in `sum(sum_over_time(x[…])) or vector(0)`."""
    return expression.lhs.expr.args[0].vector_selector


@settings(deadline=None, max_examples=40)
@given(job=TEXTS)
def test_a_pattern_without_stars_and_question_marks_matches_its_own_name_alone(job: str) -> None:
    pattern = job_pattern(job)
    if "*" not in job and "?" not in job:
        assert re.fullmatch(pattern, job)
        assert not re.fullmatch(pattern, job + "x")


@pytest.mark.parametrize(
    ("job", "matches", "others"),
    [
        ("train-*", ["train-", "train-a"], ["train", "xtrain-a"]),
        ("train-?", ["train-a"], ["train-", "train-ab"]),
        ("a.b[1]|c", ["a.b[1]|c"], ["axb1", "c"]),
        ("back\\slash", ["back\\slash"], ["backslash"]),
    ],
)
def test_a_pattern_matches_what_it_looks_like(job: str, matches: list[str], others: list[str]) -> None:
    pattern = job_pattern(job)
    assert all(re.fullmatch(pattern, name) for name in matches)
    assert not any(re.fullmatch(pattern, name) for name in others)


def job_pattern(job: str) -> str:
    """The regular expression that comes out of PromQL, by a parser that is not ours."""
    whole = promql_parser.parse(recorded(Budget("b", "g", 1.0, 7, job=job))[0]["expr"])
    ((value),) = (matcher.value for matcher in innermost(whole).matchers.matchers if matcher.name == "job_name")
    return str(value)


def test_promtool_accepts_names_that_mean_something_elsewhere(tmp_path: Path) -> None:
    odd = ['"', "\\", "`", "{{ $value }}", "a\nb", "\x00", "\x7f", "é", "🌍", "*?", "[(", ".", "- a: b", "#", "%s", " "]
    chosen = [Budget(f"b{text}", "kWh", 0.5, 1, namespace=text, job=text) for text in odd]
    chosen += [Budget(f"u{text}", "g", 5e20, 366, cluster=text, user=text) for text in odd]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(rules(chosen, "job_name"), allow_unicode=True))
    done = subprocess.run([need("promtool"), "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
