"""The live page on a stage: what the exporter would answer comes from a test, which may change or break it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from support.browser import console, until

from carbon_exporter.publish.metadata import encode_metadata

__all__ = ["PAGE", "Stage", "Status", "a_grid", "a_status", "device", "job", "served", "state_of", "visit"]

Status = dict[str, Any]
PAGE = files("carbon_exporter.publish").joinpath("page").joinpath("index.html").read_text(encoding="utf-8")
PREFIX = "/nodes/7/"


def job(name: str, watts: float | None, kwh: float, grams: float, **more: Any) -> Status:
    """One job as the status has it."""
    known = {"job_name": name, "job_namespace": "", "live": True, "rule": "" if name.endswith("_") else "CARBON_JOB"}
    return {**known, "power_watts": watts, "energy_kwh": kwh, "co2e_grams": grams, **more}


def device(name: str, watts: float | None, kwh: float, quality: str = "modelled") -> Status:
    """One device as the status has it."""
    known = {"kind": "cpu", "vendor": "AMD", "model": "AMD EPYC", "sensor": "model", "method": "4 vCPUs x 3.5 W"}
    return {**known, "device": name, "quality": quality, "power_watts": watts, "energy_kwh": kwh, "gap_seconds": 0.0}


SMALL_MACHINE = """{
  "version": "0.1.0", "node": "desk-17", "time": 0, "started": 1795300000.0, "interval_seconds": 0.2, "samples": 12,
  "ready": true, "power_watts": 12.3, "today": {"date": "2026-11-22", "energy_kwh": 0.0123, "co2e_grams": 4.5},
  "grid": {"region": "FR", "intensity_grams_per_kwh": 44.0, "provider": "static", "scope": "lifecycle",
           "basis": "average", "quality": "yearly", "source": "Ember, 2025", "year": 2024, "located_by": "setting",
           "note": ""}, "pue": 1.25,
  "sensors": [{"sensor": "rapl", "state": "denied", "devices": ["cpu0"], "quality": null, "reason": "for root only",
               "remedy": "sudo setcap cap_dac_read_search+ep /opt/carbon-exporter/bin/carbon-exporter-with-a-long-name",
               "errors": 0, "last_sample_age_seconds": null}],
  "resolvers": [{"resolver": "environment", "success": true, "reason": "", "remedy": ""}],
  "store": {"path": "/var/lib/x", "state": "ok", "last_write": 1795310000.0, "reason": "", "remedy": ""}
}"""


def a_status(**changes: Any) -> Status:
    """A status of a small machine, sampled five times a second so that no test waits long."""
    devices = [device("cpu0", 9.1, 0.01), device("dram0", 3.2, 2.0, "measured")]
    a = job("a", 4.2, 0.004, 0.5, job_namespace="research")
    jobs = [job("_idle_", 8.0, 0.009, 2.0), job("b", 0.0912, 0.0041, 1.25), a, job("z", None, 3.5, 1540.0, live=False)]
    return {**json.loads(SMALL_MACHINE), "time": time.time(), "devices": devices, "jobs": jobs, **changes}


def a_grid(**changes: Any) -> Status:
    """The grid of France as the settings name it."""
    return {**json.loads(SMALL_MACHINE)["grid"], **changes}


def policy(page: str) -> str:
    """The content security policy of the page: its own style and script by hash, and nothing else."""

    def sha256(tag: str) -> str:
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {sha256('style')}; script-src {sha256('script')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class Stage(ThreadingHTTPServer):
    """Serves the page, one status and an hour, which a test may change, break or take away at any time."""

    daemon_threads = True

    def __init__(self, status: Status, port: int = 0) -> None:
        self.status: Status = status
        self.hour: Status | None = {"times": [], "kinds": [], "jobs": []}
        """What the exporter remembers, None for an endpoint that is not there."""
        self.fault: tuple[int, bytes] | None = None
        self.asked: list[float] = []
        self.ticking = True
        super().__init__(("127.0.0.1", port), Usher)
        self.url = f"http://127.0.0.1:{self.server_port}{PREFIX}"

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Code, type and body for a path."""
        if path == PREFIX:
            return 200, "text/html; charset=utf-8", PAGE.encode()
        if path == f"{PREFIX}api/v1/metadata":
            return 200, "application/json", encode_metadata("job_name")
        if path == f"{PREFIX}api/v1/history" and self.hour:
            return 200, "application/json", json.dumps(self.hour).encode()
        if path != f"{PREFIX}api/v1/status":
            return 404, "text/plain", b"not here"
        self.asked.append(time.monotonic())
        if self.fault:
            return self.fault[0], "application/json", self.fault[1]
        now = {"time": time.time()} if self.ticking else {}
        return 200, "application/json", json.dumps({**self.status, **now}).encode()


class Usher(BaseHTTPRequestHandler):
    """Answers one request from the stage."""

    server: Stage

    def do_GET(self) -> None:
        """Send what the stage has for this path, with the policy."""
        code, kind, body = self.server.answer(self.path)
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", policy(PAGE))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: pytest's output belongs to pytest."""


@contextmanager
def served(status: Status | None = None, port: int = 0) -> Iterator[Stage]:
    """A running stage."""
    with Stage(status or a_status(), port) as stage:
        threading.Thread(target=stage.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield stage
        finally:
            stage.shutdown()


def visit(driver: Chrome, stage: Stage, state: str = "live") -> None:
    """Open the page, with nothing left of the one before, and wait until it is in this state."""
    driver.get("about:blank")
    console(driver)
    driver.get(stage.url)
    until(driver, lambda: state_of(driver) == state)


def state_of(driver: Chrome) -> str | None:
    return driver.find_element(By.TAG_NAME, "body").get_attribute("data-state")
