"""Real receivers of OTLP: a Prometheus with our rules, and a collector that hands on what it got."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.clients import until
from support.exporter import Exporter
from support.otlp_prometheus import Receiving, receiving_prometheus
from support.otlp_receiver import Receiver, receiver
from support.prometheus import _free_port
from support.snapshots import many_jobs, snapshot
from support.tools import need

from carbon_exporter.carbon.account import DeviceKey, JobKey, JobTotal
from carbon_exporter.carbon.spans import SpanKey, SpanTotal
from carbon_exporter.jobs.base import Job
from carbon_exporter.publish.otlp import OtlpPush
from carbon_exporter.snapshot import Snapshot
from carbon_exporter.units import Grams, Joules

RULES = Path(__file__).parents[2] / "grafana" / "rules" / "otlp.yml"
SPANS = {
    SpanKey(Job("train"), "FR", "epoch", "0"): SpanTotal({"gpu": Joules(3.6e6)}, Grams(2.0), 60.0, 3, {"loss": 0.5})
}
TARGET = {"job": "carbon-exporter", "instance": "node-1"}
CPU = DeviceKey("cpu0", "cpu", "FR")


def pushed(endpoint: str, *shown: Snapshot, interval: str = "60000", node: str = "node-1") -> None:
    """All of them in turn; the first at once, the last at the end."""
    push = OtlpPush.from_environment(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_METRIC_EXPORT_INTERVAL": interval}, node
    )
    assert push is not None
    for one in shown:
        push.post(one)
        time.sleep(0.3)
    push.close(20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiving]:
    with receiving_prometheus(tmp_path_factory.mktemp("otlp"), RULES) as running:
        yield running


def test_five_thousand_jobs_reach_a_prometheus_under_the_names_of_the_contract(server: Receiving) -> None:
    crowd = dataclasses.replace(many_jobs(5000, "crowd"), at=time.time())
    pushed(server.endpoint, crowd)
    received = server.wait('carbon_job_energy_joules_total{carbon_job_name=~"crowd-.*"}', 5000)
    assert sum(value for _, value in received) == sum(total.joules for total in crowd.job_totals.values())
    recorded = server.wait('carbon_job_energy_kwh_total{job_name=~"crowd-.*"}', 5000)
    assert {labels["job_name"] for labels, _ in recorded} == {f"crowd-{n}" for n in range(5000)}
    expected = {"job_name": "crowd-7", "region": "FR", "device": "cpu0", "kind": "cpu", **TARGET}
    assert [value for labels, value in recorded if labels == expected] == [pytest.approx(7e5 / 3.6e6)]


def test_every_recorded_name_has_the_labels_and_the_value_of_the_page(server: Receiving) -> None:
    pushed(server.endpoint, snapshot(at=time.time(), spans=SPANS))
    expected = {
        'carbon_device_energy_kwh_total{device="cpu0"}': ({"device": "cpu0", "kind": "cpu", "region": "FR"}, 3.0),
        'carbon_device_power_watts{device="dram0"}': ({"device": "dram0", "kind": "dram", "region": "FR"}, 3.0),
        "carbon_node_energy_kwh_total": ({"source": "redfish"}, 10.0),
        "carbon_node_power_watts": ({"source": "redfish"}, 240.0),
        "carbon_grid_intensity_grams_per_kwh": (
            {"region": "FR", "provider": "static", "scope": "lifecycle", "basis": "average"},
            44.5,
        ),
        'carbon_job_co2e_grams_total{job_name="eval"}': (
            {"job_name": "eval", "job_namespace": "research", "region": "FR", "device": "dram0", "kind": "dram"},
            27.5,
        ),
        "carbon_span_energy_kwh_total": (
            {"job_name": "train", "region": "FR", "span": "epoch", "rank": "0", "kind": "gpu"},
            1.0,
        ),
        'carbon_span_co2e_grams_total{job_name!=""}': (
            {"job_name": "train", "region": "FR", "span": "epoch", "rank": "0"},
            2.0,
        ),
        'carbon_span_duration_seconds_total{job_name!=""}': ({"job_name": "train", "span": "epoch", "rank": "0"}, 60.0),
        'carbon_spans_total{job_name!=""}': ({"job_name": "train", "span": "epoch", "rank": "0"}, 3.0),
        'carbon_span_value{job_name!=""}': ({"job_name": "train", "span": "epoch", "rank": "0", "name": "loss"}, 0.5),
    }
    for expression, (labels, value) in expected.items():
        ((found, number),) = server.wait(expression)
        assert found == {**labels, **TARGET}
        assert number == pytest.approx(value)


def test_a_job_that_began_between_two_pushes_is_counted_from_zero(server: Receiving) -> None:
    now = time.time()
    shown = [
        snapshot(
            at=now - ago,
            job_totals={JobKey(Job("brief"), CPU): JobTotal(Joules(joules), Grams(0.0))} if joules is not None else {},
            jobs={},
            job_power={},
            partitions=(),
        )
        for ago, joules in ((40.0, None), (30.0, 0.0), (1.0, 900.0))
    ]
    pushed(server.endpoint, *shown, node="node-2")  # the other has told of later moments already
    increase = server.wait('sum(last_over_time(carbon_job_energy_joules_total{carbon_job_name="brief"}[5m]))')
    assert increase[0][1] == 900.0
    steps = server.query('carbon_job_energy_joules_total{carbon_job_name="brief"}[2m]')[0]["values"]
    assert [float(value) for _, value in steps] == [0.0, 900.0]


def test_an_exporter_pushes_what_its_page_shows(tmp_path: Path, server: Receiving) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": server.endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "NODE_NAME": "e2e",
    }
    with Exporter(
        f"--storage.path={tmp_path}", "--sample.interval=500ms", "--grid.region=FR", environ=environ
    ) as exporter:
        exporter.wait_for_log("pushing to")
        exporter.wait_for_samples(4)
        page = exporter.series()
        assert exporter.stop() == 0
    devices = {
        dict(labels)["device"]: value
        for (name, labels), value in page.items()
        if name == "carbon_device_energy_kwh_total"
    }
    assert devices
    found = server.wait('carbon_device_energy_kwh_total{instance="e2e"}', len(devices))
    assert {labels["device"] for labels, _ in found} == devices.keys()
    for device, kwh in devices.items():  # the last push came after this page
        pushed_energy = f'last_over_time(hw_energy_joules_total{{instance="e2e", hw_id="{device}"}}[1m])'
        server.wait(f"{pushed_energy} >= {kwh * 3.6e6 * (1 - 1e-9)!r}")
    ((_, ratio),) = server.wait(
        'sum(last_over_time(carbon_job_energy_joules_total{instance="e2e"}[1m]))'
        ' / sum(last_over_time(hw_energy_joules_total{instance="e2e"}[1m]))'
    )
    assert ratio == pytest.approx(1, rel=1e-6)


def test_promtool_accepts_the_rules_and_their_values() -> None:
    promtool = need("promtool")
    subprocess.run([promtool, "check", "rules", str(RULES)], check=True, capture_output=True, timeout=60)
    tests = RULES.parent / "tests" / "otlp_test.yml"
    done = subprocess.run(
        [promtool, "test", "rules", str(tests)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def rotel(onward: Receiver, directory: Path) -> Iterator[str]:
    """The collector rotel, which hands on to `onward`; gives the address that it receives at."""
    spec = importlib.util.find_spec("rotel")
    if spec is None or spec.origin is None:
        message = "rotel is not installed (the extra test, on Linux)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    http, grpc = _free_port(), _free_port()
    command = [
        str(Path(spec.origin).with_name("rotel-agent")),
        "start",
        f"--otlp-http-endpoint=127.0.0.1:{http}",
        f"--otlp-grpc-endpoint=127.0.0.1:{grpc}",
        "--exporter=otlp",
        "--otlp-exporter-protocol=http",
        f"--otlp-exporter-endpoint={onward.endpoint}",
        "--metrics-batch-timeout=200ms",
        f"--log-file={directory / 'rotel.log'}",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: process.poll() is not None or _listens(http), 20)
            assert process.poll() is None
            yield f"http://127.0.0.1:{http}"
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_collector_hands_on_all_that_it_was_pushed(tmp_path: Path) -> None:
    crowd = dataclasses.replace(many_jobs(3000), at=time.time(), spans=SPANS)
    with receiver() as direct:
        pushed(direct.endpoint, crowd)
        sent = direct.wait(1)[0]
    with receiver() as onward:
        with rotel(onward, tmp_path) as endpoint:
            pushed(endpoint, crowd)
            until(lambda: sum(len(batch.points) for batch in onward.pushed) >= len(sent.points), 20)
        handed = [point for batch in onward.pushed for point in batch.points]
        assert onward.pushed[0].resource == sent.resource
    assert sorted(map(repr, handed)) == sorted(map(repr, sent.points))
