"""What `metrics` prints, for people and for programs, and which commands there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from carbon_exporter.cli import COMMANDS
from carbon_exporter.publish.catalogue import CATALOGUE


def cli(*arguments: str) -> str:
    """What the command prints; it must succeed."""
    command = [sys.executable, "-m", "carbon_exporter", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=20, check=True, env={**os.environ, "COLUMNS": "120"}
    ).stdout


def test_metrics_lists_the_whole_catalogue_in_every_form() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert [row["name"] for row in json.loads(cli("metrics", "--format=json"))] == names
    for form in ("text", "markdown"):
        shown = cli("metrics", f"--format={form}")
        assert all(name in shown for name in names)


def test_help_names_every_command() -> None:
    shown = cli("--help")
    assert all(f"    {name} " in shown for name in COMMANDS)
