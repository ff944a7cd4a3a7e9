"""What a board's driver offers to measure power and energy, and one look at it: a single call a tick.

The counter is the truth where there is one: field 191 (energy, by scope), else 83, else the function. On a
Grace-Hopper module the plain counter covers GPU, processor and memory together; the GPU alone is preferred where the
driver tells it. Without a counter, power: field 186 (this instant), else the function, which since Ampere (but GA100)
gives the mean of the last second. Field ids and scopes: nvml.h, NVML_FI_DEV_* and NVML_POWER_SCOPE_*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from carbon_exporter.sensors.base import Quality
from carbon_exporter.sensors.nvidia.nvml import Code, Handle, Nvml, NvmlError
from carbon_exporter.sensors.nvidia.refusals import PERMISSION_REMEDY
from carbon_exporter.sensors.nvidia.wire import FieldValue
from carbon_exporter.units import Joules, Watts

__all__ = ["UNLIMITED", "Look", "Meter"]

ENERGY, TOTAL_ENERGY = 191, 83
AVERAGE, INSTANT = 185, 186
LARGEST_LIMIT, CURRENT_LIMIT = 188, 190
GPU, MODULE = 0, 1

EXCURSION = 2.0
"""A limit holds on average over its time window; for shorter a board exceeds it."""
UNLIMITED = Watts(3000.0)
"""The bound where no limit is told: far above any board, so that only nonsense exceeds it."""

MILLI = 1e3
_COUNTER_TOP = float(1 << 63)
"""Millijoules that no counter reaches: beyond are marks of a value that is not there."""
_NO_POWER = 0xFFFF_FFFF
_UNKNOWN_FIELD = Code.REFUSALS | {Code.INVALID_ARGUMENT, -1}
"""What drivers answer to a field that they do not have."""
_ASKED = (
    *((field, scope) for field in (ENERGY, AVERAGE, INSTANT, CURRENT_LIMIT, LARGEST_LIMIT) for scope in (GPU, MODULE)),
    (TOTAL_ENERGY, GPU),
)

_Fields = Mapping[tuple[int, int], FieldValue]


@dataclass(frozen=True, slots=True)
class Look:
    """What the meter said at one look; None for what it did not."""

    energy: Joules | None = None
    average: Watts | None = None
    """Over the last second."""
    power: Watts | None = None
    """At this instant, or what comes nearest."""
    limit: Watts | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What of the driver's offers is used."""

    energy: tuple[int, int] | None = None
    """Field and scope of the counter."""
    energy_call: bool = False
    power: tuple[int, int] | None = None
    power_call: bool = False
    average: tuple[int, int] | None = None
    limit: tuple[int, int] | None = None
    scope: int = GPU

    @property
    def counts(self) -> bool:
        return self.energy is not None or self.energy_call

    @property
    def fields(self) -> tuple[tuple[int, int], ...]:
        """Asked in the one call of a tick."""
        return tuple(field for field in (self.energy, self.average, self.power, self.limit) if field is not None)

    @property
    def quality(self) -> Quality | None:
        if self.counts:
            return Quality.MEASURED
        return Quality.INTEGRATED if self.power or self.power_call else None

    @property
    def method(self) -> str:
        scope = ", the whole module: GPU, processor and memory in one number" if self.scope == MODULE else ""
        if self.counts:
            source = f"field {self.energy[0]}" if self.energy else "nvmlDeviceGetTotalEnergyConsumption"
            return f"NVML's energy counter ({source}{scope})"
        if self.power:
            return f"NVML's power at an instant (field {self.power[0]}{scope}), sampled and integrated"
        return "NVML's power (nvmlDeviceGetPowerUsage), sampled and integrated" if self.power_call else ""


