"""A machine with AMD boards: their cards in a tree, the same boards in a fake of AMD's library, and a clock to turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from support.drm import AMD_FILES, DrmTree
from support.fakeamdsmi import FakeAmdSmi
from support.played import Ticking, play
from support.traces import Trace, burst, constant, square

from carbon_exporter.sensors.amd import Amd, probe
from carbon_exporter.sensors.base import Host, Kind, Quality, Sensor

__all__ = [
    "FIRST",
    "FOURTH",
    "NOTHING",
    "NOT_SUPPORTED",
    "SECOND",
    "THIRD",
    "TRACES",
    "TRACE_NAMES",
    "AmdMachine",
    "kinds",
    "names",
]

NOTHING: frozenset[Kind] = frozenset()
FIRST, SECOND, THIRD, FOURTH = "0000:03:00.0", "0000:43:00.0", "0000:83:00.0", "0000:c3:00.0"
NOT_SUPPORTED = 2
"""AMDSMI_STATUS_NOT_SUPPORTED."""
TRACES = [constant(520.0), square(120.0, 700.0, 0.7), burst(90.0, 650.0, 0.4, 5.3)]
TRACE_NAMES = ["constant", "square", "burst"]


class AmdMachine:
    """Whatever is added is in both, until a test says otherwise."""

    def __init__(self, root: Path) -> None:
        """No board yet; everybody may be seen."""
        self.tree = DrmTree(root / "sys")
        self.clock = Ticking()
        (root / "proc" / "1" / "fdinfo").mkdir(parents=True)
        self.host = Host(procfs=root / "proc", sysfs=self.tree.sysfs, clock=self.clock)
        self.fake = FakeAmdSmi(root / "state", [])
        self.addresses: list[str] = []

    def add(self, *addresses: str, device_id: int = 0x74A1, files: Mapping[str, object] | None = None) -> None:
        for address in addresses:
            self.tree.add(address, "amdgpu", AMD_FILES if files is None else files, device_id=device_id)
        self.addresses = sorted([*self.addresses, *addresses])
        self.fake.show(self.addresses)

    def remove(self, address: str) -> None:
        self.tree.remove(address)
        self.addresses.remove(address)
        self.fake.show(self.addresses)

    def fleet(self, covered: frozenset[Kind] = NOTHING) -> Amd:
        return probe(self.host, covered)

    def draw(self, number: int, watts: float, seconds: float, *, counted: float | None = None) -> None:
        """A board draws `watts` from now on, and has drawn `counted` (by default the same) for `seconds`."""
        board = self.fake.boards[number]
        board.accumulator += round((watts if counted is None else counted) * seconds * 1e6 / board.resolution)
        board.current_power = round(watts)

    def writer(self, number: int, trace: Trace, *, scale: float = 1.0) -> Callable[[float], None]:
        """Registers of a board that draws a trace: a counter each millisecond, power in whole watts."""

        def write(now: float) -> None:
            self.fake.count(number, scale * trace.joules(0.0, now // 0.001 * 0.001))
            self.fake.boards[number].current_power = round(trace.power(now))

        return write

    def believe(self, board: Sensor, number: int = 0) -> None:
        """Let a board's counter pass its trial at 100 W."""
        play(board, self.clock, self.writer(number, constant(100.0)), seconds=15.0)
        assert board.quality is Quality.MEASURED


def names(fleet: Amd) -> list[str]:
    return [device.name for board in fleet.members for device in board.devices]


def kinds(fleet: Amd) -> list[type]:
    return [type(board) for board in fleet.members]
