"""Rules and alerts: right values, runbooks that exist, names that exist, and numbers that the tests hold."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.rule_mutation import EQUIVALENT, RULES, SUITES, caught, main, mutants, reason
from support.tools import need

from carbon_exporter.publish.catalogue import CATALOGUE, JOB_LABELS

ROOT = RULES.parents[1]
RECEIVED = re.compile(
    r"hw_\w+|carbon_job_energy_joules_total|carbon_span_energy_joules_total|carbon_run_\w+_joules(?:_total)?|carbon_\w+_kWh"
)
"""What otlp.yml reads: names that a receiver of OTLP makes."""
VICTORIA = Path("~/.cache/carbon-exporter").expanduser()
each_file = pytest.mark.parametrize("file", SUITES, ids=lambda file: file.name)


def rules_of(file: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load(file.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for file in SUITES for rule in rules_of(file) if "alert" in rule}
RECORDS = [rule["record"] for file in SUITES for rule in rules_of(file) if "record" in rule]


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run([need("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def metrics_in(expression: str) -> Iterator[str]:
    """The names of series that an expression reads."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]', "", expression)
    for found in re.finditer(r"[a-z_]+:[\w:]+|\b(?:carbon|hw)_\w+|\bup\b", bare):
        yield found[0]


@each_file
def test_promtool_accepts_every_file_of_rules(file: Path) -> None:
    promtool("check", "rules", file)


@each_file
def test_every_rule_has_the_values_that_its_tests_say(file: Path) -> None:
    promtool("test", "rules", *(RULES / "tests" / name for name in SUITES[file]))


def test_windows_add_up_to_what_counters_gained_however_their_samples_lie(tmp_path: Path) -> None:
    chance = random.Random(6)  # noqa: S311 - the same jobs in every run
    series: list[dict[str, str]] = []
    expected: list[dict[str, object]] = []
    for job in (f"job-{number}" for number in range(40)):
        start = chance.randrange(400)  # of 720 scrapes in three hours; then comes an hour without
        scraped: list[float] = []
        end, away = chance.randrange(start + 1, 720), chance.randrange(1, 200)
        hole = chance.randrange(start, end)
        total = chance.choice([0.0, 1000.0])
        values = ["_"] * start
        for scrape in range(start, end):
            total += chance.random()
            seen = not hole < scrape < hole + away and chance.random() > 0.1
            values.append(repr(total) if seen else "_")
            scraped += [total] if seen else []
        labels = f'{{job_name="{job}", instance="{job}", kind="gpu"}}'
        series.append({"series": f"carbon_job_energy_kwh_total{labels}", "values": " ".join(values)})
        if scraped:
            gained = round(scraped[-1] - scraped[0], 6)
            expected.append({"labels": f'{{job_name="{job}"}}', "value": gained})
    total_of_all = "sum by (job_name) (sum_over_time(job_kind:carbon_job_energy_kwh:increase5m[3h59m59s999ms:5m]))"
    question = {"expr": f"round({total_of_all}, 1e-6)", "eval_time": "4h", "exp_samples": expected}
    test = {"interval": "15s", "input_series": series, "promql_expr_test": [question]}
    content = {"rule_files": [str(RULES / "leaf.yml")], "evaluation_interval": "5m", "tests": [test]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(content, width=1_000_000))
    promtool("test", "rules", tmp_path / "test.yml")


@pytest.mark.parametrize("file", ["federate.yml", "remote-write.yml"])
def test_prometheus_accepts_the_allow_lists(file: str) -> None:
    promtool("check", "config", RULES.parent / file)


def test_the_allow_lists_let_through_all_that_leaves_record_and_no_raw_series() -> None:
    federate = yaml.safe_load((RULES.parent / "federate.yml").read_text())["scrape_configs"][0]["params"]["match[]"]
    patterns = [re.findall(r'__name__=~?"(.+)"', selector)[0] for selector in federate]
    written = yaml.safe_load((RULES.parent / "remote-write.yml").read_text())["remote_write"][0]
    patterns_written = written["write_relabel_configs"][0]["regex"]
    leaves = [rule["record"] for name in ("leaf.yml", "users.yml") for rule in rules_of(RULES / name)]
    leaves = [record for record in leaves if not re.search(r":(sum(1h|6h|1d)|hourly)$", record)]
    for record in leaves:
        assert any(re.fullmatch(pattern, record) for pattern in patterns), record
        assert re.fullmatch(patterns_written, record), record
    for metric in CATALOGUE:
        assert not any(re.fullmatch(pattern, metric.name) for pattern in [*patterns, patterns_written])


@each_file
def test_every_record_and_alert_is_tested(file: Path) -> None:
    told = "".join((RULES / "tests" / name).read_text() for name in SUITES[file])
    for rule in rules_of(file):
        assert str(rule.get("record") or rule["alert"]) in told


