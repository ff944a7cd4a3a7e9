"""What tables say of strange runs: names that would be markup, values that are no numbers, groups that overlap."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.cli.compare import _cell
from carbon_exporter.errors import QueryError
from carbon_exporter.report import figures
from carbon_exporter.report.comparison import compare, values_of
from carbon_exporter.report.markdown import section
from carbon_exporter.report.run_document import as_json
from carbon_exporter.report.run_facts import Run
from carbon_exporter.report.run_tables import compared, listed

RUN = Run(
    cluster="",
    namespace="",
    job="train",
    name="a-1",
    about=(("model", "gelu"), ("batch_size", "4")),
    ranks=1,
    began=1_772_366_400.0,
    ended=1_772_370_000.0,
    energy_kwh=2.0,
    co2e_grams=500.0,
    values=((("epoch", "loss"), 0.5),),
    goes_on=False,
    cut=False,
)
OTHER = replace(RUN, name="b-1", job="infer", about=(("model", "relu"), ("batch_size", "8")), energy_kwh=4.0)
RUNS = (RUN, OTHER)


@given(st.text(min_size=1, max_size=30))
def test_no_name_becomes_markup_or_moves_the_cursor(name: str) -> None:
    run = replace(RUN, name=name, values=(((name, name), 1.0),))
    page = section(listed([run], values_of([run]), chosen=False))
    assert page.startswith("## Runs\n\n| Run |")
    assert len(page.splitlines()) == 5
    assert _cell(name).isprintable()


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("a-1", [RUN]),
        ("a-*", [RUN]),
        ("train", [RUN]),
        ("?-[12]", [RUN, OTHER]),
        ("model=g*", [RUN]),
        ("model=?elu,batch_size=8", [OTHER]),
        ("run=b-1,job=infer,namespace=,cluster=", [OTHER]),
        ("job=*", [RUN, OTHER]),
    ],
)
def test_a_group_is_a_name_or_conditions(name: str, members: list[Run]) -> None:
    assert list(compare(RUNS, [name], ()).groups[0].runs) == members


@pytest.mark.parametrize("name", ["A-1", "model=gelu,batch_size=8", "batch=4", "dataset=?*", ""])
def test_a_group_of_nobody_is_an_error(name: str) -> None:
    with pytest.raises(QueryError, match="no run is called"):
        compare(RUNS, ["a-1", name], ())


def test_a_ratio_is_of_means_and_a_difference_has_its_sign() -> None:
    told = {one.quantity: one for one in compare(RUNS, ["a-1", "b-1"], values_of(RUNS)).contrasts}
    assert (told["energy"].ratio, told["energy"].difference) == (2.0, 2.0)
    assert (told["co2e"].ratio, told["co2e"].difference) == (1.0, 0.0)
    free = replace(RUN, co2e_grams=0.0)
    assert [one.ratio for one in compare([free, OTHER], ["a-1", "b-1"], ()).contrasts if one.quantity == "co2e"] == [
        None
    ]


def test_runs_in_two_groups_are_told_of() -> None:
    notes = compare(RUNS, ["a-1", "*"], ()).notes
    assert "Welch's test takes groups as apart, but in more than one are: a-1." in notes


def test_a_value_that_is_no_number_is_shown_as_such_and_never_tested() -> None:
    lost = replace(RUN, name="a-2", values=((("epoch", "loss"), math.nan),))
    comparison = compare([RUN, lost, OTHER, replace(OTHER, name="b-2")], ["b-*", "a-*"], (("epoch", "loss"),))
    (loss,) = (one for one in comparison.contrasts if one.quantity == "epoch loss")
    assert loss.test is None
    page = "\n".join(map(section, compared(comparison, values_of(RUNS), chosen=False)))
    assert "| a-\\* | 2 | 1 h ± 0 | 2 kWh ± 0 | 500 g ± 0 | NaN |" in page
    assert json.loads(as_json([lost], None, (0, 1), ()))["runs"][0]["values"][0]["energy_kwh_for_one"] is None


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_unit_of_what_is_not_above_zero_has_no_cost(value: float) -> None:
    assert replace(RUN, values=((("epoch", "loss"), value),)).of_one(("epoch", "loss")) is None


def test_three_values_are_shown_and_the_others_are_named() -> None:
    run = replace(RUN, values=tuple(((("epoch", f"v{number}"), 1.0)) for number in range(5)))
    page = section(listed([run], values_of([run]), chosen=False))
    assert "epoch v2" in page
    assert "Recorded, too, and shown by --value=NAME: epoch.v3, epoch.v4." in page
    wanted = values_of([run], ["epoch.v4", "v0"])
    assert wanted == (("epoch", "v4"), ("epoch", "v0"))
    assert "epoch v4 | for one v4 | epoch v0" in section(listed([run], wanted, chosen=True))


def test_what_two_spans_say_alike_is_shown_once() -> None:
    twice = [
        replace(run, values=((("epoch", "loss"), loss), (("run", "loss"), loss), (("epoch", "seen"), loss)))
        for run, loss in ((RUN, 0.5), (OTHER, math.nan))
    ]
    assert values_of(twice) == (("epoch", "loss"), ("epoch", "seen"))
    assert values_of(twice, ["run.loss"]) == (("run", "loss"),)
    unlike = replace(RUN, values=((("epoch", "loss"), 0.5), (("run", "loss"), 0.4)))
    assert values_of([unlike, twice[1]]) == (("epoch", "loss"), ("run", "loss"), ("epoch", "seen"))


def test_a_mean_has_the_digits_that_its_spread_allows() -> None:
    assert figures.spread(24.049, 0.26, figures.ENERGY).text == "24.05 ± 0.26 kWh"
    assert figures.spread(7000.3, 240, figures.MASS).text == "7.00 ± 0.24 kg"
    assert figures.spread(270_720, 4680, figures.TIME).text == "75.2 ± 1.3 h"
    assert figures.spread(5.195, 0.002).text == "5.1950 ± 0.0020"
    assert figures.spread(1234.5, 400).text == "1,234 ± 400"
    assert figures.spread(0.0, 0.0, figures.MASS).text == "0 g ± 0"
    assert figures.spread(17.0, None).text == "17"
