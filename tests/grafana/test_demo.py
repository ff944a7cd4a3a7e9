"""`make demo` as a user starts it: ready with a month behind it, and gone without a trace at Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.tools import need
from support.waiting import until

from deploy.demo.server import free_port, started

ROOT = Path(__file__).parents[2]


def asked(url: str, expression: str) -> list[tuple[dict[str, str], float]]:
    with urllib.request.urlopen(
        f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}", timeout=30
    ) as answer:
        return [(row["metric"], float(row["value"][1])) for row in json.load(answer)["data"]["result"]]


def shows_all(demo: subprocess.Popen[str], lines: list[str], url: str) -> None:
    """Everything that it says can be asked gives an answer."""
    assert demo.stdout is not None
    reader = threading.Thread(target=lines.extend, args=(demo.stdout,), daemon=True)
    reader.start()
    until(lambda: any("Ctrl-C" in line for line in lines) or demo.poll() is not None, 300)
    text = "".join(lines)
    assert re.search(r"ready after \d+ s", text)
    until(lambda: asked(url, 'job:carbon_job_power_watts:sum{job_name="llm-finetune"}'), 150)
    month = asked(url, "sum(sum_over_time(job_kind:carbon_job_energy_kwh:increase5m[30d:5m]))")
    assert month[0][1] > 1000
    live = asked(url, 'sum by (job_name) (carbon_job_power_watts{job_name=~"llm-finetune|resnet50-live|vit-b16-live"})')
    assert all(watts > 300 for _, watts in live)
    assert len(live) == 3
    for line in (
        text.partition("ask Prometheus, in two minutes")[2].partition("\n")[2].partition("\n\n")[0].splitlines()
    ):
        until(partial(asked, url, line.strip().partition("  ")[0]), 150)
    report = re.findall(r"carbon-exporter (report .*)", text)[0].split()
    command = [sys.executable, "-m", "carbon_exporter", *report]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert told.returncode == 0, told.stderr
    assert "llm-pretrain" in told.stdout


@pytest.mark.soak
def test_the_demonstration_shows_a_month_and_what_runs_now_and_leaves_nothing(tmp_path: Path) -> None:
    need("prometheus")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "deploy.demo", f"--port={port}"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    lines: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as demo:
        try:
            shows_all(demo, lines, url)
            demo.send_signal(signal.SIGINT)
            assert demo.wait(30) == 0
        finally:
            demo.terminate()
    assert list(tmp_path.iterdir()) == []
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout
    assert left == ""


class _Prometheus(BaseHTTPRequestHandler):
    """Somebody else's: it is ready, and has nothing of ours."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port of a server that was there before."""
    server = ThreadingHTTPServer(("", 0), _Prometheus)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_port_on_which_another_prometheus_listens_is_refused_before_anything_is_written(
    stranger: int, tmp_path: Path
) -> None:
    need("prometheus")
    command = [sys.executable, "-m", "deploy.demo", "--days=1", f"--port={stranger}"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"port {stranger} of 127.0.0.1" in done.stderr
    assert 'make demo ARGS="--port=9091"' in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_answers_is_not_taken_for_the_one_that_is_started(stranger: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ""]
    with (
        pytest.raises(RuntimeError, match="another process answers"),
        started(command, f"http://127.0.0.1:{stranger}/-/ready", tmp_path / "log"),
    ):
        pass


def test_without_prometheus_it_says_how_to_get_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.demo"], cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "demo: prometheus is not installed; on Debian: apt-get install prometheus; elsewhere: "
        "https://prometheus.io/download/\n"
    )
