"""The estimate for machines without meters: processors by model and load, memory by its size.

It fills in for what no better sensor covers. Every figure is an estimate and is labelled so: MODELLED where the
processor's model is known, DEFAULT where only a constant is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from carbon_exporter.errors import SensorError, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Device, Host, Kind, Quality, Reading, Sample, Sensor
from carbon_exporter.sensors.cpu_estimate import Socket, survey
from carbon_exporter.sensors.cpu_load import CpuTicks, busy_share, read_ticks
from carbon_exporter.sensors.cpuinfo import read_cpuinfo
from carbon_exporter.sensors.load_curve import DRAM_WATTS_PER_GIB
from carbon_exporter.sensors.memory_size import installed_memory
from carbon_exporter.units import Watts

__all__ = ["Memory", "Model", "probe"]

SHORTEST_PERIOD = 0.2
"""Seconds. A clock tick is 10 ms: a shorter period has fewer than 20 of them, and says nothing of the load."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of the machine and what it is taken to draw, at any load."""

    device: Device
    watts: Watts


@dataclass(frozen=True, slots=True)
class _Mark:
    at: float
    ticks: Mapping[int, CpuTicks]


def probe(host: Host, covered: frozenset[Kind]) -> Model:
    """A model of what is not `covered` of cpu and dram.

    Raises `SensorUnavailable` if nothing is left to model or nothing can be seen, `SensorPermission` if it may not be.
    """
    if covered >= {"cpu", "dram"}:
        raise SensorUnavailable("everything here is measured")
    try:
        sockets = () if "cpu" in covered else survey(read_cpuinfo(host), read_ticks(host))
    except SensorReadError as error:
        raise SensorUnavailable(error.reason, remedy=error.remedy) from error
    memory = None if "dram" in covered else _memory(host)
    if not sockets and memory is None:
        raise SensorUnavailable(f"{host.procfs}/meminfo does not tell how much memory is installed")
    return Model(host, sockets, memory)


class Model(Sensor):
    """The sensor. One thread at a time may read it, whichever that is."""

    name = "model"

    def __init__(self, host: Host, sockets: tuple[Socket, ...], memory: Memory | None) -> None:
        """`sockets` is empty, or `memory` None, where a better sensor covers them."""
        self._host = host
        self._sockets = sockets
        self._memory = memory
        self._mark: _Mark | None = None
        self._memory_since: float | None = None

    @property
    def devices(self) -> tuple[Device, ...]:
        """Processors by socket number, then memory. A hot plug describes a processor anew under its old name."""
        processors = tuple(socket.device for socket in self._sockets)
        return (*processors, self._memory.device) if self._memory else processors

    @property
    def quality(self) -> Quality:
        """The worst of its devices' qualities."""
        modelled = not self._memory and all(socket.quality is Quality.MODELLED for socket in self._sockets)
        return Quality.MODELLED if modelled else Quality.DEFAULT

    def read(self) -> Sample:
        """Mean power since the previous read; a mark for each processor at first, or if that was less than 0.2 s ago.

        Raises `SensorReadError` if the load cannot be read and no memory is modelled.
        """
        at = self._host.clock()
        memory = self._read_memory(at)
        if not self._sockets:
            return Sample(memory)
        try:
            return Sample((*self._read_sockets(at), *memory))
        except SensorError as error:
            if not memory:
                raise SensorReadError(error.reason, remedy=error.remedy) from error
            names = (socket.device.name for socket in self._sockets)
            return Sample(memory, tuple(SensorReadError(error.reason, device=n, remedy=error.remedy) for n in names))

    def close(self) -> None:
        """Nothing is held between reads."""

    def _read_sockets(self, at: float) -> tuple[Reading, ...]:
        ticks = read_ticks(self._host)
        if not ticks.keys() <= {cpu for socket in self._sockets for cpu in socket.cpus}:
            self._sockets = survey(read_cpuinfo(self._host), ticks)
        mark = self._mark
        if mark is not None and at - mark.at < SHORTEST_PERIOD:
            return tuple(Reading(socket.device, at, socket.quality) for socket in self._sockets)
        self._mark = _Mark(at, ticks)
        return tuple(_reading(socket, at, ticks, mark) for socket in self._sockets)

    def _read_memory(self, at: float) -> tuple[Reading, ...]:
        if self._memory is None:
            return ()
        since, self._memory_since = self._memory_since, at
        return (Reading(self._memory.device, at, Quality.DEFAULT, power=self._memory.watts, since=since),)


def _reading(socket: Socket, at: float, ticks: Mapping[int, CpuTicks], mark: _Mark | None) -> Reading:
    load = None if mark is None else busy_share(mark.ticks, ticks, socket.cpus)
    if mark is None or load is None:
        return Reading(socket.device, at, socket.quality)
    return Reading(socket.device, at, socket.quality, power=socket.watts(load), since=mark.at)


def _memory(host: Host) -> Memory | None:
    size = installed_memory(host)
    if size is None:
        return None
    method = f"{DRAM_WATTS_PER_GIB} W per GiB at any load, {size.gib:.4g} GiB installed ({size.source})"
    return Memory(Device("dram0", "dram", "model", method=method), Watts(size.gib * DRAM_WATTS_PER_GIB))
