"""The example for Ray, on a cluster that was there before: its workers learn of job and run by the baggage alone."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.example_node import EXAMPLES, alone, example_node
from support.tools import need_package
from support.waiting import until


@contextmanager
def cluster(environ: dict[str, str]) -> Iterator[str]:
    """A head node with two processors, started as an administrator does; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = ["-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    flags = ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
    with subprocess.Popen(
        [sys.executable, *start, *flags], env=environ, stdout=subprocess.DEVNULL, start_new_session=True
    ) as head:
        try:
            until(lambda: _answers(port), 60)
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()
            try:
                head.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_tasks_on_a_cluster_are_of_the_run_that_called_them(tmp_path: Path) -> None:
    need_package("ray")
    with TemporaryDirectory(prefix="ray") as home, example_node(tmp_path) as node:
        (Path(home) / "amdsmi.py").write_text('raise ImportError("Ray ends where this is there without its library")\n')
        own = {"HOME": home, "RAY_TMPDIR": home, "PYTHONPATH": home, "RAY_USAGE_STATS_ENABLED": "0"}
        # The cluster knows of no job and no run, but where the exporter's socket is, as on a node with the default one.
        told = {**alone(tmp_path), **own, "CARBON_SDK_SOCKET": node.socket}
        with cluster(told) as address:
            done = node.run(
                str(EXAMPLES / "ray_tasks.py"),
                "--shards=4",
                environ={**own, "RAY_ADDRESS": address, "CARBON_JOB": "shards", "CARBON_RUN": "r-ray"},
            )
        runs = node.run_joules("shards")
    joules = [float(one) for one in re.findall(r"run r-ray: pi is about 3\.1\d*, ([0-9.]+) J", done.stdout)]
    here = re.search(r"run r-ray: ([0-9.]+) J here", done.stdout)
    assert here is not None
    assert len(joules) == 4
    assert min(joules) > 0
    assert set(runs) == {"r-ray"}
    assert runs["r-ray"] == pytest.approx(sum(joules) + float(here[1]), rel=0.05)
