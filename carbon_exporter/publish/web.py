"""The exporter's endpoints: which path answers what, from bytes and snapshots that are in memory already."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

from carbon_exporter.publish.history import History
from carbon_exporter.publish.http import Request, Response
from carbon_exporter.publish.metadata import encode_metadata
from carbon_exporter.publish.prometheus import CONTENT_TYPES, Exposition, Renderer, accepts_gzip, negotiate
from carbon_exporter.publish.status import encode_status
from carbon_exporter.snapshot import Snapshot

__all__ = ["ENDPOINTS", "Published", "Web"]

ENDPOINTS = ("/", "/-/healthy", "/-/ready", "/api/v1/history", "/api/v1/metadata", "/api/v1/status", "/metrics")


@dataclass(frozen=True, slots=True)
class Published:
    """What the sampling loop hands to the server: one tick's snapshot and its exposition."""

    snapshot: Snapshot
    exposition: Exposition


class Web:
    """Answers requests. All it needs is loaded when it is made: answering opens no file and connects no socket."""

    def __init__(
        self, latest: Callable[[], Published | None], renderer: Renderer, node: str, history: History | None = None
    ) -> None:
        """`latest` gives the newest tick, None before the first; `node` is the name the page shows."""
        self._latest = latest
        self._renderer = renderer
        self._node = node
        self._history = history or History()
        self._metadata = encode_metadata(renderer.job_label)
        self._page = files("carbon_exporter.publish").joinpath("page/index.html").read_bytes()
        self._page_headers = (
            ("Content-Security-Policy", _policy(self._page.decode())),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-cache"),
        )
        self._routes: dict[str, Callable[[Request, str], Response]] = {
            "/": self._index,
            "/-/healthy": self._healthy,
            "/-/ready": self._ready,
            "/api/v1/history": self._hour,
            "/api/v1/metadata": self._described,
            "/api/v1/status": self._status,
            "/metrics": self._metrics,
        }

    def answer(self, request: Request) -> Response:
        """The response to any request; never waits."""
        try:
            target = urlsplit(request.target)
        except ValueError:
            return Response(400, b"malformed target\n")
        route = self._routes.get(target.path)
        if route is None:
            return Response(404, f"not found; there are {', '.join(ENDPOINTS)}\n".encode())
        if request.method not in {"GET", "HEAD"}:
            return Response(405, b"only GET and HEAD\n", headers=(("Allow", "GET, HEAD"),))
        return route(request, target.query)

    def _metrics(self, request: Request, query: str) -> Response:
        published = self._latest()
        if published is None:
            return Response(503, b"no sample yet\n")
        form = negotiate(request.headers.get("accept", ""))
        compressed = accepts_gzip(request.headers.get("accept-encoding", ""))
        headers = (("Vary", "Accept, Accept-Encoding"), *((("Content-Encoding", "gzip"),) if compressed else ()))
        names = parse_qs(query).get("name[]", [])
        if names:
            body = published.exposition.part(form, frozenset(names), compressed=compressed)
        else:
            self._renderer.note_demand(form, compressed=compressed)
            body = published.exposition.page(form, compressed=compressed)
        return Response(200, body, CONTENT_TYPES[form], headers)

    def _status(self, _request: Request, _query: str) -> Response:
        published = self._latest()
        if published is None:
            return Response(503, b'{"ready":false}', "application/json")
        body = encode_status(published.snapshot, self._node)
        return Response(200, body, "application/json", (("Cache-Control", "no-store"),))

    def _hour(self, request: Request, _query: str) -> Response:
        tag, body = self._history.encoded()
        headers = (("ETag", tag), ("Cache-Control", "no-cache"))
        if tag in request.headers.get("if-none-match", ""):
            return Response(304, b"", "application/json", headers)
        return Response(200, body, "application/json", headers)

    def _described(self, _request: Request, _query: str) -> Response:
        return Response(200, self._metadata, "application/json", (("Cache-Control", "no-cache"),))

    def _index(self, _request: Request, _query: str) -> Response:
        return Response(200, self._page, "text/html; charset=utf-8", self._page_headers)

    def _healthy(self, _request: Request, _query: str) -> Response:
        return Response(200, b"carbon-exporter is healthy\n")

    def _ready(self, _request: Request, _query: str) -> Response:
        if self._latest() is None:
            return Response(503, b"no sample yet\n")
        return Response(200, b"carbon-exporter is ready\n")


def _policy(page: str) -> str:
    """A Content-Security-Policy that lets exactly this page's own script and style run."""
    allowed = {
        element: " ".join(
            f"'sha256-{_digest(text)}'" for text in re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        )
        for element in ("style", "script")
    }
    return (
        f"default-src 'none'; style-src {allowed['style']}; script-src {allowed['script']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
