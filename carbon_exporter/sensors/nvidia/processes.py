"""Who is on a board: the processes that have a context on it, and how much of its compute time each used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from carbon_exporter.sensors.base import Occupant
from carbon_exporter.sensors.nvidia.nvml import Handle, Nvml
from carbon_exporter.sensors.nvidia.refusals import Refusals
from carbon_exporter.sensors.nvidia.wire import ProcessEntry, UtilizationEntry

__all__ = ["PROCESSES", "Processes", "mean_utilization", "merge", "occupants_of_parts", "occupants_of_whole"]

PROCESSES = "list of its processes"
UTILIZATION = "utilisation by process"


class Processes:
    """Of one board. All raise `NvmlError`; for one thread."""

    def __init__(self, nvml: Nvml, refusals: Refusals) -> None:
        """Nothing was seen yet."""
        self._nvml = nvml
        self._refusals = refusals
        self._seen = 0
        """Microseconds of the driver's clock up to which samples were taken."""
        self._lists: tuple[tuple[ProcessEntry, ...], ...] = ()
        self._merged: tuple[ProcessEntry, ...] = ()
        """What these lists say together."""

    def entries(self, board: Handle) -> tuple[ProcessEntry, ...] | None:
        """Processes with a compute, graphics or MPS context, each once; None where the driver lists none."""
        ask, listed = self._refusals.ask, self._nvml.processes
        compute = ask(PROCESSES, listed, board, "Compute")
        if compute is None:
            return None
        graphics = ask("list of graphics processes", listed, board, "Graphics") or ()
        mps = ask("list of MPS processes", listed, board, "MPSCompute") or ()
        if (compute, graphics, mps) != self._lists:  # they seldom change
            self._lists, self._merged = (compute, graphics, mps), merge((*compute, *graphics, *mps))
        return self._merged

    def utilization(self, board: Handle) -> Mapping[int, float] | None:
        """Share of the board's compute time since the last call, by pid; None where the driver does not tell."""
        samples = self._refusals.ask(UTILIZATION, self._nvml.samples, board, self._seen)
        if samples is None:
            return None
        fresh = [sample for sample in samples if sample.at > self._seen]
        self._seen = max((sample.at for sample in fresh), default=self._seen)
        return mean_utilization(fresh)


def merge(entries: Iterable[ProcessEntry]) -> tuple[ProcessEntry, ...]:
    """Each process once in each GPU instance; one that is also listed without an instance is in that which it has."""
    unique = dict.fromkeys(entries)
    placed = {entry.pid for entry in unique if entry.placed}
    return tuple(entry for entry in unique if entry.placed or entry.pid not in placed)


def mean_utilization(samples: Iterable[UtilizationEntry]) -> dict[int, float]:
    """The mean of each process's samples, 0 to 1."""
    by_pid: dict[int, list[int]] = {}
    for sample in samples:
        by_pid.setdefault(sample.pid, []).append(sample.percent)
    return {pid: sum(percents) / len(percents) / 100 for pid, percents in by_pid.items()}


def occupants_of_whole(entries: Iterable[ProcessEntry], used: Mapping[int, float] | None) -> tuple[Occupant, ...]:
    """The processes on a board that is whole; one without a sample did not compute."""
    pids = dict.fromkeys([entry.pid for entry in entries])
    return tuple([Occupant(pid, None if used is None else used.get(pid, 0.0)) for pid in pids])


def occupants_of_parts(entries: Iterable[ProcessEntry]) -> tuple[Occupant, ...]:
    """The processes on a board that is divided, each in its partition."""
    return tuple(Occupant(entry.pid, partition=f"gi{entry.instance}" if entry.placed else "") for entry in entries)
