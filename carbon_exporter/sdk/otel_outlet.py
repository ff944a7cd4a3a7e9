"""Spans as OpenTelemetry metrics of the application's own MeterProvider, in J, g and s.

An OpenTelemetry SDK keeps 2000 attribute sets an instrument and folds the rest into one point without names. What is
handed out here stays below that: the first `MOST_POINTS` keep their names, and what comes later is added to the span
`_overflow_` of the job `_overflow_`, so that every sum is right. The account of spans holds far fewer, so an
application that lowers the limit, or shares these instruments with others, raises it by a view:

    MeterProvider(readers, views=[View(instrument_name="carbon.*", aggregation_cardinality_limit=10_000)])
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from carbon_exporter import __version__
from carbon_exporter.carbon.grid import Grid
from carbon_exporter.carbon.spans import FOLDED, SpanAccount, Trace
from carbon_exporter.jobs.base import OVERFLOW
from carbon_exporter.publish.catalogue import utf8
from carbon_exporter.publish.otlp_metrics import COUNTERS, GAUGES, Counter, Gauge
from carbon_exporter.publish.samples import LabelValues
from carbon_exporter.sdk.base import Identity
from carbon_exporter.sdk.exposition import span_snapshot
from carbon_exporter.sdk.own_grid import own_grid
from carbon_exporter.snapshot import Snapshot

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

__all__ = ["MOST_POINTS", "OtelOutlet", "is_configured"]

MOST_POINTS = 1900
_SCOPE = "carbon_exporter"
_OF_SCRIPTS = ("carbon.span", "carbon.run.")
_FOLDS = {"carbon.job.name": OVERFLOW.name, "carbon.job.namespace": OVERFLOW.namespace, "carbon.span.name": FOLDED}
"""Attributes of a point beyond the limit; the others, of which there are few values, it keeps."""


def is_configured() -> MeterProvider | None:
    """The application's own MeterProvider, if it has set a real one; nothing of OpenTelemetry is loaded to find out."""
    api, sdk = sys.modules.get("opentelemetry.metrics"), sys.modules.get("opentelemetry.sdk.metrics")
    if api is None or sdk is None:
        return None
    provider: MeterProvider = api.get_meter_provider()
    is_real: bool = isinstance(provider, sdk.MeterProvider)
    if not is_real or isinstance(provider.get_meter(_SCOPE), api.NoOpMeter):
        return None  # the proxy, or one that OTEL_SDK_DISABLED has silenced
    return provider


class OtelOutlet:
    """Hands out what the account holds whenever the application's readers collect."""

    name = "opentelemetry"

    def __init__(self, meter_provider: MeterProvider, grid: Callable[[], Grid] = own_grid) -> None:
        """Nothing is registered before `start`."""
        self._provider, self._grid = meter_provider, grid
        self._closing, self._patience = threading.Event(), 0.0
        self._flusher: threading.Thread | None = None

    def start(self, account: SpanAccount, identity: Identity) -> None:  # noqa: ARG002 - the account's keys say who
        """Hand out this account from now on."""
        source = _SOURCES.get(self._provider)
        if source is None:
            source = _SOURCES[self._provider] = _Source()
            source.register(self._provider.get_meter(_SCOPE, __version__))
        source.hand_out(account, self._grid())
        # Now, for as late as the end of the program no thread can be started any more.
        self._flusher = threading.Thread(target=self._flush, name="carbon-otel-flush", daemon=True)
        self._flusher.start()

    def tell(self) -> None:
        """Nothing to do: the next collection reads the account."""

    def close(self, patience: float) -> None:
        """Have all readers collect once more. A dead collector is waited for `patience` seconds at most."""
        self._patience = patience
        self._closing.set()
        if self._flusher is not None:
            self._flusher.join(patience)

    def _flush(self) -> None:
        self._closing.wait()
        flush = getattr(self._provider, "force_flush", None)  # the SDK has it, the API does not
        if flush is not None:
            with contextlib.suppress(Exception):  # whatever a reader or exporter of the application's throws
                flush(timeout_millis=self._patience * 1000)


