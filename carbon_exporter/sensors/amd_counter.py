"""Whether the energy counter of an AMD board can be believed: it is compared with the board's power meter first.

Some boards count wrongly (MI100, MI250: ROCm/amdsmi issue 38), backwards (issue 115) or not at all
(ROCm/rocm_smi_lib issue 180). So a counter is on trial until it has agreed with integrated power, and watched after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from carbon_exporter.sensors.base import Reading
from carbon_exporter.units import Joules, Watts

__all__ = ["FLOOR_WATTS", "TRIAL_SECONDS", "CounterCheck"]

TRIAL_SECONDS = 10.0
TRIAL_LOOKS = 2
"""Comparisons at least, and seconds at least, before a counter is believed or refused."""
TOLERANCE = 0.25
"""Of the integrated energy: maker's tolerances, sampling and a meter that averages stay below it, lies do not."""
FLOOR_WATTS = 5.0
"""Beside the tolerance: power comes in whole watts, and an idle board draws few of them."""
DOUBT_SECONDS = 1.0
"""Counters move in steps; one that stands still for longer, while power is drawn, is in doubt."""
LEAST_COVER = 0.9
"""Of the time between two looks must have been sampled for a comparison."""
TWO_RESETS_SECONDS = 3600.0
"""A driver that was loaded again sets a counter back once; twice in this time is the counter's own fault."""


class CounterCheck:
    """The trial of one counter. Not for use from several threads."""

    def __init__(self) -> None:
        """The counter is on trial."""
        self.verdict: Literal["trial", "believed", "refused"] = "trial"
        self.reason = ""
        """Why it is refused, or believed without a comparison."""
        self._last: tuple[float, Joules] | None = None
        self._compared = 0
        self._seconds = self._counted = self._expected = 0.0
        self._unseen = 0.0
        self._still_since: tuple[float, int] | None = None
        self.in_doubt = False
        """Whether a believed counter stands still while power is drawn: not to be published until it moves."""
        self._set_back_at: float | None = None

    def compare(self, at: float, counter: Joules, means: Iterable[Reading]) -> None:
        """On trial: the counter at monotonic seconds `at`, and the sampled mean powers since the last look."""
        last, self._last = self._last, (at, counter)
        if last is None or at <= last[0]:
            return
        elapsed, delta = at - last[0], counter - last[1]
        if delta < 0:
            self._refuse("it went backwards")
            return
        sampled = [
            (mean.at - mean.since, mean.power) for mean in means if mean.power is not None and mean.since is not None
        ]
        covered = sum(seconds for seconds, _ in sampled)
        if covered >= LEAST_COVER * elapsed:
            self._compared += 1
            self._seconds += elapsed
            self._counted += delta
            self._expected += sum(seconds * watts for seconds, watts in sampled) / covered * elapsed
        else:
            self._unseen += elapsed
        self._judge()

    def watch(self, at: float, counter: Joules, power: Watts | None) -> None:
        """Believed: the counter at monotonic seconds `at` and the power then, None if that is not known."""
        last, self._last = self._last, (at, counter)
        if last is None or at <= last[0]:
            return
        if counter < last[1]:
            if self._set_back_at is not None and at - self._set_back_at < TWO_RESETS_SECONDS:
                self._refuse("it went backwards twice within the hour")
            self._set_back_at = at
        if counter != last[1] or power is None or power <= FLOOR_WATTS:
            self._still_since, self.in_doubt = None, False
            return
        since, looks = self._still_since or (last[0], 0)
        self._still_since, self.in_doubt = (since, looks + 1), at - since >= DOUBT_SECONDS
        if looks + 1 >= TRIAL_LOOKS and at - since >= TRIAL_SECONDS:
            self._refuse("it stands still while power is drawn")

    def _judge(self) -> None:
        if self._compared >= TRIAL_LOOKS and self._seconds >= TRIAL_SECONDS:
            allowed = TOLERANCE * self._expected + FLOOR_WATTS * self._seconds
            if self._counted == 0 and self._expected > FLOOR_WATTS * self._seconds:
                self._refuse("it stands still while power is drawn")
            elif abs(self._counted - self._expected) > allowed:
                watts = self._counted / self._seconds, self._expected / self._seconds
                self._refuse(f"it counted {watts[0]:.0f} W where the power meter showed {watts[1]:.0f} W")
            else:
                self.verdict = "believed"
        elif not self._compared and self._unseen >= 2 * TRIAL_SECONDS:
            self.verdict, self.reason = "believed", "the board gives no power to compare it with"

    def _refuse(self, reason: str) -> None:
        self.verdict, self.reason = "refused", reason
