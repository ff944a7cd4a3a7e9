"""Exemplars: which trace a span was last seen in, beside its energy, for those who read OpenMetrics."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
from prometheus_client.samples import Sample
from support.snapshots import snapshot

from carbon_exporter.carbon.spans import SpanKey, SpanTotal, Trace
from carbon_exporter.jobs.base import Job
from carbon_exporter.publish.prometheus import Renderer
from carbon_exporter.units import Joules

TRACE = Trace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", Joules(1.8e6), 1795309990.5)
TOTAL = SpanTotal({"gpu": Joules(7.2e6), "cpu": Joules(3.6e6)}, count=3, trace=TRACE)
SEEN = snapshot(
    spans={
        SpanKey(Job("train"), "FR", "epoch", "0"): TOTAL,
        SpanKey(Job("train"), "FR", "eval", "0"): SpanTotal({"gpu": Joules(3.6e6)}),
    }
)


def page(form: str) -> str:
    exposition = Renderer().render(SEEN)
    return exposition.page("openmetrics" if form == "openmetrics" else "text", compressed=False).decode()


def energies() -> dict[tuple[str, str], Sample]:
    """The samples of the spans' energy by span and kind, as a client reads them."""
    return {
        (sample.labels["span"], sample.labels["kind"]): sample
        for family in parse(page("openmetrics"))  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.name == "carbon_span_energy_kwh_total"
    }


def test_openmetrics_has_it_beside_the_kind_that_used_most() -> None:
    found = energies()
    exemplar = found["epoch", "gpu"].exemplar
    assert exemplar is not None
    assert exemplar.labels == {"trace_id": TRACE.trace_id, "span_id": TRACE.span_id}
    assert (exemplar.value, float(exemplar.timestamp or 0.0)) == (0.5, 1795309990.5)
    assert found["epoch", "gpu"].value == 2.0
    assert found["epoch", "cpu"].exemplar is None
    assert found["eval", "gpu"].exemplar is None


def test_the_text_format_has_none_and_is_the_same_otherwise() -> None:
    lines = [line.partition(" # ")[0] for line in page("openmetrics").splitlines() if line.startswith("carbon_span_")]
    assert lines == [line for line in page("text").splitlines() if line.startswith("carbon_span_")]
    assert " # " not in "".join(line for line in page("text").splitlines() if not line.startswith("#"))


def test_a_part_has_it_too() -> None:
    part = Renderer().render(SEEN).part("openmetrics", {"carbon_span_energy_kwh_total"}, compressed=False).decode()
    assert part.count(TRACE.trace_id) == 1
