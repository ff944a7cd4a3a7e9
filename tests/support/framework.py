"""Trainings with real frameworks, each in a process of its own over a fake NVML board of constant power.

A script `support/train_FRAMEWORK.py` is a few functions, one a training; `tell` runs them and prints what each cost. A
test starts it by `trained`, and knows what the board drew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carbon_exporter import CarbonRun, carbon_span
from carbon_exporter.sdk import tracker

__all__ = [
    "BOARD",
    "HERE",
    "WATTS",
    "Trained",
    "error_of",
    "example",
    "run_script",
    "tell",
    "trained",
]

WATTS = 200.0
BOARD = ["gpu0"]
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Trained:
    """One training, as the script told it."""

    raised: str
    """Name of the class, and text; empty if nothing was."""
    run: Mapping[str, Any]
    spans: Mapping[str, Mapping[str, float]]
    """Of `run` and `epoch`: joules of the board, seconds, count."""
    more: Mapping[str, Any]
    """Whatever the training returned."""

    @property
    def outside(self) -> float:
        """Joules that the board drew while no epoch was open."""
        return WATTS * (self.spans["run"]["seconds"] - self.spans["epoch"]["seconds"])


def trained(framework: str, directory: Path) -> Mapping[str, Trained]:
    """What `support/train_FRAMEWORK.py` tells, by training. It works in `directory`."""
    from support.fakenvml import FakeNvml, environment  # noqa: PLC0415 - not for the script, which has no pytest's needs

    fake = FakeNvml(directory / "nvml", boards=1)
    fake.boards[0].constant(WATTS)
    done = run_script([sys.executable, str(HERE / f"train_{framework}.py")], directory, environment(fake))
    told = json.loads(done.splitlines()[-1])
    return {name: Trained(**one) for name, one in told.items()}


def example(name: str, directory: Path, *arguments: str) -> str:
    """What one of examples/ prints."""
    return run_script([sys.executable, str(HERE.parents[1] / "examples" / name), *arguments], directory, {})


def run_script(command: Sequence[str], directory: Path, environ: Mapping[str, str]) -> str:
    """Its stdout."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("CARBON_", "OTEL_", "CUDA_"))}
    places = {"CARBON_SDK_SOCKET": str(directory / "none"), "CARBON_EXPORTER_PATH_SYSFS": str(directory)}
    places |= {"XDG_STATE_HOME": str(directory), "CARBON_REGION": "FR", "PYTHONPATH": str(HERE.parent)}
    quiet = {"OMP_NUM_THREADS": "1", "KERAS_BACKEND": "torch", "HF_HUB_OFFLINE": "1", "KERAS_HOME": str(directory)}
    done = subprocess.run(
        command,
        env={**own, **places, **quiet, **environ},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def tell(*trainings: Callable[[], tuple[Any, Mapping[str, Any]]]) -> None:
    """In the script: run each, and print what it cost. Each returns its callback, and what else is to be known."""
    with carbon_span("start", devices=BOARD) as start:
        time.sleep(0.3)
    start.wait(15)
    told = {training.__name__: _told(training) for training in trainings}
    sys.stdout.write("\n" + json.dumps(told) + "\n")


def _told(training: Callable[[], tuple[Any, Mapping[str, Any]]]) -> Mapping[str, Any]:
    before = _spans()
    carbon, more = training()
    _settle(carbon.run)
    left = {"open": CarbonRun.current() is not None, "environment": "CARBON_RUN" in os.environ}
    after = _spans()
    spans = {
        name: {key: value - before.get(name, {}).get(key, 0.0) for key, value in of.items()}
        for name, of in after.items()
    }
    run = {**carbon.run.to_dict(), "left": left, "exceeded": carbon.run.exceeded is not None}
    return {"raised": more.get("raised", ""), "run": run, "spans": spans, "more": dict(more)}


def error_of(training: Callable[[], object]) -> str:
    """The class and text of what a training raises; empty if it raises nothing."""
    try:
        training()
    except BaseException as error:  # noqa: BLE001 - a keyboard's, too
        return f"{type(error).__name__}: {error}"
    return ""


def _settle(run: CarbonRun) -> None:
    run.wait(10)
    until = time.monotonic() + 10
    while tracker.current().ended and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)


def _spans() -> dict[str, dict[str, float]]:
    engine = tracker.current().engine
    assert engine is not None
    return {
        key.span: {"joules": float(total.joules.get("gpu", 0.0)), "seconds": total.seconds, "count": total.count}
        for key, total in engine.account.totals.items()
    }
