"""AMD's own library: the one file that calls `amdsmi`, the ctypes binding of libamd_smi.so.

To import the binding loads the library, prints, and raises whatever it likes if the library is missing or of another
version than the binding; to call it may raise more. Nothing but our errors leaves this file.
Functions and units: the reference of AMD SMI for Python, rocm.docs.amd.com/projects/amdsmi.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import math
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from carbon_exporter.errors import SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.units import MICROJOULES_PER_JOULE, Joules, Watts

__all__ = [
    "Session",
    "SourceRefused",
    "joules_counted",
    "own_pids",
    "share_active",
    "watts_drawn",
    "watts_of_limit",
]

_log = logging.getLogger(__name__)
Value = TypeVar("Value")

NOT_SUPPORTED, NOT_YET_IMPLEMENTED, NO_PERMISSION = 2, 3, 10
NOT_INITIALISED, DRIVER_NOT_LOADED, NO_DRIVER = 32, 34, 51
"""Codes of amdsmi_status_t (amdsmi.h)."""
ALL_ONES_64 = 0xFFFF_FFFF_FFFF_FFFF
ALL_ONES = frozenset({0xFFFF, 0xFFFF_FFFF, ALL_ONES_64})
"""What registers of 16, 32 and 64 bits hold for a value that the firmware does not give."""
LIMIT_IN_MICROWATTS = 10_000
"""Limits come in watts or microwatts, by version: no board's is as high as 10 kW or as low as 10 mW."""
RENEWAL_PATIENCE_SECONDS = 1.0
"""How long a call waits for a session that is just begun anew."""

