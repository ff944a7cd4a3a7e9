"""Workers: each sensor reads on a thread of its own, so that a hung driver costs its own freshness and nothing else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from carbon_exporter.errors import SensorError
from carbon_exporter.sensors.base import Reading, Sample, Sensor

__all__ = ["SensorWorker", "gather"]

_log = logging.getLogger(__name__)


class SensorWorker:
    """Runs one sensor. `ask` and `answer` are for one other thread."""

    def __init__(self, sensor: Sensor, wall: Callable[[], float] = time.time) -> None:
        """Starts the thread; it ends with the process, or after `close`. `wall` gives Unix seconds."""
        self._wall = wall
        self.sensor = sensor
        self.seconds = 0.0
        """How long the last reading took."""
        self.last_sample: float | None = None
        """Unix seconds of the last reading that gave something."""
        self.errors: dict[str, int] = {}
        """Failed readings: `read` for what the device did, `deadline` for no answer in time."""
        self.trouble: SensorError | None = None
        """What is wrong now; None after a good reading."""
        self._wanted = threading.Event()
        self._done = threading.Event()
        self._closing = False
        self._asked = False
        self._late = False
        self._sample: Sample | SensorError | None = None
        threading.Thread(target=self._work, name=f"sensor-{sensor.name}", daemon=True).start()

    def ask(self) -> None:
        """Start a reading, unless the last one is still under way."""
        if not self._asked:
            self._asked = True
            self._done.clear()
            self._wanted.set()

    def answer(self, patience: float) -> tuple[Reading, ...]:
        """What was read, if it comes within `patience` seconds; a late answer is given at the next call.

        Who was late once is not waited for again until it has answered.
        """
        if not self._done.wait(0 if self._late else patience):
            self._late = True
            self._failed(
                "deadline", SensorError(f"{self.sensor.name} has not answered in time", remedy="its driver hangs")
            )
            return ()
        self._asked = self._late = False
        sample, self._sample = self._sample, None
        if sample is None:
            return ()
        if isinstance(sample, SensorError):
            self._failed("read", sample)
            return ()
        return self._take(sample)

    def close(self) -> None:
        """Let the thread end; one that hangs is left behind."""
        self._closing = True
        self._wanted.set()

    def _take(self, sample: Sample) -> tuple[Reading, ...]:
        for failure in sample.failures:
            self._failed("read", failure)
        if sample.readings:
            self.last_sample = self._wall()
        if not sample.failures:
            if self.trouble is not None:
                _log.info("%s gives readings again", self.sensor.name)
            self.trouble = None
        return sample.readings

    def _failed(self, reason: str, error: SensorError) -> None:
        self.errors[reason] = self.errors.get(reason, 0) + 1
        if self.trouble is None:
            _log.warning("%s: %s", self.sensor.name, error)
        self.trouble = error

    def _work(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closing:
                self.sensor.close()
                return
            began = time.perf_counter()
            try:
                self._sample = self.sensor.read()
            except SensorError as error:
                self._sample = error
            except Exception as error:  # noqa: BLE001 - whatever a driver raises costs its own freshness only
                _log.exception("%s failed in a way it should not", self.sensor.name)
                self._sample = SensorError(f"{type(error).__name__}: {error}", remedy="please report this as a bug")
            self.seconds = time.perf_counter() - began
            self._done.set()


def gather(workers: Sequence[SensorWorker], deadline: float) -> list[Reading]:
    """Read all sensors at once, and wait for them until `deadline` seconds have passed."""
    for worker in workers:
        worker.ask()
    until = time.perf_counter() + deadline
    return [reading for worker in workers for reading in worker.answer(max(0.0, until - time.perf_counter()))]
