"""The page of a script: scraped over HTTP, checked by promtool, as new as the account, on a free port."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.tools import need

from carbon_exporter.carbon.spans import SpanAccount, SpanEntry, SpanKey
from carbon_exporter.errors import ListenError
from carbon_exporter.jobs.base import Job
from carbon_exporter.sdk.base import Identity, Outlet
from carbon_exporter.sdk.own_grid import own_grid
from carbon_exporter.sdk.page_outlet import PageOutlet, start_metrics_server, started_page
from carbon_exporter.units import Grams, Joules

ME = Identity("train", rank="3")


def entry(span: str = "epoch") -> SpanEntry:
    """A span that used a kilowatt-hour."""
    key = SpanKey(Job("train", "research"), "FR", span, "3")
    return SpanEntry(key, {"cpu": Joules(3.6e6)}, Grams(44.5), 2.0, 1, {"loss": 0.25})


@contextmanager
def page(account: SpanAccount | None = None) -> Iterator[PageOutlet]:
    """A page that has started; with an account it is an outlet as well."""
    server = start_metrics_server(0, "127.0.0.1")
    try:
        if account is not None:
            outlet: Outlet = server
            outlet.start(account, ME)
        yield server
    finally:
        server.close()


def get(server: PageOutlet, path: str = "/metrics", accept: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def test_spans_stand_on_the_page_in_the_catalogues_names() -> None:
    account = SpanAccount()
    account.post(entry())
    with page(account) as server:
        text = get(server)
    labels = 'job_name="train",job_namespace="research",region="FR",span="epoch",rank="3"'
    assert f'carbon_span_energy_kwh_total{{{labels},kind="cpu"}} 1.0\n' in text
    assert f"carbon_span_co2e_grams_total{{{labels}}} 44.5\n" in text
    others = 'job_name="train",job_namespace="research",span="epoch",rank="3"'
    assert f"carbon_span_duration_seconds_total{{{others}}} 2.0\n" in text
    assert f"carbon_spans_total{{{others}}} 1.0\n" in text
    assert f'carbon_span_value{{{others},name="loss"}} 0.25\n' in text


def test_the_page_has_spans_and_the_grid_and_nothing_of_a_node() -> None:
    account = SpanAccount()
    account.post(entry())
    with page(account) as server:
        names = {family.name for family in text_string_to_metric_families(get(server))}
    assert "carbon_grid_intensity_grams_per_kwh" in names
    assert not {name for name in names if name.startswith(("carbon_device", "carbon_job", "carbon_node", "carbon_se"))}


def test_a_scrape_sees_the_account_as_it_stands() -> None:
    account = SpanAccount()
    with page(account) as server:
        for count in (1, 2, 3):
            account.post(entry())
            assert f'span="epoch",rank="3"}} {float(count)}\n' in get(server)


def test_openmetrics_is_negotiated() -> None:
    with page(SpanAccount()) as server:
        assert get(server, accept="application/openmetrics-text").endswith("# EOF\n")
        assert "# EOF" not in get(server)


def test_before_any_span_the_page_is_there_for_the_first_scrape() -> None:
    with page() as server:
        assert "carbon_span_" not in get(server)
        assert "carbon_grid_intensity_grams_per_kwh" in get(server)
        assert "healthy" in get(server, "/-/healthy")


def test_other_paths_say_where_the_page_is() -> None:
    with page() as server, pytest.raises(urllib.error.HTTPError, match="404") as refused:
        get(server, "/")
    assert "there is /metrics" in refused.value.read().decode()
    refused.value.close()


def test_a_port_that_is_taken_says_so_and_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}.*ss -ltnp.*LOCAL_RANK"):
            start_metrics_server(port, "127.0.0.1")
    assert started_page() is None


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_no_port_says_so(port: int) -> None:
    with pytest.raises(ListenError, match="from 0 to 65535"):
        start_metrics_server(port, "127.0.0.1")


def test_a_closed_page_frees_its_port_and_its_thread() -> None:
    with page() as server:
        assert started_page() is server
        port = server.port
    assert started_page() is None
    assert "http" not in {thread.name for thread in threading.enumerate()}
    with page(), socket.create_server(("127.0.0.1", port)):
        pass


def test_a_forked_child_has_no_page() -> None:
    with page() as server:
        child = os.fork()
        if child == 0:
            server.close()
            os._exit(0 if started_page() is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert "carbon_grid" in get(server)


def test_the_region_is_the_environments_and_the_worlds_where_that_names_none() -> None:
    assert own_grid({"CARBON_REGION": "FR"}).region == "FR"
    assert own_grid({"CARBON_REGION": "Atlantis"}).region == "world"


def test_promtool_has_nothing_to_say() -> None:
    promtool = need("promtool")
    account = SpanAccount()
    account.post(entry())
    with page(account) as server:
        text = get(server)
    said = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (said.stdout + said.stderr, said.returncode) == ("", 0)
