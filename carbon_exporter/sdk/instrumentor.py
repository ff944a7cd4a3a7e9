"""What `opentelemetry-instrument python train.py` finds by its entry point: every span is measured, without a line.

It has the methods of OpenTelemetry's `BaseInstrumentor`, which is not imported: the package that has it is the caller.
`CARBON_SPANS` is a regular expression for the names to measure, all without it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from carbon_exporter.sdk.trouble import trouble

if TYPE_CHECKING:
    from carbon_exporter.sdk.processor import CarbonSpanProcessor

__all__ = ["CarbonInstrumentor"]

_NAMES = "CARBON_SPANS"


class CarbonInstrumentor:
    """One a process, as its kind is."""

    _instance: CarbonInstrumentor | None = None
    _processor: CarbonSpanProcessor | None = None

    def __new__(cls, *_: object, **__: object) -> CarbonInstrumentor:  # noqa: PYI034 - there is one
        """The one there is."""
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    @property
    def is_instrumented_by_opentelemetry(self) -> bool:
        """Whether spans are measured now."""
        return self._processor is not None

    def instrumentation_dependencies(self) -> Collection[str]:
        """No library is needed, for none is changed."""
        return ()

    def instrument(self, *, tracer_provider: Any = None, **_: Any) -> None:
        """Add the processor to the provider (the global one). Without an SDK there are no spans to measure."""
        if self._processor is not None:
            return
        try:
            from opentelemetry import trace  # noqa: PLC0415 - whoever calls this has it

            from carbon_exporter.sdk.processor import CarbonSpanProcessor  # noqa: PLC0415 - loads the tracker

            provider = tracer_provider or trace.get_tracer_provider()
            if not hasattr(provider, "add_span_processor"):
                why = RuntimeError("the tracer provider takes no processors")
                trouble("measuring OpenTelemetry's spans", why, "pip install opentelemetry-sdk opentelemetry-distro")
                return
            self._processor = CarbonSpanProcessor(_pattern())
            provider.add_span_processor(self._processor)
        except Exception as error:  # noqa: BLE001 - an error here would end the program before it begins
            trouble("measuring OpenTelemetry's spans", error)

    def uninstrument(self, **_: Any) -> None:
        """Measure no more spans; a provider cannot be rid of a processor, so it is put to sleep."""
        if self._processor is not None:
            self._processor.shutdown()
            self._processor = None


def _pattern() -> str | None:
    """The expression, None for all names; a bad one takes all and says so."""
    text = os.environ.get(_NAMES, "")
    try:
        re.compile(text)
    except re.error as error:
        trouble(_NAMES, error, "all spans are measured")
        return None
    return text or None
