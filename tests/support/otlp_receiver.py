"""A small OTLP/HTTP receiver that decodes what it is sent with OpenTelemetry's own protocol.

It stands in for a collector where a test has to look at every point, or where the collector has to misbehave.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

__all__ = ["Point", "Pushed", "Receiver", "receiver"]


class Point(NamedTuple):
    """One data point."""

    metric: str
    unit: str
    attributes: Mapping[str, str]
    value: float
    start: int
    at: int
    """Both in nanoseconds of the Unix epoch."""
    monotonic: bool | None
    """None for a gauge."""


class Pushed(NamedTuple):
    """One request."""

    resource: Mapping[str, str]
    points: tuple[Point, ...]
    headers: Mapping[str, str]
    """In lower case."""

    def of(self, metric: str) -> list[Point]:
        return [point for point in self.points if point.metric == metric]


@dataclass
class Receiver:
    """What has arrived, and how to answer."""

    port: int = 0
    status: int = 200
    hold: threading.Event | None = None
    """While it is there and not set, requests get no answer."""
    pushed: list[Pushed] = field(default_factory=list)
    requests: int = 0
    """Answered or not."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, count: int, seconds: float = 20) -> list[Pushed]:
        """Until so many requests have arrived."""
        until = time.monotonic() + seconds
        while len(self.pushed) < count:
            assert time.monotonic() < until, f"{len(self.pushed)} of {count} pushes have arrived"
            time.sleep(0.01)
        return self.pushed


@contextmanager
def receiver(port: int = 0) -> Iterator[Receiver]:
    """Receives on a free port of 127.0.0.1 (or this one) while the block runs."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.requests += 1
            if state.hold is not None:
                state.hold.wait(10)
            if state.status == 200:
                state.pushed.append(_decoded(body, {key.lower(): value for key, value in self.headers.items()}))
            answer = ExportMetricsServiceResponse().SerializeToString()
            self.send_response(state.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that has gone."""

    with Quiet(("127.0.0.1", port), Handler) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            if state.hold is not None:
                state.hold.set()
            server.shutdown()
            thread.join(5)


def _decoded(body: bytes, headers: Mapping[str, str]) -> Pushed:
    plain = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
    request = ExportMetricsServiceRequest.FromString(plain)
    resource: dict[str, str] = {}
    points: list[Point] = []
    for group in request.resource_metrics:
        resource |= {pair.key: pair.value.string_value for pair in group.resource.attributes}
        for metric in (metric for scope in group.scope_metrics for metric in scope.metrics):
            counter = metric.WhichOneof("data") == "sum"
            if counter:
                assert metric.sum.aggregation_temporality == 2, "cumulative"
            points += [
                Point(
                    metric.name,
                    metric.unit,
                    {pair.key: pair.value.string_value for pair in point.attributes},
                    point.as_double,
                    point.start_time_unix_nano,
                    point.time_unix_nano,
                    metric.sum.is_monotonic if counter else None,
                )
                for point in (metric.sum if counter else metric.gauge).data_points
            ]
    return Pushed(resource, tuple(points), headers)