ADDRESS = re.compile(r"[0-9a-f]{4,12}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)

ACCESS_REMEDY = "give the exporter /dev/kfd and /dev/dri: groups video and render, or --device in a container"
LIBRARY_REMEDY = (
    "install ROCm's amd-smi-lib and a binding that is not newer: pip install 'carbon-exporter[amd]' 'amdsmi<=VERSION'"
)


class SourceRefused(SensorReadError):
    """This board, driver or version does not give it, now or later."""


def joules_counted(answer: Mapping[str, Any]) -> Joules | None:
    """Joules of `amdsmi_get_energy_count`: ticks x microjoules per tick. None for nonsense.

    Up to version 6.2 the ticks are called `power`.
    """
    ticks = _number(answer.get("energy_accumulator", answer.get("power")), frozenset({ALL_ONES_64}))
    resolution = _number(answer.get("counter_resolution"))
    if ticks is None or resolution is None or resolution <= 0:
        return None
    return Joules(ticks * resolution / MICROJOULES_PER_JOULE)


def watts_drawn(answer: Mapping[str, Any], most: Watts) -> Watts | None:
    """Watts of `amdsmi_get_power_info`: average, whose samples miss less, else current, else the socket's.

    None if it gives none: `N/A`, all ones, zero (a die whose sibling reports for both) or more than `most`.
    """
    for key in ("average_socket_power", "current_socket_power", "socket_power"):
        watts = _number(answer.get(key))
        if watts is not None and 0 < watts <= most:
            return Watts(watts)
    return None


def watts_of_limit(answer: Mapping[str, Any]) -> tuple[Watts | None, Watts | None]:
    """The limit that is set and the highest that may be set, of `amdsmi_get_power_cap_info`; None if not known."""
    return _limit(answer.get("power_cap")), _limit(answer.get("max_power_cap"))


def share_active(answer: Mapping[str, Any]) -> float | None:
    """Share of the time in which the shaders computed, 0 to 1, of `amdsmi_get_gpu_activity`; None if not known."""
    percent = _number(answer.get("gfx_activity"))
    return None if percent is None or percent > 100 else percent / 100  # noqa: PLR2004 - percent


def own_pids(answer: object) -> tuple[int, ...]:
    """The processes of `amdsmi_get_gpu_process_list`, each once, without this one, which only looks."""
    entries = answer if isinstance(answer, (list, tuple)) else ()
    pids = (entry.get("pid") for entry in entries if isinstance(entry, Mapping))
    return tuple(dict.fromkeys(pid for pid in pids if isinstance(pid, int) and pid > 0 and pid != os.getpid()))


class Session:
    """The library in this process. Boards call it from threads of their own; a call that hangs stops only itself."""

    def __init__(self) -> None:
        """Loads nothing yet."""
        self._binding: Any = None
        self._handles: dict[str, Any] = {}
        self.lost = False
        """Whether the library has forgotten its session, or a fork has left it to the parent."""
        self._gate = threading.Condition()
        self._under_way = 0
        self._renewing = False
        _sessions.add(self)

    @property
    def addresses(self) -> frozenset[str]:
        """PCI addresses of the processors that it sees; partitions of a board differ in the function."""
        return frozenset(self._handles)

    def begin(self) -> None:
        """Load the library and list the processors.

        Raises `SensorUnavailable` if it is not there or does not work, `SensorPermission` if it may not be used.
        """
        binding = self._binding or _import()
        try:
            binding.amdsmi_init()
            self._handles = dict(_processors(binding))
        except Exception as error:  # noqa: BLE001 - the binding may raise anything
            raise _translated_start(error) from None
        self._binding, self.lost = binding, False

    def renew(self) -> bool:
        """Begin anew, so that boards that came are seen; not while a call is under way, because it would crash.

        Whether it was done. Raises as `begin` does.
        """
        with self._gate:
            if self._under_way or self._renewing:
                return False
            self._renewing = True
        try:
            if self._binding is not None and not self.lost:
                with contextlib.suppress(Exception):
                    self._binding.amdsmi_shut_down()
            self._handles = {}
            self.begin()
        finally:
            with self._gate:
                self._renewing = False
                self._gate.notify_all()
        return True

    def end(self) -> None:
        """Give the library back, unless a call hangs in it."""
        with self._gate:
            if self._binding is None or self._under_way or self._renewing or self.lost:
                return
            self._handles = {}
            with contextlib.suppress(Exception):
                self._binding.amdsmi_shut_down()

    def energy(self, address: str) -> Joules | None:
        """The energy counter in joules; None for nonsense."""
        return self._call(address, lambda binding, handle: joules_counted(binding.amdsmi_get_energy_count(handle)))

    def power(self, address: str, most: Watts) -> Watts | None:
        """The power now; None if the board gives none."""
        return self._call(address, lambda binding, handle: watts_drawn(binding.amdsmi_get_power_info(handle), most))

    def limits(self, address: str) -> tuple[Watts | None, Watts | None]:
        """The limit that is set, and the highest that may be set."""
        return self._call(address, lambda binding, handle: watts_of_limit(binding.amdsmi_get_power_cap_info(handle)))

    def activity(self, address: str) -> float | None:
        """Share of the time in which it computed, 0 to 1."""
        return self._call(address, lambda binding, handle: share_active(binding.amdsmi_get_gpu_activity(handle)))

    def memory_used(self, address: str) -> int | None:
        """Bytes of the board's own memory."""

        def ask(binding: Any, handle: Any) -> int | None:
            used = _number(binding.amdsmi_get_gpu_memory_usage(handle, binding.AmdSmiMemoryType.VRAM))
            return None if used is None else int(used)

        return self._call(address, ask)

    def temperature(self, address: str) -> float | None:
        """Degrees Celsius of the hottest spot."""

        def ask(binding: Any, handle: Any) -> float | None:
            kind, metric = binding.AmdSmiTemperatureType.HOTSPOT, binding.AmdSmiTemperatureMetric.CURRENT
            degrees = _number(binding.amdsmi_get_temp_metric(handle, kind, metric))
            return degrees if degrees is not None and degrees < 1000 else None  # noqa: PLR2004 - nothing is so hot

        return self._call(address, ask)

    def pids(self, address: str) -> tuple[int, ...]:
        """Processes that have it open, as far as this process may see them."""
        return self._call(address, lambda binding, handle: own_pids(binding.amdsmi_get_gpu_process_list(handle)))

    def uuid(self, address: str) -> str:
        """Its uuid."""
        return str(self._call(address, lambda binding, handle: binding.amdsmi_get_gpu_device_uuid(handle)))

    def model(self, address: str) -> str:
        """Its name on the market, empty if it does not say."""
        told = self._call(address, lambda binding, handle: binding.amdsmi_get_gpu_asic_info(handle).get("market_name"))
        return told if isinstance(told, str) and told != "N/A" else ""

    def _call(self, address: str, ask: Callable[[Any, Any], Value]) -> Value:
        """Raises `SourceRefused` for what will never come and `SensorReadError` for what failed now."""
        with self._entered():
            handle = self._handles.get(address)
            if handle is None or self.lost:
                raise SensorReadError(f"AMD's library does not list {address} now")
            try:
                return ask(self._binding, handle)
            except Exception as error:  # noqa: BLE001 - the binding may raise anything
                translated = _translated(error)
                self.lost = self.lost or _code(error) == NOT_INITIALISED
            raise translated

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        gate = self._gate
        with gate:
            if not gate.wait_for(lambda: not self._renewing, RENEWAL_PATIENCE_SECONDS):
                raise SensorReadError("AMD's library is being started anew")
            self._under_way += 1
        try:
            yield
        finally:
            with gate:
                self._under_way -= 1

    def abandon(self) -> None:
        """In a forked child: the session is the parent's, and so are the threads that may have held the lock."""
        self._gate = threading.Condition()
        self._under_way = 0
        self._renewing = False
        self.lost = True


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _abandon_all() -> None:
    for session in tuple(_sessions):
        session.abandon()


os.register_at_fork(after_in_child=_abandon_all)


def _import() -> Any:
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            return importlib.import_module("amdsmi")
    except ModuleNotFoundError as error:
        raise SensorUnavailable(f"the package {error.name} is not installed", remedy=LIBRARY_REMEDY) from None
    except Exception as error:  # noqa: BLE001 - it does not guard what it loads
        lines = said.getvalue().strip().splitlines()
        reason = lines[0] if lines else f"{type(error).__name__}: {error}"
        raise SensorUnavailable(f"the package amdsmi cannot be loaded: {reason}", remedy=LIBRARY_REMEDY) from None


def _processors(binding: Any) -> Iterator[tuple[str, Any]]:
    for handle in binding.amdsmi_get_processor_handles():
        try:
            address = str(binding.amdsmi_get_gpu_device_bdf(handle)).lower()
        except Exception as error:  # noqa: BLE001 - one that does not tell its address costs only itself
            _log.debug("amd: a processor does not tell its address: %s", _reason(error))
            continue
        if ADDRESS.fullmatch(address):
            yield address, handle


def _translated_start(error: Exception) -> SensorUnavailable | SensorPermission:
    code = _code(error)
    if code == NO_PERMISSION:
        return SensorPermission(f"AMD's library may not be used: {_reason(error)}", remedy=ACCESS_REMEDY)
    remedy = "sudo modprobe amdgpu" if code in {DRIVER_NOT_LOADED, NO_DRIVER} else LIBRARY_REMEDY
    return SensorUnavailable(f"AMD's library does not start: {_reason(error)}", remedy=remedy)


def _translated(error: Exception) -> SensorReadError:
    code, reason = _code(error), _reason(error)
    if code == NO_PERMISSION:
        return SourceRefused(reason, remedy=ACCESS_REMEDY)
    if code in {NOT_SUPPORTED, NOT_YET_IMPLEMENTED} or isinstance(error, AttributeError):
        return SourceRefused(reason)
    return SensorReadError(reason)


def _code(error: Exception) -> int | None:
    code = getattr(error, "err_code", None)
    return code if isinstance(code, int) else None


def _reason(error: Exception) -> str:
    """On one line: the name of a status, or what Python says."""
    told = getattr(error, "err_info", None)
    return f"{told} ({_code(error)})" if told else f"{type(error).__name__}: {error}".replace("\n", " ")


def _limit(value: object) -> Watts | None:
    number = _number(value)
    if not number:
        return None
    return Watts(number / 1e6 if number >= LIMIT_IN_MICROWATTS else number)


def _number(value: object, unknown: frozenset[int] = ALL_ONES) -> float | None:
    """A number that can be one; None for `N/A`, nonsense, what is below zero, and a register that says `unknown`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value in unknown:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
