"""The boards, linted: Grafana's published rules for dashboards, and ours of metrics, units, colours and links."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from support.dashboards import Json, boards, substitute
from support.expressions import ONE, Unit, grams, joules, reads, seconds, unit_of

import carbon_exporter
from carbon_exporter.publish.catalogue import CATALOGUE, JOB_LABELS

ROOT = Path(carbon_exporter.__file__).parents[1]
UIDS = ["carbon-fleet", "carbon-job", "carbon-runs", "carbon-node", "carbon-grid", "carbon-exporter-health"]
UNITS: Mapping[str, Unit] = {
    "watt": joules * seconds.inverse(),
    "joule": joules,
    "kwatth": Unit(3.6e6) * joules,
    "massg": grams,
    "suffix: g/kWh": grams * (Unit(3.6e6) * joules).inverse(),
    "s": seconds,
    "suffix: /s": seconds.inverse(),
    "celsius": Unit(1, (("celsius", 1),)),
    "percentunit": ONE,
    "none": ONE,
}
"""Grafana's names of units that the boards use, and what they are."""
OKABE_ITO = {"#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#999999"}
FEW = {"cluster", "region", "job_namespace", "job_name", "instance", "budget", "span", "name"}
"""Labels whose values a variable may list: bounded by the number of machines, or by limits of the exporter."""
RAW_VARIABLES = {"carbon_exporter_build_info"}
"""Series of exporters that a variable may ask; all others are recorded."""
COUNTERS = {metric.name for metric in CATALOGUE if metric.type == "counter"}
GAUGES = {metric.name for metric in CATALOGUE if metric.type == "gauge"}
RUN_COUNTERS = {"carbon_run_energy_kwh_total", "carbon_run_co2e_grams_total"}
NOT_LABELS = {"datasource", "tempo_datasource"}

each_board = pytest.mark.parametrize("board", boards(), ids=UIDS)
each_spelling = pytest.mark.parametrize("job_label", JOB_LABELS)


@functools.cache
def planned() -> set[str]:
    """Metrics that the contract reserves and no release exports yet."""
    text = (ROOT / "docs/design/metrics.md").read_text()
    return set(
        re.findall(r"`(carbon_[a-z0-9_]+)`", text.partition("<!-- planned -->")[2].partition("<!-- /planned -->")[0])
    )


@functools.cache
def recorded() -> set[str]:
    """Names that the rules give, those of rendered budgets among them."""
    files = [*(ROOT / "grafana/rules").glob("*.yml"), ROOT / "examples/budgets-rules.yml"]
    groups = [group for file in files for group in yaml.safe_load(file.read_text()).get("groups", ())]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


def asked(board: Json) -> Iterator[tuple[Json, str, str]]:
    """Each panel with each of its expressions as written, and that as it would be sent."""
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel, target["expr"], substitute(target["expr"], {})


def query_variables(board: Json) -> list[Json]:
    return [variable for variable in board["templating"]["list"] if variable["type"] == "query"]


def links(board: Json) -> set[str]:
    """Where the fields of the board's panels lead."""
    return set(re.findall(r'"url": "(/[^"]+)"', json.dumps(board["panels"])))


@each_board
def test_a_board_is_what_provisioning_and_bookmarks_need(board: Json) -> None:
    assert board["uid"] in UIDS
    assert re.fullmatch(r"Carbon / [A-Z][a-z ]+", board["title"])
    assert board["description"].endswith(".")
    assert (board["editable"], board["schemaVersion"]) == (False, 42)
    assert board["tags"][0] == "carbon-exporter"
    assert "id" not in board
    assert "version" not in board


def test_the_boards_are_six() -> None:
    assert [board["uid"] for board in boards()] == UIDS


@each_board
def test_a_board_has_at_most_twelve_panels_that_fill_the_grid_without_overlap(board: Json) -> None:
    panels = board["panels"]
    assert 0 < len(panels) <= 12
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    cells = [
        (place["x"] + column, place["y"] + row)
        for place in (panel["gridPos"] for panel in panels)
        for column in range(place["w"])
        for row in range(place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))


@each_board
def test_numbers_come_first_then_lines_then_who(board: Json) -> None:
    kinds = "".join(
        {"stat": "n", "timeseries": "l", "xychart": "l"}.get(panel["type"], "w") for panel in board["panels"]
    )
    assert re.fullmatch(r"n+l+w+[lw]*", kinds), kinds
    numbers = [panel["title"] for panel in board["panels"] if panel["type"] == "stat"]
    in_range = ["in range" in title or title == "Time without knowledge" for title in numbers]
    assert in_range == sorted(in_range), "what is now stands before what is in the range"


