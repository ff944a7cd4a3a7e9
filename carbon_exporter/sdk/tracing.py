"""Tracing: a lap's OpenTelemetry span, and the attributes of the contract on it.

Only where OpenTelemetry is loaded already, or the environment has the API load an SDK by itself: elsewhere a lap costs
nothing for it. Spans that are made for laps have the scope `carbon_exporter`, by which a processor knows them.
"""

from __future__ import annotations

import os
import sys

from carbon_exporter.sdk.trouble import trouble

TYPE_CHECKING = False  # as type checkers know it; a training script pays for every import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType
    from typing import Any

    from carbon_exporter.sdk.base import Identity, Price
    from carbon_exporter.sdk.lanes import Lane
    from carbon_exporter.sdk.laps import Lap
    from carbon_exporter.sdk.reckoning import Figures

__all__ = [
    "SCOPE",
    "Trail",
    "attributes_of",
    "begin",
    "end",
    "follow",
    "innermost",
    "is_ours",
    "put",
    "tag",
    "unfollow",
]

SCOPE = "carbon_exporter"
_BY_KIND = {kind: f"carbon.energy.{kind}" for kind in ("gpu", "cpu", "dram")}
_API = "opentelemetry.trace"
_ASKED = "OTEL_PYTHON_TRACER_PROVIDER"
"""With it the API loads an SDK when it is asked for a provider, though nobody has configured one."""

_laps: dict[int, Lap] = {}
"""Open laps of spans that others made, by the span's id: parents of what begins below them."""
_provider: Any = None
_tracer: Any = None
_process: tuple[Identity | None, Price | None, dict[str, Any]] = (None, None, {})
"""Whose process this is, at what price, and the attributes that this makes."""


class Trail:
    """A lap's OpenTelemetry span."""

    __slots__ = ("_context", "span", "token")

    def __init__(self, span: Any, token: Any) -> None:
        """`token` puts the context back; None for a span that somebody else looks after."""
        self.span, self.token = span, token
        self._context = span.get_span_context()

    @property
    def trace_id(self) -> str:
        """Lower-case hexadecimal, as in W3C's trace context; empty if there is none."""
        return f"{self._context.trace_id:032x}" if self._context.is_valid else ""

    @property
    def span_id(self) -> str:
        """Likewise."""
        return f"{self._context.span_id:016x}"

    def let_go(self) -> None:
        """The span has ended; its ids are still of use."""
        self.span = self.token = None


def begin(lap: Lap) -> None:
    """Start a span of the lap's name and make it the current one, where OpenTelemetry is configured."""
    api = sys.modules.get(_API)
    if api is None and _ASKED not in os.environ:
        return
    try:
        tracer = _tracer_now(api)
        if tracer is None:
            return
        span = tracer.start_span(lap.name, attributes=lap.attributes)
        lap.trail = Trail(span, sys.modules["opentelemetry.context"].attach(_current_with(span)))
    except Exception as error:  # noqa: BLE001 - the lap goes on without it
        trouble("starting an OpenTelemetry span", error)


def end(lap: Lap, error: BaseException | None) -> None:
    """Set the attributes, say what was raised as OpenTelemetry does, end the span and put the context back."""
    trail = lap.trail
    if trail is None:
        return
    try:
        api = sys.modules[_API]
        if api.get_current_span() is trail.span:
            sys.modules["opentelemetry.context"].detach(trail.token)
        if trail.span.is_recording():
            if isinstance(error, Exception):
                trail.span.record_exception(error)
                trail.span.set_status(api.Status(api.StatusCode.ERROR, f"{type(error).__name__}: {error}"))
            tag(lap, trail.span)
    except Exception as own:  # noqa: BLE001 - likewise
        trouble("tagging an OpenTelemetry span", own)
    finally:
        span = trail.span
        trail.let_go()
        span.end()


def tag(lap: Lap, span: Any) -> None:
    """Set the contract's attributes, as far as is known now."""
    engine, figures = lap.tracker.engine, lap.tracker.figures(lap)
    if engine is None or figures is None:
        if lap.tracker.started:  # its first moments: nothing has been read yet
            span.set_attributes({"carbon.quality": "none", **_recorded(lap)})
        return
    span.set_attributes(attributes_of(lap, figures, engine.choice.identity(), engine.choice.price()))