def test_every_alert_is_tested_when_it_fires_and_when_it_does_not() -> None:
    states: dict[str, set[bool]] = {name: set() for name in ALERTS}
    for name in (name for suite in SUITES.values() for name in suite):
        for test in yaml.safe_load((RULES / "tests" / name).read_text())["tests"]:
            for expected in test.get("alert_rule_test", ()):
                states[expected["alertname"]].add(bool(expected["exp_alerts"]))
    assert states == {name: {False, True} for name in ALERTS}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_means_and_leads_to_a_heading_of_the_runbook(name: str) -> None:
    annotations = ALERTS[name]["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert not re.search(r"\d|\$value", annotations["summary"])
    assert "$value" in annotations["description"]
    assert ALERTS[name]["labels"]["severity"] in {"info", "warning", "critical"}
    page, _, anchor = annotations["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_file
def test_rules_read_only_what_is_in_the_catalogue_recorded_or_planned(file: Path) -> None:
    planned = set(re.findall(r"`(carbon_\w+)`", (ROOT / "docs/design/metrics.md").read_text().partition("Planned,")[2]))
    known = {metric.name for metric in CATALOGUE} | set(RECORDS) | planned | {"up"}
    for rule in rules_of(file):
        labels = {"carbon_region", "carbon_device", "carbon_kind", "carbon_rank", "carbon_job_name", "carbon_span_name"}
        labels |= {"carbon_job_namespace", "carbon_value_name"} if file.name == "otlp.yml" else set()
        labels |= {"carbon_run", *(f"carbon_run_{part}" for part in ("model", "dataset", "batch_size"))}
        labels |= {f"carbon_intensity_{part}" for part in ("provider", "scope", "basis")}
        labels |= {"hw_id", "hw_type", "hw_name"}
        unknown = set(metrics_in(rule["expr"])) - known - (labels if file.name == "otlp.yml" else set())
        assert {name for name in unknown if not (file.name == "otlp.yml" and RECEIVED.fullmatch(name))} == set()


def test_records_of_ours_keep_the_cluster_and_are_named_once() -> None:
    assert len(set(RECORDS) - {name for name in RECORDS if name.startswith("budget:")}) == len(
        [name for name in RECORDS if not name.startswith("budget:")]
    )
    for name in ("leaf.yml", "global.yml", "users.yml"):
        for rule in rules_of(RULES / name):
            for labels in re.findall(r"(?:sum|avg|topk) by \(([^)]*)\)", rule["expr"]):
                assert labels.startswith("cluster"), rule["record"]


def test_every_window_holds_as_many_points_on_every_engine() -> None:
    for file in SUITES:
        for rule in rules_of(file):
            for window in re.findall(r"\[([^:\]]+):\w+\]", rule["expr"]):
                assert window.endswith("59m59s999ms"), rule["record"]


def test_no_record_is_rarer_than_prometheus_looks_back() -> None:
    for file in SUITES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            assert group.get("interval", "1m") in {"1m", "2m"}
            hourly = any(rule.get("record", "").endswith(":hourly") for rule in group["rules"])
            assert not hourly or group["interval"] == "2m", "one sample an hour"


@pytest.mark.parametrize("spelling", JOB_LABELS)
@each_file
def test_rules_can_be_spelt_with_any_label_of_a_job(file: Path, spelling: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(re.sub(r"\bjob_name\b", spelling, file.read_text()))
    promtool("check", "rules", tmp_path / "rules.yml")


def test_a_tenth_more_or_less_of_a_number_fails_a_test() -> None:
    tool = need("promtool")
    quick = [RULES / name for name in ("leaf.yml", "global.yml", "users.yml")]
    numbers = [mutant for file in quick for mutant in mutants(file) if not reason(mutant)]
    for mutant in numbers[:: len(numbers) // 7]:
        assert caught(mutant, tool), f"{mutant.file.name} {mutant.rule}: {mutant.old} -> {mutant.new}"


def test_what_is_called_equivalent_is_a_mutant() -> None:
    found = [(mutant.rule, str(mutant.place), mutant.new) for file in SUITES for mutant in mutants(file)]
    for *patterns, _ in EQUIVALENT:
        assert any(all(map(re.fullmatch, patterns, told)) for told in found), patterns


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_tenth_more_or_less_of_any_number_fails_a_test() -> None:
    need("promtool")
    assert main() == 0


def test_vmalert_accepts_the_rules() -> None:
    files = [f"-rule={file}" for file in SUITES]
    command = [need("vmalert", str(VICTORIA)), "-dryRun", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def victoriametrics(test: str, place: Path, every: str = "") -> None:
    """The values of a test by VictoriaMetrics, evaluated `every` so often instead of once.

    Its rules do not see what others have just written, so sums of sums are there only with the next evaluation.
    """
    tool = need("vmalert-tool", str(VICTORIA))
    text = (RULES / "tests" / test).read_text().replace("promql_expr_test", "metricsql_expr_test")
    text = re.sub(r"  - \.\./(\w+\.yml)", rf"  - {RULES}/\1", text)
    text = re.sub(r"^(evaluation_interval:) .*", rf"\1 {every}", text, flags=re.MULTILINE) if every else text
    (place / test).write_text(text)
    command = [tool, "unittest", "--disableAlertgroupLabel", f"--files={place / test}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_victoriametrics_computes_what_users_jobs_gained_as_prometheus_does(tmp_path: Path) -> None:
    victoriametrics("users_test.yml", tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("test", "every"),
    [
        ("leaf_test.yml", ""),
        ("users_windows_test.yml", ""),
        ("users_hourly_test.yml", ""),
        ("global_test.yml", "4m30s"),
        ("global_hourly_test.yml", ""),
    ],
)
def test_victoriametrics_computes_leaves_and_windows_as_prometheus_does(test: str, every: str, tmp_path: Path) -> None:
    victoriametrics(test, tmp_path, every)
