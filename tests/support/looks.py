"""Looks at boards: who is on one, by pid and job, and who pays for it."""

from __future__ import annotations

from collections.abc import Sequence

from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.jobs.attribute import split
from carbon_exporter.jobs.base import UNATTRIBUTED, Allocation, Job
from carbon_exporter.jobs.boards import Boards, hold, look_at
from carbon_exporter.sensors.base import Device, Occupancy, Occupant, Partition, Quality
from carbon_exporter.units import Joules

__all__ = [
    "BOARD",
    "GPU",
    "PIDS",
    "SLICE",
    "A",
    "B",
    "C",
    "Shares",
    "charged",
    "job_of",
    "mig",
    "on",
    "paid",
    "seen",
    "still",
    "watched",
]

BOARD, SLICE = "GPU-gpu0", "MIG-gi1"
"""Of the first board, and of its partition `gi1`."""
A, B, C = Job("a"), Job("b"), Job("c", "team")
PIDS: dict[int, Job] = {1: A, 2: A, 3: B, 4: B, 5: C, 9: UNATTRIBUTED}
"""Two processes of job a, two of b, one of c, and one that nobody knows."""
GPU = Device("gpu0", "gpu", "nvidia")

Shares = dict[Job, float]


def job_of(pid: int) -> Job:
    return PIDS.get(pid, UNATTRIBUTED)


def on(*occupants: tuple[int, float | None] | tuple[int, float | None, str]) -> tuple[Occupant, ...]:
    """Processes by pid and utilisation, and on a divided board by partition."""
    return tuple(Occupant(*one) for one in occupants)


def mig(*partitions: tuple[str, float, float | None]) -> tuple[Partition, ...]:
    """Partitions by name, sevenths of the compute units, and utilisation."""
    return tuple(Partition(name, sevenths / 7, f"{sevenths}g", f"MIG-{name}", u) for name, sevenths, u in partitions)


def seen(
    *occupants: tuple[int, float | None] | tuple[int, float | None, str],
    at: float = 0.0,
    partitions: tuple[Partition, ...] = (),
    device: str = "gpu0",
) -> Occupancy:
    return Occupancy(device, at, on(*occupants), partitions, f"GPU-{device}")


def watched(*looks: Occupancy, allocations: Sequence[Allocation] = ()) -> Boards:
    """Boards that were looked at one after the other."""
    boards = Boards()
    for look in looks:
        boards.look([look], job_of, allocations)
    return boards


def paid(before: Occupancy, now: Occupancy, *allocations: Allocation) -> Shares:
    """Who pays for the time between two looks, to the nanoshare, of those who pay anything."""
    shares = hold(look_at(before, job_of, allocations), look_at(now, job_of, allocations)).shares
    return {job: round(share, 9) for job, share in shares.items() if share > 1e-12}


def still(now: Occupancy, *allocations: Allocation) -> Shares:
    """The same where nothing has changed."""
    return paid(now, now, *allocations)


def charged(boards: Boards, joules: float, start: float, end: float, *, caught_up: bool = False) -> Shares:
    """Joules by job, to the nanojoule."""
    energy = EnergySlice(GPU, start, end, Joules(joules), Quality.MEASURED, caught_up)
    parts = split(energy, (), "separate", boards.holdings("gpu0"))
    return {part.job: round(part.joules, 9) for part in parts if part.joules > 1e-9}
