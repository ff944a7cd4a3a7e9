"""The boards at their boundaries: the committed files, a real Prometheus, and Grafana's published types."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from support.dashboards import DASHBOARDS, boards, queries, substitute
from support.prometheus import Prometheus, prometheus
from support.schema_types import check_types
from support.tools import need

MINUTE, HOUR, STEP = 60, 3600, 300
END = int(time.time()) // HOUR * HOUR - HOUR
"""The end of the range in the tests, at a whole hour: there engines differ on which windows a range holds."""
BEGIN = END - 4 * HOUR
RECORDS = {
    "job_kind:carbon_job_energy_kwh:increase5m": 'job_name="train",region="FR",kind="gpu"',
    "job:carbon_job_co2e_grams:increase5m": 'job_name="train",region="FR"',
    "region:carbon_job_energy_kwh:increase5m": 'region="FR"',
    "region:carbon_job_co2e_grams:increase5m": 'region="FR"',
}


def counter(at: float) -> float:
    """What the job has used until then: ever more, so that a range that is moved or cut has another total."""
    return (at - BEGIN) ** 2 / 1e6


def test_the_committed_files_are_what_the_builder_writes() -> None:
    written = {f"{board['uid']}.json" for board in boards()}
    assert {path.name for path in DASHBOARDS.iterdir()} == written
    for board in boards():
        assert json.loads((DASHBOARDS / f"{board['uid']}.json").read_text()) == board


class _Empty(BaseHTTPRequestHandler):
    """A target with no series."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def _target() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Empty) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with four hours of recorded five-minute increases, one each minute."""
    place = tmp_path_factory.mktemp("prometheus")
    text = place / "recorded.om"
    lines = []
    for record, labels in RECORDS.items():
        lines.append(f"# TYPE {record} gauge")
        moments = range(BEGIN + STEP, END + HOUR, MINUTE)
        lines += [f"{record}{{{labels}}} {counter(at) - counter(at - STEP)!r} {at}" for at in moments]
    text.write_text("\n".join([*lines, "# EOF\n"]))
    blocks = [need("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(text), str(place / "tsdb")]
    subprocess.run(blocks, check=True, capture_output=True)
    with _target() as port, prometheus(place, port) as running:
        yield running


def shown(server: Prometheus, board: str, panel: str, at: float, *, seconds: int, since: float = 0) -> list[float]:
    """The panel's numbers, one for each of its queries, at that moment with a range of so many seconds."""
    values = {"job": "train", "__range": f"{seconds}s", "__from": f"{since:.0f}"}
    asked = [query.expr for query in queries() if query[:2] == (board, panel)]
    answers = [server.query(substitute(expr, values), at) for expr in asked]
    return [float(answer[0]["value"][1]) for answer in answers]


@pytest.mark.parametrize("panel", ["Energy in range", "CO2e in range"])
@pytest.mark.parametrize("board", ["carbon-fleet", "carbon-job"])
@pytest.mark.parametrize(
    ("late", "hours"),
    [(0.0, 1), (0.0, 3), (-0.001, 3), (0.001, 3), (137.0, 2), (299.9, 3)],
    ids=lambda value: f"{value:g}",
)
def test_a_total_holds_as_many_windows_as_its_range_wherever_that_ends(
    server: Prometheus, board: str, panel: str, late: float, hours: int
) -> None:
    truth = counter(END) - counter(END - hours * HOUR)
    assert shown(server, board, panel, END + late, seconds=hours * HOUR) == [pytest.approx(truth, rel=1e-9)]


@pytest.mark.parametrize("after", [STEP, HOUR, 2 * HOUR + 137, 3 * HOUR])
def test_what_is_accumulated_begins_at_the_left_edge_and_ends_as_the_total(server: Prometheus, after: int) -> None:
    since = END - 3 * HOUR
    truth = counter(since + after // STEP * STEP) - counter(since)
    found = shown(server, "carbon-job", "Energy and CO2e so far", since + after, seconds=3 * HOUR, since=since)
    assert found == [pytest.approx(truth, rel=1e-9)] * 2


@pytest.mark.soak
def test_the_boards_have_the_types_that_grafana_publishes(tmp_path: Path) -> None:
    assert check_types(boards(), tmp_path) == ""


@pytest.mark.soak
def test_a_misspelt_key_of_a_board_is_found(tmp_path: Path) -> None:
    board = boards()[0]
    assert "rowHieght" in check_types([{**board, "rowHieght": 3}], tmp_path)
