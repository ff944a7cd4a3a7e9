"""A synthetic history of two nodes in a real Prometheus: every panel has data, and every total is what was used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.month import Month, month
from support.reporting import document
from support.victoria import victoria_month

from deploy.demo.cluster import Job
from deploy.demo.script_page import SETUP_SECONDS
from deploy.demo.truth import Amount, Who, total, truth

CLOSE = 0.005
"""The error that is allowed. Most totals are within a billionth."""
DAY, EDGE = 86400.0, 120.0
NODE = "node-a:12011"
SHORT = {"days": 2, "boards": 2}
LONG = {"days": 30, "boards": 8, "step": 120}
soak = [pytest.mark.soak, pytest.mark.timeout(1500)]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((month, {**SHORT}), id="two days"),
        *(
            pytest.param((month, {**LONG, "job_label": one}), id=one, marks=soak)
            for one in ("job_name", "job", "hpc_job")
        ),
        pytest.param((victoria_month, {**SHORT}), id="VictoriaMetrics", marks=soak),
    ],
)
def history(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Month]:
    """Two days for each run of the tests; the whole month, and another engine, when asked for."""
    made, arguments = request.param
    with made(tmp_path_factory.mktemp("month"), **arguments) as running:
        yield running


@pytest.fixture(scope="module")
def used(history: Month) -> dict[Who, Amount]:
    return truth(history.scenario, (0.0, history.scenario.seconds))


def pretraining(history: Month) -> Job:
    return next(job for job in history.scenario.jobs if job.name == "llm-pretrain")


def whole(history: Month, **values: str) -> dict[str, str]:
    """The variables of a board that shows the whole history."""
    return {"__range": f"{history.scenario.seconds:.0f}s", "__from": f"{history.scenario.start:.0f}", **values}


def allowed(history: Month, name: str) -> float:
    """The error of a job's total. One that ran while its node got another address misses what a scrape tells."""
    renamed = {node.name: node.renamed_at for node in history.scenario.nodes}
    for job in history.scenario.jobs:
        at = next((at for node, at in renamed.items() if at and node in job.nodes), None)
        if job.name == name and at is not None and job.start <= at < job.end:
            return max(CLOSE, EDGE / (job.end - job.start) * 1.5)
    return CLOSE


def test_every_query_of_every_panel_returns_data(history: Month) -> None:
    job = pretraining(history)
    at = (job.end - 1800) // 300 * 300
    chosen = {"job": job.name, "instance": NODE, "value": "accuracy", "cluster": "demo"}
    chosen["__from"] = f"{history.scenario.start:.0f}"
    empty = [(one.board, one.panel, one.expr) for one in history.queries() if not history.asked(one, at, chosen)]
    assert empty == []


def test_the_totals_of_every_job_are_what_it_used(history: Month, used: dict[Who, Amount]) -> None:
    end = history.end
    for name in {who.job for who in used}:
        shown = [
            history.total("carbon-job", panel, end, whole(history, job=name))[""]
            for panel in ("Energy in range", "CO2e in range")
        ]
        real = total(used, job=name)
        assert shown == pytest.approx([real.kwh, real.grams], rel=allowed(history, name)), name


def test_the_totals_of_the_fleet_a_region_a_namespace_and_a_node_are_what_was_used(
    history: Month, used: dict[Who, Amount]
) -> None:
    end = history.end
    everything = total(used)
    for region, real in {".*": everything, **{one: total(used, region=one) for one in ("DE", "SE")}}.items():
        at = whole(history, region=region)
        shown = [history.total("carbon-fleet", panel, end, at)[""] for panel in ("Energy in range", "CO2e in range")]
        assert shown == pytest.approx([real.kwh, real.grams], rel=CLOSE), region
        assert history.total("carbon-grid", "CO2e in range", end, at)[""] == pytest.approx(real.grams, rel=CLOSE)
        price = history.total("carbon-grid", "CO2e of a kWh in range", end, at)[""]
        assert price == pytest.approx(real.grams / real.kwh, rel=CLOSE)
    node = history.total("carbon-node", "Energy in range", end, whole(history, instance=NODE))[""]
    assert node == pytest.approx(total(used, node="node-a").kwh, rel=CLOSE)
    asked = next(one for one in history.queries() if one.panel == "Namespaces by CO2e in range")
    shown_of = {labels.get("job_namespace", ""): value for labels, value in history.asked(asked, end, whole(history))}
    jobs = {who: amount for who, amount in used.items() if not who.job.startswith("_")}
    for namespace in ("nlp", "vision"):
        assert shown_of[namespace] == pytest.approx(total(jobs, namespace=namespace).grams, rel=CLOSE)


