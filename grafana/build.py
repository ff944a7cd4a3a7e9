"""Builds the boards: `python grafana/build.py [--job-label=hpc_job] [--out DIR]` writes one JSON file for each.

Needs nothing but Python. The files in grafana/dashboards are what it writes without arguments.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(_HERE.parent))  # of a script only its own directory is there

from grafana.board import Board  # noqa: E402
from grafana.boards import BOARDS  # noqa: E402

JOB_LABELS = ("job_name", "job", "hpc_job")
"""How the exporter's setting `labels.job` may spell the job's label."""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the files and says which; exit code 0."""
    parser = argparse.ArgumentParser(prog="build.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--job-label", choices=JOB_LABELS, default=JOB_LABELS[0], help="how labels.job spells it")
    parser.add_argument("--out", type=Path, default=_HERE / "dashboards", help="where the files go")
    chosen = parser.parse_args(argv)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        path = chosen.out / f"{board.uid}.json"
        path.write_text(text(board, chosen.job_label), encoding="utf-8")
        print(path)  # noqa: T201 - a command prints
    return 0


def text(board: Board, job_label: str) -> str:
    """The board's file, with the job's label spelt so."""
    built = json.dumps(board.json(), indent=2, ensure_ascii=False) + "\n"
    return re.sub(r"\bjob_name\b", job_label, built)


if __name__ == "__main__":
    sys.exit(main())