class Meter:
    """Power and energy of one board. All its calls raise `NvmlError`; for one thread."""

    def __init__(self, nvml: Nvml, model: str) -> None:
        """Nothing is asked yet: that is `resolve`."""
        self._nvml = nvml
        self._grace_hopper = "GH200" in model
        self._plan: _Plan | None = None
        self._fields: tuple[tuple[int, int], ...] = ()
        """Asked in the one call of a tick."""
        self._refused: int | None = None
        self._largest: Watts | None = None
        self.limit: Watts | None = None
        """The enforced limit as slow data, where no field of the tick's call tells it."""
        self.max_power = UNLIMITED
        """More than this the board cannot draw."""
        self.quality: Quality | None = None
        """None before it is known, and where there is neither energy nor power."""
        self.counts = False
        """Whether there is a counter."""
        self.samples = False
        """Whether there is power only."""
        self.method = ""
        """Where its numbers come from, for people."""
        self.notes: tuple[str, ...] = ()
        """What it cannot give."""

    @property
    def resolved(self) -> bool:
        """Whether it is known what the driver offers."""
        return self._plan is not None

    @property
    def window(self) -> float:
        """Seconds of which the power is the mean: 1 where the function gives that, as where field 185 is known."""
        plan = self._plan
        return 1.0 if plan is not None and plan.power is None and plan.power_call and plan.average else 0.0

    @property
    def of_module(self) -> bool:
        """Whether its numbers contain a processor and its memory."""
        return self._plan is not None and self._plan.scope == MODULE

    def resolve(self, board: Handle) -> None:
        """Find out what the driver offers. Trouble that may pass leaves the question open."""
        fields = self._ask_all(board)
        self._learn_limits(board, fields)
        plan = _Plan() if self._refused is not None else self._counter(board, fields)
        self._settle(self._with_power(board, plan, fields))

    def look(self, board: Handle) -> Look:
        """Ask once. A counter that is refused for good is given up: power is sampled from then on."""
        plan = self._plan or _Plan()
        if not self._fields:
            return Look(self._call_energy(board), None, self._call_power(board))
        fields = _by_field(self._nvml.fields(board, self._fields))
        energy = self._told_energy(board, plan, fields)
        average = self._watts(_value(fields, plan.average))
        power = self._told_power(board, plan, fields)
        return Look(energy, average, power, _watts(_value(fields, plan.limit)))

    def energy(self, board: Handle) -> Joules | None:
        """The counter alone, between two looks; None where there is none. A refusal is left to the next look."""
        plan = self._plan
        if plan is None or not plan.counts:
            return None
        if plan.energy is None:
            return _joules(self._nvml.total_energy(board))
        (told,) = self._nvml.fields(board, (plan.energy,))
        if told.code:
            raise NvmlError(told.code, "nvmlDeviceGetFieldValues")
        return _joules(told.value)

    def power(self, board: Handle) -> Watts | None:
        """Power alone, for a sample between two looks; None if the driver answered nonsense."""
        plan = self._plan
        if plan is None or plan.power is None:
            return self._call_power(board)
        return self._told_power(board, plan, _by_field(self._nvml.fields(board, (plan.power,))))

    def learn_limits(self, board: Handle) -> None:
        """Ask for the limit where no field of the tick's call tells it: slow data."""
        if self._plan is not None and self._plan.limit is None:
            self._set_limits(self._largest, _watts(_willing(self._nvml.enforced_limit, board)))

    def _settle(self, plan: _Plan) -> None:
        """Go on with this plan. What follows from it is wanted several times a tick, so it is found out once."""
        self._plan, self._fields = plan, plan.fields
        self.counts, self.quality = plan.counts, plan.quality
        self.samples = plan.quality is Quality.INTEGRATED
        self.method, self.notes = plan.method, _notes(plan, self._refused)

    def _set_limits(self, largest: Watts | None, limit: Watts | None) -> None:
        known = [one for one in (largest, limit) if one]
        self._largest, self.limit = largest, limit
        self.max_power = Watts(EXCURSION * max(known)) if known else UNLIMITED

    def _ask_all(self, board: Handle) -> _Fields:
        """All fields that may be of use; none if the driver does not know fields at all."""
        try:
            return _by_field(self._nvml.fields(board, _ASKED))
        except NvmlError as error:
            if error.code in Code.REFUSALS:
                return {}
            raise

    def _learn_limits(self, board: Handle, fields: _Fields) -> None:
        told = [_watts(_value(fields, (LARGEST_LIMIT, scope))) for scope in (GPU, MODULE)]
        known = [limit for limit in told if limit]
        largest = max(known) if known else _watts(_willing(self._nvml.largest_limit, board))
        limit = None if _limit_field(fields) else _watts(_willing(self._nvml.enforced_limit, board))
        self._set_limits(largest, limit)

    def _counter(self, board: Handle, fields: _Fields) -> _Plan:
        """The counter to use, the GPU's own if it can be had."""
        for place in ((ENERGY, GPU), (ENERGY, MODULE), (TOTAL_ENERGY, GPU)):
            told = fields.get(place)
            if told is not None and told.code and told.code not in _UNKNOWN_FIELD:
                raise NvmlError(told.code, "nvmlDeviceGetFieldValues")
            if told is not None and not told.code:
                module = place[1] == MODULE or (place[0] == TOTAL_ENERGY and self._is_module(fields))
                return _Plan(energy=place, scope=MODULE if module else GPU)
        try:
            self._nvml.total_energy(board)
        except NvmlError as error:
            if error.code not in Code.REFUSALS:
                raise
            self._refused = error.code
            return _Plan()
        return _Plan(energy_call=True, scope=MODULE if self._is_module(fields) else GPU)

    def _is_module(self, fields: _Fields) -> bool:
        """Whether a plain counter covers a module: the driver knows one, or the board is of a kind that has one."""
        return self._grace_hopper or any(_value(fields, (field, MODULE)) is not None for field in (AVERAGE, INSTANT))

    def _with_power(self, board: Handle, plan: _Plan, fields: _Fields) -> _Plan:
        """The same plan with power: of the counter's scope, or without a counter of the narrowest."""
        scopes = (plan.scope,) if plan.counts else (GPU, MODULE)
        average = next((a for scope in scopes if _value(fields, a := (AVERAGE, scope)) is not None), None)
        instant = next((i for scope in scopes if _value(fields, i := (INSTANT, scope)) is not None), None)
        limit = _limit_field(fields)
        if plan.counts:
            return _Plan(plan.energy, plan.energy_call, instant, False, average, limit, plan.scope)
        if instant is not None:
            return _Plan(power=instant, average=average, limit=limit, scope=instant[1])
        has_power = _willing(self._nvml.power, board) is not None
        return _Plan(power_call=has_power, average=average, limit=limit)

    def _told_energy(self, board: Handle, plan: _Plan, fields: _Fields) -> Joules | None:
        if plan.energy is None:
            return self._call_energy(board)
        told = fields.get(plan.energy)
        if told is not None and told.code in Code.REFUSALS:
            self._give_up_counter(board, told.code)
            return None
        if told is None or told.code:
            raise NvmlError(told.code if told else Code.UNKNOWN, "nvmlDeviceGetFieldValues")
        return _joules(told.value)

    def _told_power(self, board: Handle, plan: _Plan, fields: _Fields) -> Watts | None:
        """Power by a field; beside a counter its silence is no trouble, without one it is."""
        told = fields.get(plan.power) if plan.power is not None else None
        if plan.counts or (told is not None and not told.code):
            return self._watts(_value(fields, plan.power))
        if told is not None and told.code not in Code.REFUSALS:
            raise NvmlError(told.code, "nvmlDeviceGetFieldValues")
        if told is not None:
            self.resolve(board)
        return self._call_power(board)

    def _call_energy(self, board: Handle) -> Joules | None:
        if self._plan is None or not self._plan.energy_call:
            return None
        try:
            return _joules(self._nvml.total_energy(board))
        except NvmlError as error:
            if error.code not in Code.REFUSALS:
                raise
            self._give_up_counter(board, error.code)
            return None

    def _give_up_counter(self, board: Handle, code: int) -> None:
        self._refused = code
        self.resolve(board)

    def _call_power(self, board: Handle) -> Watts | None:
        return self._watts(self._nvml.power(board)) if self._plan is not None and self._plan.power_call else None

    def _watts(self, milliwatts: float | None) -> Watts | None:
        """Power that the board can draw; anything else is silence."""
        watts = _watts(milliwatts)
        return watts if watts is not None and watts <= self.max_power else None


