"""An exporter with a socket for scripts, and scripts as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support import raw_script
from support.exporter import Exporter
from support.raw_script import session_name

__all__ = ["Room", "process", "room", "span_joules"]

JOULES_PER_KWH = 3.6e6


class Room:
    """A short directory with all that an exporter needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "sdk.sock"
        self.storage = folder / "state"

    def exporter(
        self,
        *flags: str,
        prefix: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
        interval: str = "200ms",
    ) -> Exporter:
        """One that listens here."""
        own = (f"--sdk.socket={self.path}", f"--storage.path={self.storage}", f"--sample.interval={interval}")
        return Exporter(*own, "--grid.region=FR", *flags, prefix=prefix, environ=environ)


@pytest.fixture
def room() -> Iterator[Room]:
    """In a short directory: those of pytest are too long for a socket."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Room(Path(folder))


@contextmanager
def process(
    path: Path,
    *,
    session: str = "",
    job: str = "",
    span: str = "epoch",
    joules: float = 3.6e6,
    environ: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
) -> Iterator[str]:
    """A script that tells of one span; what it was answered. It stays connected while the block runs."""
    command = [
        *prefix,
        sys.executable,
        raw_script.__file__,
        str(path),
        session or session_name(),
        job,
        span,
        str(joules),
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CARBON_")}
    env = {**kept, "PYTHONPATH": str(Path(raw_script.__file__).parents[1]), **(environ or {})}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as script:
        assert script.stdin is not None
        assert script.stdout is not None
        yield script.stdout.readline().strip()
        script.stdin.close()


def span_joules(exporter: Exporter, **labels: str) -> float | None:
    """Joules of the spans with these labels; None if there are none."""
    found = [
        value * JOULES_PER_KWH
        for (name, of), value in exporter.series().items()
        if name == "carbon_span_energy_kwh_total" and labels.items() <= dict(of).items()
    ]
    return sum(found) if found else None
