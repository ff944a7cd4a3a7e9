"""`opentelemetry-instrument python train.py` measures every span without a line in the script."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from support.span_engine import names, plain, tracked

from carbon_exporter.sdk.instrumentor import CarbonInstrumentor


@pytest.fixture(autouse=True)
def _fresh_instrumentor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(CarbonInstrumentor, "_instance", None)
    yield
    CarbonInstrumentor().uninstrument()


def spans_of(provider: TracerProvider, *span_names: str) -> list[str]:
    """The spans among these that were measured."""
    with tracked() as tracker:
        for name in span_names:
            with provider.get_tracer("mine").start_as_current_span(name):
                pass
        tracker.finish()
        return [*names(plain(tracker).account)]


def test_the_entry_point_is_used_as_opentelemetry_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider := TracerProvider(shutdown_on_exit=False))
    entry = EntryPoint("carbon", "carbon_exporter.sdk.instrumentor:CarbonInstrumentor", "opentelemetry_instrumentor")
    with tracked():
        entry.load()().instrument(skip_dep_check=True)
        entry.load()().instrument(skip_dep_check=True)
    assert CarbonInstrumentor().is_instrumented_by_opentelemetry
    assert not CarbonInstrumentor().instrumentation_dependencies()
    assert spans_of(provider, "epoch", "step") == ["epoch", "step"]
    CarbonInstrumentor().uninstrument()
    assert spans_of(provider, "epoch") == []


def test_names_are_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARBON_SPANS", "^ep")
    provider = TracerProvider(shutdown_on_exit=False)
    with tracked():
        CarbonInstrumentor().instrument(tracer_provider=provider)
    assert spans_of(provider, "epoch", "step") == ["epoch"]


def test_a_bad_expression_measures_all_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CARBON_SPANS", "(")
    provider = TracerProvider(shutdown_on_exit=False)
    with tracked():
        CarbonInstrumentor().instrument(tracer_provider=provider)
    assert spans_of(provider, "step") == ["step"]
    assert "CARBON_SPANS" in caplog.text


def test_without_an_sdk_it_says_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    with tracked():
        CarbonInstrumentor().instrument(tracer_provider=trace.NoOpTracerProvider())
    assert not CarbonInstrumentor().is_instrumented_by_opentelemetry
    assert "pip install opentelemetry-sdk" in caplog.text
