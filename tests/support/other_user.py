"""Runs a piece of a test as a user without privileges: root may read every file, and so cannot be refused."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.tools import need

__all__ = ["as_nobody", "needs_root", "public_directory", "run_as_nobody"]

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_nobody() -> tuple[str, ...]:
    """What to put before a command so that it runs as user 65534 without any capability.

    Skips the test where that user cannot run this Python, as when it lies in root's home.
    """
    numbers = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
    prefix = (need("setpriv"), *numbers)
    tried = subprocess.run(
        [*prefix, sys.executable, "-c", "import carbon_exporter.cli"], capture_output=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"user {NOBODY} cannot run {sys.executable}: {tried.stderr.decode().strip()}")
    return prefix


@contextmanager
def public_directory() -> Iterator[Path]:
    """A directory that every user may enter; pytest's own are private."""
    with TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


def run_as_nobody(check: Callable[[], None]) -> None:
    """Run `check` in a child process of user 65534; what it raises fails the test, with its traceback."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        report = b"the child stopped early"
        try:
            os.close(reader)
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            check()
            report = b""
        except BaseException:  # noqa: BLE001 - it is handed to the parent
            report = traceback.format_exc().encode()
        finally:
            os.write(writer, report[-60_000:])
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        report = pipe.read()
    os.waitpid(child, 0)
    if report:
        pytest.fail(report.decode())
