"""The run of a training that calls back: one for each `fit` or `train`, ended however that ends.

What the callbacks of different frameworks have in common. What is wrong with what a framework tells is logged, and the
training goes on; only `BudgetExceeded` leaves, between two epochs, and in all ranks at once: one that stopped alone
would leave the others waiting for it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from carbon_exporter.errors import BudgetExceeded
from carbon_exporter.integrations import processes
from carbon_exporter.sdk.ranks import rank_of
from carbon_exporter.sdk.run import CarbonRun
from carbon_exporter.sdk.run_fields import given
from carbon_exporter.sdk.tracker import current
from carbon_exporter.sdk.trouble import trouble

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["HasRun", "HasRunToEnd", "Training", "left_of"]

_T = TypeVar("_T")
_END = object()
STOP_PATIENCE = timedelta(minutes=30)
"""How long a rank waits for the others between two epochs: as long as it would wait in the next one."""


class Training:
    """The runs of one callback."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        """As `CarbonRun`. Raises `ConfigError` for what cannot be: where it stands, not in the first epoch."""
        self._name, self._options = name, dict(options)
        CarbonRun(name, **self._options)
        self.run: CarbonRun | None = None
        """The newest; None before the first."""
        self._is_open = False
        self._passages: Iterator[Any] = iter(())

    def begin(self, rank: int | None = None, **facts: object) -> None:
        """A training begins; `facts` are what the framework knows of it, `rank` which process it says that this is."""
        self.end()  # one that an error ended, where a framework does not tell that
        if rank is not None:
            _be_rank(rank)
        self.join(facts)

    def join(self, facts: Mapping[str, object] | None = None) -> None:
        """Begin where that has not been done, under the name that the first rank has."""
        name = self._name
        if processes.rank() == 0:
            self.open(name, facts or {})
            name = self.run.name if self.run else name
        try:
            name = processes.told(name)
        except Exception as error:  # noqa: BLE001 - a guest does not break the house
            trouble("agreeing on the name of a run", error, "is the callback in the first rank, too?")
        self.open(name, facts or {})

    def open(self, name: str, facts: Mapping[str, object]) -> None:
        """Begin without asking other ranks, unless it is open; what the user has said goes before `facts`."""
        if self._is_open:
            return
        try:
            run = CarbonRun(name or self._name, **{**given(**facts), **self._options})
        except Exception as error:  # noqa: BLE001 - likewise
            trouble("beginning a run", error)
            return
        run.begin()
        self.run, self._is_open = run, True

    def plan(self, left: int | None) -> None:
        """How many epochs are ahead, None if nobody knows; a number that the user has given stays."""
        if self.run is not None:
            self._passages = self.run.epochs(range(left)) if left else iter(())

    def begin_epoch(self) -> None:
        """The next one. Raises `BudgetExceeded` if a rank has used up its budget and is to stop then."""
        if self.run is not None and self._is_open and self._agreed(lambda: next(self._passages, _END)) is _END:
            self._agreed(self.run.begin_epoch)

    def end_epoch(self, values: Mapping[str, Any]) -> None:
        """It ends with these values, of which the numbers are kept."""
        if self.run is not None and self._is_open:
            self.record(values)
            self.run.end_epoch()

    def epochs(self, items: Iterable[_T]) -> Iterator[_T]:
        """Each of `items` with an epoch around it, as `CarbonRun.epochs`. Raises as `begin_epoch`."""
        if not self._is_open or self.run is None:
            yield from items
            return
        with closing(self.run.epochs(items)) as passages:  # type: ignore[type-var] # a generator
            while (item := self._agreed(lambda: next(passages, _END))) is not _END:
                yield item

    def record(self, values: Mapping[str, Any]) -> None:
        """Keep those that are numbers."""
        numbers = _numbers(values)
        if self.run is not None and numbers:
            self.run.record(**numbers)

    def know(self, facts: Mapping[str, object]) -> None:
        """What is known of a run that has begun already: for its summary, too late for labels."""
        if self.run is not None and self._is_open:
            plain = {name: value for name, value in facts.items() if isinstance(value, (str, bool, int, float))}
            self.run.fields.update({**given(**plain), **self.run.fields})

    def is_to_stop(self) -> bool:
        """Whether a rank has used up its budget and `on_exceed` is `stop`: for who ends a training as others do."""
        if self.run is None or self._options.get("on_exceed") != "stop":
            return False
        return self._first_of_all(self.run.exceeded) is not None

    def end(self, error: BaseException | None = None) -> None:
        """The training ends; nothing the second time."""
        if self.run is not None and self._is_open:
            self._is_open, self._passages = False, iter(())
            self.run.end(error)

    def until_now(self) -> dict[str, float]:
        """What a framework's own log is given: energy in kWh and CO2e in grams since the beginning."""
        return {"energy_kwh": self.run.energy_kwh, "co2e_grams": self.run.co2e_grams} if self.run else {}

    def _agreed(self, step: Callable[[], Any]) -> Any:
        """The answer of a step between two epochs, unless a rank is to stop there."""
        answer, mine = None, None
        try:
            answer = step()
        except BudgetExceeded as exceeded:
            mine = exceeded
        told = self._first_of_all(mine)
        if told is not None:
            self.end(told)
            raise told
        return answer

    def _first_of_all(self, mine: BudgetExceeded | None) -> BudgetExceeded | None:
        """Asks the ranks only where a budget may end the training: then all of them have one."""
        if not self._options.get("budget") or self._options.get("on_exceed", "warn") == "warn":
            return mine
        try:
            told = (mine.run, mine.used, mine.budget, mine.unit) if mine else None
            asked = processes.gathered("stop", told, STOP_PATIENCE)
        except Exception as error:  # noqa: BLE001 - a guest does not break the house
            trouble("agreeing on the end of a training", error)
            return mine
        theirs = next((one for one in asked if one is not None), None)
        return mine or (BudgetExceeded(*theirs) if theirs else None)


class HasRun:
    """A callback that measures trainings."""

    _training: Training

    @property
    def run(self) -> CarbonRun | None:
        """The newest run, with all its numbers; None before the first."""
        return self._training.run


class HasRunToEnd(HasRun):
    """One of a framework that tells callbacks nothing of an error: a `with` around the training ends the run then."""

    def __enter__(self) -> Self:
        """Nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End a run that an error has left open."""
        self._training.end(error)


def left_of(done: int, by_epochs: float | None, by_steps: float | None) -> int | None:
    """Epochs that are ahead where the first of two limits ends a training; None where there is none."""
    limits = [limit for limit in (by_epochs, by_steps) if limit is not None]
    return max(0, math.ceil(min(limits)) - done) if limits else None


def _be_rank(rank: int) -> None:
    """Take a framework's word for it where no launcher tells, before anything is measured."""
    tracker = current()
    if not tracker.started and not tracker.options.rank and not rank_of(os.environ):
        tracker.options.rank = str(rank)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those that are: a tensor of one element, too."""
    tried = {str(name): _number(value) for name, value in values.items()}
    return {name: number for name, number in tried.items() if number is not None}


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return None