@each_board
def test_a_panel_says_what_it_shows(board: Json) -> None:
    titles = [panel["title"] for panel in board["panels"]]
    assert len(titles) == len(set(titles))
    for panel in board["panels"]:
        assert panel["title"][0].isupper()
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["description"].endswith("."), panel["title"]


@each_board
def test_every_query_goes_to_the_one_data_source_of_metrics(board: Json) -> None:
    sources = {
        variable["name"]: variable["query"] for variable in board["templating"]["list"] if "datasource" not in variable
    }
    assert sources.pop("datasource") == "prometheus"
    assert all(name == f"{plugin}_datasource" for name, plugin in sources.items())
    ours = {"type": "prometheus", "uid": "${datasource}"}
    holders = [*board["panels"], *query_variables(board), *board["annotations"]["list"]]
    holders += [target for panel in board["panels"] for target in panel["targets"]]
    assert all(holder["datasource"] == ours for holder in holders)


@each_spelling
def test_every_expression_is_promql_in_every_spelling_of_the_jobs_label(job_label: str) -> None:
    for board in boards(job_label):
        for _, _, expr in asked(board):
            assert reads(expr)
        for annotation in board["annotations"]["list"]:
            assert reads(substitute(annotation["target"]["expr"], {}))


@each_spelling
def test_the_chosen_label_is_followed_everywhere(job_label: str) -> None:
    text = json.dumps(boards(job_label))
    spelled = {spelling for spelling in JOB_LABELS if re.search(rf"[{{,(] ?{spelling}(?:[=,)!]|\")", text)}
    assert spelled == {job_label}
    for used in (f"{{{{{job_label}}}}}", f"fields.{job_label}}}", f', {job_label})"'):
        assert used in text, used


@each_board
def test_every_series_exists_or_its_panel_says_that_it_comes_later(board: Json) -> None:
    there = {metric.name for metric in CATALOGUE} | recorded()
    for panel, _, expr in asked(board):
        missing = {read.name for read in reads(expr)} - there
        assert missing <= planned(), f"{panel['title']}: {missing - planned()}"
        assert bool(missing) <= ("later release" in panel["description"]), panel["title"]


def test_the_fleet_reads_recorded_series_only() -> None:
    for panel, _, expr in asked(boards()[0]):
        assert all(":" in read.name for read in reads(expr)), panel["title"]


def test_no_query_of_the_fleet_holds_a_pattern_against_the_name_of_every_job_there_ever_was() -> None:
    for panel, _, expr in asked(boards()[0]):
        assert not re.search(r"\bjob_name *[=!]~", expr), panel["title"]


@each_board
def test_a_counter_stands_under_rate_increase_or_the_stated_method(board: Json) -> None:
    for panel, _, expr in asked(board):
        for read in reads(expr):
            innermost = read.calls[-1] if read.calls else ""
            if read.name in RUN_COUNTERS:
                assert innermost == "max_over_time", panel["title"]
            elif read.name in COUNTERS:
                assert innermost in {"rate", "increase"}, panel["title"]
            else:
                assert innermost not in {"rate", "increase"}, panel["title"]


@each_board
def test_a_rate_is_over_grafanas_interval_and_an_increase_over_the_range(board: Json) -> None:
    for panel, written, _ in asked(board):
        for call, window in re.findall(r"\b(rate|increase)\([^[]*\[([^]]*)\]", written):
            assert window == {"rate": "$__rate_interval", "increase": "$__range"}[call], panel["title"]


@each_board
def test_energy_and_co2e_are_never_extrapolated(board: Json) -> None:
    for panel, written, expr in asked(board):
        for read in reads(expr):
            if "increase" in read.calls:
                assert not re.search(r"_(kwh|grams)_total$", read.name), panel["title"]
            if read.name.endswith(":increase5m"):
                assert "sum_over_time" in read.calls, panel["title"]
                assert read.window.endswith(":300s"), panel["title"]
        windows = re.findall(r"\[\$__range:[^]]*\][^)]*", written)
        assert set(windows) <= {"[$__range:5m] offset -2ms"}, panel["title"]


@each_board
def test_the_unit_of_a_panel_is_that_of_its_query(board: Json) -> None:
    for panel in board["panels"]:
        overrides = panel["fieldConfig"]["overrides"]
        columns: dict[str, str] = next(
            (t["options"]["renameByName"] for t in panel.get("transformations", ()) if t["id"] == "organize"), {}
        )
        for target in panel["targets"]:
            shown = panel["fieldConfig"]["defaults"]["unit"]
            mine = {target["refId"], columns.get(f"Value #{target['refId']}", "")}
            for override in overrides:
                if override["matcher"]["options"] in mine:
                    shown = next((p["value"] for p in override["properties"] if p["id"] == "unit"), shown)
            found = unit_of(substitute(target["expr"], {}))
            assert UNITS[shown].same(found), f"{panel['title']} {target['refId']}: {shown} shows {found}"


