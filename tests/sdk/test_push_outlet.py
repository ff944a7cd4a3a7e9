"""Spans to a Pushgateway: a real HTTP server that is well, away, slow, or wants a password."""

from __future__ import annotations

import base64
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from support.waiting import until

from carbon_exporter.carbon.runs import RunKey, RunTotal
from carbon_exporter.carbon.spans import SpanAccount, SpanEntry, SpanKey
from carbon_exporter.jobs.base import Job
from carbon_exporter.sdk.base import Identity, Outlet
from carbon_exporter.sdk.push_outlet import PushOutlet, grouping_path
from carbon_exporter.units import Grams, Joules

ME = Identity("train", run="r1", rank="3")
SECRET = "pass@word/with:odd é"  # noqa: S105 - what must not leak is told apart by its name
QUOTED = "pass%40word%2Fwith%3Aodd%20%C3%A9"


@dataclass
class Pushed:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: str

    @property
    def counts(self) -> dict[str, float]:
        """How many spans ended, by name."""
        families = text_string_to_metric_families(self.body)
        return {s.labels["span"]: s.value for f in families for s in f.samples if s.name == "carbon_spans_total"}


@dataclass
class Gateway:
    """What stands for a Pushgateway."""

    port: int = 0
    status: int = 200
    seconds: float = 0.0
    pushed: list[Pushed] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving(known: Gateway | None = None) -> Iterator[Gateway]:
    """A gateway that is there; with a known one, again at its port."""
    gateway = known or Gateway()

    class Answer(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            gateway.pushed.append(Pushed("PUT", self.path, dict(self.headers), body))
            time.sleep(gateway.seconds)
            self.send_response(gateway.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that has not waited for its answer."""

    server = Quiet(("127.0.0.1", gateway.port), Answer)
    gateway.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def pushing(url: str, account: SpanAccount, period: float = 0.05, identity: Identity = ME) -> Iterator[PushOutlet]:
    """An outlet that has started."""
    push = PushOutlet(url, period=period)
    outlet: Outlet = push
    outlet.start(account, identity)
    try:
        yield push
    finally:
        outlet.close(10.0)


def post(account: SpanAccount, span: str = "epoch") -> None:
    """A span that has ended."""
    key = SpanKey(Job("train"), "FR", span, "3")
    account.post(SpanEntry(key, {"cpu": Joules(3.6e6)}, Grams(44.5), 2.0, 1))


def test_each_process_has_a_group_of_its_own_with_its_spans_and_the_grid() -> None:
    account = SpanAccount()
    with serving() as gateway, pushing(gateway.url, account) as outlet:
        post(account)
        outlet.tell()
        until(lambda: gateway.pushed)
        (pushed,) = gateway.pushed
    instance = f"{socket.gethostname()}:{os.getpid()}"
    assert (pushed.method, pushed.path) == ("PUT", f"/metrics/job/train/run/r1/rank/3/instance/{instance}")
    assert pushed.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'carbon_span_energy_kwh_total{job_name="train",region="FR",span="epoch",rank="3",kind="cpu"} 1.0' in (
        pushed.body
    )
    assert "carbon_grid_intensity_grams_per_kwh" in pushed.body
    assert "carbon_device" not in pushed.body


@pytest.mark.parametrize(
    ("identity", "path"),
    [
        (Identity("train"), "job/train/instance/n7:1"),
        (Identity("a/b"), "job@base64/YS9i/instance/n7:1"),
        (Identity(".."), "job@base64/Li4=/instance/n7:1"),
        (Identity("größe 7"), "job@base64/Z3LDtsOfZSA3/instance/n7:1"),
        (Identity("", rank="0"), "job/script/rank/0/instance/n7:1"),
        (Identity("train", run="2026-11-22T07:09", rank="12"), "job/train/run/2026-11-22T07:09/rank/12/instance/n7:1"),
    ],
)
def test_names_are_spelled_as_a_pushgateway_wants_them(identity: Identity, path: str) -> None:
    assert grouping_path(identity, "n7:1") == path


@given(st.text(st.characters(exclude_categories=()), min_size=1))
def test_whatever_a_job_is_called_the_gateway_reads_it_back(name: str) -> None:
    key, _, rest = grouping_path(Identity(name), "n7").partition("/")
    value = rest.removesuffix("/instance/n7")
    assert "/" not in value
    read = base64.urlsafe_b64decode(value).decode() if key == "job@base64" else value
    assert read == name.encode("utf-8", "replace").decode()


def test_pushes_keep_their_distance_and_the_last_state_always_arrives() -> None:
    account = SpanAccount()
    with serving() as gateway:
        with pushing(gateway.url, account, period=3600.0) as outlet:
            for _ in range(50):
                post(account)
                outlet.tell()
            until(lambda: gateway.pushed)
            for _ in range(50):
                post(account)
                outlet.tell()
        assert len(gateway.pushed) == 2
        assert gateway.pushed[-1].counts == {"epoch": 100.0}


def test_nothing_new_is_not_pushed_again() -> None:
    account = SpanAccount()
    with serving() as gateway:
        with pushing(gateway.url, account) as outlet:
            post(account)
            outlet.tell()
            until(lambda: gateway.pushed)
            time.sleep(0.3)
        assert len(gateway.pushed) == 1


def test_a_gateway_that_is_away_is_logged_once_and_gets_the_last_state_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    account = SpanAccount()
    with serving() as gateway:
        pass
    with pushing(gateway.url, account) as outlet:
        post(account)
        outlet.tell()
        until(lambda: caplog.records)
        time.sleep(0.3)
        post(account)
        outlet.tell()
        with serving(gateway):
            until(lambda: gateway.pushed and gateway.pushed[-1].counts == {"epoch": 2.0})
    (record,) = [record for record in caplog.records if record.name == "carbon_exporter.sdk"]
    assert f"the Pushgateway at {gateway.url} does not take spans: ConnectionError" in record.getMessage()


def test_a_gateway_that_refuses_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    account = SpanAccount()
    with serving() as gateway, pushing(gateway.url, account) as outlet:
        gateway.status = 503
        post(account)
        outlet.tell()
        until(lambda: len(gateway.pushed) >= 3)
        gateway.status = 200
        until(lambda: not outlet._due)
    assert "it answers 503" in caplog.text


def test_credentials_are_sent_and_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    account = SpanAccount()
    with serving() as gateway:
        gateway.status = 401
        with pushing(f"http://ada:{QUOTED}@127.0.0.1:{gateway.port}/sub/", account) as outlet:
            post(account)
            outlet.tell()
            until(lambda: gateway.pushed)
    pair = base64.b64encode(f"ada:{SECRET}".encode()).decode()
    assert gateway.pushed[0].headers["Authorization"] == f"Basic {pair}"
    assert gateway.pushed[0].path.startswith("/sub/metrics/job/train/")
    assert "it answers 401" in caplog.text
    for secret in (SECRET, QUOTED, pair, "ada"):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    "url", ["", "http://", "http://[::1", "ftp://x", "http://ada:secret@ bad host/", "http://x:99999"]
)
def test_an_address_that_cannot_be_is_logged_and_harms_nobody(url: str, caplog: pytest.LogCaptureFixture) -> None:
    account = SpanAccount()
    with pushing(url, account) as outlet:
        post(account)
        outlet.tell()
        until(lambda: caplog.records)
    assert "does not take spans" in caplog.text
    assert "secret" not in caplog.text


def test_an_address_without_a_scheme_is_http() -> None:
    account = SpanAccount()
    with serving() as gateway, pushing(f"127.0.0.1:{gateway.port}", account) as outlet:
        post(account)
        outlet.tell()
        until(lambda: gateway.pushed)


def test_a_gateway_that_does_not_answer_keeps_neither_the_sampler_nor_the_end() -> None:
    account = SpanAccount()
    with serving() as gateway:
        gateway.seconds = 20.0
        outlet = PushOutlet(gateway.url, period=0.05)
        began = time.monotonic()
        outlet.start(account, ME)
        post(account)
        outlet.tell()
        assert time.monotonic() - began < 1.0
        until(lambda: gateway.pushed)
        began = time.monotonic()
        outlet.close(0.2)
        assert time.monotonic() - began < 2.0
        until(_ended(outlet))


def _ended(outlet: PushOutlet) -> Callable[[], bool]:
    return lambda: outlet._thread is not None and not outlet._thread.is_alive()


SHORT_SCRIPT = """
import atexit, sys
from carbon_exporter.carbon.spans import SpanAccount, SpanEntry, SpanKey
from carbon_exporter.jobs.base import Job
from carbon_exporter.sdk.base import Identity
from carbon_exporter.sdk.push_outlet import PushOutlet
account, outlet = SpanAccount(), PushOutlet(sys.argv[1])
atexit.register(outlet.close, 10.0)
outlet.start(account, Identity("train"))
account.post(SpanEntry(SpanKey(Job("train"), "FR", "blink"), {"cpu": 1.0}, ended=1))
outlet.tell()
"""


def test_a_script_of_some_milliseconds_leaves_its_group_at_the_gateway() -> None:
    with serving() as gateway:
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run([sys.executable, "-c", SHORT_SCRIPT, gateway.url], env=environ, check=True, timeout=60)
        assert gateway.pushed[-1].counts == {"blink": 1.0}
        assert {pushed.method for pushed in gateway.pushed} == {"PUT"}


def test_each_run_has_a_group_for_a_gateway_puts_a_groups_labels_over_those_of_the_metrics() -> None:
    account = SpanAccount()
    total = RunTotal(Joules(3.6e6), Grams(1.0))
    account.runs = lambda: {RunKey(Job("train"), "r1", "3"): total, RunKey(Job("train"), "r 2", "3"): total}
    with serving() as gateway:
        outlet = PushOutlet(gateway.url)
        outlet.start(account, ME)
        account.post(SpanEntry(SpanKey(Job("train"), "FR", "epoch", "3"), {"cpu": Joules(1.0)}, ended=1))
        outlet.tell()
        until(lambda: len(gateway.pushed) >= 2)
        outlet.close(1.0)
    own, other = gateway.pushed[:2]
    instance = f"{socket.gethostname()}:{os.getpid()}"
    assert own.path == f"/metrics/{grouping_path(ME, instance)}"
    assert other.path == f"/metrics/{grouping_path(replace(ME, run='r 2'), instance)}"
    for pushed, run in ((own, "r1"), (other, "r 2")):
        runs = [
            sample.labels["run"]
            for family in text_string_to_metric_families(pushed.body)
            for sample in family.samples
            if sample.name == "carbon_run_energy_kwh_total"
        ]
        assert runs == [run]
    assert own.counts == {"epoch": 1.0}
    assert other.counts == {}


def kept(gateway: Gateway) -> dict[str, float]:
    """Joules by run, as a gateway has them that keeps the last state of each group."""
    groups = {pushed.path: pushed.body for pushed in gateway.pushed}
    samples = [
        one for body in groups.values() for family in text_string_to_metric_families(body) for one in family.samples
    ]
    return {one.labels["run"]: one.value * 3.6e6 for one in samples if one.name == "carbon_run_energy_kwh_total"}


def test_a_run_that_the_account_has_let_go_of_stays_at_the_gateway_with_its_last_total() -> None:
    account, listed = SpanAccount(), dict[str, float]()
    account.runs = lambda: {
        RunKey(Job("train"), run, "3"): RunTotal(Joules(joules), Grams(1.0)) for run, joules in listed.items()
    }
    with serving() as gateway, pushing(gateway.url, account) as outlet:
        for number in range(12):
            listed[f"r{number + 1}"] = 10.0 + number
            for gone in list(listed)[:-8]:
                del listed[gone]
            post(account)
            outlet.tell()
        until(lambda: len(kept(gateway)) == 12 and not outlet._due)
        since = len(gateway.pushed)
        post(account)
        outlet.tell()
        until(lambda: len(gateway.pushed) >= since + 9)
    assert kept(gateway) == {f"r{number + 1}": pytest.approx(10.0 + number) for number in range(12)}
    later = {pushed.path.partition("/run/")[2].partition("/")[0] for pushed in gateway.pushed[since:]}
    assert later == {"r1", *listed}, "those that have ended are left alone"


def test_the_last_totals_of_runs_arrive_though_the_gateway_was_away_when_they_were_let_go_of() -> None:
    account, newest = SpanAccount(), [0]
    account.runs = lambda: {RunKey(Job("train"), f"n{newest[0]}", "3"): RunTotal(Joules(1.0 + newest[0]), Grams(1.0))}
    with serving() as gateway:
        pass
    with pushing(gateway.url, account) as outlet:
        for number in range(20):
            newest[0] = number
            post(account)
            outlet.tell()
        with serving(gateway):
            until(lambda: len(kept(gateway)) == 20)
    assert kept(gateway) == {f"n{number}": pytest.approx(1.0 + number) for number in range(20)}
