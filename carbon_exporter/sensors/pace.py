"""The pace of a counter: when it moves, so that it is read just after it moved and each value gets its moment.

A counter that is renewed about every 100 ms, as NVML's, shows the value of its last renewal. Who reads it at any time
knows the moment of a value to half a period only, and 50 ms of 300 W are 15 J at each end of a span. Period and phase
are the driver's own and drift, so they are learnt. Two readings with different values have a renewal between them; a
short burst of readings catches one to some milliseconds, and from then on each renewal is known to lie in a window:

- the reading just after the window is the one that is wanted, one a period, or one of several where a coarser grain
  will do;
- a reading in the middle of a window halves it, whatever it shows;
- of two readings around a window the first must show the old value and the second a new one. If they do not, the
  prediction is wrong. After one miss the next window is looked at from both sides, for a renewal may have been left
  out; after a second the burst begins anew.

A window widens with the time since a renewal was caught, by what is not known of the period, and by jitter, which is
taken to be twice as large after each prediction that was wrong.
"""

from __future__ import annotations

import math
from typing import Literal

from carbon_exporter.sensors.rhythm import Rhythm

__all__ = ["Pace"]

STEADY_SECONDS = 0.1
"""Between two readings at the finest; of a counter that moves less often, one reading a period."""
STEADY_SLACK = 0.001
FINEST_PERIOD = 0.018
"""A counter that moves more often needs no pace."""
STILL_SECONDS = 0.45
"""A counter that has not moved for so long stands still, as far as a burst can tell."""

BURST_STEP = 0.004
BURST_WIDTH = 0.0065
"""Half of the time in which a burst has to catch a renewal."""
ONE_RENEWAL = 0.9
"""Of a period: two readings that are further apart may have more than one renewal between them."""
MOST_EDGES = 40
LONGEST_BURST = 5.0
"""A thread that is held up all the time catches no renewal: reading at a fixed rate is as good then, and cheaper."""
BURSTS_APART = 5.0
"""Seconds between two bursts for a counter that stood still; a period that did not hold for so long is forgotten."""
MOST_STRIKES, RESTING_SECONDS = 3, 15.0
"""After so many bursts for nothing the counter is read at a fixed rate for a while."""
LATE_SECONDS = 0.005
LEARNING_SECONDS = 1.2
WANTED_WIDTH = 0.0025
"""Half of a window that is narrow enough."""
MARGIN = 0.0012
"""A thread never wakes too early: readings before and after a window keep this distance."""
READINGS_A_GRAIN = 1.16
"""In the steady state, with looks at windows; below 1.2, for a miss now and then has to fit in."""
MOST_SAVED = 2.0
"""Readings."""
CHECK_SECONDS = 1.0
"""A window is looked at from both sides at least this often, if the readings allow."""

_Look = Literal["after", "middle", "around"]


