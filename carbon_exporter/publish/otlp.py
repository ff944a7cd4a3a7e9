"""The push over OTLP/HTTP: what `/metrics` shows, sent to a collector by OpenTelemetry's own exporter.

The points are made of the snapshot, not by the SDK's instruments: those fold everything beyond 2,000 series into one,
and cost twice the time. A thread of its own does it all; `post` only hands a snapshot over.

All settings are OpenTelemetry's: `OTEL_EXPORTER_OTLP_ENDPOINT` turns it on; time-out, headers, certificates and
compression are read by its exporter from the environment of this process. Points are always cumulative.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from carbon_exporter import __version__
from carbon_exporter.config.loading import shown
from carbon_exporter.errors import ConfigError
from carbon_exporter.publish.otlp_lives import Lives
from carbon_exporter.publish.otlp_points import metrics_data
from carbon_exporter.snapshot import Snapshot

__all__ = ["OtlpPush", "Target", "resource_attributes", "target_of"]

_log = logging.getLogger(__name__)
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_METRICS_ENDPOINT = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
_INTERVAL_MILLISECONDS = "60000"
_EXTRA = "opentelemetry.exporter.otlp.proto.http"
_EXPORTER_LOG = "opentelemetry.exporter.otlp.proto.http.metric_exporter"
_WAITING = 64
"""Snapshots kept while a push takes its time; of more, the oldest are not looked at."""


class Target(NamedTuple):
    """Where to push, and how often."""

    endpoint: str
    """The full URL."""
    interval: float
    """Seconds."""

    @property
    def shown(self) -> str:
        """The endpoint for logs: without what may be a secret."""
        url = urlsplit(self.endpoint)
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"


class MetricsExporter(Protocol):
    """What is needed of `OTLPMetricExporter`."""

    def export(self, metrics_data: Any) -> Any:
        """Send, and say `SUCCESS` or `FAILURE` by the name of what is returned. May take its time-out."""

    def shutdown(self) -> None:
        """End what it does now."""


class OtlpPush:
    """Pushes snapshots. `post` and `close` are for the sampling thread."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], node: str) -> OtlpPush | None:
        """What OpenTelemetry's variables ask for, running; None if they ask for nothing.

        `node` is this machine's name. Raises `ConfigError` for variables that cannot be, or if the extra is missing.
        """
        target = target_of(environ)
        if target is None:
            return None
        try:
            extra = find_spec(_EXTRA)
        except ModuleNotFoundError:
            extra = None
        if extra is None:
            name = _METRICS_ENDPOINT if environ.get(_METRICS_ENDPOINT) else _ENDPOINT
            raise ConfigError(
                "environment",
                name,
                target.shown,
                "only with pip install 'carbon-exporter[otlp]'; OTEL_METRICS_EXPORTER=none turns it off",
            )
        return cls(target, resource_attributes(environ, node))

    def __init__(
        self,
        target: Target,
        resource: Mapping[str, str],
        exporter: Callable[[str], MetricsExporter] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins to wait for snapshots. `exporter` makes what sends, on the push's own thread."""
        self._target, self._resource, self._clock = target, dict(resource), clock
        self._make = exporter or _otlp_exporter
        self._exporter: MetricsExporter | None = None
        self._posted: deque[Snapshot] = deque(maxlen=_WAITING)
        self._closing = self._is_left = False
        self._wake = threading.Event()
        self._lives = Lives()
        self._models: dict[str, str] = {}
        self._newest: Snapshot | None = None
        self._sent: Snapshot | None = None
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self._thread.start()

    def post(self, snapshot: Snapshot) -> None:
        """Hand a snapshot over; costs the same whether a collector answers or not."""
        self._posted.append(snapshot)
        self._wake.set()

    def close(self, patience: float) -> None:
        """Push the last snapshot and end, within `patience` seconds; a collector that hangs is left alone then."""
        self._closing = True
        self._wake.set()
        self._thread.join(patience)
        if self._thread.is_alive():
            self._is_left = True
            exporter = self._exporter
            if exporter is not None:
                exporter.shutdown()
            _log.warning("the last push to %s did not arrive within %g s", self._target.shown, patience)

    def _run(self) -> None:
        heard = _Heard()
        logger = logging.getLogger(_EXPORTER_LOG)
        logger.addFilter(heard)
        try:
            self._exporter = self._make(self._target.endpoint)
            _log.info("pushing to %s every %g s", self._target.shown, self._target.interval)
            self._push_all(heard)
            self._exporter.shutdown()
        except Exception:  # noqa: BLE001 - /metrics must not end with it; the log has the traceback
            _log.exception("the push to %s has ended; /metrics goes on", self._target.shown)
        finally:
            logger.removeFilter(heard)

    def _push_all(self, heard: _Heard) -> None:
        due = self._clock()
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing
            self._look(heard)
            if self._newest is not self._sent and (closing or self._clock() >= due):
                due = max(due + self._target.interval, self._clock())
                self._push(self._newest, heard)
            if closing:
                return

    def _look(self, heard: _Heard) -> None:
        """Take note of all that was posted; what is about to be forgotten is pushed first."""
        while self._posted:
            snapshot = self._posted.popleft()
            self._models.update({state.device.name: state.device.model for state in snapshot.devices})
            if self._lives.look(snapshot):
                self._push(self._newest, heard)
            self._lives.forget()
            self._newest = snapshot

    def _push(self, snapshot: Snapshot | None, heard: _Heard) -> None:
        if snapshot is None or self._exporter is None:
            return
        heard.last = ""
        try:
            data = metrics_data(snapshot, self._lives, self._models, self._resource)
            answer = self._exporter.export(data)
            trouble = "" if answer.name == "SUCCESS" else heard.last or "no answer"
        except Exception as error:  # noqa: BLE001 - older exporters raise what their HTTP client raises
            trouble = _without_url(f"{type(error).__name__}: {error}")
        self._sent = snapshot
        self._lives.pushed(snapshot, arrived=not trouble)
        self._tell(trouble)

    def _tell(self, trouble: str) -> None:
        """One line when it begins to fail, one when it works again; none once it was left alone."""
        if self._is_left:
            return
        if trouble and not self._trouble:
            _log.warning("cannot push to %s, trying again every %g s: %s", *self._shown, trouble)
        elif self._trouble and not trouble:
            _log.info("pushing to %s every %g s again", *self._shown)
        self._trouble = trouble

    @property
    def _shown(self) -> tuple[str, float]:
        return self._target.shown, self._target.interval


class _Heard(logging.Filter):
    """Keeps what the exporter logs on the push's own thread, where it would be said again and again, from the log."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self.last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self._thread:
            return True
        self.last = self.last or _without_url(record.getMessage())
        return False


def target_of(environ: Mapping[str, str]) -> Target | None:
    """Where the environment says to push metrics; None if nowhere. Raises `ConfigError` for what cannot be."""
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporters = environ.get("OTEL_METRICS_EXPORTER", "otlp")
    if off or not any(word.strip() == "otlp" for word in (exporters or "otlp").split(",")):
        return None
    if whole := environ.get(_METRICS_ENDPOINT, "").strip():
        name, endpoint = _METRICS_ENDPOINT, whole
    elif base := environ.get(_ENDPOINT, "").strip():
        name, endpoint = _ENDPOINT, f"{base.rstrip('/')}/v1/metrics"
    else:
        return None
    target = Target(endpoint, _interval(environ))
    if not re.match(r"https?://[^/]", endpoint):
        raise ConfigError("environment", name, shown(name, environ[name]), "a URL that begins with http:// or https://")
    for variable in _PROTOCOLS:
        if protocol := environ.get(variable, "").strip():
            if protocol != "http/protobuf":
                accepted = f"http/protobuf (a collector's port 4318); {_PROTOCOLS[0]} is for metrics alone"
                raise ConfigError("environment", variable, protocol, accepted)
            break
    return target


def _interval(environ: Mapping[str, str]) -> float:
    text = environ.get(_INTERVAL, "").strip() or _INTERVAL_MILLISECONDS
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ConfigError("environment", _INTERVAL, text, "milliseconds, a whole number above 0")
    return int(text) / 1000


def resource_attributes(environ: Mapping[str, str], node: str) -> dict[str, str]:
    """What is the same for all points: this exporter and its node; the user's OTEL_RESOURCE_ATTRIBUTES win.

    `service.instance.id` tells nodes apart where a receiver makes `job` and `instance` of the service's name and
    instance. `host.id` is left out: a machine's id is not to be exposed (machine-id(5)).
    """
    node = environ.get("NODE_NAME") or node
    found = {
        "service.name": environ.get("OTEL_SERVICE_NAME") or "carbon-exporter",
        "service.version": __version__,
        "service.instance.id": node,
        "host.name": node,
    }
    if environ.get("NODE_NAME"):
        found["k8s.node.name"] = node
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, equals, value = pair.partition("=")
        if key.strip() and equals and not (key.strip() == "service.name" and environ.get("OTEL_SERVICE_NAME")):
            found[key.strip()] = unquote(value.strip())
    return found


def _otlp_exporter(endpoint: str) -> MetricsExporter:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415 - only who pushes loads it
        OTLPMetricExporter,
    )

    return OTLPMetricExporter(endpoint=endpoint)


def _without_url(text: str) -> str:
    """A complaint without the path and query it names, for a query may hold a key, and without what comes next."""
    text = re.sub(r"\s*\b(?:with )?url: \S+", "", text)
    return re.sub(r" encountered while exporting .*", "", text)[:500]