class _Source:
    """What a provider's instruments ask: an instrument is registered once, and outlives a fork and its outlet."""

    def __init__(self) -> None:
        self._snapshot: Callable[[], Snapshot] | None = None
        self._pid = 0
        self._admitted: dict[str, set[LabelValues]] = {}
        self._takes_context = False

    def register(self, meter: Meter) -> None:
        """Make the instruments."""
        from opentelemetry.metrics import Observation  # noqa: PLC0415 - loaded where the application has loaded it

        self._takes_context = "context" in inspect.signature(Observation).parameters  # since 1.28
        for counter in COUNTERS:
            if counter.name.startswith(_OF_SCRIPTS):
                callback = partial(self._observe, counter)
                meter.create_observable_counter(counter.name, [callback], counter.unit, counter.help)
        for gauge in GAUGES:
            if gauge.name.startswith(_OF_SCRIPTS):
                meter.create_observable_gauge(gauge.name, [partial(self._look, gauge)], gauge.unit, gauge.help)

    def hand_out(self, account: SpanAccount, grid: Grid) -> None:
        """Answer with this account, in this process."""
        self._admitted.clear()
        self._snapshot, self._pid = partial(span_snapshot, account, grid, time.time()), os.getpid()

    def _observe(self, counter: Counter, _: CallbackOptions) -> Iterable[Observation]:
        """The points of a counter. In a forked child nothing: what its parent used is its parent's to tell."""
        from opentelemetry.metrics import Observation  # noqa: PLC0415

        sums: dict[LabelValues, float] = {}
        traces: dict[LabelValues, Trace] = {}
        for key, total in self._totals(counter).items():
            for values, number in counter.points(key, total):
                point = values if self._admits(counter.name, values) else _folded(counter.attributes, values)
                sums[point] = sums.get(point, 0.0) + number
                if self._takes_context and getattr(total, "trace", None):
                    traces[point] = total.trace
        for values, number in sums.items():
            attributes = _attributes(counter.attributes, values)
            if values in traces:
                yield Observation(number, attributes, _context(traces[values]))
            else:
                yield Observation(number, attributes)

    def _look(self, gauge: Gauge, _: CallbackOptions) -> Iterable[Observation]:
        """The points of a gauge; those beyond the limit cannot be added up, and are left out."""
        from opentelemetry.metrics import Observation  # noqa: PLC0415

        if self._snapshot is not None and self._pid == os.getpid():
            for values, number in gauge.samples(self._snapshot()):
                if self._admits(gauge.name, values):
                    yield Observation(number, _attributes(gauge.attributes, values))

    def _totals(self, counter: Counter) -> Mapping[Any, Any]:
        if self._snapshot is None or self._pid != os.getpid():
            return {}
        return counter.totals(self._snapshot())

    def _admits(self, instrument: str, values: LabelValues) -> bool:
        """Whether a point keeps its names: once it does, it always will, so that no counter ever falls."""
        admitted = self._admitted.setdefault(instrument, set())
        if values not in admitted and len(admitted) < MOST_POINTS:
            admitted.add(values)
        return values in admitted


_SOURCES: weakref.WeakKeyDictionary[MeterProvider, _Source] = weakref.WeakKeyDictionary()


def _folded(names: tuple[str, ...], values: LabelValues) -> LabelValues:
    return tuple(_FOLDS.get(name, value) for name, value in zip(names, values, strict=True))


def _attributes(names: tuple[str, ...], values: LabelValues) -> dict[str, str]:
    """Without those that are empty."""
    return {name: utf8(value) for name, value in zip(names, values, strict=True) if value}


def _context(trace: Trace) -> Context:
    """The trace for an exemplar, as sampled as it was when it was noted."""
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context  # noqa: PLC0415

    flags = TraceFlags(TraceFlags.SAMPLED)
    known = SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), is_remote=False, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(known))
