"""An MLflow server that starts runs, refuses what is logged to them at first, and then does not answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["StuckMlflow", "stuck_mlflow"]

RUN = {"info": {"run_id": "r1", "experiment_id": "0", "status": "RUNNING", "lifecycle_stage": "active"}, "data": {}}


class StuckMlflow:
    """Its address, and how often it was asked to log."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked = 0


@contextmanager
def stuck_mlflow(refused: int) -> Iterator[StuckMlflow]:
    """One on a free port while the block runs, which refuses so often."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path.endswith("log-batch"):
                told.asked += 1
                if told.asked > refused:
                    over.wait(60)
                self._say(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "not today"})
            else:
                self._say(200, {"run": RUN})

        def do_GET(self) -> None:
            self._say(200, {"run": RUN, "experiment": {"experiment_id": "0", "name": "Default"}})

        def _say(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(BrokenPipeError):  # who asked has ended
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told = StuckMlflow(server.server_address[1])
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield told
        finally:
            over.set()
            server.shutdown()
