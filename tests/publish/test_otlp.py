"""The push over OTLP: what a receiver gets, and what happens where there is none."""

from __future__ import annotations

import dataclasses
import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from support.exporter import parse
from support.otlp_receiver import Point, Receiver, receiver
from support.snapshots import many_jobs, snapshot, snapshots
from support.waiting import until

from carbon_exporter.carbon.account import DeviceKey, JobKey, JobTotal
from carbon_exporter.carbon.spans import SpanKey, SpanTotal
from carbon_exporter.errors import ConfigError
from carbon_exporter.jobs.base import Job
from carbon_exporter.publish.otlp import OtlpPush, Target, resource_attributes, target_of
from carbon_exporter.publish.otlp_lives import Lives
from carbon_exporter.publish.otlp_points import metrics_data
from carbon_exporter.publish.prometheus import Renderer
from carbon_exporter.snapshot import Snapshot
from carbon_exporter.units import JOULES_PER_KWH, Grams, Joules

CPU = DeviceKey("cpu0", "cpu", "FR")
EPOCH = SpanKey(Job("train", "research"), "FR", "epoch", "1")
SPANS = {
    EPOCH: SpanTotal({"cpu": Joules(3.6e6), "gpu": Joules(7.2e6)}, Grams(2.0), 61.5, 3, {"loss": 0.25}),
    EPOCH._replace(region="DE"): SpanTotal({"cpu": Joules(1.0)}, Grams(1.0), 0.5, 1),
}
PATIENCE = 10.0


def environment(collector: Receiver, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "1", **more}


@contextmanager
def pushing(collector: Receiver, **more: str) -> Iterator[OtlpPush]:
    push = OtlpPush.from_environment(environment(collector, **more), "node-1")
    assert push is not None
    try:
        yield push
    finally:
        push.close(PATIENCE)


def with_job(at: float, joules: float | None, *, base: Snapshot | None = None) -> Snapshot:
    totals = {} if joules is None else {JobKey(Job("train"), CPU): JobTotal(Joules(joules), Grams(joules / 1e4))}
    return dataclasses.replace(base or snapshot(), at=at, job_totals=totals, jobs={}, partitions=(), job_power={})


def values(points: list[Point]) -> dict[tuple[tuple[str, str], ...], float]:
    return {tuple(sorted(point.attributes.items())): point.value for point in points}


def test_a_receiver_gets_devices_jobs_spans_and_the_grid_in_base_units() -> None:
    with receiver() as collector, pushing(collector) as push:
        push.post(snapshot(spans=SPANS))
        pushed = collector.wait(1)[0]
    assert {(p.metric, p.unit, p.monotonic) for p in pushed.points} == {
        ("hw.energy", "J", True),
        ("hw.power", "W", None),
        ("hw.host.energy", "J", True),
        ("hw.host.power", "W", None),
        ("carbon.job.energy", "J", True),
        ("carbon.job.co2e", "g", True),
        ("carbon.span.energy", "J", True),
        ("carbon.span.co2e", "g", True),
        ("carbon.span.duration", "s", True),
        ("carbon.spans", "{span}", True),
        ("carbon.span.value", "", None),
        ("carbon.run.energy", "J", True),
        ("carbon.run.co2e", "g", True),
        ("carbon.run.info", "", None),
        ("carbon.run.predicted.energy", "J", None),
        ("carbon.run.predicted.co2e", "g", None),
        ("carbon.grid.intensity", "g/kWh", None),
    }
    cpu = (("carbon.region", "FR"), ("hw.id", "cpu0"), ("hw.name", "Xeon"), ("hw.type", "cpu"))
    dram = (("carbon.region", "FR"), ("hw.id", "dram0"), ("hw.type", "memory"))
    assert values(pushed.of("hw.energy")) == {cpu: 10.8e6, dram: 1.8e6}
    assert values(pushed.of("hw.power")) == {cpu: 40.5, dram: 3.0}
    assert values(pushed.of("hw.host.energy")) == {(("hw.id", "redfish"),): 36e6}
    span = (("carbon.job.name", "train"), ("carbon.job.namespace", "research"))
    named = (*span, ("carbon.rank", "1"), ("carbon.span.name", "epoch"))
    assert values(pushed.of("carbon.span.duration")) == {named: 62.0}
    assert values(pushed.of("carbon.spans")) == {named: 4.0}
    assert values(pushed.of("carbon.span.value")) == {(*named, ("carbon.value.name", "loss")): 0.25}
    gpu = tuple(sorted((*named, ("carbon.region", "FR"), ("carbon.kind", "gpu"))))
    assert values(pushed.of("carbon.span.energy"))[gpu] == 7.2e6


