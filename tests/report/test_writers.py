"""What the writers make of strange facts: names that would be markup, numbers that are none, nothing at all."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.carbon import tables
from carbon_exporter.report import figures
from carbon_exporter.report.document import as_json
from carbon_exporter.report.facts import (
    Device,
    Facts,
    JobIdentity,
    KindShare,
    QualityShare,
    RegionShare,
    Slice,
    SpanFacts,
    worst,
)
from carbon_exporter.report.html import as_html
from carbon_exporter.report.markdown import as_markdown
from carbon_exporter.report.model_card import as_model_card

FACTS = Facts(
    job=JobIdentity("train", "team", ("north", "south"), (("job_user", "zoe"),)),
    asked=(1_772_366_400, 1_772_366_700),
    began=1_772_366_400,
    ended=1_772_366_700,
    before=True,
    method="differences",
    precision=0,
    kinds=(KindShare("gpu", 1.0, 12_000.0),),
    regions=(RegionShare("US-CA", "California", 1.0, 200.0, 200.0, None, ()),),
    devices=(Device("gpu", "AMD", "Instinct MI300X", "amd", "integrated", 8, 1.0),),
    qualities=(QualityShare("integrated", 1.0, 1.0),),
    spans=(SpanFacts("step", 1, 0.0, 3.0, 0.5, 100.0, (("loss", float("nan")),)),),
    course=(Slice(1_772_366_400, 1_772_366_700, (("gpu", 1.0),), 200.0),),
    energy_kwh=1.0,
    co2e_grams=200.0,
    peak_watts=12_000.0,
    notes=(),
    version="9",
)
NOTHING = replace(
    FACTS, kinds=(), regions=(), devices=(), qualities=(), spans=(), energy_kwh=0.0, co2e_grams=0.0, peak_watts=0.0
)


class Tags(HTMLParser):
    """Which elements there are, closed where they have to be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        self.seen.add(tag)
        if tag not in {"meta", "path"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        del attrs
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@given(st.text(min_size=1, max_size=40))
def test_no_name_of_a_job_becomes_markup(name: str) -> None:
    facts = replace(FACTS, job=JobIdentity(name, "", (), (("job_user", name),)))
    tags = Tags()
    tags.feed(as_html(facts))
    assert tags.open == []
    assert not tags.seen & {"script", "img", "iframe", "a", "link", "object"}
    page = as_markdown(facts)
    assert page.count("\n# ") == 0
    assert all(not re.search(r"(?<!\\)[\[<]", line) for line in page.splitlines())
    assert json.loads(as_json(facts))["job"]["job_user"] == name


@pytest.mark.parametrize("facts", [FACTS, NOTHING])
def test_every_form_can_be_made_of_little_and_of_nothing(facts: Facts) -> None:
    for write in (as_markdown, as_html):
        assert "train" in write(facts)
    assert json.loads(as_json(facts))["energy_kwh"] == facts.energy_kwh
    assert yaml.safe_load(as_model_card(facts))["co2_eq_emissions"]["emissions"] == facts.co2e_grams


def test_a_value_that_is_no_number_is_the_word_that_prometheus_has_for_it() -> None:
    assert json.loads(as_json(FACTS))["spans"][0]["values"] == {"loss": "NaN"}
    assert "loss NaN" in as_markdown(FACTS)


def test_equivalents_are_grams_over_grams_and_name_their_source() -> None:
    told = {one["of"]: one for one in json.loads(as_json(FACTS))["equivalents"]}
    car = told["kilometres of an average car in Europe"]
    assert car["amount"] == pytest.approx(200 / 175)
    assert "Green Algorithms" in car["source"]
    assert all(one.source.citation in as_markdown(FACTS).replace("\\", "") for one in tables.equivalents())


def test_every_field_of_a_codecarbon_report_is_there_or_says_why_not() -> None:
    page = as_markdown(FACTS)
    shown = "duration,emissions,emissions rate,CPU power,GPU power,RAM power,CPU energy,GPU energy,RAM energy,"
    shown += "energy consumed,country,country ISO code,region,cloud provider,OS,Python version,CPU count,CPU model,"
    shown += "GPU count,GPU model,RAM total size,tracking mode,on cloud,longitude,latitude,PUE,WUE,utilisation"
    section = page.partition("## As in a CodeCarbon report")[2].partition("\n## ")[0]
    assert [field for field in shown.split(",") if field not in section] == []
    for row in re.findall(r"^\| (.+?) \| - \| (.*?) \|$", section, re.MULTILINE):
        assert row[1] or "model" in row[0]


def test_numbers_have_four_digits_and_a_unit_that_fits() -> None:
    assert figures.energy(0.0123456).text == "12.35 Wh"
    assert figures.energy(12_345.6).text == "12.35 MWh"
    assert figures.energy(0).text == "0 kWh"
    assert figures.mass(999.99).text == "1,000 g"
    assert figures.mass(1234.5).text == "1.234 kg"
    assert figures.power(0.5).text == "500 mW"
    assert figures.duration(59.99).text == "59.99 s"
    assert figures.duration(3600).text == "1 h"
    assert figures.duration(90_061).text == "1 d 1 h 1 min"
    assert figures.moment(0) == "1970-01-01T00:00:00Z"


def test_the_worst_quality_counts_and_one_that_is_not_known_is_worse() -> None:
    assert worst({"measured", "modelled"}) == "modelled"
    assert worst({"measured", "fancied"}) == "fancied"
    assert worst(set()) == "unknown"
