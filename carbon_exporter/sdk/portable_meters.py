"""The estimate for a process on macOS or Windows: processors by model and load, memory by its size, through psutil.

It is the same estimate as that of `sensors/model.py`, with the same figures, on other sources: the processor's name is
the operating system's, the load is that of all CPUs together. All of it is labelled MODELLED or DEFAULT.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import NamedTuple

from carbon_exporter.errors import SensorUnavailable
from carbon_exporter.jobs.base import IdlePolicy
from carbon_exporter.sdk.base import Machine
from carbon_exporter.sensors.base import Device, Host, Kind, Quality, Reading, Sample, Sensor
from carbon_exporter.sensors.cpu_estimate import estimate_socket
from carbon_exporter.sensors.cpuinfo import CpuInfo
from carbon_exporter.sensors.load_curve import DRAM_WATTS_PER_GIB
from carbon_exporter.units import Watts

__all__ = ["PortableModel", "machine", "probe", "processor_name"]

GIB = 2**30
SHORTEST_PERIOD = 0.2
"""Seconds: the clocks of load are coarse, and a shorter period says nothing of it."""
NAME_BYTES = 256


class _Mark(NamedTuple):
    at: float
    busy: float
    total: float


def probe(host: Host, covered: frozenset[Kind]) -> PortableModel:
    """A model of what is not `covered` of cpu and dram. Raises `SensorUnavailable` if psutil cannot tell the load."""
    del covered  # nothing else measures anything here
    try:
        return PortableModel(host)
    except (ImportError, OSError, RuntimeError) as error:
        raise SensorUnavailable(f"psutil cannot be used: {error}", remedy="pip install psutil") from error


def machine(idle: IdlePolicy) -> Machine:
    """This machine as psutil sees it."""
    import psutil  # noqa: PLC0415 - heavy

    return Machine(psutil.cpu_count() or 1, float(psutil.virtual_memory().total), idle)


class PortableModel(Sensor):
    """The sensor: all processors as one device, and the memory. For one thread."""

    name = "model"

    def __init__(self, host: Host) -> None:
        """Raises what psutil raises where it cannot tell the load."""
        import psutil  # noqa: PLC0415 - heavy

        self._host = host
        self._cpu_times = psutil.cpu_times
        name = processor_name()
        self._socket = estimate_socket(CpuInfo(model=name), 0, tuple(range(psutil.cpu_count() or 1)))
        gib = psutil.virtual_memory().total / GIB
        method = f"{DRAM_WATTS_PER_GIB} W per GiB at any load, {gib:.4g} GiB (psutil)"
        self._memory = Device("dram0", "dram", "model", method=method)
        self._memory_watts = Watts(gib * DRAM_WATTS_PER_GIB)
        self._memory_since: float | None = None
        self._mark: _Mark | None = None
        self._look()

    @property
    def devices(self) -> tuple[Device, ...]:
        """Processors, then memory."""
        return (self._socket.device, self._memory)

    @property
    def quality(self) -> Quality:
        """That of the memory, which is the worse."""
        return Quality.DEFAULT

    def read(self) -> Sample:
        """Mean power since the previous read; a mark for the processors at first, or if that was too short ago."""
        look, mark = self._look(), self._mark
        since, self._memory_since = self._memory_since, look.at
        memory = Reading(self._memory, look.at, Quality.DEFAULT, power=self._memory_watts, since=since)
        socket = self._socket
        if mark is not None and look.at - mark.at < SHORTEST_PERIOD:
            return Sample((Reading(socket.device, look.at, socket.quality), memory))
        self._mark = look
        if mark is None or look.total <= mark.total:
            return Sample((Reading(socket.device, look.at, socket.quality), memory))
        load = (look.busy - mark.busy) / (look.total - mark.total)
        reading = Reading(socket.device, look.at, socket.quality, power=socket.watts(load), since=mark.at)
        return Sample((reading, memory))

    def _look(self) -> _Mark:
        """CPU seconds of all CPUs: guest time is in user's and nice's already, waiting and stolen time cost nothing."""
        at, times = self._host.clock(), self._cpu_times()._asdict()
        idle = sum(times.get(name, 0.0) for name in ("idle", "iowait", "steal"))
        inside = sum(times.get(name, 0.0) for name in ("guest", "guest_nice"))
        within = sum(times.get(name, 0.0) for name in ("interrupt", "dpc")) if sys.platform == "win32" else 0.0
        total = sum(times.values()) - inside - within
        return _Mark(at, total - idle, total)


def processor_name() -> str:
    """What the operating system calls the processor; empty if it does not say it."""
    try:
        return " ".join((_name_of_this_system() or platform.processor()).split())
    except OSError:
        return ""


def _name_of_this_system() -> str:
    if sys.platform == "darwin":
        text, size = ctypes.create_string_buffer(NAME_BYTES), ctypes.c_size_t(NAME_BYTES)
        library = ctypes.CDLL(None)
        failed = library.sysctlbyname(b"machdep.cpu.brand_string", text, ctypes.byref(size), None, ctypes.c_size_t(0))
        return "" if failed else text.value.decode("utf-8", "replace")
    if sys.platform == "win32":
        import winreg  # noqa: PLC0415 - Windows has it

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0])
    return ""
