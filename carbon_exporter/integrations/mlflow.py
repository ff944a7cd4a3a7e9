"""MLflow: a run's numbers as metrics of the MLflow run that is active: `CarbonRun(log_to="mlflow")`.

What MLflow is asked to store it sends to a server, with retries that may take minutes. So a daemon thread of ours does
that; the training hands over numbers and goes on. If they pile up the oldest are lost, and that is logged.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from queue import Empty, Full, Queue
from threading import Thread
from typing import Any

from carbon_exporter.integrations.missing import missing
from carbon_exporter.sdk.trouble import trouble

__all__ = ["ActiveRun"]

if getattr(find_spec("mlflow"), "origin", None) is None:
    raise missing(__name__, "mlflow", ModuleNotFoundError("No module named 'mlflow'"))

MOST_WAITING = 256
"""Calls that a server which does not answer may leave behind."""
EXIT_SECONDS = 2.0
"""What the end of the process may be delayed by, at the most."""
DOING = "logging to mlflow"


class ActiveRun:
    """The run that is active in the thread that logs; once seen it is told even after its end, which MLflow allows."""

    def __init__(self) -> None:
        """Loads nothing: while MLflow is not loaded, no run of it is active."""
        self._run = ""
        self._client: Any = None

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """As metrics, at this step. Raises what MLflow raises when it is asked for its run."""
        if self._found():
            metric, at = sys.modules["mlflow"].entities.Metric, int(time.time() * 1000)
            self._later(metrics=[metric(name, value, at, step) for name, value in numbers.items()])

    def describe(self, facts: Mapping[str, str]) -> None:
        """As tags `carbon.…`; likewise."""
        if self._found():
            tag = sys.modules["mlflow"].entities.RunTag
            self._later(tags=[tag(f"carbon.{name}", value) for name, value in facts.items()])

    def close(self, patience: float) -> None:
        """Wait until all is handed over, at most so many seconds. What is left then goes on being sent."""
        _own_courier().wait(patience)

    def _found(self) -> bool:
        mlflow: Any = sys.modules.get("mlflow")
        active = mlflow.active_run() if mlflow is not None else None
        if active is not None and active.info.run_id != self._run:
            self._run = active.info.run_id
            self._client = mlflow.MlflowClient(mlflow.get_tracking_uri())
        return bool(self._run)

    def _later(self, **what: Any) -> None:
        client, run = self._client, self._run
        _own_courier().carry(lambda: client.log_batch(run, **what))


class Courier:
    """Makes calls one after the other, on a thread that nobody waits for."""

    def __init__(self) -> None:
        """The thread ends with the process, which gives it `EXIT_SECONDS` to be done."""
        self.process = os.getpid()
        self._calls: Queue[Callable[[], object]] = Queue(MOST_WAITING)
        Thread(target=self._work, name="carbon-mlflow", daemon=True).start()
        atexit.register(self.wait, EXIT_SECONDS)

    def carry(self, call: Callable[[], object]) -> None:
        """Make this call soon. What it raises is logged."""
        try:
            self._calls.put_nowait(call)
        except Full:
            trouble(DOING, Full("its server does not keep up, and the oldest numbers are lost"))
            with suppress(Empty, Full):  # the thread was quicker
                self._calls.get_nowait()
                self._calls.task_done()
                self._calls.put_nowait(call)

    def wait(self, patience: float) -> None:
        """Until there is nothing left to do, at most so many seconds."""
        until = time.monotonic() + patience
        while self._calls.unfinished_tasks and self.process == os.getpid() and time.monotonic() < until:
            time.sleep(0.01)

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            try:
                call()
            except Exception as error:  # noqa: BLE001 - theirs, whatever it is
                trouble(DOING, error, "the training goes on")
            finally:
                self._calls.task_done()


_courier: Courier | None = None


def _own_courier() -> Courier:
    """This process's: a forked child has none of its parent's threads."""
    global _courier  # noqa: PLW0603 - one a process is what it is
    if _courier is None or _courier.process != os.getpid():
        _courier = Courier()
    return _courier