def test_a_report_says_what_the_board_of_the_job_shows(history: Month, tmp_path: Path) -> None:
    """The report reads counters, the board what was recorded of them."""
    begin, end = history.scenario.start, history.end
    flags = (f"--from={begin:.0f}", f"--to={begin + end:.0f}", f"--job-label={history.job_label}")
    for job in ("llm-pretrain", "_idle_"):
        told = document(history.server.url, tmp_path / job, f"--job={job}", *flags)
        shown = [
            history.total("carbon-job", panel, end, whole(history, job=job))[""]
            for panel in ("Energy in range", "CO2e in range")
        ]
        assert [told["energy_kwh"], told["co2e_grams"]] == pytest.approx(shown, rel=CLOSE), job


def test_the_ranked_jobs_are_those_that_emitted_most(history: Month, used: dict[Who, Amount]) -> None:
    jobs = {who.job for who in used if not who.job.startswith("_")}
    ranked = sorted(jobs, key=lambda job: -total(used, job=job).grams)[:20]
    shown = history.total("carbon-fleet", "Jobs by CO2e in range", history.end, whole(history))
    assert sorted(shown, key=lambda job: -shown[job]) == ranked
    assert shown == pytest.approx({job: total(used, job=job).grams for job in ranked}, rel=CLOSE)


def test_the_table_of_jobs_follows_the_chosen_jobs_and_namespace(history: Month, used: dict[Who, Amount]) -> None:
    asked = [one for one in history.queries() if one.panel == "Jobs by CO2e in range"]
    job, end = pretraining(history).name, history.end
    of_vision = {who.job for who in used if who.namespace == "vision"}
    for chosen, names in (({"job": f"({job}|no-such)"}, {job}), ({"job": ".*", "namespace": "vision"}, of_vision)):
        shown = [
            {labels[history.job_label]: value for labels, value in history.asked(one, end, whole(history, **chosen))}
            for one in asked
        ]
        assert shown[0].keys() == shown[1].keys() <= names
        assert shown[0]
        for name, grams in shown[0].items():
            real = total(used, job=name)
            assert (grams, shown[1][name]) == pytest.approx((real.grams, real.kwh), rel=allowed(history, name)), name


def test_recorded_sums_of_an_hour_a_day_and_thirty_days_are_what_was_used(history: Month) -> None:
    end, label = history.scenario.seconds, history.job_label
    for window, seconds in (("1h", 3600.0), ("6h", 21600.0), ("1d", DAY), ("30d", min(30 * DAY, end))):
        # At each edge of the window it is not known yet what has been used since the last scrape.
        least = truth(history.scenario, (end - seconds, end - EDGE))
        most = truth(history.scenario, (end - seconds - EDGE, end))
        for metric, field in (("energy_kwh", "kwh"), ("co2e_grams", "grams")):
            record = f"job:carbon_job_{metric}:sum{window}"
            shown = {labels[label]: value for labels, value in history.ask(f"sum by ({label}) ({record})", history.end)}
            for job in {who.job for who in most}:
                low, high = (getattr(total(real, job=job), field) for real in (least, most))
                error = allowed(history, job)
                assert low * (1 - error) <= shown[job] <= high * (1 + error), (record, job)


def test_a_budget_of_one_cluster_is_shown_with_it_and_a_budget_of_all_with_any(history: Month) -> None:
    asked = next(one for one in history.queries() if one.panel == "Left of each budget")
    shown = {
        cluster: {labels["budget"] for labels, _ in history.asked(asked, history.end, {"cluster": cluster})}
        for cluster in ("demo", "elsewhere", "(demo|elsewhere)", ".*")
    }
    every = {"fleet", "nlp", "vision"}
    assert shown == {"demo": every, "elsewhere": every - {"vision"}, "(demo|elsewhere)": every, ".*": every}


def test_the_energy_of_spans_is_what_was_used_while_they_ran(history: Month) -> None:
    for job in [one for one in history.scenario.jobs if one.training][:8]:
        real = total(truth(history.scenario, (job.start + SETUP_SECONDS, job.end)), job=job.name)
        chosen = whole(history, job=job.name, span="epoch")
        shown = [
            history.total("carbon-runs", panel, history.end, chosen)[""]
            for panel in ("Energy of spans in range", "CO2e of spans in range")
        ]
        assert shown == pytest.approx([real.kwh, real.grams], rel=CLOSE), job.name


def test_jobs_come_in_all_lengths_and_one_node_is_lost_for_a_while(history: Month) -> None:
    lengths = [job.end - job.start for job in history.scenario.jobs]
    assert min(lengths) <= 900 < 5 * 3600 < max(lengths)
    node = history.scenario.nodes[0]
    lost = history.ask('min_over_time(up{instance="node-a:12011"}[10m]) == 0', node.restarts[0][1] + 300)
    assert len(lost) == 1
    names = history.ask('count by (instance) (last_over_time(up{instance=~"node-b.*"}[30d]))', history.end)
    assert {labels["instance"] for labels, _ in names} == {"node-b:12011", "node-b-new:12011"}
