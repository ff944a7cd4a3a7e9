"""The round: one thread reads the boards that answer at once, one after the other.

To hand a reading over to a thread, and its answer back, costs half as much as the reading itself. So what was prompt
the last time is read in turn by one thread. When a board then is not, that thread is left with it, and the others are
read by their workers' own threads, side by side, as all are until it has come back: a board that hangs costs its own
freshness and nothing else.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable

from carbon_exporter.sensors.mailbox import Mailbox
from carbon_exporter.sensors.worker import SensorWorker

__all__ = ["Round"]

_Waiting = deque[SensorWorker]
"""Those that are still to be read. Who takes one out, the round or the one that has waited for it, sees to it."""


class Round:
    """Reads workers' sensors. For one other thread."""

    def __init__(self, label: str) -> None:
        """Starts the thread, which is called by `label`; it ends with the process, or after `close`."""
        self._label = label
        self._start()

    def read(self, workers: Iterable[SensorWorker], patience: float) -> None:
        """Read them all; what a reading that takes longer than `patience` seconds holds up is read side by side."""
        if os.getpid() != self._pid:
            self._start()  # forked: the thread stayed with the parent
        waiting = deque([worker for worker in workers if worker.begin()])
        if self._is_free() and waiting:
            self._orders.put(waiting)
            self._free = False
            self._await(waiting, patience)
        while worker := _take(waiting):
            worker.order(patience)

    def close(self) -> None:
        """Let the thread end; one that hangs is left behind."""
        self._orders.put(None)

    def _start(self) -> None:
        self._pid = os.getpid()
        self._orders: Mailbox[_Waiting | None] = Mailbox()
        self._ends: Mailbox[bool] = Mailbox()
        self._free = True
        threading.Thread(target=self._work, name=f"round-{self._label}", daemon=True).start()

    def _is_free(self, patience: float = 0.0) -> bool:
        """Whether the last round has ended, or does within `patience` seconds."""
        if not self._free:
            self._free = self._ends.get(patience) is not None
        return self._free

    def _await(self, waiting: _Waiting, patience: float) -> None:
        """Until the round has ended, or has not got on for `patience` seconds."""
        left = len(waiting) + 1
        while not self._is_free(patience) and len(waiting) < left:
            left = len(waiting)

    def _work(self) -> None:
        orders, ends = self._orders, self._ends
        while (waiting := orders.get()) is not None:
            while worker := _take(waiting):
                worker.fulfil()
            ends.put(True)


def _take(waiting: _Waiting) -> SensorWorker | None:
    """One that nobody else takes; None when there are no more."""
    try:
        return waiting.popleft()
    except IndexError:
        return None
