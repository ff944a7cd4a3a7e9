"""A synthetic history in a real VictoriaMetrics, with rules recorded by `vmalert -replay`."""

from __future__ import annotations

import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml
from support.month import START, Month
from support.tools import need

from deploy.demo.history import History
from deploy.demo.mix import scenario
from deploy.demo.recording import Rule, levels, load_rules
from deploy.demo.rules import rule_files
from deploy.demo.server import Server, free_port, started

__all__ = ["victoria_month"]

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "carbon-exporter"
"""Where .ci/deps puts the programs."""


@contextmanager
def victoria_month(place: Path, *, days: float, boards: int, step: float = 60) -> Iterator[Month]:
    """The same as `support.month.month`, in another engine."""
    program, replay = need("victoria-metrics", str(_CACHE)), need("vmalert", str(_CACHE))
    plan = scenario(START, days, boards=boards)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [program, f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={place / 'data'}"]
    command += ["-retentionPeriod=100y", "-loggerLevel=ERROR", "-search.latencyOffset=1ms", "-search.disableCache"]
    with started(command, f"{url}/health", place / "victoria.log"):
        file = place / "history.prom"
        History(plan, step).write(file, (0.0, plan.seconds))
        _import(url, file)
        rules = load_rules(rule_files(place / "rules"))
        _replay(replay, url, place, rules, (plan.start, plan.start + plan.seconds))
        yield Month(plan, Server(url))


def _import(url: str, file: Path) -> None:
    """In the text format, whose times are milliseconds."""
    with file.open() as lines:
        rows = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        body = "".join(f"{row} {float(at) * 1000:.0f}\n" for row, at in rows).encode()
    urllib.request.urlopen(f"{url}/api/v1/import/prometheus", body, timeout=120).close()
    _flush(url)


def _flush(url: str) -> None:
    urllib.request.urlopen(f"{url}/internal/force_flush", timeout=60).close()


def _replay(program: str, url: str, place: Path, rules: list[Rule], between: tuple[float, float]) -> None:
    """Evaluate rules as often as their files say, those first that others read: a replay does not find its own."""
    times = [datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") for at in between]
    for number, level in enumerate(levels(rules)):
        file = place / f"level-{number}.yml"
        groups: dict[str, list[dict[str, Any]]] = {}
        for rule in level:
            row = {"record": rule.record, "expr": rule.expr, "labels": dict(rule.labels)}
            groups.setdefault(rule.interval, []).append(row)
        named = [{"name": every, "interval": every, "rules": rows} for every, rows in groups.items()]
        file.write_text(yaml.safe_dump({"groups": named}))
        command = [program, f"-datasource.url={url}", f"-remoteWrite.url={url}", f"-rule={file}"]
        command += [f"-replay.timeFrom={times[0]}", f"-replay.timeTo={times[1]}", "-replay.maxDatapointsPerQuery=10000"]
        command += ["-replay.rulesDelay=0", "-replay.disableProgressBar", "-remoteWrite.flushInterval=200ms"]
        done = subprocess.run(
            [*command, "-loggerLevel=ERROR"], capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, done.stdout + done.stderr
        _flush(url)
