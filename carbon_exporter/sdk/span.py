"""`carbon_span`: what a block of a script costs.

    with carbon_span("epoch") as span:
        span.record(loss=train())
    print(span.energy_kwh, span.co2e_grams)

Nothing here raises into the program, but for a decorator on what it cannot measure. What a lap needs is light to load;
the rest is loaded by a thread of ours (tracker.py).
"""

from __future__ import annotations

import sys
import time
from contextvars import ContextVar
from threading import get_ident

from carbon_exporter.sdk import tracing
from carbon_exporter.sdk.laps import Lap
from carbon_exporter.sdk.tracker import current, own_clock
from carbon_exporter.sdk.trouble import trouble

TYPE_CHECKING = False  # as type checkers know it; a training script pays for every import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Any, TypeVar

    from typing_extensions import Self

    from carbon_exporter.sdk.lanes import Lane
    from carbon_exporter.sdk.reckoning import Figures
    from carbon_exporter.sdk.tracker import Tracker

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["CarbonSpan", "carbon_span", "innermost_block"]

_open: ContextVar[Lane | None] = ContextVar("carbon_span", default=None)
"""The innermost lap of this thread or task; it may have ended where blocks do not nest."""


class CarbonSpan:
    """What `carbon_span` returns: a context manager, an async one and a decorator; it may be entered many times.

    Its numbers are those of the newest lap in this thread or task, else of the newest at all: while it runs, until
    now; after its end first as far as is known then, and settled with the next reading of the meters.
    """

    __slots__ = ("__weakref__", "_attributes", "_devices", "_job", "_laps", "_last", "_name", "_sync")

    def __init__(
        self,
        name: str,
        *,
        job: str | None = None,
        devices: Sequence[str | int] | None = None,
        attributes: Mapping[str, object] | None = None,
        sync: bool | Callable[[], object] | None = None,
    ) -> None:
        """As `carbon_span`."""
        self._name, self._job, self._attributes, self._sync = str(name), job, attributes, sync
        self._devices = [devices] if isinstance(devices, (str, int)) else devices
        self._laps: list[Lap] = []
        """Those that are open."""
        self._last: Lap | None = None

    def __enter__(self) -> Self:
        """Begin a lap."""
        try:
            self._enter()
        except Exception as error:  # noqa: BLE001 - a guest does not break the house
            trouble("entering a span", error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the lap; what was raised inside goes on as it is."""
        try:
            self._leave(error)
        except Exception as trouble_of_ours:  # noqa: BLE001 - likewise
            trouble("leaving a span", trouble_of_ours)

    async def __aenter__(self) -> Self:
        """Begin a lap; waits for nothing."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the lap; waits for nothing."""
        self.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        """Measure each call of a function, plain or async.

        Raises:
            TypeError: it is a generator, which runs in pieces between which others run; or nothing to be called.
        """
        from carbon_exporter.sdk.decorating import measured  # noqa: PLC0415 - inspect takes longer than all the rest

        return measured(self, function)

    def __reduce__(self) -> tuple[object, ...]:
        """A copy is a span of the same name that was never entered."""
        return _again, (self._name, self._job, self._devices, self._attributes, self._sync)

    def __repr__(self) -> str:
        state = "open" if self._laps else "settled" if self.settled else "ended" if self._last else "not entered"
        return f"<carbon_span {self._name!r} {state}>"

    def record(self, **values: float) -> None:
        """Keep the newest of each value (`loss`, `accuracy`): finite numbers, 8 names at most; others are left out."""
        try:
            lap = self._lap()
            if lap is None:
                raise RuntimeError("the span was not entered")  # noqa: TRY301 - one place where it is logged
            lap.record(values)
        except Exception as error:  # noqa: BLE001 - likewise
            trouble(f"recording values of {self._name!r}", error)

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def energy_kwh(self) -> float:
        """Energy that this process and those it started used, in kWh; children's spans included."""
        figures = self._figures()
        return _kwh(figures.energy) if figures else 0.0

    @property
    def co2e_grams(self) -> float:
        """Grams of CO2 equivalent: energy x the grid's intensity when it was used x PUE."""
        figures = self._figures()
        return float(figures.grams) if figures else 0.0

    @property
    def duration_seconds(self) -> float:
        """Wall-clock seconds from enter to exit, or until now."""
        lap = self._lap()
        if lap is None:
            return 0.0
        return max(0.0, (lap.ended[0] if lap.ended else time.monotonic()) - lap.began[0])

    @property
    def power_watts(self) -> float:
        """Mean power in watts."""
        figures = self._figures()
        return figures.energy / figures.seconds if figures and figures.seconds > 0 else 0.0

    @property
    def energy_by_device(self) -> dict[str, float]:
        """Energy in kWh by device: `{"gpu0": …, "cpu0": …}`."""
        figures = self._figures()
        return {device: _kwh(joules) for device, joules in figures.joules.items()} if figures else {}

    @property
    def energy_by_kind(self) -> dict[str, float]:
        """Energy in kWh by kind of device: gpu, cpu, dram, accelerator, other."""
        figures = self._figures()
        return {kind: _kwh(joules) for kind, joules in figures.kinds.items()} if figures else {}

    @property
    def quality(self) -> str:
        """The worst of its devices: measured, integrated, modelled, default; none without any energy."""
        figures = self._figures()
        return figures.quality if figures else "none"

    @property
    def uncertainty(self) -> float:
        """Joules that the energy may be off by in 95 of 100 cases, by when meters move; without their own tolerance."""
        figures = self._figures()
        return float(figures.uncertainty) if figures else 0.0

    @property
    def shared(self) -> bool:
        """Whether something was divided by equal parts among spans that ran at once."""
        figures = self._figures()
        return figures.shared if figures else False

    @property
    def settled(self) -> bool:
        """Whether all readings for the newest lap are in."""
        lap = self._lap()
        return lap is not None and lap.figures is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the newest lap is settled, at most `timeout` seconds; whether it is. Not while it is open."""
        try:
            lap = self._lap()
            if lap is None or lap.ended is None:
                return False
            return lap.tracker.wait(lap, timeout)
        except Exception as error:  # noqa: BLE001 - likewise
            trouble("waiting for a span", error)
            return False

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain values, ready for JSON; `uncertainty` in joules, energy in kWh."""
        lap = self._lap()
        names = ("energy_kwh", "co2e_grams", "duration_seconds", "power_watts", "energy_by_device", "energy_by_kind")
        more = ("quality", "uncertainty", "shared", "settled")
        values: dict[str, Any] = {name: getattr(self, name) for name in (*names, *more)}
        return {"name": self._name, **values, "values": dict(lap.values) if lap else {}}

    def _enter(self) -> None:
        if self._sync:
            _synchronize(self._sync)
        tracker = current()
        lap = Lap(
            self._name, get_ident(), own_clock(), job=self._job, devices=self._devices, attributes=self._attributes
        )
        lap.tracker = tracker
        parent = tracing.innermost(innermost_block(tracker))
        tracing.begin(lap)
        tracker.enter(lap, parent)
        self._laps.append(lap)
        self._last = lap
        _open.set(lap)

    def _leave(self, error: BaseException | None) -> None:
        lap = self._opened()
        if lap is None:
            raise RuntimeError(f"{self._name!r} was left and is not open")
        if self._sync:
            _synchronize(self._sync)
        self._laps.remove(lap)
        if lap.tracker is not current():
            return  # a fork in the middle of it: it is the parent's
        lap.tracker.leave(lap)
        above = _open.get()
        while above is not None and above.ended is not None:
            above = above.parent
        _open.set(above)
        tracing.end(lap, error)

    def _opened(self) -> Lap | None:
        """The open lap of this object that was entered last here; from elsewhere, the last at all."""
        lane = _open.get()
        while lane is not None:
            if isinstance(lane, Lap) and lane in self._laps:
                return lane
            lane = lane.parent
        return self._laps[-1] if self._laps else None

    def _lap(self) -> Lap | None:
        """The lap that the numbers are of."""
        return (self._opened() if self._laps else None) or self._last

    def _figures(self) -> Figures | None:
        try:
            lap = self._lap()
            return lap.tracker.figures(lap) if lap else None
        except Exception as error:  # noqa: BLE001 - likewise
            trouble("reckoning a span", error)
            return None


def carbon_span(
    name: str,
    *,
    job: str | None = None,
    devices: Sequence[str | int] | None = None,
    attributes: Mapping[str, object] | None = None,
    sync: bool | Callable[[], object] | None = None,
) -> CarbonSpan:
    """What a block, or each call of a function, costs: `with`, `async with`, or `@`.

    Args:
        name: Of the span, and of the OpenTelemetry span. Few different ones: each has series of its own.
        job: Whose span it is, where that is not this process's job.
        devices: The boards that the block uses: `["gpu0"]`, uuids, or numbers as the framework counts them. Without
            it as the driver, the framework and the environment tell.
        attributes: Of the OpenTelemetry span.
        sync: `True` waits for the boards at both edges (the framework's synchronize), or a callable that does.
    """
    return CarbonSpan(name, job=job, devices=devices, attributes=attributes, sync=sync)


def innermost_block(tracker: Tracker) -> Lap | None:
    """The innermost lap of this thread or task, which may have ended; none of the process this was forked from."""
    lap = _open.get()
    return lap if isinstance(lap, Lap) and lap.tracker is tracker else None


def _again(name: str, job: str | None, devices: Any, attributes: Any, sync: Any) -> CarbonSpan:
    return CarbonSpan(name, job=job, devices=devices, attributes=attributes, sync=sync)


def _synchronize(sync: bool | Callable[[], object]) -> None:
    """Wait until the boards are done: by a callable, or by what the loaded framework has for it."""
    try:
        if callable(sync):
            sync()
            return
        torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        if jax is not None:
            jax.effects_barrier()
    except Exception as error:  # noqa: BLE001 - what is wrong with the boards, the program's next call says
        trouble("synchronizing at a span's edge", error)


def _kwh(joules: float) -> float:
    from carbon_exporter.units import Joules, kilowatt_hours  # noqa: PLC0415 - loads typing

    return float(kilowatt_hours(Joules(joules)))
