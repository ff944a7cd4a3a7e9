"""Asks the questions and prints a table. Exits with 0 also where a figure is over its limit: people judge that."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import benchmarks
from benchmarks.figure import Figure, Plan
from carbon_exporter import __version__, logs
from carbon_exporter.cli.table import table

QUESTIONS = (
    *("scrape", "idle", "start", "tick", "boards", "containers", "sampling"),
    *("spans", "sampler", "spans_accuracy", "callbacks"),
)
"""Modules of this package with a function `figures(plan)`, in the order they are asked."""
LONG = ("fleet_scale",)
"""Questions that take so long that they are asked only by name."""
_WIDTH = 160


def main(argv: Sequence[str] | None = None) -> int:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the harness that starts exporters lives there
    parsed = _parser().parse_args(argv)
    logs.configure("error", "logfmt")
    print("\n".join(_machine()), flush=True)
    rows: list[Sequence[str]] = []
    for question in (*QUESTIONS, *LONG):
        if question in parsed.questions or (not parsed.questions and question not in LONG):
            print(f"measuring {question} ...", file=sys.stderr, flush=True)
            rows.extend(figure.cells() for figure in _figures(question, Plan(parsed.runs, parsed.quick)))
    print(f"load average   {_load()} at the end\n")
    print(table(("QUESTION", "FIGURE", "LOWEST-HIGHEST", "LIMIT", "VERDICT", "NOTE"), rows, _WIDTH))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=benchmarks.__doc__)
    named = f"of {', '.join(QUESTIONS)}; without any, all; and of {', '.join(LONG)}"
    parser.add_argument("questions", nargs="*", type=_question, metavar="QUESTION", help=named)
    parser.add_argument("--runs", type=_runs, default=5, help="of which the median is taken (default: 5)")
    parser.add_argument("--quick", action="store_true", help="one short run: shows that it works, is no figure to cite")
    return parser


def _question(text: str) -> str:
    if text not in {*QUESTIONS, *LONG}:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join((*QUESTIONS, *LONG))}")
    return text


def _runs(text: str) -> int:
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def _figures(question: str, plan: Plan) -> Iterable[Figure]:
    answer: Callable[[Plan], Iterable[Figure]] = importlib.import_module(f"benchmarks.{question}").figures
    return answer(plan)


def _machine() -> list[str]:
    """What the figures hold for."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return [
        f"carbon-exporter {__version__}",
        f"machine        {os.cpu_count()} x {models[0] if models else platform.machine()}, Linux {platform.release()}",
        f"Python         {platform.python_version()}, prometheus_client {version('prometheus-client')}",
        f"load average   {_load()} at the start",
    ]


def _load() -> str:
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    sys.exit(main())
