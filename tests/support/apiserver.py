"""A Kubernetes API server, as far as pods go: a real HTTP or HTTPS server that lists and watches, with its faults.

It keeps a history of changes that can be compacted, pages lists as a server without a cache does, checks the token,
sends bookmarks, and breaks off where it is told to.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from support.bmc import Certificate

__all__ = ["NODE", "TOKEN", "Answer", "ApiServer", "Handler", "container_id", "make_pod", "refusal", "uid_of"]

NODE, TOKEN = "node-1", "first-token-of-the-account"
Json = dict[str, Any]
Answer = Callable[["Handler"], None]
"""Writes a whole answer by itself."""


def uid_of(name: str) -> str:
    """A uid for a name, always the same."""
    digits = hashlib.sha256(name.encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"


def container_id(pod: str, container: str = "main") -> str:
    """A container's id: 64 hex digits."""
    return hashlib.sha256(f"{pod}/{container}".encode()).hexdigest()


def make_pod(name: str, namespace: str = "default", *, uid: str = "", node: str = NODE, **spec: Any) -> Json:
    """A running pod of one container, of the size that a real one has; `spec` replaces parts of its spec.

    `labels`, `annotations` and `owners` go where they belong.
    """
    labels, annotations = spec.pop("labels", {"app": name}), spec.pop("annotations", {})
    owners = spec.pop("owners", [])
    mounts = [{"name": f"volume-{i}", "mountPath": f"/data/volume-{i}", "readOnly": True} for i in range(8)]
    main = {"name": "main", "image": f"registry.example/team/{name}:1.2.3", "volumeMounts": mounts, "env": []}
    managed: Json = {
        f"f:field-{i}": {".": {}, 'k:{"name":"main"}': {f"f:part-{j}": {} for j in range(4)}} for i in range(40)
    }
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    states = [{"name": "main", "containerID": f"containerd://{container_id(name)}", "ready": True, "restartCount": 0}]
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or uid_of(f"{namespace}/{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": owners,
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": managed}],
        },
        "spec": {
            "nodeName": node,
            "containers": [main],
            "tolerations": [{"key": f"node.kubernetes.io/{i}", "operator": "Exists"} for i in range(6)],
            **spec,
        },
        "status": {"phase": "Running", "conditions": conditions, "containerStatuses": states},
    }


