"""The rules of grafana/rules as a site would load them: jobs spelt as it spells them, its budgets rendered."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

__all__ = ["rule_files"]

_ROOT = Path(__file__).parents[2]
_FILES = ("leaf", "global", "users", "alerts")
_BUDGETS = _ROOT / "deploy/demo/budgets.yml"


def rule_files(place: Path, job_label: str = "job_name") -> list[Path]:
    """Write the rules into `place`, and return their files. otlp.yml is left out: nothing comes over OTLP here."""
    place.mkdir(parents=True, exist_ok=True)
    texts = {name: (_ROOT / f"grafana/rules/{name}.yml").read_text() for name in _FILES}
    command = [sys.executable, "-m", "carbon_exporter", "budgets", str(_BUDGETS)]
    texts["budgets"] = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - ours
    for name, text in texts.items():
        (place / f"{name}.yml").write_text(re.sub(r"\bjob_name\b", job_label, text))
    return [place / f"{name}.yml" for name in texts]
