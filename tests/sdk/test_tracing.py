"""A span of ours is an OpenTelemetry span with the contract's attributes, where OpenTelemetry is configured."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from support.span_engine import SteadyOdometer, plain, tracked

from carbon_exporter import carbon_span


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What a configured OpenTelemetry exports."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_the_contracts_attributes_are_on_the_span(spans: InMemorySpanExporter) -> None:
    with tracked(SteadyOdometer(lag=0.0)):
        with carbon_span("epoch", attributes={"epoch": 3}) as span:
            time.sleep(0.02)
            span.record(loss=0.5)
        energy = span.energy_kwh * 3.6e6
    found = dict(by_name(spans)["epoch"].attributes or {})
    expected = {
        "epoch": 3,
        "carbon.job.name": "train",
        "carbon.run": "run-7",
        "carbon.rank": "3",
        "carbon.quality": "modelled",
        "carbon.shared": False,
        "carbon.region": "FR",
        "carbon.intensity": 360.0,
        "carbon.intensity.source": "static/yearly",
        "carbon.value.loss": 0.5,
    }
    assert {name: found.pop(name) for name in expected} == expected
    assert found.pop("carbon.energy") == pytest.approx(energy)
    assert found.pop("carbon.co2e") == pytest.approx(energy / 3.6e6 * 360 * 1.5)
    assert found.pop("carbon.power") == pytest.approx(energy / span.duration_seconds)
    assert found.pop("carbon.uncertainty") == pytest.approx(span.uncertainty)
    assert found.keys() == {"carbon.energy.gpu", "carbon.energy.cpu", "carbon.energy.dram"}


def test_spans_nest_in_the_current_context_and_put_it_back(spans: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer("mine")
    with tracked():
        with tracer.start_as_current_span("above"), carbon_span("ours"), tracer.start_as_current_span("below"):
            pass
        assert not trace.get_current_span().get_span_context().is_valid
    found = by_name(spans)
    for child, parent in (("below", "ours"), ("ours", "above")):
        above = found[child].parent
        assert above is not None
        assert above.span_id == found[parent].context.span_id


def test_the_trace_of_the_newest_span_is_an_exemplar(spans: InMemorySpanExporter) -> None:
    with tracked() as tracker:
        with carbon_span("epoch") as span:
            pass
        assert span.wait(10.0)
        (total,) = plain(tracker).account.totals.values()
    context = by_name(spans)["epoch"].context
    assert total.trace is not None
    assert total.trace.trace_id == trace.format_trace_id(context.trace_id)
    assert total.trace.span_id == trace.format_span_id(context.span_id)
    assert total.trace.joules == pytest.approx(span.energy_kwh * 3.6e6)
    assert total.trace.at == pytest.approx(time.time(), abs=60)


def test_what_is_raised_inside_stands_on_the_span_as_opentelemetry_has_it(spans: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer("mine")
    for raised in (ValueError("no"), KeyboardInterrupt()):
        with tracked(), pytest.raises(type(raised)), tracer.start_as_current_span("theirs"), carbon_span("ours"):
            raise raised
        found = by_name(spans)
        ours, theirs = found["ours"], found["theirs"]
        assert (ours.status.status_code, ours.status.description) == (
            theirs.status.status_code,
            theirs.status.description,
        )
        assert [event.name for event in ours.events] == [event.name for event in theirs.events]
        spans.clear()


def test_leaving_on_another_thread_ends_the_span_without_a_word(
    spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    with tracked(), caplog.at_level(logging.DEBUG):
        span = carbon_span("epoch").__enter__()
        thread = threading.Thread(target=span.__exit__, args=(None, None, None))
        thread.start()
        thread.join()
        assert by_name(spans).keys() == {"epoch"}
        assert not caplog.records


def test_before_anything_is_known_the_span_says_so(spans: InMemorySpanExporter) -> None:
    with tracked(delay=0.2, ready=False):
        with carbon_span("epoch"):
            pass
        assert dict(by_name(spans)["epoch"].attributes or {}) == {"carbon.quality": "none"}


def test_a_span_that_is_not_sampled_is_measured_and_not_tagged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False))
    with tracked():
        with carbon_span("epoch") as span:
            pass
        assert span.wait(10.0)
        assert span.energy_kwh > 0


def test_a_broken_opentelemetry_does_not_reach_the_script(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(TracerProvider):
        def get_tracer(self, *_: object, **__: object) -> trace.Tracer:
            raise RuntimeError("broken")

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", Broken(shutdown_on_exit=False))
    with tracked():
        with carbon_span("epoch") as span:
            pass
        assert span.wait(10.0)
    assert "starting an OpenTelemetry span: broken" in caplog.text


def test_without_opentelemetry_it_is_not_loaded() -> None:
    script = (
        "import sys, os\nfrom carbon_exporter import carbon_span\n"
        "with carbon_span('epoch') as span: pass\n"
        "span.wait(20.0)\nprint(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60).strip() == "False"