class Pace:
    """Of one counter. Times are seconds of one clock; pure but for what it remembers; for one thread."""

    def __init__(self, period: float | None) -> None:
        """`period`: seconds between two renewals as the maker tells them; None if they are no matter."""
        self.grain = STEADY_SECONDS
        """Seconds from one reading that is wanted to the next; may be changed at any time."""
        self.precise = False
        """Whether the moment that `next` gave is to be kept; else a later reading tells as much, later."""
        self._step = period or 0.0
        """The best guess of the period, for what is not caught."""
        self._steady = self._step < FINEST_PERIOD
        self._rhythm = Rhythm()
        self._state: Literal["burst", "tracking", "resting"] = "burst"
        self._burst_began, self._burst_ended = math.inf, -math.inf
        self._edge_at = math.inf
        """The last change that this burst saw, or its begin."""
        self._raw: float | None = None
        self._at, self._since, self._until = -math.inf, -math.inf, -math.inf
        """The last reading: its moment, and the earliest and the latest that it may mean."""
        self._number = self._latest = 0
        """Of the renewal that set the last value, while tracking: the first and the last that it may have been."""
        self._unsure = False
        """Whether the next reading is to tell which, at once."""
        self._suspects = False
        self._late = -1
        """A renewal that was not there after its window, and is looked for once more."""
        self._strikes = 0
        """Bursts that were soon followed by another."""
        self._rests_until = -math.inf
        self._look: tuple[int, _Look] = (0, "after")
        """For which renewal, and how it is looked at."""
        self._checked = -math.inf
        self._saved = 0.0
        """Readings that may be made beyond one a period."""
        self._moved = (-math.inf, 0.0)

    def note(self, at: float, raw: float, blur: float = 0.0) -> tuple[float, float]:
        """When the value `raw`, read at `at` (± `blur`), was set: that moment, and by how much it may be off.

        A moment that was told before means no news, which the next reading may bring.
        """
        if self._steady:
            self._at = max(self._at, at)
            return self._at - self._step / 2, max(STEADY_SLACK, self._step / 2) + blur
        asked, answered = at - blur, at + blur
        last, since, until, before = self._raw, self._since, self._until, self._at
        if last is None:
            self._edge_at = self._burst_began = at
            self._moved = self._somewhere(-math.inf, asked, answered)
        if at <= before:
            return self._moved
        elapsed = at - before if last is not None else 0.0
        self._saved = max(-MOST_SAVED, min(MOST_SAVED, self._saved + elapsed / self.grain * READINGS_A_GRAIN) - 1.0)
        self._raw, self._at, self._since, self._until = raw, at, asked, answered
        if last is None:
            return self._moved
        told = self._moved
        if self._state != "tracking":
            self._note_untracked(since, asked, answered, raw != last)
        elif raw < last:
            self._moved, self._suspects = self._somewhere(since, asked, answered), True
            self._is(self._rhythm.last_begun(at))
        elif raw == last:
            self._note_old(until, asked)
        else:
            self._note_new(since, asked, answered)
        self._moved = max(self._moved, told)
        return self._moved

    def next(self, now: float) -> float:
        """When to read next, if it is `now`; never before."""
        self.precise = False
        if self._steady or self._state == "resting":
            return max(now, self._at + self.grain)
        if self._state == "tracking":
            number, look = self._plan(now)
            centre, width = self._rhythm.window(number)
            if number == self._late:
                return max(now, self._at + LATE_SECONDS)
            if width < self._rhythm.period / 3:
                first = centre if look == "middle" else centre - width - MARGIN
                self.precise = look != "after" and self._at < min(first, centre - width) and now <= first
                return first if self.precise else max(now, centre + width + MARGIN)
            self._begin_burst(now)
        self.precise = True
        return max(now, self._at + BURST_STEP)

    def news(self, now: float) -> float:
        """When a reading will tell something new, if it is `now`: after the next renewal that is waited for."""
        if self._steady or self._state != "tracking":
            return max(now, self._at + self.grain)
        centre, width = self._rhythm.window(self._plan(now)[0])
        return max(now, centre + width + MARGIN)

    # Tracking

    @property
    def _stride(self) -> int:
        """Renewals from one that is waited for to the next."""
        return max(1, math.ceil(0.9 * self.grain / self._rhythm.period))

    def _plan(self, now: float) -> tuple[int, _Look]:
        """The renewal that is waited for, and how it is looked at."""
        number, known = self._look[0], self._number if self._unsure else self._latest
        centre, width = self._rhythm.window(number)
        wanted = known < number <= known + self._stride
        if wanted and now <= max(centre + width + MARGIN, self._at):
            return self._look
        begun = self._rhythm.last_begun(now)
        stride = 1 if self._unsure else self._stride
        while stride > 1 and self._rhythm.window(known + stride)[1] > self._rhythm.period / 5:
            stride -= 1
        number = known + stride
        if number <= begun:
            number = begun if known < begun else begun + 1
        self._look = number, self._look_at(number, now)
        return self._look

    def _look_at(self, number: int, now: float) -> _Look:
        if self._suspects:
            return "around"
        width = self._rhythm.window(number)[1]
        urgent = now < self._burst_ended + LEARNING_SECONDS or width > self._rhythm.period / 6
        if width > WANTED_WIDTH and (urgent or self._saved >= 0):
            return "middle"
        if now >= self._checked + CHECK_SECONDS and self._saved >= 0:
            self._checked = now
            return "around"
        return "after"

    def _note_old(self, until: float, at: float) -> None:
        """The same value at `at` as before `until`: no renewal between them, if all is as predicted."""
        rhythm = self._rhythm
        if self._number < self._latest:
            centre, width = rhythm.window(self._latest)
            if at < centre + width:
                return
            self._is(self._latest)
            until = max(centre - width, min(until, centre + width))
            rhythm.catch(self._number, centre - width, until)
            self._moved = _middle(centre - width, until)
        number = rhythm.last_begun(at)
        if number <= self._number:
            return
        centre, width = rhythm.window(number)
        if at < centre + width and number == self._number + 1:
            rhythm.catch(number, at, centre + width)
        else:
            self._note_miss(number if at >= centre + width else number - 1, at)

    def _note_new(self, since: float, asked: float, at: float) -> None:
        """Another value than at `since`: at least one renewal between that and the look, and the last of them set it.

        The look was between `asked` and `at`: a slow driver does not say when.
        """
        rhythm, number = self._rhythm, self._rhythm.last_begun(at)
        if number <= self._number:
            self._moved = self._somewhere(since, asked, at)
            rhythm.was_wrong()
            self._begin_burst(at)
            return
        centre, width = rhythm.window(number)
        begins, ends = centre - width, centre + width
        first = max(rhythm.last_over(asked), rhythm.last_over(since) + 1, self._number + 1)
        if first < number:
            self._is(first, number)
            self._unsure = asked > begins  # the next reading tells; until then the last one stands
            if not self._unsure:
                moved, slack = _middle(max(since, rhythm.begins(first)), min(at, ends))
                self._moved = moved, slack + rhythm.jitter / 2
            return
        self._is(number)
        if number == self._late and since >= ends:
            rhythm.was_wrong()
            ends = at
        rhythm.catch(number, max(since, begins), min(at, ends))
        self._suspects = self._suspects and at - since > rhythm.period / 2
        moved, slack = _middle(max(since, begins), min(at, ends))
        self._moved = moved, slack + rhythm.jitter / 2

    def _note_miss(self, number: int, at: float) -> None:
        """A window is over without a renewal: it is late, was left out, or the prediction is wrong."""
        if not self._suspects and number != self._late:
            self._is(number - 1)
            self._late = number
        elif self._suspects:
            self._rhythm.was_wrong()
            self._begin_burst(at)
        else:
            self._is(number)
            self._suspects = True

    def _is(self, first: int, last: int | None = None) -> None:
        """The renewal that set the value, or the first and the last that it may have been."""
        self._number, self._latest, self._unsure = first, first if last is None else last, False

    # Without a prediction

    def _begin_burst(self, now: float) -> None:
        if now < self._burst_ended + BURSTS_APART:
            self._strikes += 1
            self._rhythm = Rhythm(self._rhythm.jitter)
        else:
            self._strikes = 0
        self._rhythm.begin_anew()
        self._state, self._edge_at, self._suspects, self._unsure, self._late = "burst", now, False, False, -1
        self._burst_began = now
        if self._strikes >= MOST_STRIKES:
            self._rest(now, RESTING_SECONDS)

    def _rest(self, now: float, seconds: float) -> None:
        self._state, self._burst_ended, self._rests_until = "resting", now, now + seconds

    def _note_untracked(self, since: float, asked: float, at: float, changed: bool) -> None:
        if changed:
            self._moved = self._somewhere(since, asked, at)
        elif at - self._moved[0] > STILL_SECONDS:
            self._moved = self._somewhere(-math.inf, asked, at)  # it stands still: what it shows is as good as new
        if self._state == "resting":
            if changed and at > self._rests_until:
                self._begin_burst(at)
        elif at - self._burst_began > LONGEST_BURST:
            self._rest(at, BURSTS_APART)
        elif changed:
            self._note_edge(since, at)
        elif at - self._edge_at > STILL_SECONDS:
            self._rest(at, BURSTS_APART)

    def _note_edge(self, since: float, at: float) -> None:
        """A burst has seen a renewal: the first gives the phase, the second the period if that is not known."""
        self._edge_at = at
        rhythm = self._rhythm
        if at - since > ONE_RENEWAL * min(self._step, rhythm.period):
            rhythm.begin_anew()  # how many there were is not known, and a wrong count is a wrong period
            return
        rhythm.add(since, at)
        narrow = at - since <= 2 * BURST_WIDTH and self._stride * rhythm.error < rhythm.period / 6
        if rhythm.period == math.inf or not (narrow or rhythm.caught >= MOST_EDGES):
            return
        self._step = rhythm.period
        self._steady = self._step < FINEST_PERIOD
        self._state, self._burst_ended = "tracking", at
        self._is(rhythm.newest)
        self._look, self._checked = (self._number, "after"), at

    def _somewhere(self, since: float, asked: float, at: float) -> tuple[float, float]:
        """The moment of a renewal after `since` of which no more is known: the last before a look (`asked` to `at`)."""
        return _middle(max(since, asked - (self._step or STEADY_SECONDS)), at)


def _middle(begins: float, ends: float) -> tuple[float, float]:
    return (begins + ends) / 2, max(0.0, ends - begins) / 2
