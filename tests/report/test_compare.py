"""Runs compared, of a real Prometheus that holds synthetic runs whose energy is known."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from scipy import stats  # type: ignore[import-untyped]
from support.dashboards import queries, substitute
from support.paper_runs import ACTIVATIONS, BEGAN, INTENSITY, TUNED, Course, losses, paper_runs, training
from support.prometheus import Prometheus
from support.stored import Store, stored

from carbon_exporter.cli import main

LATER = BEGAN + 20 * 86_400
"""When the small runs are, each a quarter of an hour after the one before."""
PAPER = ("--from=2026-03-09", "--to=2026-03-15")
"""Around the runs of the paper."""
PAINTED = "a\x1b]0;b\n\x07\x1b[31mc"
"""A name that would move the cursor and paint."""
SOON = (f"--from={LATER - 600}", f"--to={LATER + 7200}")


def small_runs(store: Store) -> None:
    """Of ten minutes and one kWh, unless it is said: what goes wrong around runs."""
    seat = {"instance": "a:12011", "job_name": "again"}
    first, second, third = (Course(LATER + turn * 900, 600, 1.0, 15) for turn in range(3))
    for name, course in (("first", first), ("silent", second), ("same", third)):
        training(store, {**seat, "run": name}, course, {})
    span = {**seat, "span": "epoch"}
    samples = [(at, 0.5) for at in range(first.began + 300, third.began + 900, 15)]
    store.add("carbon_span_value", {**span, "name": "loss"}, samples)
    lasted = [(at, 600.0 * (first.share(at) + third.share(at))) for at in range(first.began, third.began + 900, 15)]
    store.add("carbon_span_duration_seconds_total", span, lasted)

    for rank, loss in enumerate((1.0, 3.0)):
        ranked = {"instance": f"r{rank}:12011", "job_name": "ranked", "rank": str(rank), "job_namespace": "team"}
        training(store, {**ranked, "run": "both"}, first, {"model": f"m{rank}"})
        losses(store, ranked, first, loss)

    moved = {"job_name": "moved", "run": "elastic"}
    training(store, {**moved, "instance": "x:12011"}, Course(LATER, 300, 0.5, 15), {})
    training(store, {**moved, "instance": "y:12011"}, Course(LATER + 330, 300, 0.5, 15), {})

    reset = [(LATER + at, at / 600 if at < 300 else (at - 300) / 600) for at in range(0, 900, 15)]
    store.add("carbon_run_energy_kwh_total", {"instance": "z:12011", "job_name": "reset", "run": "reset"}, reset)

    training(store, {"instance": "h:12011", "hpc_job": "deep", "run": "hpc"}, first, {})

    training(store, {"instance": "e:12011", "job_name": "painted", "run": PAINTED}, first, {"model": PAINTED})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = Store()
    paper_runs(store)
    small_runs(store)
    with stored(tmp_path_factory.mktemp("compare"), store) as url:
        yield url


def compared(url: str, *arguments: str) -> str:
    """What it prints; it must succeed."""
    with redirect_stdout(StringIO()) as printed:
        assert main(["compare", f"--prometheus={url}", *arguments]) == 0
    return printed.getvalue()


def trouble(capsys: pytest.CaptureFixture[str], url: str, *arguments: str) -> tuple[int, str]:
    """Its exit code, and what it says when it fails."""
    code = main(["compare", f"--prometheus={url}", *arguments])
    return code, capsys.readouterr().err


@pytest.fixture(scope="module")
def paper(server: str) -> Any:
    """Everything about the paper's runs: its groups, the tuned ones and then one for each activation function."""
    names = [*(f"{model.lower()}-0" for model in TUNED), *(f"{name.lower()}-*" for name in ACTIVATIONS)]
    return json.loads(compared(server, *names, *PAPER, "--json"))


@pytest.fixture(scope="module")
def soon(server: str) -> dict[str, Any]:
    """The small runs by name."""
    return {run["name"]: run for run in json.loads(compared(server, *SOON, "--json"))["runs"]}


@pytest.mark.parametrize(("model", "kg"), [("Malevich", "0.33"), ("Kandinsky", "5.89")])
def test_energy_co2e_and_duration_of_a_run_are_those_of_its_ranks_together(paper: Any, model: str, kg: str) -> None:
    (run,) = (run for run in paper["runs"] if run["name"] == f"{model.lower()}-0")
    assert run["energy_kwh"] == pytest.approx(TUNED[model].kwh, rel=1e-12)
    assert run["co2e_grams"] == pytest.approx(TUNED[model].kwh * INTENSITY, rel=1e-12)
    assert f"{run['co2e_grams'] / 1000:.2f}" == kg
    assert run["duration_seconds"] == TUNED[model].seconds
    assert run["ranks"] == TUNED[model].boards
    assert (run["model"], run["dataset"]) == (model, "synthetic")
    assert run["batch_size"] == str(TUNED[model].batch_size)


