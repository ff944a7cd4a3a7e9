"""`CarbonRun`: a whole training, with its epochs, what it is likely to cost in all, and a budget.

    with CarbonRun(epochs=90, model="resnet50", budget="2 kWh") as run:
        for epoch in run.epochs(range(90)):
            run.record(loss=train(epoch))

Nothing here raises into the program but arguments that cannot be, and `BudgetExceeded` between two epochs where
`on_exceed` asks for that.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from carbon_exporter.errors import BudgetExceeded, ConfigError
from carbon_exporter.jobs.base import clean_name
from carbon_exporter.sdk import tracing
from carbon_exporter.sdk.baggage import RUN, Carried, current_baggage, own_environment
from carbon_exporter.sdk.base import Identity
from carbon_exporter.sdk.budget import Budget, BudgetWatch, OnExceed, action_of, budget_of
from carbon_exporter.sdk.epochs import EpochBlock, EpochLog
from carbon_exporter.sdk.experiments import Experiments
from carbon_exporter.sdk.identity import new_run, own_identity
from carbon_exporter.sdk.laps import Lap
from carbon_exporter.sdk.outlook import Prediction, Used, predict
from carbon_exporter.sdk.prediction import Forecast
from carbon_exporter.sdk.progress import rich_column, show_beside
from carbon_exporter.sdk.ranks import world_of
from carbon_exporter.sdk.run_fields import attributes_of, facts_of, given
from carbon_exporter.sdk.run_record import AllRanks, RunRecord, counted
from carbon_exporter.sdk.span import CarbonSpan, innermost_block
from carbon_exporter.sdk.summary import Summary, tell_summary
from carbon_exporter.sdk.tariff import Bill, TariffLike, own_tariff, tariff_of
from carbon_exporter.sdk.tracker import current
from carbon_exporter.sdk.trouble import trouble
from carbon_exporter.units import JOULES_PER_KWH

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["CarbonRun"]

_log = logging.getLogger("carbon_exporter.sdk")
_T = TypeVar("_T")
SPAN = "run"
"""The span of a whole run; its name is an attribute, for each name of a span has series of its own."""
SUMMARY_SECONDS = 0.5
"""How long a summary waits for the last readings, at the most."""

_current: ContextVar[CarbonRun | None] = ContextVar("carbon_run", default=None)


class CarbonRun:
    """A run, measured from enter to exit: once an object, by one thread at a time.

    Args:
        name: Of the run: what was counted under a name before goes on. Without one `CARBON_RUN`, the scheduler's
            or launcher's number, else one of its own.
        epochs: How many there will be; without it as many as `epochs()` is given.
        job: Whose run it is, if another job's than the process's.
        model: What is trained: a label of `carbon_run_info`, as are `dataset` and `batch_size`.
        dataset: On what.
        batch_size: Of each step.
        learning_rate: An attribute of the run's span, as `fields` are.
        budget: `"500 g"`, `"3 kWh"`, `"20 EUR"`.
        on_exceed: When it is used up: `warn` says so in the log; `stop` raises `BudgetExceeded` before the next
            epoch, in this rank alone; a function is called with that error between two epochs, and may return `"stop"`.
        checkpoint: Called with the error right before it is raised, to save what there is.
        tariff: Money per kWh, `"0.31 EUR"`, or a function of Unix seconds. `CARBON_TARIFF`.
        forecast: Of the grid's intensity: a function from Unix seconds to g/kWh, or to value, low and high.
        summary: What is said on stderr at the end: `line`, `table` or `none`. Of several ranks the first speaks.
        log_to: `mlflow`, `wandb` or both: the run of theirs that is active gets the numbers, epochs as steps.
        devices: As of a `carbon_span`.
        sync: As of a `carbon_span`.
        fields: Anything else that is to be known of the run.

    Raises:
        ConfigError: a budget, tariff, action or tracker that there is not.
        ImportError: what is to be logged to is not installed.
    """

    def __init__(
        self,
        name: str = "",
        *,
        epochs: int | None = None,
        job: str | None = None,
        model: str = "",
        dataset: str = "",
        batch_size: int | None = None,
        learning_rate: float | None = None,
        budget: str | Budget | None = None,
        on_exceed: OnExceed = "warn",
        checkpoint: Callable[[BudgetExceeded], object] | None = None,
        tariff: TariffLike = None,
        forecast: Forecast | None = None,
        summary: Summary = "line",
        log_to: str | Sequence[str] = (),
        devices: Sequence[str | int] | None = None,
        sync: bool | Callable[[], object] | None = None,
        **fields: object,
    ) -> None:
        """Nothing is measured before it is entered."""
        self._tariff = tariff_of(tariff) or own_tariff(os.environ)
        allowed = budget_of(budget, self._tariff)
        action = action_of(on_exceed)
        self._budget = BudgetWatch(allowed, action, checkpoint) if allowed else None
        if summary not in {"line", "table", "none"}:
            raise ConfigError("CarbonRun", "summary", summary, "line, table, none")
        self._asked, self._job, self._devices, self._sync = clean_name(str(name)), job, devices, sync
        known = {"model": model, "dataset": dataset, "batch_size": batch_size, "learning_rate": learning_rate}
        self.fields = given(**known, **fields)
        """What was said of the run: model, dataset, batch size, learning rate and free fields."""
        self._forecast, self._summary = forecast, summary
        self._experiments = Experiments(log_to)
        self._log = EpochLog(epochs)
        self._planned = epochs is not None
        self._identity = Identity(job or "")
        self._span, self._epoch = CarbonSpan(SPAN), CarbonSpan("epoch")
        self._lap: Lap | None = None
        self._epoch_lap: Lap | None = None
        self._record: RunRecord | None = None
        self._carried: Carried | None = None
        self._outer: CarbonRun | None = None
        self._is_open = False
        self._patience = SUMMARY_SECONDS
        self._bill = Bill(self._tariff) if self._tariff else None
        self.prediction: Prediction | None = None
        """What it is likely to take in all, as of the last epoch; None while nobody can tell."""

    @staticmethod
    def current() -> CarbonRun | None:
        """The innermost run that is open in this thread or task."""
        run = _current.get()
        while run is not None and not run._is_open:  # noqa: SLF001 - of its own kind; they may end in any order
            run = run._outer  # noqa: SLF001 - likewise
        return run

    def __enter__(self) -> Self:
        """Begin."""
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End; what was raised inside goes on as it is."""
        self.end(error)

    def begin(self) -> None:
        """As `with` does, where a framework calls back. Never raises."""
        try:
            self._begin()
        except Exception as error:  # noqa: BLE001 - a guest does not break the house
            trouble("beginning a run", error)

    def end(self, error: BaseException | None = None) -> None:
        """Likewise; `error` is what ended the run, if anything did. Never raises."""
        try:
            self._end(error)
        except Exception as trouble_of_ours:  # noqa: BLE001 - likewise
            trouble("ending a run", trouble_of_ours)

    async def __aenter__(self) -> Self:
        """Begin."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""
        self._patience = 0.0  # nobody else's work is kept waiting
        self.end(error)

    def __repr__(self) -> str:
        return f"<CarbonRun {self.name!r} {self._span!r}>"

    @property
    def name(self) -> str:
        """Of the run; empty before it is entered, if it was not given."""
        return self._identity.run or self._asked

    @property
    def rank(self) -> str:
        """Which of the run's processes this is; empty outside distributed runs."""
        return self._identity.rank

    @property
    def world_size(self) -> int:
        """How many ranks there are, as the launcher says; 1 outside distributed runs."""
        return world_of(os.environ)

    @property
    def span(self) -> CarbonSpan:
        """The run's own span, with all its numbers."""
        return self._span

    @property
    def energy_kwh(self) -> float:
        """Energy until now, in kWh."""
        return self._span.energy_kwh

    @property
    def co2e_grams(self) -> float:
        """Grams of CO2 equivalent until now."""
        return self._span.co2e_grams

    @property
    def duration_seconds(self) -> float:
        """Seconds from enter to exit, or until now."""
        return self._span.duration_seconds

    @property
    def cost(self) -> float | None:
        """Money until now, each part at the tariff of when it was looked at; None without a tariff."""
        if self._bill is None:
            return None
        engine = current().engine
        price = engine.choice.price() if engine else None
        try:
            return self._bill.until(self._span.energy_kwh * JOULES_PER_KWH, price.pue if price else 1.0, time.time())
        except Exception as error:  # noqa: BLE001 - a function of the script's
            trouble("asking the tariff", error)
            return self._bill.amount

    @property
    def currency(self) -> str:
        """As the tariff has it."""
        return self._tariff.currency if self._tariff else ""

    @property
    def exceeded(self) -> BudgetExceeded | None:
        """Set at the end of an epoch once the budget is used up: for who ends a training without raising."""
        return self._budget.exceeded if self._budget else None

    @property
    def epochs_done(self) -> int:
        """Epochs that have ended."""
        return self._log.done

    @property
    def all_ranks(self) -> AllRanks | None:
        """What all ranks on this node have used, as the exporter told last; None without one, or with one rank."""
        engine = current().engine
        link = engine.choice.outlet if engine and engine.choice.path == "exporter" else None
        told = getattr(link, "run_sums", {}).get(self.name)
        return AllRanks(told.ranks, told.joules / JOULES_PER_KWH, told.grams) if told else None

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON."""
        who = {"run": self.name, "job": self._job or self._identity.job, "rank": self._identity.rank}
        more = {"epochs": self._log.done, "cost": self.cost, "currency": self.currency, "fields": dict(self.fields)}
        ahead = self.prediction.to_dict() if self.prediction else None
        return {**self._span.to_dict(), **who, **more, "prediction": ahead}

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the last readings of a run that has ended are in, at most `timeout` seconds; whether they are."""
        return self._span.wait(timeout)

    def record(self, **values: float) -> None:
        """Keep the newest of each value for the run, and for the epoch that is open; 8 names at most."""
        if self._epoch_lap is not None:
            self._epoch.record(**values)
        self._span.record(**values)

    def epochs(self, items: Iterable[_T], name: str = "epoch") -> Iterator[_T]:
        """Each of `items`, with an epoch around what is done with it. `items` may be a tqdm bar, which shows numbers.

        Raises:
            BudgetExceeded: between two epochs, if the run was told to stop.
        """
        self._log.plan(items, given=self._planned)
        try:
            for item in items:
                self.begin_epoch(name)
                yield item
                self.end_epoch()
                show_beside(items, self)
        finally:
            self.end_epoch(GeneratorExit())  # only if the loop was left in the middle

    def epoch(self, name: str = "epoch", **attributes: object) -> EpochBlock:
        """One epoch, for `with`; `attributes` go onto its OpenTelemetry span."""
        return EpochBlock(self, name, attributes)

    def begin_epoch(self, name: str = "epoch", **attributes: object) -> CarbonSpan:
        """Begin an epoch, as `epoch()` does, where a framework calls back; one that is open is ended first.

        Raises:
            BudgetExceeded: the budget is used up, and the run was told to stop then.
        """
        self.end_epoch()
        if self._budget is not None:
            self._budget.enforce()
        number = {"carbon.run": self.name, "carbon.epoch": self._log.done}
        self._epoch = CarbonSpan(name, job=self._job, devices=self._devices, attributes={**number, **attributes})
        self._epoch.__enter__()
        self._epoch_lap = innermost_block(current())
        return self._epoch

    def end_epoch(self, error: BaseException | None = None) -> None:
        """End the epoch that is open; after an error it does not count as one that has ended. Never raises."""
        lap, self._epoch_lap = self._epoch_lap, None
        if lap is None:
            return
        try:
            if error is None:
                self._log.add(lap, time.monotonic())
                self._look_ahead(lap)
                self._experiments.epoch(self, self._epoch)
        except Exception as trouble_of_ours:  # noqa: BLE001 - a guest does not break the house
            trouble("predicting", trouble_of_ours)
        self._look_at_budget()
        raised = None if isinstance(error, GeneratorExit) else error
        self._epoch.__exit__(type(raised) if raised else None, raised, None)

    def environment(self) -> dict[str, str]:
        """What workers that inherit no environment are to be given, so that they are of this run: Ray's `env_vars`."""
        return self._carried.variables() if self._carried else {}

    def rich_column(self) -> Any:
        """A column for a `rich.progress.Progress`, with the run's numbers. Raises `ImportError` without rich."""
        return rich_column(self)

    def _begin(self) -> None:
        tracker = current()
        self._outer = outer = self.current()
        above = outer._carried if outer else None  # noqa: SLF001 - of its own kind
        self._identity = self._whose(above)
        if not tracker.started:
            tracker.options.first_run = self._identity.run
        told = attributes_of(self.name, self.fields)
        self._span = CarbonSpan(SPAN, job=self._job, devices=self._devices, attributes=told, sync=self._sync)
        self._is_open = True
        self._span.__enter__()
        self._lap = innermost_block(tracker)
        if self._lap is not None:
            self._record = counted(self._lap, self.name, clean_name(self._job or ""), facts_of(self.fields))
        _current.set(self)
        self._carried = Carried(self._job or self._identity.job, self.name, above=above)
        self._carried.take_up()

    def _whose(self, above: Carried | None) -> Identity:
        options, environ = current().options, above.environ() if above else own_environment()
        asked = self._asked or options.run or environ.get("CARBON_RUN", "") or current_baggage().get(RUN, "")
        return own_identity(environ, sys.argv, new=new_run(), job=options.job, run=asked, rank=options.rank)

    def _end(self, error: BaseException | None) -> None:
        if not self._is_open or (self._lap is not None and self._lap.tracker is not current()):
            return  # ended already; or a fork in the middle of it: it is the parent's
        self._is_open = False
        self.end_epoch(error or GeneratorExit())
        if self._carried is not None:
            self._carried.put_down()
        _current.set(self.current())
        self._look_at_budget()
        if self._lap is not None and self.prediction is not None:
            tracing.put(self._lap, self.prediction.attributes())
        self._span.__exit__(type(error) if error else None, error, None)
        self._experiments.end(self, self._patience)
        if self._summary != "none" and self.rank in {"", "0"}:
            self._span.wait(self._patience)
            tell_summary(self, self._summary)

    def _look_ahead(self, lap: Lap) -> None:
        """Predict with the epoch that is about to end, and see what is left of the budget."""
        engine = lap.tracker.engine
        price = engine.choice.price() if engine else None
        if price is not None:
            now, cost = time.monotonic(), self.cost or 0.0
            used = Used(self.duration_seconds, self.energy_kwh * JOULES_PER_KWH, self.co2e_grams, cost)
            self.prediction = predict(
                self._log,
                used,
                at=now,
                wall=time.time(),
                price=price,
                forecast=self._forecast,
                tariff=self._tariff,
            )
        if self.prediction is not None:
            tracing.put(lap, self.prediction.attributes())
            _log.info("run %s: %s", self.name, self.prediction)
            if self._record is not None and self._lap is not None:
                ahead = self.prediction
                self._record.expect(self._lap, ahead.energy_kwh.value * JOULES_PER_KWH, ahead.co2e_grams.value)

    def _look_at_budget(self) -> None:
        if self._budget is not None:
            self._budget.look(self.name, self.energy_kwh, self.co2e_grams, self.cost)
