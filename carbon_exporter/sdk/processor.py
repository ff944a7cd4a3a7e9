"""Spans that others make: an OpenTelemetry span processor that measures them and puts the attributes on them.

    provider.add_span_processor(CarbonSpanProcessor("^(epoch|step)$"))
    provider.add_span_processor(BatchSpanProcessor(exporter))

Attributes can be set only until a span ends, and the SDK tells its processors afterwards (`on_end`; its `_on_ending`
comes when attributes are frozen already, opentelemetry-python #5614). So `end` of each span is wrapped when it starts,
until an SDK shows that `_on_ending` is in time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from carbon_exporter.sdk import tracing
from carbon_exporter.sdk.laps import Lap
from carbon_exporter.sdk.span import innermost_block
from carbon_exporter.sdk.tracker import current, own_clock
from carbon_exporter.sdk.trouble import trouble

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
else:
    SpanProcessor = object  # what it is for the SDK: something with these methods

__all__ = ["CarbonSpanProcessor", "NameFilter"]

NameFilter = str | re.Pattern[str] | Callable[[str], bool] | None
"""A regular expression that is searched for in a span's name, or a function of it; None takes all spans."""


class CarbonSpanProcessor(SpanProcessor):
    """Measures spans that others make, as if each were a `carbon_span`: attributes, and the `carbon_span_*` series.

    A span's name becomes a label: take names of which there are few. Spans of `carbon_span` itself are left alone.
    """

    def __init__(self, name_filter: NameFilter = None, *, job: str | None = None) -> None:
        """`name_filter` says which. Raises `re.error` for a bad expression. The meters begin to be opened now."""
        self._takes = _filter(name_filter)
        self._job = job
        self._in_time = False
        """Whether this SDK's `_on_ending` comes while attributes can be set."""
        self._closed = False
        current().start()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """A span begins; the one above it, ours or another's, becomes the parent."""
        try:
            if not self._closed and not tracing.is_ours(span) and span.is_recording() and self._takes(span.name):
                self._begin(span, parent_context)
        except Exception as error:  # noqa: BLE001 - a guest does not break the house
            trouble("measuring a span of others", error)

    def _on_ending(self, span: Span) -> None:
        if span.is_recording():
            self._in_time = True
            self._end(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Too late for attributes: whatever is still open is only counted."""
        self._end(span)

    def shutdown(self) -> None:
        """No more spans are taken. What was measured goes out with the process's end, as all spans do."""
        self._closed = True

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - nothing is held back here
        """Nothing waits here."""
        return True

    def _begin(self, span: Any, parent_context: Context | None) -> None:
        tracker = current()
        lap = Lap(span.name, get_ident(), own_clock(), job=self._job)
        lap.tracker = tracker
        above = innermost_block(tracker)
        parent = tracing.innermost(above, parent_context)
        tracing.follow(lap, span)
        if not self._in_time:
            original = span.end

            def end(end_time: int | None = None) -> None:
                self._end(span)
                original(end_time)

            span.end = end
        tracker.enter(lap, parent)

    def _end(self, span: Any) -> None:
        """Once a span: measure, and tag it if that is still possible."""
        try:
            lap = tracing.unfollow(span)
            if lap is None or lap.tracker is not current():
                return
            lap.tracker.leave(lap)
            if lap.trail is not None:
                if lap.trail.span.is_recording():
                    tracing.tag(lap, lap.trail.span)
                lap.trail.let_go()
        except Exception as error:  # noqa: BLE001 - likewise
            trouble("tagging a span of others", error)


def _filter(given: NameFilter) -> Callable[[str], bool]:
    if given is None:
        return lambda _: True
    if callable(given):
        return given
    pattern = re.compile(given)
    return lambda name: pattern.search(name) is not None