@given(shown=snapshots())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_totals_are_those_of_the_page_of_the_same_snapshot(shown: Snapshot) -> None:
    lives = Lives()
    lives.look(shown)
    data = metrics_data(shown, lives, {}, {})
    points = {m.name: list(m.data.data_points) for m in data.resource_metrics[0].scope_metrics[0].metrics}
    page = parse(Renderer().render(shown).page("text", compressed=False).decode())
    pairs = [
        ("carbon.job.energy", "carbon_job_energy_kwh_total", JOULES_PER_KWH),
        ("carbon.job.co2e", "carbon_job_co2e_grams_total", 1.0),
        ("hw.energy", "carbon_device_energy_kwh_total", JOULES_PER_KWH),
        ("hw.host.energy", "carbon_node_energy_kwh_total", JOULES_PER_KWH),
    ]
    for instrument, metric, unit in pairs:
        sent = points.get(instrument, [])
        published = [value for (name, _), value in page.items() if name == metric]
        assert len(sent) == len(published)
        assert math.fsum(p.value for p in sent) == pytest.approx(math.fsum(published) * unit, rel=1e-9, abs=1e-9)
    job_names = {str(p.attributes["carbon.job.name"]) for p in points.get("carbon.job.energy", [])}
    assert job_names == {dict(labels)["job_name"] for (name, labels) in page if name == "carbon_job_energy_kwh_total"}


def test_five_thousand_jobs_arrive_and_none_is_folded() -> None:
    crowd = many_jobs(5000)
    with receiver() as collector, pushing(collector, OTEL_METRIC_EXPORT_INTERVAL="60000") as push:
        push.post(crowd)
        pushed = collector.wait(1)[0]
    energy = pushed.of("carbon.job.energy")
    assert len({point.attributes["carbon.job.name"] for point in energy}) == 5000
    assert sum(point.value for point in energy) == sum(total.joules for total in crowd.job_totals.values())
    assert not any("otel.metric.overflow" in point.attributes for point in pushed.points)


def test_a_job_that_begins_between_two_pushes_arrives_with_its_zero() -> None:
    base = snapshot()
    with receiver() as collector, pushing(collector, OTEL_METRIC_EXPORT_INTERVAL="60000") as push:
        push.post(with_job(1000.0, None, base=base))
        collector.wait(1)
        push.post(with_job(1005.0, 0.0, base=base))
        push.post(with_job(1010.0, 50.0, base=base))
        push.post(with_job(1015.0, 90.0, base=base))
        push.close(PATIENCE)
        last = collector.wait(2)[-1]
    told = [(point.at / 1e9, point.value, point.start / 1e9) for point in last.of("carbon.job.energy")]
    assert told == [(1005.0, 0.0, 1005.0), (1015.0, 90.0, 1005.0)]


def test_what_an_earlier_life_has_used_is_no_increase() -> None:
    with receiver() as collector, pushing(collector, OTEL_METRIC_EXPORT_INTERVAL="60000") as push:
        push.post(with_job(1000.0, 7e6))
        collector.wait(1)
        push.post(with_job(1005.0, 7e6 + 50))
        push.close(PATIENCE)
        first, second = (pushed.of("carbon.job.energy") for pushed in collector.wait(2))
    assert [(point.start, point.at, point.value) for point in first] == [(10**12, 10**12, 7e6)]
    assert [(point.start, point.value) for point in second] == [(10**12, 7e6 + 50)]


def test_the_last_word_of_a_job_is_pushed_before_it_is_forgotten() -> None:
    with receiver() as collector, pushing(collector, OTEL_METRIC_EXPORT_INTERVAL="60000") as push:
        push.post(with_job(1000.0, 0.0))
        collector.wait(1)
        push.post(with_job(1005.0, 50.0))
        push.post(with_job(1010.0, None))
        parting = collector.wait(2)[1]
        push.post(with_job(1015.0, None))
        push.close(PATIENCE)
        assert [len(pushed.of("carbon.job.energy")) for pushed in collector.pushed] == [1, 1, 0]
    assert [(point.at, point.value) for point in parting.of("carbon.job.energy")] == [(1005 * 10**9, 50.0)]


def test_a_clock_that_is_set_back_gives_no_point_before_its_start() -> None:
    with receiver() as collector, pushing(collector) as push:
        for at in (1000.0, 900.0, 905.0):
            push.post(with_job(at, 5.0))
            time.sleep(0.05)
    points = [point for pushed in collector.pushed for point in pushed.points if point.monotonic]
    assert points
    assert all(point.start <= point.at for point in points)


