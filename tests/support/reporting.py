"""`carbon-exporter report` as a test calls it, and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from carbon_exporter.cli import main

__all__ = ["document", "report", "trouble"]


def report(url: str, output: Path, *flags: str) -> str:
    """What it writes; it must succeed. Told to `output`, because two tests may run at once."""
    assert main(["report", f"--prometheus={url}", f"--output={output}", *flags]) == 0
    return output.read_text()


def trouble(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    """Its exit code, and what it says when it fails."""
    code = main(["report", *flags])
    return code, capsys.readouterr().err


def document(url: str, output: Path, *flags: str) -> Any:
    """The report as JSON, read."""
    return json.loads(report(url, output, "--format=json", *flags))