def _notes(plan: _Plan, refused: int | None) -> tuple[str, ...]:
    """What a meter with this plan cannot give; `refused` is why there is no counter."""
    notes = []
    if plan.scope == MODULE:
        notes.append("its energy is that of the whole module, processor and memory included")
    if plan.quality is Quality.INTEGRATED:
        why = Code.MEANING[refused or Code.NOT_SUPPORTED]
        remedy = f"; {PERMISSION_REMEDY}" if refused == Code.NO_PERMISSION else ""
        notes.append(f"no energy counter ({why}), power is sampled and integrated{remedy}")
    if plan.quality is None:
        notes.append("the driver tells neither energy nor power of it, as of many virtual GPUs")
    return tuple(notes)


def _willing(call: Callable[[Handle], int], board: Handle) -> int | None:
    """What a call gives; None if the driver refuses it for good."""
    try:
        return call(board)
    except NvmlError as error:
        if error.code in Code.REFUSALS:
            return None
        raise


def _by_field(told: tuple[FieldValue, ...]) -> _Fields:
    return {(one.field, one.scope): one for one in told}


def _value(fields: _Fields, place: tuple[int, int] | None) -> float | None:
    told = fields.get(place) if place is not None else None
    return None if told is None or told.code else told.value


def _limit_field(fields: _Fields) -> tuple[int, int] | None:
    return next((place for scope in (GPU, MODULE) if _watts(_value(fields, place := (CURRENT_LIMIT, scope)))), None)


def _joules(millijoules: float) -> Joules:
    if not 0 <= millijoules < _COUNTER_TOP:
        raise NvmlError(Code.UNKNOWN, "the energy counter: no value that can be")
    return Joules(millijoules / MILLI)


def _watts(milliwatts: float | None) -> Watts | None:
    """Watts; None for what is negative or a mark of no value (all bits set)."""
    if milliwatts is None or not 0 <= milliwatts < _NO_POWER or not math.isfinite(milliwatts):
        return None
    return Watts(milliwatts / MILLI)
