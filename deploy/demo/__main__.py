"""`make demo`: a month of a synthetic cluster in a real Prometheus, and real exporters that go on from there.

Everything is in one directory, which is gone when the program ends.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from deploy.demo.blocks import write_history
from deploy.demo.cluster import Scenario
from deploy.demo.live import exporters, scripts
from deploy.demo.mix import scenario
from deploy.demo.recording import load_rules, record
from deploy.demo.rules import rule_files
from deploy.demo.server import MissingProgram, Server, check_port, find_program, prometheus

STEP, RECORDED_EVERY = 240.0, 300.0
"""Seconds between scrapes and between recorded points of the history. Four minutes are the most that five-minute
windows bear; what follows live is scraped every five seconds."""
SCRAPED_WITHIN = 60.0
"""Seconds after which everything that is scraped live has been."""
CLUSTER = "demo"
_QUERIES = {
    "fleet:carbon_job_power_watts:sum": "W now",
    "topk(10, sum by (job_name) (job:carbon_job_co2e_grams:sum1d))": "g of a day, by job",
    "region:carbon_job_co2e_grams_per_kwh:ratio1h": "g that a kWh really emitted",
    "budget:carbon_budget_left:ratio": "share that is left of each budget",
}


def main(arguments: list[str]) -> int:
    """Run until Ctrl-C; 1 if a program is missing or does not start."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--days", type=float, default=30, help="of history (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9090, help="of Prometheus (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for program in ("prometheus", "promtool"):
            find_program(program, "prometheus")
        try:
            check_port(chosen.port)
        except RuntimeError as error:
            raise RuntimeError(f'{error}; another one: make demo ARGS="--port=9091"') from None
        with tempfile.TemporaryDirectory(prefix="carbon-demo-") as directory:
            _run(Path(directory), chosen.days, chosen.port)
    except KeyboardInterrupt:
        _say("ended; nothing is left")
    except (MissingProgram, RuntimeError) as error:
        print(f"demo: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _run(place: Path, days: float, port: int) -> None:
    began = time.monotonic()
    plan = scenario(time.time() // RECORDED_EVERY * RECORDED_EVERY - days * 86400, days)
    _say(f"writing {days:g} days of two nodes with 16 GPUs: invented, from one seed ...")
    samples = write_history(plan, STEP, place / "data")
    rules = rule_files(place / "rules")
    _say(f"{samples:,} samples; recording what the rules make of them ...")
    record(place, load_rules(rules), (plan.start, plan.start + plan.seconds), RECORDED_EVERY)
    with ExitStack() as stack:
        ports = stack.enter_context(exporters(place, plan.nodes))
        told = stack.enter_context(scripts(plan))
        server = stack.enter_context(prometheus(place, _config(plan, rules, ports, told), port=port))
        _wait_until_scraped(server)
        _say(f"ready after {time.monotonic() - began:.0f} s\n" + _where(server.url, ports, plan))
        threading.Event().wait()


def _wait_until_scraped(server: Server) -> None:
    """Raises `RuntimeError` where that takes too long."""
    until = time.monotonic() + SCRAPED_WITHIN
    while not server.query('count(carbon_job_power_watts) and on () up{job="synthetic"} == 1', time.time()):
        if time.monotonic() > until:
            raise RuntimeError(f"Prometheus has not scraped the exporters within {SCRAPED_WITHIN:.0f} s")
        time.sleep(1)


def _config(plan: Scenario, rules: list[Path], ports: dict[str, int], told: int) -> dict[str, Any]:
    end = plan.seconds
    nodes = {node.instance(end): ports[node.name] for node in plan.nodes}
    static = [_target(port, instance) for instance, port in nodes.items()]
    every = {"scrape_interval": "5s", "scrape_timeout": "5s"}
    return {
        "global": {"evaluation_interval": "1m"},
        "rule_files": [str(rule) for rule in rules],
        "scrape_configs": [
            {"job_name": "carbon-exporter", **every, "static_configs": static},
            {"job_name": "synthetic", "scrape_interval": "15s", "static_configs": [_target(told, "synthetic")]},
        ],
    }


def _target(port: int, instance: str) -> dict[str, Any]:
    return {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": instance, "cluster": CLUSTER}}


def _where(url: str, ports: dict[str, int], plan: Scenario) -> str:
    pages = "\n".join(f"  http://127.0.0.1:{port}/   live page of {node}" for node, port in ports.items())
    queries = "\n".join(f"  {query:<65} {meaning}" for query, meaning in _QUERIES.items())
    job = max((each for each in plan.jobs), key=lambda each: each.end - each.start).name
    return f"""\
  {url}/   Prometheus; alerts at {url}/alerts, rules at {url}/rules
{pages}

ask Prometheus, in two minutes, when its rules have joined the history:
{queries}

write a report of the longest job:
  carbon-exporter report --prometheus={url} --job={job} --from=now-{plan.seconds / 86400:.0f}d

The history, its prices and its jobs are invented. Ctrl-C ends all and leaves nothing."""


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
