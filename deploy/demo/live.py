"""What runs while the demonstration does: an exporter a node on a recording, and a page of what scripts would tell."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from deploy.demo.account import lives
from deploy.demo.cluster import Node, Scenario
from deploy.demo.labels import Target
from deploy.demo.recordings import BOARDS, RECORDING, prepare
from deploy.demo.script_page import ScriptPage
from deploy.demo.server import free_port, started
from deploy.demo.view import View

__all__ = ["exporters", "scripts"]


@contextmanager
def exporters(place: Path, nodes: tuple[Node, ...]) -> Iterator[dict[str, int]]:
    """A real `carbon-exporter` for each node while the block runs, as ports by the name of the node."""
    with ExitStack() as stack:
        yield {node.name: stack.enter_context(_exporter(place, node)) for node in nodes}


@contextmanager
def _exporter(place: Path, node: Node) -> Iterator[int]:
    home = place / node.name
    prepare(node, home)
    port = free_port()
    command = [sys.executable, "-m", "carbon_exporter", "serve", f"--web.listen-address=127.0.0.1:{port}"]
    command += [f"--replay.file={home / RECORDING}", f"--slurm.mapping-directory={home / BOARDS}"]
    command += [f"--storage.path={home / 'state'}", "--sdk.socket=", f"--grid.region={node.region}"]
    with started(command, f"http://127.0.0.1:{port}/-/ready", home / "exporter.log"):
        yield port


@contextmanager
def scripts(scenario: Scenario) -> Iterator[int]:
    """The port of a page with what scripts tell, spans and runs, and what no exporter shows yet: forecasts, providers.

    They are those of the scenario's last training, which is told again and again.
    """
    page = _Told(scenario)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


class _Told:
    """The text of the page."""

    def __init__(self, scenario: Scenario) -> None:
        job = [each for each in scenario.jobs if each.training][-1]
        node = next(each for each in scenario.nodes if each.name == job.nodes[0])
        window = (job.start, job.end)
        self._began, self._job = time.time(), job
        self._page = ScriptPage(View(scenario, node, lives(scenario, node.name), window, 15.0, Target()))

    def text(self) -> str:
        """Now; after the training's end it stays at its last moment."""
        at = min(self._job.start + time.time() - self._began, self._job.end)
        return "\n".join([*self._page.lines(at), ""])
