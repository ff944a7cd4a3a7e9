"""A node for an example: RAPL counters that move, an exporter, and the example as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.driven import driven_tree, two_sockets
from support.exporter import Exporter
from support.in_memory import in_memory

from carbon_exporter.units import JOULES_PER_KWH

__all__ = ["EXAMPLES", "ExampleNode", "alone", "example_node"]

EXAMPLES = Path(__file__).parents[2] / "examples"


def alone(place: Path) -> dict[str, str]:
    """The environment of a script that has no exporter and leaves its traces in a directory of the test's."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CARBON_", "OTEL_", "WANDB_"))}
    return {**own, "CARBON_SDK_SOCKET": "/nonexistent", "XDG_STATE_HOME": str(place)}


class ExampleNode:
    """What ran there, and what the exporter has of it."""

    def __init__(self, exporter: Exporter, socket: str) -> None:
        self._exporter, self.socket = exporter, socket
        self._environ = {**alone(Path(socket).parent), "CARBON_SDK_SOCKET": socket, "OMP_NUM_THREADS": "1"}

    def run(
        self, *arguments: str, program: tuple[str, ...] = (sys.executable,), environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A program with these arguments, to its end, and until the exporter has told of it."""
        done = subprocess.run(
            [*program, *arguments],
            env={**self._environ, **(environ or {})},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self._exporter.wait_for_samples(4)
        return done

    def joules(self, job: str) -> dict[str, float]:
        """Of each span of a job."""
        return self._by("span", "carbon_span_energy_kwh_total", job)

    def run_joules(self, job: str) -> dict[str, float]:
        """Of each run of a job."""
        return self._by("run", "carbon_run_energy_kwh_total", job)

    def _by(self, label: str, metric: str, job: str) -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        for (name, pairs), value in self._exporter.series().items():
            labels = dict(pairs)
            if name == metric and labels["job_name"] == job:
                found[labels[label]] += value * JOULES_PER_KWH
        return dict(found)


@contextmanager
def example_node(place: Path) -> Iterator[ExampleNode]:
    """An exporter that samples five times a second, over two packages between 40 and 100 W."""
    with in_memory() as sysfs, tempfile.TemporaryDirectory(prefix="sdk") as short:
        two_sockets(sysfs, range_uj=2_000_000_000, limit_watts=60)
        socket = f"{short}/sdk.sock"
        flags = ("--sample.interval=200ms", "--grid.region=FR", "--containers.sockets=", f"--path.sysfs={sysfs}")
        places = (f"--sdk.socket={socket}", f"--storage.path={place / 'state'}")
        with driven_tree(sysfs, "40:100:3"), Exporter(*flags, *places) as exporter:
            yield ExampleNode(exporter, socket)