@each_board
def test_a_variable_lists_a_bounded_label_of_few_series_and_is_used(board: Json) -> None:
    names = {variable["name"] for variable in board["templating"]["list"]}
    assert {"datasource", "cluster"} <= names
    for variable in query_variables(board):
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
        metric = series.partition("{")[0]
        assert label in FEW
        assert metric in RAW_VARIABLES or metric in recorded()
        assert variable.get("allValue", "") in {".*", ".+", ""}
        assert ("allValue" in variable) == variable["includeAll"] == variable["multi"]
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([board["panels"], board["annotations"]])))
    assert names <= used
    assert {name for name in used if not name.startswith("__")} <= names


@each_board
def test_a_variable_of_several_values_is_matched_as_a_pattern(board: Json) -> None:
    for variable in query_variables(board):
        sign = "=~" if variable["multi"] else "="
        for _, written, _ in asked(board):
            assert set(re.findall(rf'([=!~]+)"\${variable["name"]}"', written)) <= {sign}


@each_board
def test_a_link_leads_to_a_board_and_sets_variables_that_it_has(board: Json) -> None:
    known = {other["uid"]: {variable["name"] for variable in other["templating"]["list"]} for other in boards()}
    for url in links(board):
        if url.startswith("/d/"):
            target, _, rest = url.removeprefix("/d/").partition("?")
            assert set(re.findall(r"var-(\w+)=", rest)) <= known[target]
            assert "${__url_time_range}" in rest
            assert "${datasource:queryparam}" in rest


def test_links_lead_from_the_fleet_to_a_job_its_nodes_its_spans_and_their_traces() -> None:
    leads = {board["uid"]: {re.split(r"[?]", url)[0] for url in links(board)} for board in boards()}
    assert {"/d/carbon-job", "/d/carbon-node"} <= leads["carbon-fleet"]
    assert {"/d/carbon-node", "/d/carbon-runs"} <= leads["carbon-job"]
    assert "/d/carbon-job" in leads["carbon-node"]
    assert {"/explore", "/d/carbon-job"} <= leads["carbon-runs"]
    assert all(board["links"][0]["tags"] == ["carbon-exporter"] for board in boards())


def test_panels_of_raw_span_counters_show_exemplars_and_no_others_do() -> None:
    shown = [
        (
            any(read.name == "carbon_span_energy_kwh_total" for read in reads(substitute(target["expr"], {}))),
            target["exemplar"],
        )
        for board in boards()
        for panel in board["panels"]
        for target in panel["targets"]
    ]
    assert (True, True) in shown
    assert all(raw == exemplar for raw, exemplar in shown)


def test_boards_of_jobs_mark_where_jobs_start() -> None:
    marked = {board["uid"] for board in boards() if board["annotations"]["list"]}
    assert marked == {"carbon-fleet", "carbon-job", "carbon-runs", "carbon-node"}


def test_the_example_of_data_sources_leads_exemplars_to_traces() -> None:
    sources = yaml.safe_load((ROOT / "grafana/provisioning/datasources.yml").read_text())["datasources"]
    prometheus, tempo = sources
    assert {prometheus["type"], tempo["type"]} == {"prometheus", "tempo"}
    assert prometheus["jsonData"]["exemplarTraceIdDestinations"] == [
        {"name": "trace_id", "datasourceUid": tempo["uid"]}
    ]


@each_board
def test_every_fixed_colour_is_one_that_all_can_tell_apart(board: Json) -> None:
    text = json.dumps(board)
    named = set(re.findall(r'"(?:fixedColor|color|iconColor)": "([^"]+)"', text))
    assert named <= OKABE_ITO
    modes = set(re.findall(r'"mode": "((?:palette|continuous)-[^"]+)"', text))
    assert modes <= {"continuous-cividis"}


def test_a_kind_of_device_has_the_same_colour_everywhere() -> None:
    found: dict[str, set[str]] = {}
    for board in boards():
        for panel in board["panels"]:
            for override in panel["fieldConfig"]["overrides"]:
                if override["matcher"]["options"] in {"gpu", "cpu", "dram", "accelerator", "other"}:
                    color = override["properties"][0]["value"]["fixedColor"]
                    found.setdefault(override["matcher"]["options"], set()).add(color)
    assert len(found) == 5
    assert all(len(colors) == 1 for colors in found.values())
    assert len(set.union(*found.values())) == 5
