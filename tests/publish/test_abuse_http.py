"""A server that bad clients cannot stall: a real exporter under them, scraped all the while."""

from __future__ import annotations

import base64
import json
import re
import statistics
import subprocess
import time
from pathlib import Path

import bcrypt
import pytest
from support.authority import Authority
from support.bad_clients import bad_clients
from support.exporter import Exporter, parse
from support.prometheus import prometheus
from support.tools import need
from support.waiting import until

PASSWORD = "correct horse"  # noqa: S105 - of the test alone


def memory_of(exporter: Exporter, field: str) -> float:
    """MiB, by the kernel: VmRSS is what it has now, VmHWM the most that it ever had."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{exporter.process.pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def refused(exporter: Exporter, reason: str) -> float:
    """As of the last tick."""
    return parse(exporter.get("/metrics").decode()).get(
        ("carbon_http_refused_total", frozenset({("reason", reason)})), 0.0
    )


def test_scrapes_go_on_under_a_crowd_of_silent_slow_and_senseless_clients() -> None:
    with Exporter("--storage.path=", "--sample.interval=1s") as exporter:
        before = memory_of(exporter, "VmRSS")
        took = []
        with bad_clients(exporter.port, silent=300, slow_headers=30, slow_readers=30, garbage=20):
            time.sleep(1.5)
            for _ in range(30):
                began = time.monotonic()
                exporter.get("/metrics")
                took.append(time.monotonic() - began)
                time.sleep(0.05)
            until(lambda: refused(exporter, "connections") > 50)
            until(lambda: refused(exporter, "400") > 0)
        grown = memory_of(exporter, "VmHWM") - before
    assert statistics.median(took) < 0.25
    assert max(took) < 2
    assert grown < 64


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ten_minutes_of_scrapes_stay_quick_under_a_thousand_silent_clients_and_a_minute_of_wrk(tmp_path: Path) -> None:
    """Over TLS and with a password. wrk has the other core for itself, and the right password."""
    Authority(tmp_path).sign("server", "IP:127.0.0.1")
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    file = tmp_path / "web-config.yml"
    tls = "tls_server_config: {cert_file: server.crt, key_file: server.key}"
    file.write_text(f"{tls}\nbasic_auth_users: {{prometheus: '{hashed}'}}\n")
    client = {
        "scheme": "https",
        "tls_config": {"ca_file": str(tmp_path / "authority.crt")},
        "basic_auth": {"username": "prometheus", "password": PASSWORD},
    }
    token = base64.b64encode(f"prometheus:{PASSWORD}".encode()).decode()
    flags = (f"--web.config.file={file}", "--storage.path=")
    with Exporter(*flags, prefix=("taskset", "-c", "0")) as exporter:
        url = f"https://127.0.0.1:{exporter.port}/metrics"
        storm = [need("wrk"), "-t1", "-c200", "-d60s", "-H", f"Authorization: Basic {token}", url]
        with prometheus(tmp_path, exporter.port, client=client) as server:
            time.sleep(20)
            before = memory_of(exporter, "VmRSS")
            began = time.time()
            with bad_clients(exporter.port, tls=True, silent=1000, slow_headers=50, slow_readers=50, garbage=50):
                time.sleep(120)
                told = subprocess.run(["taskset", "-c", "1", *storm], capture_output=True, text=True, check=True).stdout
                time.sleep(max(0.0, began + 600 - time.time()))
            seconds = int(time.time() - began)
            numbers = {
                name: float(server.query(query)[0]["value"][1])
                for name, query in {
                    "scrapes": f"count_over_time(up[{seconds}s])",
                    "failed": f"count_over_time(up[{seconds}s]) - sum_over_time(up[{seconds}s])",
                    "p50": f"quantile_over_time(0.5, scrape_duration_seconds[{seconds}s])",
                    "p99": f"quantile_over_time(0.99, scrape_duration_seconds[{seconds}s])",
                    "most": f"max_over_time(scrape_duration_seconds[{seconds}s])",
                    "refused": 'sum(carbon_http_refused_total{reason="connections"})',
                }.items()
            }
        numbers |= {"rss_before": before, "rss_most": memory_of(exporter, "VmHWM")}
        print(json.dumps(numbers), Path("/proc/loadavg").read_text(), told)  # noqa: T201 - the figures of docs and reports
    assert numbers["failed"] == 0
    assert numbers["scrapes"] > 590
    assert numbers["p99"] < 0.25
    assert numbers["refused"] > 1000
    assert numbers["rss_most"] - before < 256
