"""The endpoints: what each answers before and after the first sample, and that answering touches nothing but memory."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.snapshots import HOSTILE, snapshot, snapshots

from carbon_exporter import __version__
from carbon_exporter.carbon.account import DeviceKey, JobKey, JobTotal
from carbon_exporter.jobs.base import Job
from carbon_exporter.publish.http import Address, Request, Response, Server
from carbon_exporter.publish.prometheus import CONTENT_TYPES, Renderer
from carbon_exporter.publish.status import encode_status
from carbon_exporter.publish.web import ENDPOINTS, Published, Web
from carbon_exporter.snapshot import Snapshot, StoreHealth
from carbon_exporter.units import Grams, Joules, Watts

PAGE = files("carbon_exporter.publish").joinpath("page/index.html").read_text(encoding="utf-8")
JSON = "application/json"
STATUS_KEYS = {
    "": "version node time started interval_seconds samples ready power_watts today devices nodes jobs spans "
    "scripts grid pue sensors resolvers store",
    "today": "date energy_kwh co2e_grams",
    "grid": "region intensity_grams_per_kwh provider scope basis quality source year located_by note",
    "store": "path state last_write reason remedy",
    "devices": "device kind vendor model sensor quality method power_watts energy_kwh gap_seconds bound "
    "utilization_ratio memory_used_bytes temperature_celsius power_limit_watts meter_divergence_ratio",
    "nodes": "source method power_watts energy_kwh",
    "jobs": "job_name job_namespace power_watts energy_kwh co2e_grams live rule",
    "spans": "job_name job_namespace span rank energy_kwh co2e_grams duration_seconds count values",
    "scripts": "connected refused",
    "sensors": "sensor state devices quality reason remedy errors last_sample_age_seconds",
    "resolvers": "resolver success reason remedy",
}
"""What the page and other programs rely on, by the object that has it."""


def web(seen: Snapshot | None) -> Web:
    """The endpoints when this is the newest snapshot."""
    renderer = Renderer()
    published = None if seen is None else Published(seen, renderer.render(seen))
    return Web(lambda: published, renderer, "node-7")


def get(target: str, seen: Snapshot | None = None, method: str = "GET", **headers: str) -> Response:
    """One answer; header names with underscores for dashes."""
    known = {name.replace("_", "-"): value for name, value in headers.items()}
    return web(seen).answer(Request(method, target, known))


def status(seen: Snapshot) -> Any:
    """The status as a strict client reads it."""

    def never(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(encode_status(seen, "node-7"), parse_constant=never)


@pytest.mark.parametrize(
    ("target", "before", "after", "content_type"),
    [
        ("/", 200, 200, "text/html; charset=utf-8"),
        ("/-/healthy", 200, 200, "text/plain; charset=utf-8"),
        ("/-/ready", 503, 200, "text/plain; charset=utf-8"),
        ("/api/v1/status", 503, 200, JSON),
        ("/metrics", 503, 200, CONTENT_TYPES["text"]),
    ],
)
def test_each_endpoint_answers_before_and_after_the_first_sample(
    target: str, before: int, after: int, content_type: str
) -> None:
    assert target in ENDPOINTS
    assert get(target).status == before
    answer = get(target, snapshot())
    assert (answer.status, answer.content_type) == (after, content_type)
    assert answer.body


def test_before_the_first_sample_metrics_says_so_in_plain_text_whatever_was_asked_for() -> None:
    answer = get("/metrics", accept="application/openmetrics-text", accept_encoding="gzip")
    assert answer == Response(503, b"no sample yet\n", "text/plain; charset=utf-8")
    assert get("/api/v1/status").body == b'{"ready":false}'


@pytest.mark.parametrize("target", ENDPOINTS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", "X"])
def test_other_methods_are_told_which_are_allowed(target: str, method: str) -> None:
    answer = get(target, snapshot(), method)
    assert answer.status == 405
    assert ("Allow", "GET, HEAD") in answer.headers


@pytest.mark.parametrize(
    "target", ["/nothing", "/metrics/", "//metrics", "*", "", "/../metrics", "/Metrics", "metrics"]
)
def test_an_unknown_path_is_told_which_there_are_and_not_repeated(target: str) -> None:
    answer = get(target, snapshot())
    assert answer.status == 404
    assert all(endpoint.encode() in answer.body for endpoint in ENDPOINTS)
    assert answer.body == get("/else", snapshot()).body


@pytest.mark.parametrize("target", ["http://node:12011/metrics", "/metrics?", "/metrics#part", "/metrics?name%5B%5D="])
def test_a_path_is_found_in_every_form_of_target(target: str) -> None:
    assert get(target, snapshot()).body == get("/metrics", snapshot()).body


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=30)
    | st.sampled_from(["http://[", "//[::1", "/metrics?name[]=%ff&name[]=%", "/%00", "http://[::1]x/"]),
    st.text(max_size=10),
)
def test_no_target_or_header_makes_an_answer_fail(target: str, header: str) -> None:
    answer = get(target, snapshot(), accept=header, accept_encoding=header)
    assert answer.status in {200, 400, 404}


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
@pytest.mark.parametrize("accept_encoding", ["", "gzip"])
def test_metrics_is_in_the_format_and_coding_that_the_client_wants(accept: str, accept_encoding: str) -> None:
    answer = get("/metrics", snapshot(), accept=accept, accept_encoding=accept_encoding)
    page = (gzip.decompress(answer.body) if accept_encoding else answer.body).decode()
    families = list((parse_openmetrics if accept else parse_text)(page))
    assert answer.content_type == CONTENT_TYPES["openmetrics" if accept else "text"]
    assert dict(answer.headers).get("Content-Encoding", "") == accept_encoding
    assert ("Vary", "Accept, Accept-Encoding") in answer.headers
    assert "carbon_device_power_watts" in {family.name for family in families}


def test_a_query_by_name_chooses_metrics() -> None:
    target = "/metrics?name[]=carbon_device_energy_kwh_total&name%5B%5D=carbon_pue_ratio&name[]=nonsense&other=1"
    for coding in ("", "gzip"):
        body = get(target, snapshot(), accept_encoding=coding).body
        page = (gzip.decompress(body) if coding else body).decode()
        assert re.findall("# TYPE (.*)", page) == ["carbon_device_energy_kwh_total counter", "carbon_pue_ratio gauge"]
    assert get("/metrics?name[]=nonsense", snapshot()) == Response(
        200, b"", CONTENT_TYPES["text"], (("Vary", "Accept, Accept-Encoding"),)
    )


def test_the_page_comes_with_a_policy_that_names_its_own_script_and_style_by_hash() -> None:
    answer = get("/", snapshot())
    assert answer.body.decode() == PAGE
    policy = dict(answer.headers)["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for element in ("script", "style"):
        (content,) = re.findall(f"<{element}[^>]*>(.*?)</{element}>", PAGE, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{element}-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert "unsafe" not in policy


def test_the_status_has_its_documented_keys_and_no_others() -> None:
    shown = status(snapshot())
    assert list(shown) == STATUS_KEYS[""].split()
    for part in ("today", "scripts", "grid", "store"):
        assert list(shown[part]) == STATUS_KEYS[part].split(), part
    for part in ("devices", "nodes", "jobs", "spans", "sensors", "resolvers"):
        assert shown[part]
        assert all(list(row) == STATUS_KEYS[part].split() for row in shown[part]), part
    assert (shown["version"], shown["node"], shown["ready"]) == (__version__, "node-7", True)


def test_the_status_shows_the_numbers_of_metrics() -> None:
    shown = status(snapshot())
    series = {
        (sample.name, sample.labels.get("device"), sample.labels.get("job_name")): sample.value
        for family in parse_text(get("/metrics", snapshot()).body.decode())
        for sample in family.samples
    }
    for device in shown["devices"]:
        assert device["energy_kwh"] == series["carbon_device_energy_kwh_total", device["device"], None]
        assert device["power_watts"] == series["carbon_device_power_watts", device["device"], None]
        assert device["gap_seconds"] == series["carbon_energy_gap_seconds_total", device["device"], None]
    (train,) = (job for job in shown["jobs"] if job["job_name"] == "train")
    assert train["energy_kwh"] == series["carbon_job_energy_kwh_total", "cpu0", "train"]
    assert train["co2e_grams"] == series["carbon_job_co2e_grams_total", "cpu0", "train"]
    assert shown["pue"] == series["carbon_pue_ratio", None, None]
    assert shown["power_watts"] == 43.5


def test_the_status_adds_a_jobs_devices_up_and_ranks_by_power() -> None:
    keys = [JobKey(Job("wide"), DeviceKey(f"gpu{n}", "gpu", region)) for n in range(4) for region in ("FR", "DE")]
    totals = {**snapshot().job_totals, **{key: JobTotal(Joules(3.6e6), Grams(10.0)) for key in keys}}
    power = {**snapshot().job_power, keys[0]: Watts(300.0), keys[2]: Watts(200.0)}
    jobs = status(snapshot(job_totals=totals, job_power=power))["jobs"]
    assert [job["job_name"] for job in jobs] == ["wide", "train", "_idle_", "eval", "_unattributed_"]
    assert (jobs[0]["power_watts"], jobs[0]["energy_kwh"], jobs[0]["co2e_grams"]) == (500.0, 8.0, 80.0)
    assert [job["live"] for job in jobs] == [True, True, True, False, False]


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_any_status_is_json_without_nan_or_infinity(seen: Snapshot) -> None:
    shown = status(seen)
    assert list(shown) == STATUS_KEYS[""].split()
    assert len(shown["jobs"]) == len({key.job for key in seen.job_totals})
    assert [device["device"] for device in shown["devices"]] == [
        state.device.name.encode(errors="replace").decode() for state in seen.devices
    ]
    assert msgspec.json.decode(encode_status(seen, "node-7")) == shown


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_a_number_that_is_none_is_null(value: float) -> None:
    (key,) = (key for key in snapshot().job_power if key.job.name == "train")
    shown = status(snapshot(job_power={key: Watts(value)}, at=value))
    assert shown["jobs"][0]["power_watts"] is shown["time"] is None


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_texts_reach_the_status_as_they_are(text: str) -> None:
    shown = status(snapshot(store=StoreHealth(f"/{text}", "failing", reason=text)))
    assert shown["store"]["path"] == f"/{text}".replace("\udc80", "?")


@contextmanager
def watched() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A process that serves snapshots and notes what its server's thread asks of the system: its port, and itself."""
    command = [sys.executable, "-W", "error", "-c", WATCHED, str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process
        finally:
            process.kill()


WATCHED = """
import json, sys, threading, time
sys.path.insert(0, sys.argv[1])
from support.snapshots import many_jobs
from carbon_exporter.publish.http import Address, Response, Server
from carbon_exporter.publish.prometheus import Renderer
from carbon_exporter.publish.web import Published, Web

FORBIDDEN = {"open", "import", "socket.connect", "socket.bind", "socket.getaddrinfo", "os.listdir", "os.scandir",
             "os.fork", "os.posix_spawn", "subprocess.Popen"}
seen, server_thread, latest, renderer, done = [], [], [], Renderer(), threading.Event()

def watch(event, arguments):
    if event in FORBIDDEN and server_thread and threading.get_ident() == server_thread[0]:
        seen.append([event, str(arguments[0])])

def tick(n):
    shown = many_jobs(200 + n)
    latest[:] = [Published(shown, renderer.render(shown))]

def answer(request):
    if request.target == "/open":
        open("/dev/null").close()
        return Response(200, json.dumps(seen).encode())
    return web.answer(request)

web = Web(lambda: latest[0], renderer, "node")
server = Server(Address("127.0.0.1"), answer)
server.start()
tick(0)
server_thread.append(next(thread.ident for thread in threading.enumerate() if thread.name == "http"))
sys.addaudithook(watch)
print(server.address.port, flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), done.set())).start()
n = 0
while not done.wait(0.02):
    n += 1
    tick(n)
server.stop()
print(n)
"""


def test_answering_opens_no_file_and_connects_no_socket() -> None:
    accepts = ("text/plain", "application/openmetrics-text;version=1.0.0")
    wishes = [{"Accept": accept, "Accept-Encoding": coding} for accept in accepts for coding in ("identity", "gzip")]
    with watched() as (port, process):
        for _ in range(50):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            for wish in wishes:
                connection.request("GET", "/metrics", headers=wish)
                assert len(connection.getresponse().read()) > 5000
            for target in (*ENDPOINTS, "/metrics?name[]=carbon_job_info", "/nothing"):
                connection.request("GET", target)
                assert connection.getresponse().read()
            connection.close()
        connection.request("GET", "/open")
        assert json.loads(connection.getresponse().read()) == [["open", "/dev/null"]], (
            "the watch sees only what it must"
        )
        connection.close()
        ticks, _ = process.communicate("", timeout=10)
        assert int(ticks) > 5
        assert process.returncode == 0


def test_the_endpoints_over_a_socket_are_the_same_for_get_and_head() -> None:
    server = Server(Address("127.0.0.1"), web(snapshot()).answer)
    server.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.address.port, timeout=5)
        for target in (*ENDPOINTS, "/nothing"):
            seen = []
            for method in ("GET", "HEAD"):
                connection.request(method, target)
                answer = connection.getresponse()
                seen.append((answer.status, sorted(answer.getheaders()), answer.read()))
            assert seen[0][:2] == seen[1][:2]
            assert seen[0][2] == get(target, snapshot()).body
            assert seen[1][2] == b""
        connection.request("DELETE", "/metrics")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Allow"), answer.read()) == (405, "GET, HEAD", b"only GET and HEAD\n")
        connection.close()
    finally:
        server.stop()
