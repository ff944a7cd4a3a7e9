"""A plain machine in a directory: /proc and /sys with the few files that the estimate reads, and a clock to turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from carbon_exporter.sensors.base import Host

__all__ = ["Clock", "Machine"]


@dataclass
class Clock:
    """A clock that stands still until it is turned."""

    now: float = 100.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@dataclass
class Machine:
    """`sockets` says for each CPU, in order, which package holds it."""

    root: Path
    model: str = "Intel(R) Xeon(R) Platinum 8280 CPU @ 2.70GHz"
    vendor_id: str = "GenuineIntel"
    virtual: bool = False
    sockets: Sequence[int] = (0, 0)
    memory_kib: int = 16 * 2**20
    clock: Clock = field(default_factory=Clock)
    ticks: dict[int, list[int]] = field(default_factory=dict)
    """The ten columns of /proc/stat by CPU."""

    def __post_init__(self) -> None:
        """Write the tree of a machine that was just started."""
        self.host.procfs.mkdir(parents=True)
        self.host.sysfs.mkdir()
        self.ticks = {cpu: [0] * 10 for cpu in range(len(self.sockets))}
        self.write_cpuinfo()
        self.write_stat()
        (self.host.procfs / "meminfo").write_text(f"MemTotal:       {self.memory_kib} kB\nMemFree: 1 kB\n")

    @property
    def host(self) -> Host:
        """What a sensor is given."""
        return Host(procfs=self.root / "proc", sysfs=self.root / "sys", clock=self.clock)

    def write_cpuinfo(self) -> None:
        """One block for each CPU that is online."""
        flags = "fpu hypervisor sse" if self.virtual else "fpu sse"
        named = f"vendor_id\t: {self.vendor_id}\nmodel name\t: {self.model}\nflags\t\t: {flags}\n" if self.model else ""
        blocks = (f"processor\t: {n}\nphysical id\t: {self.sockets[n]}\n{named}" for n in self.ticks)
        (self.host.procfs / "cpuinfo").write_text("\n".join(blocks))

    def write_stat(self) -> None:
        """One line for all CPUs and one for each that is online."""
        lines = [f"cpu{number} {' '.join(map(str, columns))}" for number, columns in self.ticks.items()]
        total = "cpu  " + " ".join(str(sum(column)) for column in zip(*self.ticks.values(), strict=True))
        (self.host.procfs / "stat").write_text(
            "\n".join([total, *lines, "intr 5 0 1", "ctxt 9", "btime 1700000000", ""])
        )

    def run(self, seconds: float, load: Mapping[int, float] | float) -> None:
        """Let time pass while CPUs are busy with user work; one that is not named is idle."""
        self.clock.now += seconds
        for number, columns in self.ticks.items():
            busy = round(seconds * 100 * (load if isinstance(load, float) else load.get(number, 0.0)))
            columns[0] += busy
            columns[3] += round(seconds * 100) - busy
        self.write_stat()

    def add_memory_blocks(self, *states: str, block_bytes: int = 2**27) -> None:
        """The kernel's list of memory blocks, each `online` or `offline`."""
        directory = self.host.sysfs / "devices" / "system" / "memory"
        directory.mkdir(parents=True)
        (directory / "block_size_bytes").write_text(f"{block_bytes:x}\n")
        for number, state in enumerate(states):
            (directory / f"memory{number}").mkdir()
            (directory / f"memory{number}" / "state").write_text(f"{state}\n")