def attributes_of(lap: Lap, figures: Figures, identity: Identity, price: Price | None) -> dict[str, Any]:
    """The contract's attributes: J, g, W. Where no meter told anything, energy is left out: it is not zero."""
    found = _process_attributes(identity, price).copy()
    if lap.job:
        found["carbon.job.name"] = lap.job
    run = _run_of(lap)
    if run:
        found["carbon.run"] = run
    found["carbon.quality"], found["carbon.shared"] = figures.quality, figures.shared
    if figures.joules:
        energy = figures.energy
        found["carbon.energy"], found["carbon.uncertainty"] = energy, figures.uncertainty
        found["carbon.power"] = energy / figures.seconds if figures.seconds > 0 else 0.0
        if price is not None:
            found["carbon.co2e"] = float(figures.grams)
    for kind, joules in figures.kinds.items():
        if kind in _BY_KIND:
            found[_BY_KIND[kind]] = float(joules)
    if lap.values:
        found.update(_recorded(lap))
    return found


def _process_attributes(identity: Identity, price: Price | None) -> dict[str, Any]:
    """Those of every lap of this process, made once for as long as nothing of it changes."""
    global _process  # noqa: PLW0603 - remembered, for it is asked at each lap
    whose, priced, found = _process
    if whose is not identity or priced is not price:
        found = {"carbon.job.name": identity.job, "carbon.run": identity.run}
        if identity.rank:
            found["carbon.rank"] = identity.rank
        if price is not None:
            found["carbon.region"], found["carbon.intensity"] = price.region, float(price.grams_per_kwh)
            found["carbon.intensity.source"] = price.source
        _process = identity, price, found
    return found


def _run_of(lap: Lap) -> object:
    """The name of the run that a lap is within, as that lap was told it; empty outside of one."""
    lane: Lane | None = lap
    while lane is not None:
        told = getattr(lane, "attributes", None)
        if told and "carbon.run" in told:
            return told["carbon.run"]
        lane = lane.parent
    return ""


def put(lap: Lap, attributes: Mapping[str, float]) -> None:
    """Set further attributes of a lap's span, where there is one that has not ended."""
    if lap.trail is not None and lap.trail.span is not None:
        lap.trail.span.set_attributes(attributes)


def is_ours(span: Any) -> bool:
    """Whether a span was made for a lap."""
    return getattr(getattr(span, "instrumentation_scope", None), "name", "") == SCOPE


def follow(lap: Lap, span: Any) -> None:
    """The lap measures a span that somebody else made."""
    lap.trail = Trail(span, None)
    _laps[span.get_span_context().span_id] = lap


def unfollow(span: Any) -> Lap | None:
    """That span ends: its lap, once."""
    return _laps.pop(span.get_span_context().span_id, None)


def innermost(above: Lap | None, context: Any = None) -> Lap | None:
    """The parent of a lap that begins now.

    It is that of OpenTelemetry's current span, or of the one above it, if others made those; else `above`, the
    innermost of our own blocks.
    """
    if not _laps:
        return above
    span = sys.modules[_API].get_current_span(context)
    parent = getattr(span, "parent", None)
    found = _laps.get(span.get_span_context().span_id)
    return found or (_laps.get(parent.span_id) if parent is not None else None) or above


def _recorded(lap: Lap) -> dict[str, float]:
    return {f"carbon.value.{name}": value for name, value in lap.values.items()}


def _current_with(span: Any) -> Any:
    return sys.modules[_API].set_span_in_context(span)


def _tracer_now(api: ModuleType | None) -> Any:
    """A tracer of the provider that is configured now; None where that is none."""
    global _provider, _tracer  # noqa: PLW0603 - remembered, for it is asked at each lap
    if api is None:
        from opentelemetry import trace  # noqa: PLC0415 - the environment asks for it

        api = trace
    provider = api.get_tracer_provider()
    if provider is not _provider:
        idle = isinstance(provider, (api.ProxyTracerProvider, api.NoOpTracerProvider))
        _tracer = None if idle else provider.get_tracer(SCOPE)
        _provider = provider
    return _tracer
