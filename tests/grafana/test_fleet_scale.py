"""The week of `python -m benchmarks fleet_scale`: a real Prometheus reads its blocks, and the rules agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.tools import need

from benchmarks.cluster.names import Site
from benchmarks.cluster.raw import scrape
from benchmarks.cluster.recorded import record
from benchmarks.cluster.week import START, Week
from benchmarks.fleet_queries import fleet_board
from benchmarks.fleet_rules import groups
from benchmarks.fleet_scale import Fit
from benchmarks.stored import stored
from deploy.demo.server import Server

NODES = 6
HOURS = 20
"""A block of 18 hours, and one that it goes on in."""
MOMENTS = [START + minute * 60 for minute in (130, 18 * 60 + 4, 19 * 60 + 58)]
NOT_OF_A_NODE = ("span", "carbon_run", "carbon_grid")
"""What the modelled exporters do not show."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Six nodes, raw and recorded, scraped every minute so that both see the same watts."""
    need("prometheus")
    need("gcc")
    folder = tmp_path_factory.mktemp("blocks")
    with Week(folder, HOURS * 60) as week:
        record(Site(0), NODES, week)
        scrape(Site(0), NODES, NODES, week, 60.0)
    with stored(folder) as running:
        yield running


@pytest.mark.parametrize("name", ["leaf", "global"])
def test_what_is_written_as_recorded_is_what_the_rules_make_of_the_raw_series(server: Server, name: str) -> None:
    seen = 0
    for group in groups(name):
        for recorded, expression in group.expressions.items():
            if any(word in recorded for word in NOT_OF_A_NODE):
                continue
            for moment in MOMENTS:
                at = moment // 3600 * 3600 if recorded.endswith(":hourly") else moment
                expected, written = (_values(server.query(query, at)) for query in (expression, recorded))
                assert expected, recorded
                _agree(recorded, expected, written)
                seen += len(expected)
    assert seen > 300


def test_each_query_of_the_fleet_board_says_the_same_without_rules(server: Server) -> None:
    """By increase(), which extrapolates, so not exactly; and never nothing."""
    for ask in fleet_board(6 * 3600):
        ruled, raw = (_values(server.query(query, MOMENTS[-1])) for query in (ask.expression, ask.raw))
        assert ruled, ask
        assert raw, ask.raw
        if () in ruled:
            assert raw[()] == pytest.approx(ruled[()], rel=0.05), ask


def test_a_line_through_three_sizes_neither_falls_nor_begins_below_nothing() -> None:
    straight = Fit.of({75: 1.5, 150: 2.5, 300: 4.5})
    assert straight(1000) == pytest.approx(0.5 + 1000 / 75)
    assert straight.off == pytest.approx(0, abs=1e-9)
    assert Fit.of({1: 0.5, 2: 2.5, 3: 4.5}).fixed == 0
    assert Fit.of({1: 3.0, 2: 2.0, 3: 1.0})(10) > 0


def _agree(recorded: str, expected: dict[Any, float], written: dict[Any, float]) -> None:
    assert not expected.keys() - written.keys(), recorded
    for key, value in written.items():
        # A namespace whose last job has gone stays at 0 here; the rules let it end.
        assert value == pytest.approx(expected.get(key, 0.0), rel=1e-6, abs=1e-6), (recorded, key)


def _values(result: list[Any]) -> dict[tuple[tuple[str, str], ...], float]:
    """By labels, the name left out."""
    return {
        tuple(sorted((name, value) for name, value in one["metric"].items() if name != "__name__")): float(
            one["value"][1]
        )
        for one in result
    }
