"""Rules, budgets and dashboards of the chart: those of grafana/ in every spelling, and accepted by Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.chart import manifests, values_of
from support.tools import need

from carbon_exporter.carbon.budget import budgets
from carbon_exporter.carbon.budget_rules import rules
from grafana.boards import BOARDS
from grafana.build import text

ROOT = Path(__file__).parents[2]
LABELS = ("job_name", "job", "hpc_job")
FILES = ("leaf", "global", "alerts", "users")
each_label = pytest.mark.parametrize("label", LABELS)


def groups(values: dict[str, Any], suffix: str) -> Any:
    """The groups of one PrometheusRule, with rules turned on."""
    wanted = {"enabled": True, "files": list(FILES), **values.get("prometheusRule", {})}
    found = manifests({**values, "prometheusRule": wanted})
    (rule,) = (one for one in found if one["kind"] == "PrometheusRule" and one["metadata"]["name"].endswith(suffix))
    return rule["spec"]["groups"]


@each_label
@pytest.mark.parametrize("file", FILES)
def test_rules_are_those_of_the_tree_with_the_jobs_label_spelt_as_told(file: str, label: str) -> None:
    told = (ROOT / f"grafana/rules/{file}.yml").read_text()
    expected = yaml.safe_load(re.sub(r"\bjob_name\b", label, told))["groups"]
    assert groups({"config": {"labels.job": label}}, f"-{file}") == expected


@each_label
def test_dashboards_are_those_that_are_built_for_that_spelling(label: str) -> None:
    found = manifests({"config": {"labels": {"job": label}}, "dashboards": {"enabled": True}})
    boards = {key: value for one in found if one["kind"] == "ConfigMap" for key, value in one["data"].items()}
    for board in BOARDS:
        assert json.loads(boards[f"{board.uid}.json"]) == json.loads(text(board, label))
    assert len(boards) == len(BOARDS) + 1


def test_the_runbook_is_where_it_is_kept() -> None:
    kept = {"prometheusRule": {"runbook": "https://wiki.example.com/c"}, "budgets": [BUDGET]}
    for suffix in ("-alerts", "-budgets"):
        urls = re.findall(r"runbook_url': '([^#]+)#", str(groups(kept, suffix)))
        assert set(urls) == {"https://wiki.example.com/c"}


BUDGET = {"name": "fleet", "grams": 2000000, "window": "30d"}
EXAMPLE = yaml.safe_load((ROOT / "examples/budgets.yml").read_text())["budgets"]


@each_label
def test_budgets_become_what_the_command_prints(label: str) -> None:
    done = rules(budgets({"budgets": EXAMPLE}, "values"), label)["groups"]
    assert groups({"config": {"labels.job": label}, "budgets": EXAMPLE}, "-budgets") == done


AMOUNTS = st.one_of(st.integers(1, 10**12), st.floats(1e-3, 1e14))
TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co")), min_size=1, max_size=20)
SCOPES = st.one_of(
    st.fixed_dictionaries({}, optional={"cluster": TEXTS, "namespace": TEXTS, "job": TEXTS}),
    st.fixed_dictionaries({"user": TEXTS}, optional={"cluster": TEXTS}),
)


@settings(deadline=None, max_examples=12, phases=[Phase.generate])  # an example takes 30 ms
@given(
    name=TEXTS,
    unit=st.sampled_from(["grams", "kwh"]),
    amount=AMOUNTS,
    window=st.one_of(st.integers(1, 366).map("{}d".format), st.integers(1, 52).map("{}w".format)),
    scope=SCOPES,
)
def test_any_budget_means_the_same_as_the_commands(
    name: str, unit: str, amount: float, window: str, scope: dict[str, str]
) -> None:
    budget = {"name": name, unit: amount, "window": window, **scope}
    done: Any = rules(budgets({"budgets": [budget]}, "values"), "job_name")["groups"]
    ours = groups({"budgets": [budget], "prometheusRule": {"files": ["users"]}}, "-budgets")
    assert ours[1] == done[1]
    for mine, theirs in zip(ours[0]["rules"], done[0]["rules"], strict=True):
        assert {**mine, "expr": ""} == {**theirs, "expr": ""}
        assert promql_parser.parse(mine["expr"]).prettify() == promql_parser.parse(theirs["expr"]).prettify()


@pytest.mark.parametrize("amount", [1.5e-9, 0.1, 2.5e15, 5e20, 1e300])
def test_an_amount_of_any_size_is_itself(amount: float) -> None:
    rule = groups({"budgets": [{"name": "a", "kwh": amount, "window": "1d"}]}, "-budgets")[0]["rules"][1]
    whole: Any = promql_parser.parse(rule["expr"])
    assert whole.lhs.val == amount


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([BUDGET, BUDGET], "budgets[1].name: fleet is the name of another budget"),
        ([{**BUDGET, "kwh": 1}], "budgets[0].grams: either grams or kwh"),
        ([{"name": "a", "window": "1d"}], "budgets[0].grams: either grams or kwh"),
        ([{**BUDGET, "user": "a", "job": "b"}], "budgets[0].user: a user without namespace and job"),
    ],
)
def test_a_budget_that_the_command_refuses_is_refused(wrong: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(Exception, match=re.escape(said)):
        groups({"budgets": wrong}, "-budgets")


def test_a_budget_of_a_user_needs_the_rules_of_users() -> None:
    alone = {"prometheusRule": {"enabled": True}, "budgets": [{"name": "a", "kwh": 1, "window": "1d", "user": "u"}]}
    with pytest.raises(Exception, match=re.escape("budgets[0].user: prometheusRule.files needs users")):
        manifests(alone)


@pytest.mark.parametrize("case", ["operator", "job-label"])
def test_promtool_accepts_all_that_is_rendered(case: str, tmp_path: Path) -> None:
    paths = []
    for manifest in manifests(values_of(case)):
        if manifest["kind"] == "PrometheusRule":
            paths.append(tmp_path / f"{manifest['metadata']['name']}.yml")
            paths[-1].write_text(yaml.safe_dump(manifest["spec"]))
    assert len(paths) == {"operator": 5, "job-label": 4}[case]
    done = subprocess.run([need("promtool"), "check", "rules", *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
