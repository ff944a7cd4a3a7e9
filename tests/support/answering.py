"""A server that answers every question in one way, and remembers who asked."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.bmc import Certificate

__all__ = ["Answering", "answering"]


@dataclass
class Answering:
    """Its address and what came."""

    url: str
    asked: list[dict[str, str]] = field(default_factory=list)
    """The headers of every question, and under `path` its path."""


@contextmanager
def answering(
    status: int = 200,
    body: bytes = b"",
    *,
    location: str = "",
    certificate: Certificate | None = None,
    pause: float = 0.0,
) -> Iterator[Answering]:
    """Answers while the block runs, over TLS where there is a certificate, each time after a pause in seconds."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append({**{name.lower(): value for name, value in self.headers.items()}, "path": self.path})
            time.sleep(pause)
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with _Quiet(("127.0.0.1", 0), Handler) as http:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.certificate, certificate.key)
            http.socket = context.wrap_socket(http.socket, server_side=True)
        server = Answering(f"{'https' if certificate else 'http'}://127.0.0.1:{http.server_address[1]}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that turns away is no news."""
