"""Reports from a real Prometheus that holds a training whose energy is known."""

from __future__ import annotations

import json
import math
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.axe import violations
from support.browser import chromium, console, emulate, values
from support.reporting import document, report, trouble
from support.stored import Store, stored
from support.trained import BEGAN, ENDED, PUE, SCRAPE, Trained, gained, neighbours, trained

RULES = Path(__file__).parents[2] / "grafana/rules/leaf.yml"
WHOLE = ("--from=2026-02-20", "--to=2026-03-05T00:00:00+02:00")
AROUND = (BEGAN - 137 - 600, ENDED + 1200)
TRAIN = "--job=train"


class World:
    """The server and what it holds."""

    def __init__(self, url: str, train: Trained, deep: Trained, plain: Trained) -> None:
        self.url, self.train, self.deep, self.plain = url, train, deep, plain

    def recorded(self, record: str, step: int) -> dict[str, tuple[Any, list[tuple[float, float]]]]:
        """What the rule records of the training, every `step` seconds around it: labels and samples by their text."""
        groups = yaml.safe_load(RULES.read_text())["groups"]
        (rule,) = (rule["expr"] for group in groups for rule in group["rules"] if rule["record"] == record)
        made: dict[str, tuple[Any, list[tuple[float, float]]]] = {}
        for begin in range(AROUND[0], AROUND[1], 1800):  # as much as the server answers at once
            arguments = {"query": rule, "start": begin, "end": begin + 1800 - step, "step": step}
            with urllib.request.urlopen(f"{self.url}/api/v1/query_range?{urllib.parse.urlencode(arguments)}") as answer:
                rows = json.load(answer)["data"]["result"]
            for row in rows:
                if row["metric"].get("job_name") == "train":
                    samples = made.setdefault(str(row["metric"]), (row["metric"], []))[1]
                    samples += [(at, float(value)) for at, value in row["values"]]
        return made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One server for all; it answers so little at once that long stretches have to be asked in parts."""
    store = Store()
    train = trained(store)
    deep = trained(store, label="hpc_job", name="deep", namespace="team", nodes="h")
    plain = trained(store, label="job", name="plain", nodes="j")
    neighbours(store)
    with stored(tmp_path_factory.mktemp("report"), store, "--query.max-samples=4000") as url:
        yield World(url, train, deep, plain)


def test_the_totals_are_those_of_the_counters_to_the_last_digit(world: World, tmp_path: Path) -> None:
    told = document(world.url, tmp_path / "r", TRAIN, *WHOLE)
    assert told["energy_kwh"] == pytest.approx(world.train.energy, rel=1e-12)
    assert told["co2e_grams"] == pytest.approx(world.train.grams, rel=1e-12)
    assert {one["kind"]: one["energy_kwh"] for one in told["kinds"]} == pytest.approx(dict(world.train.kwh), rel=1e-12)
    course = [sum(one["energy_kwh"].values()) for one in told["course"]]
    assert math.fsum(course) == pytest.approx(world.train.energy, rel=1e-12)


@pytest.mark.parametrize(
    ("begin", "end"), [(BEGAN + 1003, ENDED - 2001), (BEGAN - 9, BEGAN + 611), (BEGAN, BEGAN + 86)]
)
def test_a_part_of_the_time_has_what_the_counters_gained_in_it(
    world: World, tmp_path: Path, begin: int, end: int
) -> None:
    told = document(world.url, tmp_path / "r", TRAIN, f"--from={begin}", f"--to={end}.5")
    store = world.train.store
    assert told["energy_kwh"] == pytest.approx(
        gained(store, "carbon_job_energy_kwh_total", "train", begin, end), rel=1e-9
    )
    assert told["co2e_grams"] == pytest.approx(
        gained(store, "carbon_job_co2e_grams_total", "train", begin, end), rel=1e-9
    )
    assert told["before"] == (begin >= BEGAN)


def test_the_totals_are_those_of_the_recording_rules(world: World, tmp_path: Path) -> None:
    told = document(world.url, tmp_path / "r", TRAIN, *WHOLE)
    rows = world.recorded("job:carbon_job_co2e_grams:increase5m", 300).values()
    assert told["co2e_grams"] == pytest.approx(math.fsum(value for _, row in rows for _, value in row), rel=1e-9)


def test_a_server_of_recorded_series_alone_gives_the_same_totals(world: World, tmp_path: Path) -> None:
    recorded = Store()
    for record in ("job_kind:carbon_job_energy_kwh:increase5m", "job:carbon_job_co2e_grams:increase5m"):
        for labels, samples in world.recorded(record, 60).values():
            recorded.add(record, labels, samples)
    with stored(tmp_path / "recorded", recorded) as url:
        told = document(url, tmp_path / "r", TRAIN, *WHOLE)
    assert told["energy_kwh"] == pytest.approx(world.train.energy, rel=1e-9)
    assert told["co2e_grams"] == pytest.approx(world.train.grams, rel=1e-9)
    assert "recorded" in told["method"]
    assert [one["quality"] for one in told["qualities"]] == ["unknown"]
    assert told["devices"] == []


def test_where_counters_are_kept_for_less_time_than_records_the_records_are_the_total(
    world: World, tmp_path: Path
) -> None:
    store, kept_from = Store(), BEGAN + 3 * 3600
    for record in ("job_kind:carbon_job_energy_kwh:increase5m", "job:carbon_job_co2e_grams:increase5m"):
        for labels, samples in world.recorded(record, 60).values():
            store.add(record, labels, samples)
    for metric, rows in world.train.store.series.items():
        store.series[metric] = {one: [(at, value) for at, value in row if at >= kept_from] for one, row in rows.items()}
    with stored(tmp_path / "both", store) as url:
        told = document(url, tmp_path / "r", TRAIN, *WHOLE)
    assert told["energy_kwh"] == pytest.approx(world.train.energy, rel=1e-9)
    assert told["co2e_grams"] == pytest.approx(world.train.grams, rel=1e-9)
    assert "recorded" in told["method"]
    (note,) = (note for note in told["notes"] if "recorded" in note)
    assert "the job's counters from 2026-03-01T15:0" in note
    assert told["regions"][0]["prices"][0]["source"] == "Ember (2026)"


def test_what_devices_missed_in_a_pause_is_told_with_the_first_sample_after_it(tmp_path: Path) -> None:
    store, times = Store(), [at for at in range(BEGAN, BEGAN + 3600, 30) if not 1200 < at - BEGAN < 1200 + 720]
    device = {"instance": "node-a:12011", "device": "cpu0", "kind": "cpu"}
    energy = [(float(at), (at - BEGAN) / 3.6e4) for at in times]
    store.add("carbon_job_energy_kwh_total", {**device, "job_name": "train", "region": "FR"}, energy)
    missed = [(float(at), 3.0 if at <= BEGAN + 1200 else 703.0) for at in times]
    store.add("carbon_energy_gap_seconds_total", device, missed)
    with stored(tmp_path / "paused", store) as url:
        told = document(url, tmp_path / "r", TRAIN, *WHOLE)
    assert any("not known for 700 device-seconds" in note for note in told["notes"])


def test_of_a_fleet_the_jobs_nodes_alone_are_read_and_in_parts_where_that_is_too_much(tmp_path: Path) -> None:
    store, times = Store(), range(BEGAN, BEGAN + 5 * 3600, 30)
    for node in range(400):
        device = {"instance": f"node-{node}:12011", "device": "cpu0", "kind": "cpu"}
        steps = [float(at) for at in (times if node == 7 else times[:3])]
        store.add("carbon_device_info", {**device, "model": "EPYC", "quality": "measured"}, [(at, 1.0) for at in steps])
        told = {**device, "region": "FR", "provider": "static", "scope": "lifecycle"}
        store.add("carbon_grid_intensity_grams_per_kwh", told, [(at, 40.0) for at in steps])
        if node == 7:
            store.add("carbon_grid_intensity_info", told, [(at, 1.0) for at in steps])
            energy = [(at, (at - BEGAN) / 3.6e4) for at in steps]
            store.add("carbon_job_energy_kwh_total", {**device, "job_name": "train", "region": "FR"}, energy)
    with stored(tmp_path / "fleet", store, "--query.max-samples=300") as url:
        told = document(url, tmp_path / "r", TRAIN, *WHOLE)
    assert told["energy_kwh"] == pytest.approx((len(times) - 1) * 30 / 3.6e4)
    assert [(one["model"], one["quality"], one["count"]) for one in told["devices"]] == [("EPYC", "measured", 1)]
    assert told["regions"][0]["prices"][0]["highest_grams_per_kwh"] == 40


def test_it_says_when_the_job_ran_to_the_scrape_and_what_is_missing(world: World, tmp_path: Path) -> None:
    told = document(world.url, tmp_path / "r", TRAIN, *WHOLE)
    assert told["began"] == "2026-03-01T12:02:17Z"
    assert 0 <= told["duration_seconds"] - (ENDED - BEGAN) <= SCRAPE
    assert told["mean_watts"] == pytest.approx(world.train.energy * 3.6e6 / told["duration_seconds"])
    assert told["peak_watts"] < 2 * (310 + 290 + 120 + 15) + 40, "what was used in the outage is no peak after it"
    assert any("25 device-seconds" in note for note in told["notes"])
    assert any("20 minutes" in note for note in told["notes"])


def test_it_says_which_hardware_and_how_good_and_at_which_price(world: World, tmp_path: Path) -> None:
    told = document(world.url, tmp_path / "r", TRAIN, *WHOLE)
    devices = [(one["count"], one["model"], one["sensor"], one["quality"]) for one in told["devices"]]
    assert devices[0] == (4, "NVIDIA A100-SXM4-40GB", "nvidia", "measured")
    shares = {one["quality"]: one["share"] for one in told["qualities"]}
    assert shares["default"] == pytest.approx(world.train.kwh["dram"] / world.train.energy)
    (region,) = told["regions"]
    (price,) = region["prices"]
    assert (region["region"], region["name"], region["pue"]) == ("FR", "France", [PUE, PUE])
    assert region["realised_grams_per_kwh"] == pytest.approx(world.train.grams / world.train.energy)
    assert (price["lowest_grams_per_kwh"], price["highest_grams_per_kwh"]) == (40, 60)
    assert (price["source"], price["scope"], price["located_by"]) == ("Ember (2026)", "lifecycle", "setting")
    assert told["job"]["scheduler"] == "slurm"
    assert "job_id" in told["job"]


def test_spans_are_added_over_ranks_and_show_the_last_value_of_the_first(world: World, tmp_path: Path) -> None:
    (span,) = document(world.url, tmp_path / "r", TRAIN, *WHOLE)["spans"]
    assert (span["name"], span["ranks"], span["ended"]) == ("epoch", 2, 10)
    assert span["energy_kwh"] == pytest.approx(4)
    assert span["co2e_grams"] == pytest.approx(200)
    assert span["seconds"] == pytest.approx(35_000)
    assert span["values"] == {"loss": pytest.approx(1 / 6)}


@pytest.mark.parametrize("label", ["hpc_job", "job"])
def test_the_job_may_be_spelt_as_the_exporter_was_told(world: World, tmp_path: Path, label: str) -> None:
    name, one = ("deep", world.deep) if label == "hpc_job" else ("plain", world.plain)
    told = document(world.url, tmp_path / "r", f"--job={name}", f"--job-label={label}", *WHOLE)
    assert told["energy_kwh"] == pytest.approx(one.energy, rel=1e-12)
    assert told["job"]["namespace"] == ("team" if label == "hpc_job" else "")


def test_a_counter_that_was_reset_loses_a_window_at_most(world: World, tmp_path: Path) -> None:
    told = document(world.url, tmp_path / "r", "--job=reborn", *WHOLE)
    truth = (5 * 3600 + 300) / 3.6e4
    assert truth - 300 / 3.6e4 <= told["energy_kwh"] <= truth


def test_the_same_name_in_two_namespaces_has_to_be_chosen(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (f"--prometheus={world.url}", "--job=shared", *WHOLE)
    code, said = trouble(capsys, *flags)
    assert code == 1
    assert "team-a, team-b" in said
    assert "--namespace=NAME" in said
    told = document(world.url, tmp_path / "r", "--job=shared", "--namespace=team-b", *WHOLE)
    assert told["job"]["namespace"] == "team-b"
    assert "it is in the namespaces: team-a" in trouble(capsys, *flags, "--namespace=team-c")[1]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--job=trian", *WHOLE), "nearest of 4: train"),
        ((TRAIN, "--from=2026-03-03", "--to=2026-03-04"), "no jobs with the label job_name between --from and --to"),
        (("--job=deep", "--job-label=job", *WHOLE), "no job 'deep'"),
        ((TRAIN, "--cluster=elsewhere", *WHOLE), "in this namespace and cluster"),
    ],
)
def test_a_job_that_is_not_there_is_an_error_that_names_what_is(
    world: World, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], told: str
) -> None:
    code, said = trouble(capsys, f"--prometheus={world.url}", *flags)
    assert code == 1
    assert told in said
    assert said.count("\n") == 1


def test_half_a_century_is_asked_in_parts(world: World, tmp_path: Path) -> None:
    told = document(world.url, tmp_path / "r", TRAIN, "--from=0", "--to=2099-12-31")
    assert told["energy_kwh"] == pytest.approx(world.train.energy, rel=1e-12)


def test_markdown_has_every_part_and_a_model_card_is_yaml(world: World, tmp_path: Path) -> None:
    page = report(world.url, tmp_path / "r", TRAIN, *WHOLE)
    for heading in ("Job", "Energy", "CO2e", "Hardware", "How sure it is", "Spans", "The same CO2e", "Method"):
        assert f"\n## {heading}\n" in page
    assert "| 4 x NVIDIA A100-SXM4-40GB | gpu |" in page
    card = report(world.url, tmp_path / "r", TRAIN, *WHOLE, "--format=model-card", "--training-type=fine-tuning")
    block = yaml.safe_load(card)["co2_eq_emissions"]
    assert block["emissions"] == pytest.approx(world.train.grams, rel=1e-5)
    assert block["geographical_location"] == "France"
    assert block["hardware_used"].startswith("4 x NVIDIA A100-SXM4-40GB")
    assert (block["training_type"], "97 % measured" in block["source"]) == ("fine-tuning", True)


def test_the_page_is_whole_in_a_browser_light_and_dark_wide_and_narrow(world: World, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    text = report(world.url, page, TRAIN, *WHOLE, "--format=html")
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    with chromium(1280, 900) as browser:
        browser.get(page.as_uri())
        assert values(browser, "dd data")[:2] == pytest.approx([world.train.energy, world.train.grams])
        assert len(browser.find_elements("css selector", "svg path")) > 4
        for width, dark in ((1280, True), (360, False)):
            emulate(browser, width, 900, dark=dark)
            assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
            assert violations(browser) == []
        assert console(browser) == []