def refusal(code: int, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with this status."""
    return lambda handler: handler.refuse(code, headers)


@dataclass
class Watcher:
    """One open watch."""

    node: str
    bookmarks: bool
    waiting: queue.Queue[bytes | None] = field(default_factory=queue.Queue)
    """Chunks; None ends the connection there and then."""


@dataclass
class ApiServer:
    """Serves pods on a free port of this machine while the block lasts."""

    certificate: Certificate | None = None
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    """Those that are accepted."""
    cache: bool = True
    """A list of version 0 comes whole out of a cache; else pages are of the size that is asked for."""
    gone_as_status: bool = False
    """A version that is too old is refused, instead of told as an event."""
    watch_seconds: float = 3600.0
    """A watch is ended after this, however long it was asked for."""
    piece: int = 1 << 20
    """The longest chunk of a watch, in bytes."""
    answers: list[Answer] = field(default_factory=list)
    """What is sent instead, one a request."""
    lists: list[dict[str, str]] = field(default_factory=list)
    watches: list[dict[str, str]] = field(default_factory=list)
    refused_tokens: list[str] = field(default_factory=list)
    version: int = 1000
    compacted: int = 0
    """Changes up to this version are no longer known."""

    def __enter__(self) -> ApiServer:  # noqa: PYI034 - Self is of Python 3.11
        self.pods: dict[tuple[str, str], Json] = {}
        self.history: list[tuple[int, Json]] = []
        self.watchers: list[Watcher] = []
        self.lock = threading.RLock()
        self._port = 0
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, again on the same port after `stop`."""
        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = int(self._server.server_address[1])
        self._server.api = self
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate.certificate, self.certificate.key)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Break all off and refuse connections."""
        self.hang_up()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def port(self) -> int:
        return self._port

    def put(self, pod: Json) -> None:
        """Make a pod, or change it."""
        with self.lock:
            key = pod["metadata"]["namespace"], pod["metadata"]["name"]
            kind = "MODIFIED" if key in self.pods else "ADDED"
            self.version += 1
            self.pods[key] = json.loads(json.dumps(pod))
            self.pods[key]["metadata"]["resourceVersion"] = str(self.version)
            self._happened({"type": kind, "object": self.pods[key]})

    def delete(self, name: str, namespace: str = "default") -> None:
        """Remove a pod; the event shows its last state."""
        with self.lock:
            pod = json.loads(json.dumps(self.pods.pop((namespace, name))))
            self.version += 1
            pod["metadata"]["resourceVersion"] = str(self.version)
            self._happened({"type": "DELETED", "object": pod})

    def bookmark(self, others: int = 0) -> None:
        """Tell where the watches stand, after so many changes of other things."""
        with self.lock:
            self.version += others
            about = {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": str(self.version)}}
            self.tell(_line({"type": "BOOKMARK", "object": about}))

    def compact(self) -> None:
        """Forget all changes up to now."""
        with self.lock:
            self.version += 1
            self.compacted = self.version
            self.history.clear()

    def tell(self, text: bytes) -> None:
        """Send this in every open watch."""
        with self.lock:
            for watcher in self.watchers:
                watcher.waiting.put(text)

    def hang_up(self, half: bytes = b"") -> None:
        """Break every watch off without a proper end, after these bytes."""
        with self.lock:
            for watcher in self.watchers:
                if half:
                    watcher.waiting.put(half)
                watcher.waiting.put(None)

    def gone(self) -> bytes:
        """The event that tells that a version is too old."""
        return _line({"type": "ERROR", "object": _status(410)})

    def _happened(self, event: Json) -> None:
        self.history.append((self.version, event))
        for watcher in self.watchers:
            if event["object"]["spec"].get("nodeName") == watcher.node:
                watcher.waiting.put(_line(event))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    api: ApiServer

    def handle_error(self, *_: object) -> None:
        """A client that goes away is what many tests are about."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 20
    disable_nagle_algorithm = True

    @property
    def api(self) -> ApiServer:
        return cast("Server", self.server).api

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        watch = query.get("watch") == "true"
        (self.api.watches if watch else self.api.lists).append(query)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.api.answers:
            self.api.answers.pop(0)(self)
        elif token not in self.api.tokens:
            self.api.refused_tokens.append(token)
            self.refuse(401)
        elif parts.path != "/api/v1/pods":
            self.refuse(403)
        elif watch:
            self._watch(query)
        else:
            self._list(query)

    def refuse(self, code: int, headers: Mapping[str, str] | None = None) -> None:
        self.send(code, _status(code), headers)

    def send(self, status: int, value: Json | bytes, headers: Mapping[str, str] | None = None) -> None:
        """A JSON body, or these bytes."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, *chunks: bytes) -> None:
        """A watch that tells this, and ends properly."""
        self._begin()
        for chunk in chunks:
            self._chunk(chunk)
        self._chunk(b"")

    def drip(self, seconds: float) -> None:
        """A body of which a byte comes every tenth of a second."""
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        until = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            while time.monotonic() < until:
                self.wfile.write(b" ")
                time.sleep(0.1)

    def _list(self, query: Mapping[str, str]) -> None:
        node = query["fieldSelector"].removeprefix("spec.nodeName=")
        more = query.get("continue", "")
        if more and "resourceVersion" in query:
            self.refuse(400)  # as a real one: the token says which
            return
        with self.api.lock:
            begin, _, at = more.partition(":")
            version = int(at or self.api.version)
            if version < self.api.compacted:
                self.refuse(410)
                return
            pods = [pod for _, pod in sorted(self.api.pods.items()) if pod["spec"].get("nodeName") == node]
        first = int(begin or 0)
        whole = self.api.cache and query.get("resourceVersion") == "0"
        last = len(pods) if whole else first + int(query.get("limit", len(pods)))
        about: Json = {"resourceVersion": str(version)}
        if last < len(pods):
            about |= {"continue": f"{last}:{version}", "remainingItemCount": len(pods) - last}
        self.send(200, {"kind": "PodList", "apiVersion": "v1", "metadata": about, "items": pods[first:last]})

    def _watch(self, query: Mapping[str, str]) -> None:
        since = int(query["resourceVersion"])
        node = query["fieldSelector"].removeprefix("spec.nodeName=")
        watcher = Watcher(node, query.get("allowWatchBookmarks") == "true")
        with self.api.lock:
            expired = since < self.api.compacted
            for version, event in self.api.history:
                if version > since and event["object"]["spec"].get("nodeName") == node:
                    watcher.waiting.put(_line(event))
            self.api.watchers.append(watcher)
        try:
            if expired and self.api.gone_as_status:
                self.refuse(410)
            elif expired:
                self.stream(self.api.gone())
            else:
                self._follow(watcher, min(self.api.watch_seconds, float(query["timeoutSeconds"])))
        finally:
            with self.api.lock:
                self.api.watchers.remove(watcher)

    def _follow(self, watcher: Watcher, seconds: float) -> None:
        self._begin()
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                text = watcher.waiting.get(timeout=min(left, 0.05))
            except queue.Empty:
                if self._is_left():
                    return
                continue
            if text is None:
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            for at in range(0, len(text), self.api.piece):
                self._chunk(text[at : at + self.api.piece])
        self._chunk(b"")

    def _is_left(self) -> bool:
        """Whether the client has closed its side."""
        poll = select.poll()
        poll.register(self.connection, select.POLLRDHUP)
        return bool(poll.poll(0))

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def _chunk(self, text: bytes) -> None:
        self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")


def _line(event: Json) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def _status(code: int) -> Json:
    reasons = {401: "Unauthorized", 403: "Forbidden", 410: "Expired", 429: "TooManyRequests"}
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reasons.get(code, ""), "code": code}
