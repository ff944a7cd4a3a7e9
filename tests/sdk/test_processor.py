"""Spans that others make are measured and tagged like our own."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Span, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.span_engine import names, plain, tracked

from carbon_exporter import CarbonSpanProcessor, carbon_span
from carbon_exporter.sdk import tracing
from carbon_exporter.sdk.tracker import Tracker


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    with tracked() as tracker:
        yield tracker


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield provider
    provider.shutdown()
    assert not tracing._laps


@pytest.fixture
def spans(provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def tagged(exporter: InMemorySpanExporter) -> set[str]:
    return {span.name for span in exporter.get_finished_spans() if "carbon.energy" in (span.attributes or {})}


def test_spans_are_tagged_and_counted(tracker: Tracker, provider: TracerProvider, spans: InMemorySpanExporter) -> None:
    provider.add_span_processor(CarbonSpanProcessor())
    tracer = provider.get_tracer("mine")
    with tracer.start_as_current_span("request"):
        time.sleep(0.01)
    by_hand = tracer.start_span("by hand")
    by_hand.end(time.time_ns())
    assert tagged(spans) == {"request", "by hand"}
    tracker.finish()
    assert names(plain(tracker).account) == ["by hand", "request"]
    assert all(total.trace and total.count == 1 for total in plain(tracker).account.totals.values())


@pytest.mark.parametrize("name_filter", ["^ep", re.compile("^ep"), lambda name: name.startswith("ep")])
def test_only_names_that_are_asked_for_are_measured(
    tracker: Tracker, provider: TracerProvider, spans: InMemorySpanExporter, name_filter: object
) -> None:
    provider.add_span_processor(CarbonSpanProcessor(name_filter))  # type: ignore[arg-type]
    for name in ("epoch", "step"):
        with provider.get_tracer("mine").start_as_current_span(name):
            pass
    assert tagged(spans) == {"epoch"}
    assert len(tracker.laps) == 0


def test_ours_and_others_nest_and_nothing_is_counted_twice(
    tracker: Tracker, provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    provider.add_span_processor(CarbonSpanProcessor())
    tracer = provider.get_tracer("mine")
    with carbon_span("run") as run, tracer.start_as_current_span("epoch"):
        with carbon_span("step") as step:
            time.sleep(0.01)
        laps = {lap.name: lap for lap in tracker.laps}
        assert laps["epoch"].parent is laps["run"]
        assert not tracker.lanes.crowded
    assert run.wait(10.0)
    assert step.wait(10.0)
    assert run.energy_kwh > step.energy_kwh > 0
    assert not run.shared
    assert not step.shared
    tracker.finish()
    assert {key.span: total.count for key, total in plain(tracker).account.totals.items()} == {
        "run": 1,
        "epoch": 1,
        "step": 1,
    }
    assert tagged(spans) == {"run", "epoch", "step"}


def test_a_span_that_is_ended_twice_counts_once(
    tracker: Tracker, provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    provider.add_span_processor(CarbonSpanProcessor())
    span = provider.get_tracer("mine").start_span("epoch")
    span.end()
    span.end()
    assert tagged(spans) == {"epoch"}
    tracker.finish()
    assert [total.count for total in plain(tracker).account.totals.values()] == [1]


class EarlySpan(Span):
    """Of an SDK as the specification has it: a span may be changed while it is ending."""

    def end(self, end_time: int | None = None) -> None:
        self._span_processor._on_ending(self)
        super().end(end_time)


def test_an_sdk_whose_spans_may_be_changed_while_ending_needs_no_wrapping(
    tracker: Tracker, provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    processor = CarbonSpanProcessor()
    provider.add_span_processor(processor)
    for name in ("first", "second"):
        template = provider.get_tracer("mine").start_span("template")
        assert isinstance(template, Span)
        span = EarlySpan(name, template.get_span_context(), span_processor=template._span_processor)
        template.end()
        span.start()
        assert ("end" in vars(span)) == (name == "first"), "it was seen with the first span that it is not needed"
        span.end()
    assert {"first", "second"} <= tagged(spans)
    assert not tracker.laps


def test_a_bad_filter_is_refused_at_once_and_a_failing_one_is_logged(
    tracker: Tracker, provider: TracerProvider, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(re.error):
        CarbonSpanProcessor("(")
    provider.add_span_processor(CarbonSpanProcessor(lambda _: bool(1 / 0)))
    with caplog.at_level(logging.WARNING), provider.get_tracer("mine").start_as_current_span("epoch"):
        assert not tracker.laps
    assert "measuring a span of others" in caplog.text


def test_a_processor_that_was_shut_down_takes_no_more(
    tracker: Tracker, provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    processor = CarbonSpanProcessor()
    provider.add_span_processor(processor)
    with provider.get_tracer("mine").start_as_current_span("before"):
        assert processor.force_flush()
        processor.shutdown()
    with provider.get_tracer("mine").start_as_current_span("after"):
        assert len(tracker.laps) == 0
    assert tagged(spans) == {"before"}


def test_what_a_processor_is_given_at_the_end_may_be_any_readable_span(tracker: Tracker) -> None:
    context = trace.SpanContext(1, 2, is_remote=False)
    CarbonSpanProcessor().on_end(ReadableSpan("unknown", context=context))
    assert not tracker.ended
