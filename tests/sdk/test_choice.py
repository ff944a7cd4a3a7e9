"""Where spans go: one path a process, the first of four that is there, or the one that was asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from opentelemetry import metrics
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.sdk.metrics import MeterProvider
from support.handoff_peer import HandoffPeer, energy, handoff_peer
from support.waiting import until

from carbon_exporter import carbon_span, start_metrics_server
from carbon_exporter.sdk import tracker as tracker_module
from carbon_exporter.sdk import trouble as trouble_module
from carbon_exporter.sdk.choice import Choice, choose, socket_paths
from carbon_exporter.sdk.options import Options
from carbon_exporter.sdk.page_outlet import PageOutlet
from carbon_exporter.sdk.tracker import Tracker

NO_EXPORTER = {"CARBON_SDK_SOCKET": "/nowhere", "CARBON_REGION": "FR", "CARBON_JOB": "mine"}


@pytest.fixture(autouse=True)
def _fresh_troubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble_module, "_seen", set())


@pytest.fixture
def peer() -> Iterator[HandoffPeer]:
    with handoff_peer() as peer:
        yield peer


@pytest.fixture
def page() -> Iterator[PageOutlet]:
    page = start_metrics_server(0, "127.0.0.1")
    yield page
    page.close()


def choice(environ: Mapping[str, str], **options: str) -> Choice:
    found = choose(Options(**options), environ, frozenset, lambda: None)  # type: ignore[arg-type]
    if found.outlet is not None and found.path != "page":
        found.outlet.close(0.0)
    return found


def test_the_exporters_socket_is_looked_for_where_it_is_by_default() -> None:
    assert [*socket_paths({})] == ["/run/carbon-exporter/sdk.sock"]
    assert [*socket_paths({"XDG_RUNTIME_DIR": "/run/user/7"})][1] == "/run/user/7/carbon-exporter/sdk.sock"
    assert [*socket_paths({"CARBON_SDK_SOCKET": "/mine", "XDG_RUNTIME_DIR": "/run/user/7"})] == ["/mine"]


def test_an_exporter_that_accepts_wins_and_says_who_this_is(peer: HandoffPeer, page: PageOutlet) -> None:
    found = choice({"CARBON_SDK_SOCKET": peer.path, "CARBON_PUSHGATEWAY": "http://127.0.0.1:9"})
    assert found.path == "exporter"
    assert (found.identity().job, found.identity().namespace) == ("train", "research")
    price = found.price()
    assert price is not None
    assert (price.region, price.grams_per_kwh, price.pue) == ("FR", 44.5, 1.25)
    assert page.is_own


def test_a_socket_where_nobody_listens_is_passed_over(tmp_path: Path, peer: HandoffPeer) -> None:
    peer.die()
    (tmp_path / "file").touch()
    for path in (peer.path, str(tmp_path / "file"), str(tmp_path / "missing")):
        assert choice({**NO_EXPORTER, "CARBON_SDK_SOCKET": path}).path == "none"


def test_without_any_path_a_script_measures_for_itself() -> None:
    found = choice(NO_EXPORTER)
    assert (found.path, found.outlet, found.meters.name) == ("none", None, "own")
    assert found.identity().job == "mine"
    price = found.price()
    assert price is not None
    assert (price.region, price.source) == ("FR", "static/yearly")


def test_the_order_is_opentelemetry_then_page_then_pushgateway(
    page: PageOutlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {**NO_EXPORTER, "CARBON_PUSHGATEWAY": "http://127.0.0.1:9"}
    assert metrics.get_meter_provider() is not None
    provider = MeterProvider(shutdown_on_exit=False)
    with monkeypatch.context() as context:
        context.setattr(metrics_internal, "_METER_PROVIDER", provider)
        assert choice(environ).path == "opentelemetry"
        assert choice({**environ, "CARBON_SDK": "pushgateway"}).path == "pushgateway"
        assert choice(environ, path="page").outlet is page
    provider.shutdown()
    assert choice(environ).path == "page"
    page.close()
    assert choice(environ).path == "pushgateway"
    assert choice(NO_EXPORTER, pushgateway="127.0.0.1:9").path == "pushgateway"


@pytest.mark.parametrize("asked", ["exporter", "csv"])
def test_a_path_that_is_not_there_is_said_and_the_script_goes_on(asked: str, caplog: pytest.LogCaptureFixture) -> None:
    environ = {**NO_EXPORTER, "CARBON_SDK": asked, "CARBON_PUSHGATEWAY": "http://127.0.0.1:9"}
    assert choice(environ).path == "none"
    assert len(caplog.records) == 1
    assert asked in caplog.text


def test_a_region_that_nobody_knows_is_said_and_priced_as_the_world(caplog: pytest.LogCaptureFixture) -> None:
    price = choice(NO_EXPORTER, region="Atlantis").price()
    assert price is not None
    assert price.region == "world"
    assert "priced at the world's average" in caplog.text


def test_energy_from_the_exporter_comes_back_to_it_as_spans(peer: HandoffPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole engine, with an exporter that says what its processor draws."""
    monkeypatch.setattr(tracker_module, "_tracker", tracker := Tracker(Options(socket=peer.path)))
    began = time.monotonic()
    with carbon_span("epoch") as span:
        until(lambda: peer.watched)
        for _ in range(8):
            time.sleep(0.1)
            peer.say(energy("cpu0", began, began := time.monotonic(), 8.0))
    peer.say(energy("cpu0", began, time.monotonic(), 8.0))
    until(lambda: span.settled)
    assert span.quality == "measured"
    assert span.energy_by_kind["cpu"] > 0
    tracker.finish()
    row = peer.spans["epoch"]
    assert row.count == 1
    assert row.joules["cpu"] == pytest.approx(span.energy_kwh * 3.6e6, rel=1e-6)
    assert {one.job for one in peer.heard if hasattr(one, "job")} != {""}
    assert peer.endings == 1