def test_a_dead_collector_costs_a_line_and_its_return_another(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with receiver() as gone:
        pass
    with (
        caplog.at_level(logging.INFO),
        pushing(gone, OTEL_EXPORTER_OTLP_ENDPOINT=gone.endpoint.replace("http://", "http://me:secret@")) as push,
    ):
        until = time.monotonic() + 30
        while not said(caplog, "cannot push to"):
            push.post(snapshot(at=time.time()))
            assert time.monotonic() < until
            time.sleep(0.05)
        for _ in range(3):
            push.post(snapshot(at=time.time()))
            time.sleep(0.05)
        with receiver(gone.port) as collector:
            while not said(caplog, "s again"):
                push.post(snapshot(at=time.time()))
                assert time.monotonic() < until + 30
                time.sleep(0.05)
            assert collector.pushed
            push.close(PATIENCE)
    assert len(said(caplog, "cannot push to")) == 1
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert "secret" not in caplog.text


def said(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [message for message in caplog.messages if text in message]


def test_posting_and_closing_wait_for_no_collector(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    with receiver() as collector:
        collector.hold = threading.Event()
        push = OtlpPush.from_environment(environment(collector), "node-1")
        assert push is not None
        began = time.monotonic()
        for _ in range(1000):
            push.post(snapshot(at=time.time()))
        assert time.monotonic() - began < 5
        push.close(0.5)
        assert time.monotonic() - began < 9
        until(lambda: not any(thread.name == "otlp" for thread in threading.enumerate()))
    assert said(caplog, "did not arrive within 0.5 s")
    assert not said(caplog, "cannot push to"), "that it was left alone is said already"


def test_a_refusal_is_told_with_its_status(caplog: pytest.LogCaptureFixture) -> None:
    with receiver() as collector:
        collector.status = 401
        with pushing(collector) as push:
            push.post(snapshot())
    assert len(said(caplog, "cannot push to")) == 1
    assert "401" in said(caplog, "cannot push to")[0]


def test_the_last_snapshot_is_pushed_at_the_end() -> None:
    with receiver() as collector, pushing(collector, OTEL_METRIC_EXPORT_INTERVAL="3600000") as push:
        push.post(with_job(1000.0, 0.0))
        collector.wait(1)
        push.post(with_job(1005.0, 12.0))
        push.close(PATIENCE)
        assert [point.value for point in collector.wait(2)[1].of("carbon.job.energy")] == [12.0]


def test_the_resource_names_the_node_and_the_user_has_the_last_word() -> None:
    with receiver() as collector, pushing(collector, NODE_NAME="n7") as push:
        push.post(snapshot())
        resource = collector.wait(1)[0].resource
    assert resource["service.name"] == "carbon-exporter"
    assert resource["host.name"] == resource["service.instance.id"] == resource["k8s.node.name"] == "n7"
    mine = {"OTEL_RESOURCE_ATTRIBUTES": "k8s.cluster.name=a%20b, host.name=h,broken", "OTEL_SERVICE_NAME": "s"}
    found = resource_attributes(mine, "node-1")
    assert found["k8s.cluster.name"] == "a b"
    assert found["host.name"] == "h"
    assert found["service.name"] == "s"
    assert found["service.instance.id"] == "node-1"
    assert "k8s.node.name" not in found


ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
METRICS = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({ENDPOINT: " "}, None),
        ({ENDPOINT: "http://c:4318"}, Target("http://c:4318/v1/metrics", 60.0)),
        ({ENDPOINT: "http://c:4318/x/"}, Target("http://c:4318/x/v1/metrics", 60.0)),
        ({ENDPOINT: "http://c:1", METRICS: "https://d/otlp"}, Target("https://d/otlp", 60.0)),
        ({ENDPOINT: "http://c:1", "OTEL_METRIC_EXPORT_INTERVAL": "500"}, Target("http://c:1/v1/metrics", 0.5)),
        ({ENDPOINT: "http://c:1", "OTEL_SDK_DISABLED": "true"}, None),
        ({ENDPOINT: "http://c:1", "OTEL_METRICS_EXPORTER": "none"}, None),
        ({ENDPOINT: "http://c:1", "OTEL_METRICS_EXPORTER": "prometheus,otlp"}, Target("http://c:1/v1/metrics", 60.0)),
    ],
)
def test_opentelemetrys_own_variables_say_where_to_push(environ: dict[str, str], expected: Target | None) -> None:
    assert target_of(environ) == expected


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({ENDPOINT: "collector:4318"}, ENDPOINT),
        ({METRICS: "grpc://c:4317"}, METRICS),
        ({ENDPOINT: "http://c:1", "OTEL_METRIC_EXPORT_INTERVAL": "10s"}, "OTEL_METRIC_EXPORT_INTERVAL"),
        ({ENDPOINT: "http://c:1", "OTEL_METRIC_EXPORT_INTERVAL": "0"}, "OTEL_METRIC_EXPORT_INTERVAL"),
        ({ENDPOINT: "http://c:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ],
)
def test_a_variable_that_cannot_be_is_told_by_its_name(environ: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=f"^environment: {told}: "):
        target_of(environ)


def test_without_the_extra_the_error_has_the_command_that_installs_it() -> None:
    script = (
        "import sys; sys.modules['opentelemetry.exporter'] = None\n"
        "from carbon_exporter.publish.otlp import OtlpPush\n"
        "from carbon_exporter.errors import ConfigError\n"
        "try: OtlpPush.from_environment({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://c:1'}, 'n')\n"
        "except ConfigError as error: print(error)\n"
        "assert 'opentelemetry.sdk' not in sys.modules and 'requests' not in sys.modules\n"
    )
    said = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert "pip install 'carbon-exporter[otlp]'" in said
