"""Which estimate fits a processor: by its thermal design power where the model is known, else by watts per CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from carbon_exporter.sensors.base import Device, Quality
from carbon_exporter.sensors.cpu_table import find
from carbon_exporter.sensors.cpuinfo import CpuInfo
from carbon_exporter.sensors.load_curve import WATTS_PER_CPU_BUSY, WATTS_PER_CPU_IDLE, unknown_watts, watts_by_tdp
from carbon_exporter.units import Watts

__all__ = ["Socket", "estimate_socket", "survey"]


@dataclass(frozen=True, slots=True)
class Socket:
    """One processor, and how its load becomes power."""

    device: Device
    cpus: tuple[int, ...]
    quality: Quality
    watts: Callable[[float], Watts]
    """Power at a load of 0 to 1."""


def survey(info: CpuInfo, cpus: Iterable[int]) -> tuple[Socket, ...]:
    """One `Socket` for each physical package that holds any of `cpus`, by package number."""
    packages: dict[int, list[int]] = {}
    for cpu in sorted(cpus):
        packages.setdefault(info.socket_of.get(cpu, 0), []).append(cpu)
    return tuple(estimate_socket(info, number, tuple(members)) for number, members in sorted(packages.items()))


def estimate_socket(info: CpuInfo, number: int, cpus: tuple[int, ...]) -> Socket:
    """The estimate for package `number`.

    A virtual machine has only a part of a processor: TDP x its CPUs / the threads of the model, which are taken to be
    2 x cores. Where the table has no core count there, that part is unknown, and so is the power.
    """
    match = find(info.model, info.vendor)
    if match is None:
        why = f"the table of TDPs does not know {info.model!r}" if info.model else "the kernel does not name the model"
        return _by_cpus(info, number, cpus, why)
    row = match.row
    found = f"load curve on TDP {row.tdp:g} W ({row.model}, {match.how})"
    if not info.virtual:
        return _by_tdp(info, number, cpus, row.tdp, f"{found}, {_plural(len(cpus))}")
    if row.cores is None:
        why = f"the table of TDPs has no core count for {row.model}, of which this virtual machine has a part"
        return _by_cpus(info, number, cpus, why)
    threads = 2 * row.cores
    extent = f"{len(cpus)} of {threads} threads of a virtual machine's host, 2 a core assumed"
    part = Watts(row.tdp * min(len(cpus) / threads, 1.0))
    return _by_tdp(info, number, cpus, part, f"{found}, {extent}")


def _by_tdp(info: CpuInfo, number: int, cpus: tuple[int, ...], tdp: Watts, method: str) -> Socket:
    return Socket(_processor(info, number, method), cpus, Quality.MODELLED, partial(watts_by_tdp, tdp))


def _by_cpus(info: CpuInfo, number: int, cpus: tuple[int, ...], why: str) -> Socket:
    method = f"{WATTS_PER_CPU_IDLE} to {WATTS_PER_CPU_BUSY} W per CPU by load, {_plural(len(cpus))}: {why}"
    return Socket(_processor(info, number, method), cpus, Quality.DEFAULT, partial(unknown_watts, len(cpus)))


def _processor(info: CpuInfo, number: int, method: str) -> Device:
    return Device(f"cpu{number}", "cpu", "model", vendor=info.vendor, model=info.model, method=method)


def _plural(cpus: int) -> str:
    return f"{cpus} CPU" if cpus == 1 else f"{cpus} CPUs"
