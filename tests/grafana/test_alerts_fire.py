"""Two alerts on their whole way: a real Prometheus evaluates the rules, a real Alertmanager tells a webhook."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import yaml
from support.tools import need
from support.waiting import until

from deploy.demo.server import free_port, prometheus, started

RULES = Path(__file__).parents[2] / "grafana" / "rules" / "alerts.yml"
PAGE = """\
# TYPE carbon_sensor_success gauge
carbon_sensor_success{sensor="rapl"} 0
carbon_sensor_success{sensor="nvidia"} 1
"""


class _Page(BaseHTTPRequestHandler):
    """An exporter whose RAPL sensor fails."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


class _Webhook(_Page):
    """What Alertmanager tells."""

    told: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.told.extend(json.loads(body)["alerts"])
        self.send_response(200)
        self.end_headers()


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A server on a free port, which is its value."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def alertmanager(place: Path, webhook: int) -> Iterator[str]:
    """Its address, while the block runs. It tells at once."""
    route = {"receiver": "hook", "group_by": ["..."], "group_wait": "100ms", "group_interval": "1s"}
    hook = {"name": "hook", "webhook_configs": [{"url": f"http://127.0.0.1:{webhook}/"}]}
    file = place / "alertmanager.yml"
    file.write_text(yaml.safe_dump({"route": route, "receivers": [hook]}))
    address = f"127.0.0.1:{free_port()}"
    command = [need("prometheus-alertmanager"), f"--config.file={file}", f"--storage.path={place / 'alerts'}"]
    command += [f"--web.listen-address={address}", "--cluster.listen-address=", "--log.level=error"]
    with started(command, f"http://{address}/-/ready", place / "alertmanager.log"):
        yield address


def hurried(place: Path) -> Path:
    """The alerts with a second for every `for`, evaluated every second; nothing else is changed."""
    text = re.sub(r"^(\s+)for: .*$", r"\1for: 1s", RULES.read_text(), flags=re.MULTILINE)
    file = place / "alerts.yml"
    file.write_text(re.sub(r"^(\s+)interval: .*$", r"\1interval: 1s", text, flags=re.MULTILINE))
    return file


def test_an_exporter_that_is_down_and_a_sensor_that_fails_are_told_to_a_webhook(tmp_path: Path) -> None:
    need("prometheus")
    _Webhook.told.clear()
    with serving(_Page) as page, serving(_Webhook) as webhook, alertmanager(tmp_path, webhook) as address:
        targets = [f"127.0.0.1:{page}", f"127.0.0.1:{free_port()}"]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(hurried(tmp_path))],
            "scrape_configs": [{"job_name": "carbon-exporter", "static_configs": [{"targets": targets}]}],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [address]}]}]},
        }
        with prometheus(tmp_path, config):
            until(lambda: len(firing()) >= 2, 20)
    down, failing = firing()["CarbonExporterDown"], firing()["CarbonSensorFailing"]
    assert down["labels"]["instance"] == targets[1]
    assert (failing["labels"]["instance"], failing["labels"]["sensor"]) == (targets[0], "rapl")
    for alert in (down, failing):
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["description"]
        assert alert["annotations"]["runbook_url"].partition("#")[2]
    assert set(firing()) == {"CarbonExporterDown", "CarbonSensorFailing"}


def firing() -> dict[str, dict[str, Any]]:
    """The alerts that were told, by name."""
    return {alert["labels"]["alertname"]: alert for alert in tuple(_Webhook.told) if alert["status"] == "firing"}
