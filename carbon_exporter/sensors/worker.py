"""Workers: each sensor has a thread of its own, so that a hung driver costs its own freshness and nothing else."""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Literal

from carbon_exporter.errors import SensorError
from carbon_exporter.sensors.base import Sample, Sensor
from carbon_exporter.sensors.fine import FineReader, Watch
from carbon_exporter.sensors.mailbox import Mailbox

__all__ = ["SensorWorker"]

_log = logging.getLogger(__name__)
_MOST_TOLD = 5
"""Reasons that differ at each failure, by a number in them, are not to fill the log."""
_Order = Literal["read", "look", "close"]
"""look: what is wanted between readings has changed."""
_Answer = Sample | SensorError
_JITTER = (0.5, 1.5)
"""Of the sampling period: a fixed one would see only one phase of work that repeats itself as regularly."""


class SensorWorker:
    """Runs one sensor. `ask` and `answer` are for one other thread."""

    def __init__(
        self,
        sensor: Sensor,
        wall: Callable[[], float] = time.time,
        label: str = "",
        watch: Watch | None = None,
    ) -> None:
        """Starts the thread; it ends with the process, or after `close`. `wall` gives Unix seconds.

        `label` names it in the log; without one the sensor's name does. `watch` says what is wanted between readings.
        """
        self._wall = wall
        self._watch = watch or Watch()
        self.sensor = sensor
        self._label = label or sensor.name
        self.seconds = 0.0
        """How long the last reading took."""
        self.last_sample: float | None = None
        """Unix seconds of the last reading that gave something."""
        self.errors: dict[str, int] = {}
        """Failed readings: `read` for what the device did, `deadline` for no answer in time."""
        self.trouble: SensorError | None = None
        """What is wrong now; None after a good reading."""
        self._told: set[str] = set()
        """What the log has said since the last good reading: each reason once, for a late answer may hide another."""
        self._pid = 0
        self._asked = self._late = False
        self._answer: _Answer | None = None
        """What `ask` has waited for, until `answer` takes it."""
        self._start()

    def ask(self, head_start: float = 0.0) -> None:
        """Start a reading, unless the last one is still under way, and wait `head_start` seconds for it at most."""
        if self.begin():
            self.order(head_start)

    def begin(self) -> bool:
        """Note that a reading starts; False if the last one is still under way. `order` or `fulfil` is to follow."""
        if os.getpid() != self._pid:
            self._start()  # forked: threads and what they held stayed with the parent
        if self._asked:
            return False
        self._asked = True
        return True

    def order(self, head_start: float) -> None:
        """Have the reading that has begun done by the own thread, and wait `head_start` seconds for it at most."""
        self._orders.put("read")
        self._await(head_start)

    def fulfil(self) -> None:
        """Do the reading that has begun, on the thread that calls: another one than its own."""
        self._fulfil()
        if self.sensor.sampling_period is not None:
            self.nudge()  # it has turned out to have no counter

    def is_prompt(self, patience: float) -> bool:
        """Whether it may be read by a thread that reads others too.

        It took no longer than `patience` seconds the last time, nothing of it is under way, and nothing is wanted of it
        between readings: that is for its own thread.
        """
        idle = not self._asked and not self._turn.locked() and not self._watch.on
        return idle and 0.0 < self.seconds <= patience and self.sensor.sampling_period is None

    def answer(self, patience: float) -> Sample:
        """What was read, if it comes within `patience` seconds; a late answer is given at the next call.

        Who was late once is not waited for again until it has answered.
        """
        answer = self._await(0.0 if self._late else patience)
        if answer is None:
            self._late = True
            self._failed("deadline", SensorError(f"{self._label} has not answered in time", remedy="its driver hangs"))
            return Sample()
        self._asked, self._late, self._answer = False, False, None
        if isinstance(answer, SensorError):
            self._failed("read", answer)
            return Sample()
        return self._take(answer)

    @property
    def busy(self) -> bool:
        """Whether a reading is under way: its sensor is not to be touched by others."""
        return self._asked and self._answer is None and not self._answers

    def nudge(self) -> None:
        """What the `Watch` says has changed."""
        if os.getpid() == self._pid:
            self._orders.put("look")

    def close(self) -> None:
        """Let the thread end; one that hangs is left behind."""
        self._orders.put("close")

    def wait_closed(self, patience: float) -> None:
        """After `close`: wait for the sensor to give its things back, such as a session on a controller."""
        if os.getpid() == self._pid:
            self._thread.join(patience)

    def _start(self) -> None:
        """A thread, and what it shares with the one that asks: all of it new, so that a forked child can begin anew."""
        self._pid = os.getpid()
        self._orders: Mailbox[_Order] = Mailbox()
        self._answers: Mailbox[_Answer] = Mailbox()
        self._turn = threading.Lock()
        """Held by the thread that uses the sensor."""
        self._asked, self._late, self._answer = False, False, None
        self.fine = FineReader(self.sensor, self._watch)
        self._thread = threading.Thread(target=self._work, name=f"sensor-{self._label}", daemon=True)
        self._thread.start()

    def _await(self, patience: float) -> _Answer | None:
        """What was read, if it is there within `patience` seconds."""
        if self._answer is None:
            self._answer = self._answers.get(patience)
        return self._answer

    def _take(self, sample: Sample) -> Sample:
        for failure in sample.failures:
            self._failed("read", failure)
        if sample.readings:
            self.last_sample = self._wall()
        if not sample.failures:
            if self.trouble is not None:
                _log.info("%s gives readings again", self._label)
            self.trouble = None
            self._told.clear()
        return sample

    def _failed(self, reason: str, error: SensorError) -> None:
        self.errors[reason] = self.errors.get(reason, 0) + 1
        if error.reason not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(error.reason)
            _log.warning("%s: %s", self._label, error)
        self.trouble = error

    def _work(self) -> None:
        orders, fine = self._orders, self.fine
        next_sample = self._next_sample()
        while True:
            order = orders.get(self._pause(next_sample))
            if order == "close":
                with self._turn:
                    self.sensor.close()
                return
            if order == "read":
                self._fulfil()
            if order is not None:
                next_sample = self._next_sample()
                continue
            now = time.monotonic()
            if next_sample <= now:
                with self._turn:
                    self._sample_quietly()
                next_sample = self._next_sample()
            due = fine.due(now)
            if due is not None and due <= now:
                with self._turn:
                    fine.read()

    def _fulfil(self) -> None:
        with self._turn:
            self._answers.put(self._read())

    def _pause(self, next_sample: float) -> float | None:
        """Seconds until there is something to do between readings; None for nothing."""
        now = time.monotonic()
        due = self.fine.due(now)
        moment = next_sample if due is None else min(due, next_sample)
        return None if moment == math.inf else max(0.0, moment - now)

    def _next_sample(self) -> float:
        """When to sample next; infinite for never."""
        period = None if self._watch.rests else self.sensor.sampling_period
        return math.inf if period is None else time.monotonic() + period * random.uniform(*_JITTER)  # noqa: S311 - a moment, not a secret

    def _sample_quietly(self) -> None:
        try:
            self.sensor.sample()
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, the next reading tells of it
            _log.debug("%s: a sample failed: %s", self._label, error)

    def _read(self) -> _Answer:
        began = time.perf_counter()
        try:
            return self.sensor.read()
        except SensorError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever a driver raises costs its own freshness only
            _log.exception("%s failed in a way it should not", self._label)
            return SensorError(f"{type(error).__name__}: {error}", remedy="please report this as a bug")
        finally:
            self.seconds = time.perf_counter() - began
