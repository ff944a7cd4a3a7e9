"""What does a span cost its thread, beside a no-op context manager and a bare OpenTelemetry span? And its import?

Enter and exit together, in this process, with the real engine: it samples this machine meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.figure import Figure, Plan
from carbon_exporter import carbon_span
from carbon_exporter.sdk import tracker

__all__ = ["figures"]

PLAIN_LIMIT, TRACED_LIMIT = 60.0, 120.0
"""Microseconds for enter and exit."""
IMPORT_LIMIT = 30.0
"""Milliseconds over bare Python."""
_SPANS = 2000
_BURST, _PAUSE_SECONDS = 20, 0.01
"""So many spans in a row, then a pause: a queue that runs over would be another question."""


class _Nowhere(SpanExporter):
    """Takes all and sends nothing."""

    def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002 - nothing is looked at
        return SpanExportResult.SUCCESS


def figures(plan: Plan) -> Iterator[Figure]:
    """Microseconds of a span, without and with OpenTelemetry, and milliseconds of the import."""
    os.environ.setdefault("CARBON_SDK_SOCKET", "/nowhere")
    _warm()
    yield _figure(plan, "no-op block", contextlib.nullcontext, None)
    yield _figure(plan, "carbon_span", lambda: carbon_span("step"), PLAIN_LIMIT, note="no OpenTelemetry SDK")
    yield _figure(plan, "  read at its end", lambda: carbon_span("step"), None, read=True)
    with _traced() as tracer:
        yield _figure(plan, "bare OpenTelemetry span", lambda: tracer.start_as_current_span("step"), None)
        note = "with SDK and batch processor"
        yield _figure(plan, "carbon_span, traced", lambda: carbon_span("step"), TRACED_LIMIT, note=note)
    yield Figure("import", _imports(plan.runs), "ms", IMPORT_LIMIT, "over bare Python")
    tracker.finish()


def _figure(
    plan: Plan,
    what: str,
    block: Callable[[], AbstractContextManager[Any]],
    limit: float | None,
    *,
    note: str = "",
    read: bool = False,
) -> Figure:
    spans = int(plan.seconds(_SPANS, _SPANS / 10))
    return Figure(what, tuple(_median(block, spans, read=read) for _ in range(plan.runs)), "us", limit, note)


def _median(block: Callable[[], AbstractContextManager[Any]], spans: int, *, read: bool) -> float:
    """Microseconds of one block."""
    took = []
    gc.collect()
    for number in range(spans):
        began = time.perf_counter()
        with block() as span:
            pass
        if read:
            _ = span.energy_kwh
        took.append(time.perf_counter() - began)
        if number % _BURST == 0:
            time.sleep(_PAUSE_SECONDS)
    return 1e6 * statistics.median(took)


def _warm() -> None:
    """Until the meters are open and have told something."""
    until = time.monotonic() + 20.0
    with carbon_span("warm") as span:
        while span.quality == "none" and time.monotonic() < until:
            time.sleep(0.05)


@contextmanager
def _traced() -> Iterator[trace.Tracer]:
    """As an application configures OpenTelemetry."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Nowhere()))
    trace.set_tracer_provider(provider)
    yield provider.get_tracer("benchmark")
    provider.shutdown()


def _imports(runs: int) -> tuple[float, ...]:
    """Milliseconds that importing takes in a new process, from compiled files, as an installed package has them."""
    script = (
        "import time; began = time.perf_counter(); from carbon_exporter import carbon_span; "
        "print(1000 * (time.perf_counter() - began))"
    )
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        command = [sys.executable, "-c", script]
        return tuple(float(subprocess.check_output(command, text=True, env=environ)) for _ in range(runs + 1))[1:]