def test_that_one_took_more_than_17_times_the_energy_is_read_at_a_glance(server: str) -> None:
    page = compared(server, "malevich-0", "kandinsky-*", *PAPER, *(f"--job={model.lower()}-tuning" for model in TUNED))
    assert "1.37 kWh" in page
    assert "24.5 kWh" in page
    (line,) = (line.split() for line in page.splitlines() if line.startswith("kandinsky-*  Energy"))
    assert line == ["kandinsky-*", "Energy", "17.88", "+23.13", "kWh"]
    assert "A single run has no spread" in page


def test_the_run_dashboard_shows_the_same(server: str) -> None:
    prometheus = Prometheus(int(server.rpartition(":")[2]))
    shown = [one.expr for one in queries() if one[:2] == ("carbon-runs", "Runs compared")][:2]
    energy, grams = (
        {row["metric"]["model"]: float(row["value"][1]) for row in prometheus.query(expr, BEGAN + 5 * 86_400)}
        for expr in (substitute(expr, {"__range": "6d", "job": ".+-tuning"}) for expr in shown)
    )
    assert energy == pytest.approx({model: tuned.kwh for model, tuned in TUNED.items()}, rel=1e-12)
    assert grams == pytest.approx({model: tuned.kwh * INTENSITY for model, tuned in TUNED.items()}, rel=1e-12)
    assert energy["Kandinsky"] > 17 * energy["Malevich"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_five_runs_have_the_papers_means_and_spreads(paper: Any, name: str) -> None:
    (group,) = (group["quantities"] for group in paper["groups"] if group["name"] == f"{name.lower()}-*")
    keys = {"duration_seconds": 3600, "energy_kwh": 1, "co2e_grams": 1000, "epoch validation_loss": 1}
    for (key, unit), printed in zip(keys.items(), ACTIVATIONS[name].printed, strict=True):
        assert group[key]["count"] == 5
        found = (group[key]["mean"] / unit, group[key]["spread"] / unit)
        decimals = [len(part.partition(".")[2]) for part in printed.split(" ± ")]
        assert " ± ".join(f"{value:.{digits}f}" for value, digits in zip(found, decimals, strict=True)) == printed


def test_each_group_is_held_against_the_first_as_scipy_would(server: str) -> None:
    jobs = ("--job=malevich-gelu", "--job=malevich-1-bit")
    told = json.loads(compared(server, "gelu-*", "1-bit-*", *PAPER, *jobs, "--json"))
    runs = [[told["runs"][number] for number in group["runs"]] for group in told["groups"]]
    values = {
        "duration_seconds": [[run["duration_seconds"] for run in group] for group in runs],
        "energy_kwh": [[run["energy_kwh"] for run in group] for group in runs],
        "co2e_grams": [[run["co2e_grams"] for run in group] for group in runs],
        "epoch validation_loss": [[run["values"][0]["value"] for run in group] for group in runs],
    }
    assert {one["quantity"] for one in told["contrasts"]} == set(values)
    for one in told["contrasts"]:
        first, second = values[one["quantity"]]
        theirs = stats.ttest_ind(second, first, equal_var=False)
        assert one["test"]["t"] == pytest.approx(float(theirs.statistic), rel=1e-10)
        assert one["test"]["p"] == pytest.approx(float(theirs.pvalue), rel=1e-10)
        assert one["test"]["degrees_of_freedom"] == pytest.approx(float(theirs.df), rel=1e-10)
        assert one["ratio"] == pytest.approx(math.fsum(second) / math.fsum(first))


def test_what_a_unit_of_a_value_cost_is_energy_and_co2e_over_it(paper: Any) -> None:
    run = next(run for run in paper["runs"] if run["name"] == "gelu-0")
    (value,) = run["values"]
    assert (value["span"], value["name"]) == ("epoch", "validation_loss")
    assert value["energy_kwh_for_one"] == run["energy_kwh"] / value["value"]
    assert value["co2e_grams_for_one"] == run["co2e_grams"] / value["value"]


def test_a_value_belongs_to_the_run_whose_span_went_on(soon: dict[str, Any]) -> None:
    assert [value["value"] for value in soon["first"]["values"]] == [0.5]
    assert soon["silent"]["values"] == []
    assert [value["value"] for value in soon["same"]["values"]] == [0.5]


def test_a_value_of_several_ranks_is_their_mean(soon: dict[str, Any]) -> None:
    both = soon["both"]
    assert [value["value"] for value in both["values"]] == [2.0]
    assert (both["ranks"], both["model"], both["namespace"], both["energy_kwh"]) == (2, "m0, m1", "team", 2.0)


def test_a_run_that_went_on_elsewhere_is_one_run(soon: dict[str, Any]) -> None:
    moved = soon["elastic"]
    assert moved["energy_kwh"] == pytest.approx(1.0, rel=1e-12)
    assert moved["duration_seconds"] == 630


def test_a_counter_that_was_reset_loses_less_than_a_window(soon: dict[str, Any]) -> None:
    truth = (285 + 585) / 600
    assert truth - 300 / 600 < soon["reset"]["energy_kwh"] <= truth
    assert soon["reset"]["co2e_grams"] == 0


def test_a_run_that_goes_on_or_began_before_is_listed_and_not_compared(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    half, end = LATER + 300, LATER + 300 + 3600
    (run,) = (one for one in json.loads(compared(server, f"--to={half}", SOON[0], "--job=again", "--json"))["runs"])
    assert (run["goes_on"], run["cut"], run["energy_kwh"]) == (True, False, 0.5)
    told = json.loads(compared(server, f"--to={LATER + 660}", SOON[0], "--job=again", "--json"))
    assert [one["goes_on"] for one in told["runs"]] == [False], "its counter stands still"
    page = compared(server, f"--from={half}", f"--to={end}", "--job=again")
    assert "Began before --from, which leaves out what they used until then: first." in page
    page = compared(server, "again", f"--from={half}", f"--to={end}", "--job=again")
    assert "Left out of the groups, for not all of them is known: first." in page
    code, said = trouble(capsys, server, "first", f"--from={half}", f"--to={end}", "--job=again")
    assert code == 1
    assert "no run of 'first' both began after --from and has ended" in said


def test_other_labels_and_namespaces_are_found_as_they_are_asked_for(server: str) -> None:
    def names(*flags: str) -> list[str]:
        return sorted(run["name"] for run in json.loads(compared(server, *SOON, "--json", *flags))["runs"])

    assert names("--job-label=hpc_job") == ["hpc"]
    assert names("--namespace=team") == ["both"]
    assert "both" not in names("--namespace=")
    assert names("--job=moved", "--cluster=") == ["elastic"]


def test_markdown_has_a_table_of_groups_and_one_of_tests(server: str) -> None:
    page = compared(server, "run=first", "job=again,run=s*", *SOON, "--job=again", "--format=markdown", "--value=loss")
    assert page.startswith("## Groups: mean ± standard deviation\n")
    assert "| run=first | 1 | 10 min | 1 kWh | 240.6 g | 0.5 |" in page
    assert "| job=again,run=s\\* | 2 | 10 min ± 0 | 1 kWh ± 0 | 240.6 g ± 0 | 0.5 |" in page
    assert "## Against run=first: Welch's test" in page


def test_a_name_with_escape_sequences_does_not_reach_the_terminal(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = (f"--from={LATER + 300}", f"--to={LATER + 3900}", "--job=painted")
    pages = [
        compared(server, *cut),
        compared(server, f"run={PAINTED}", "job=painted", *SOON, "--job=painted"),
        trouble(capsys, server, "a]0;b", *SOON, "--job=painted")[1],
    ]
    for page in pages:
        assert "a?]0;b???[31mc" in page
        assert page.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*SOON, "--job=agin"), "no such run between --from and --to"),
        ((*SOON, "--job=again", "frist"), "no run is called 'frist'; nearest of 4: first"),
        ((*SOON, "--job=again", "--value=accuracy"), "no run recorded 'accuracy'; recorded is epoch.loss"),
    ],
)
def test_what_is_not_there_is_an_error_that_names_what_is(
    server: str, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    code, told = trouble(capsys, server, *arguments)
    assert code == 1
    assert said in told


def test_a_wrong_command_line_asks_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["compare", "--prometheus=localhost:9090"]) == 2
    assert main(["compare", "--prometheus=http://localhost:1", "--from=now", "--to=2020-01-01"]) == 2
    assert main(["compare", "--prometheus=http://localhost:1", f"--ca-file={tmp_path / 'none'}"]) == 2
    assert "--prometheus" in capsys.readouterr().err
