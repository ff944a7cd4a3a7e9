"""A real Prometheus that takes metrics over OTLP, and evaluates rules.

Debian builds its Prometheus without the OTLP receiver, so vmagent of VictoriaMetrics stands before it: it receives,
spells names and labels as Prometheus does, and writes to it, timestamps and all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.prometheus import Prometheus, _free_port
from support.tools import need

__all__ = ["Receiving", "receiving_prometheus"]

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "carbon-exporter"
"""Where .ci/deps puts vmagent."""
_AS_PROMETHEUS = [
    {"source_labels": ["service_name"], "target_label": "job"},
    {"source_labels": ["service_instance_id"], "target_label": "instance"},
    {"regex": "service_name|service_instance_id", "action": "labeldrop"},
]
"""Prometheus' own receiver makes its two labels of these attributes."""


class Receiving(Prometheus):
    """Answers queries; `endpoint` is for OTEL_EXPORTER_OTLP_ENDPOINT."""

    def __init__(self, port: int, receiver: int) -> None:
        super().__init__(port)
        self.endpoint = f"http://127.0.0.1:{receiver}/opentelemetry"

    def wait(self, expression: str, count: int = 1, seconds: float = 30) -> list[tuple[dict[str, str], float]]:
        """Labels (but the name) and value of each series, as soon as there are so many."""
        until = time.monotonic() + seconds
        while len(found := self.query(expression)) < count:
            assert time.monotonic() < until, f"{len(found)} of {count} series of {expression}"
            time.sleep(0.1)
        labels = ({key: value for key, value in row["metric"].items() if key != "__name__"} for row in found)
        return [(mine, float(row["value"][1])) for mine, row in zip(labels, found, strict=True)]


@contextmanager
def receiving_prometheus(directory: Path, *rules: Path, promote: str = "") -> Iterator[Receiving]:
    """Evaluates `rules` every second while the block runs. `promote` are resource attributes to have as labels."""
    port, receiver = _free_port(), _free_port()
    server = Receiving(port, receiver)
    with _running(_prometheus(directory, port, rules), lambda: server.query("vector(1)")):
        written = f"http://127.0.0.1:{port}/api/v1/write"
        with _running(_vmagent(directory, receiver, written, promote), lambda: _answers(receiver)):
            yield server


def _prometheus(directory: Path, port: int, rules: tuple[Path, ...]) -> list[str]:
    file = directory / "receiving.json"
    file.write_text(json.dumps({"global": {"evaluation_interval": "1s"}, "rule_files": [str(rule) for rule in rules]}))
    return [
        need("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'received'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
        "--log.level=error",
    ]


def _vmagent(directory: Path, port: int, written: str, promote: str) -> list[str]:
    relabel = directory / "relabel.json"
    relabel.write_text(json.dumps(_AS_PROMETHEUS))
    return [
        need("vmagent", str(_CACHE)),
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-remoteWrite.url={written}",
        f"-remoteWrite.tmpDataPath={directory / 'vmagent'}",
        f"-remoteWrite.relabelConfig={relabel}",
        "-remoteWrite.flushInterval=100ms",
        "-opentelemetry.usePrometheusNaming",
        "-opentelemetry.promoteScopeMetadata=false",
        "-opentelemetry.promoteAllResourceAttributes=false",
        f"-opentelemetry.promoteResourceAttributes=service.name,service.instance.id{promote and f',{promote}'}",
        "-loggerLevel=ERROR",
    ]


def _answers(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
        pass


@contextmanager
def _running(command: list[str], ask: Callable[[], object]) -> Iterator[None]:
    with subprocess.Popen(command) as process:
        try:
            until = time.monotonic() + 30
            while True:
                assert process.poll() is None, f"{command[0]} has ended"
                with suppress(OSError, ValueError):
                    ask()
                    break
                assert time.monotonic() < until, f"{command[0]} does not answer"
                time.sleep(0.1)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
