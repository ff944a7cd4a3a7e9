"""The lookout: looks for sensors again while the exporter runs.

A driver may be loaded, a library mounted or a permission given after the start. The search runs on a thread of its own,
because a driver may hang when it is asked whether it is there.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

from carbon_exporter.sensors.base import Host, Kind, Sensor
from carbon_exporter.sensors.registry import SENSORS, Entry, Finding, discover

__all__ = ["LOOK_PERIOD_SECONDS", "Found", "Lookout"]

LOOK_PERIOD_SECONDS = 60.0

Found = tuple[tuple[Sensor, ...], tuple[Finding, ...]]


class Lookout:
    """Searches once a minute, and at once when the sensors in use cover other kinds than before. For one thread."""

    def __init__(self, host: Host, table: Sequence[Entry] = SENSORS, clock: Callable[[], float] | None = None) -> None:
        """`clock` gives seconds; the host's by default."""
        self._host = host
        self._table = table
        self._clock = clock or host.clock
        self._looked_at = self._clock()
        self._covered: frozenset[Kind] | None = None
        self._thread: threading.Thread | None = None
        self._found: Found | None = None

    def look_soon(self) -> None:
        """Let the next `poll` begin a search, due or not."""
        self._looked_at = -math.inf

    def poll(self, sensors: Sequence[Sensor]) -> Found | None:
        """What a search that has ended found, None if there is no news; begins the next one when it is due.

        Never waits. `sensors` are those in use.
        """
        if self._thread is not None:
            return None if self._thread.is_alive() else self._take()
        covered = _covered(sensors)
        changed, self._covered = covered != (self._covered or covered), covered
        now = self._clock()
        if changed or now - self._looked_at >= LOOK_PERIOD_SECONDS:
            self._looked_at = now
            known = {sensor.name: sensor for sensor in sensors}
            self._thread = threading.Thread(target=self._look, args=(known,), name="sensor-lookout", daemon=True)
            self._thread.start()
        return None

    def _look(self, known: dict[str, Sensor]) -> None:
        self._found = discover(self._host, self._table, known)

    def _take(self) -> Found | None:
        self._thread = None
        found, self._found = self._found, None
        return found


def _covered(sensors: Sequence[Sensor]) -> frozenset[Kind]:
    """What the sensors measure now, each way they can."""
    kinds: set[Kind] = set()
    for sensor in sensors:
        kinds |= sensor.covers
        for one in (sensor, *sensor.members):
            kinds |= {device.kind for device in one.devices}
    return frozenset(kinds)
