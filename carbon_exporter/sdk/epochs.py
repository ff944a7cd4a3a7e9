"""Epochs: the passages of a run that repeat, what each took, and what those ahead are likely to take."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping, Sequence, Sized
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from carbon_exporter.sdk.laps import Lap
from carbon_exporter.sdk.prediction import MOST_EPOCHS

if TYPE_CHECKING:
    from carbon_exporter.sdk.run import CarbonRun
    from carbon_exporter.sdk.span import CarbonSpan

__all__ = ["EpochBlock", "EpochLog", "Passed"]


class Passed(NamedTuple):
    """One that has ended, with the time since the one before it."""

    seconds: float
    gap_seconds: float
    joules: float
    grams: float


class EpochBlock:
    """`with run.epoch() as span:` one epoch; its span is a `CarbonSpan`."""

    __slots__ = ("_attributes", "_name", "_run")

    def __init__(self, run: CarbonRun, name: str, attributes: Mapping[str, object]) -> None:
        """Begins nothing yet."""
        self._run, self._name, self._attributes = run, name, attributes

    def __enter__(self) -> CarbonSpan:
        """Begin it. Raises `BudgetExceeded` if the run's budget is used up, and it was told to stop then."""
        return self._run.begin_epoch(self._name, **self._attributes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it; what was raised inside goes on as it is."""
        self._run.end_epoch(error)


class EpochLog:
    """The epochs of one run, as its thread goes through them."""

    def __init__(self, planned: int | None) -> None:
        """`planned` are all that there will be; None where nobody knows."""
        self.planned = planned
        self.done = 0
        self._newest: deque[tuple[Lap, float]] = deque()
        """With the gap before each."""
        self._older = Passed(0.0, 0.0, 0.0, 0.0)
        """The sum of those that are not kept any more."""
        self._left_at: float | None = None

    @property
    def left(self) -> int | None:
        """How many are ahead."""
        return None if self.planned is None else max(0, self.planned - self.done)

    def plan(self, items: object, *, given: bool) -> None:
        """How many `items` will make; where a number was `given`, a range that goes on in the middle is known by it."""
        inner = getattr(items, "iterable", items)  # of a tqdm bar
        if given and isinstance(inner, range) and inner.start > self.done and inner.stop == self.planned:
            self.planned = self.done + len(inner)
        elif not given and isinstance(items, Sized):
            with contextlib.suppress(Exception):  # a bar over a generator, or a loader of a stream, has none to tell
                self.planned = self.done + len(items)

    def add(self, lap: Lap, at: float) -> None:
        """One has ended, or is about to, at this monotonic moment."""
        gap = 0.0 if self._left_at is None else max(0.0, lap.began[0] - self._left_at)
        self._left_at = at
        self._newest.append((lap, gap))
        self.done += 1
        while len(self._newest) > MOST_EPOCHS:
            oldest, before = self._newest.popleft()
            self._older = _sum((self._older, _passed(oldest, before, at)))

    def passed(self, at: float) -> Sequence[Passed]:
        """The newest ones; one that is open is as if it ended at `at`."""
        return [_passed(lap, gap, at) for lap, gap in self._newest]

    def together(self, passed: Sequence[Passed]) -> Passed:
        """All of them, those that are not kept any more too."""
        return _sum((self._older, *passed))


def _passed(lap: Lap, gap: float, at: float) -> Passed:
    figures = lap.tracker.figures(lap)
    seconds = (lap.ended[0] if lap.ended else at) - lap.began[0]
    if figures is None:
        return Passed(seconds, gap, 0.0, 0.0)
    return Passed(seconds, gap, float(figures.energy), float(figures.grams))


def _sum(passed: Sequence[Passed]) -> Passed:
    return Passed(*map(sum, zip(*passed, strict=True)))
