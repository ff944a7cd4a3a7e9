"""The cadence: how often meters are read, as seldom as the open blocks allow.

What a block's edge is off by is what the load may have done between the reading before it and the one after. So it is
readings around the edges that count, and of a block which is long only how large a part of it that is:

- Right after a block began they are as close as they can be.
- The longer a block is open the further apart they may be.
- A block that has ended a few times before is expected to last as long as the shortest of the last ones: well before
  that they may be far apart, and are close again when its end is near.

Of several open blocks the one that needs them closest decides. A block that ends long before it is expected to is off
by more at its exit, and says so: its bound is made of the readings that there were.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from carbon_exporter.sdk.laps import Lap
from carbon_exporter.sensors.pace import STEADY_SECONDS

__all__ = ["Cadence", "Plan"]

Plan = tuple[float, float]
"""Seconds from one reading to the next, and until which moment that holds."""

BEGINNING_SECONDS = 0.1
"""So long after a block's begin readings are close: one at once, and one more."""
COARSER = ((6.0, 0.2), (12.0, 0.3))
"""A block that has been open for so long can do with so many seconds between two readings. Of a load that steps between
60 and 300 W every second, by simulation, 95 of 100 blocks are then within 2 % at their end."""
COARSEST = COARSER[-1][1]
"""Also far from the end of a block of a usual length."""
SURE, EARLIER_SECONDS = 0.9, 0.25
"""Readings are close again at least so much earlier than this part of the expected time is over: some of them are
needed to see that the load is level, steps, and where to."""
REMEMBERED, ENOUGH = 3, 2
"""Ended blocks of a name, at the most, and at least for an expectation."""
MOST_NAMES = 256


class Cadence:
    """For one thread."""

    def __init__(self) -> None:
        """Nothing is expected."""
        self._lasted: dict[str, tuple[float, ...]] = {}
        """Seconds of the last ended blocks by name; the name that ended last stands last."""

    def note(self, name: str, seconds: float) -> None:
        """A block of this name has lasted so long."""
        before = self._lasted.pop(name, ())
        if len(self._lasted) >= MOST_NAMES:
            del self._lasted[next(iter(self._lasted))]
        self._lasted[name] = (*before[1 - REMEMBERED :], seconds)

    def plan(self, now: float, began: float, laps: Iterable[Lap] = ()) -> Plan:
        """How often to read from `now` on, if the last block `began` then and these are open.

        Without any open one it goes by the last, whose end is to be settled still.
        """
        if now < began + BEGINNING_SECONDS:
            return STEADY_SECONDS, began + BEGINNING_SECONDS
        plans = [max(_by_age(now, lap.began[0]), self._by_habit(now, lap)) for lap in laps] or [_by_age(now, began)]
        return min(grain for grain, _ in plans), min(until for _, until in plans)

    def _by_habit(self, now: float, lap: Lap) -> Plan:
        """What does until an open lap may end, if those before it are anything to go by."""
        lasted = self._lasted.get(lap.name, ())
        if len(lasted) < ENOUGH:
            return STEADY_SECONDS, -math.inf
        until = lap.began[0] + SURE * min(lasted) - EARLIER_SECONDS - COARSEST  # the last of the rare readings
        return (COARSEST, until) if now < until else (STEADY_SECONDS, -math.inf)


def _by_age(now: float, began: float) -> Plan:
    """What does for a block that nothing is known of but when it began."""
    grain, age = STEADY_SECONDS, now - began
    for after, coarser in COARSER:
        if age < after:
            return grain, began + after
        grain = coarser
    return grain, math.inf
