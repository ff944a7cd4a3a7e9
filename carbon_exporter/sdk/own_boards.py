"""What this process pays of each board. The first that knows says it, and the rest is not asked.

1. The script: `devices=` of its spans. Names (`gpu0`), uuids, or the numbers its frameworks use (`1`, `cuda:1`).
2. The driver, by its lists of processes, where it lists this process or its children on any board.
3. A framework that is at work (framework_boards.py).
4. The environment, where somebody chose boards for this process (visible_boards.py); nobody did by `all`. The ranks of
   a node that see the same boards divide them: `LOCAL_RANK` of torchrun, and Slurm's, Open MPI's and MPICH's likewise.
5. The one board that there is, if a framework for boards is loaded and no driver can be asked.

Else no board is ours. Of 2 the driver knows who shares; the others say 1, or a slice's part of its board, and are not
certain. A number that fits no board, or a board that is not measured, is passed over: rather a board is paid by nobody
here than a neighbour's is paid twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType

from carbon_exporter.sdk.base import BoardUse
from carbon_exporter.sdk.framework_boards import Working, framework_for_boards, working_boards
from carbon_exporter.sdk.visible_boards import Place, Sight, Visible, boards_in_sight, slice_share, visible_boards
from carbon_exporter.sensors.base import Device

__all__ = ["own_boards"]

RANKS = (
    ("LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ("SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
)
"""This process's number among those of its job on this node, and how many they are."""
SHORTEST_UUID = 8
_NUMBERED = re.compile(r"(?:(?:cuda|gpu|rocm|hip|xpu):)?(\d{1,4})", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"(\d{1,6})(?:\(x\d+\))?(?:,|$)", re.ASCII)
"""Slurm writes `4(x2)` for two nodes with four tasks each; what comes after is of other nodes."""


def own_boards(
    devices: Sequence[Device],
    told: BoardUse | None,
    environ: Mapping[str, str],
    wanted: Sequence[str | int] | None,
    modules: Mapping[str, ModuleType],
    *,
    sight: Callable[[], Sight] = boards_in_sight,
) -> BoardUse:
    """What this process pays of each board, in the order that this module states.

    Args:
        devices: all that is measured; only boards among them count.
        told: what the driver says of this process and its children; None if it cannot be asked.
        environ: this process's environment.
        wanted: what the script's spans ask for; None if they do not say, empty for no board.
        modules: `sys.modules`.
        sight: what the kernel shows to this process.
    """
    boards = {device.name: device for device in devices if device.kind in {"gpu", "accelerator"}}
    driver = {name: share for name, share in (told.shares if told else {}).items() if name in boards and share > 0}
    if wanted is not None:
        return _of_script(wanted, boards, driver, told, lambda: visible_boards(devices, environ, sight()))
    if driver and told is not None:
        return BoardUse(driver, told.certain)
    return _guessed(boards, visible_boards(devices, environ, sight()), environ, modules, told) if boards else BoardUse()


def _guessed(
    boards: Mapping[str, Device],
    visible: Visible,
    environ: Mapping[str, str],
    modules: Mapping[str, ModuleType],
    told: BoardUse | None,
) -> BoardUse:
    """What framework and environment make likely."""
    working = _joined(place for one in working_boards(modules) if (place := _place_of(one, visible, boards)))
    if working:
        return BoardUse(working, certain=False)
    if visible.named:
        return BoardUse(_joined(_of_this_rank(visible, environ)), certain=not visible.places)
    if len(visible.places) == 1 and told is None and framework_for_boards(modules):
        return BoardUse(_joined(_of_this_rank(visible, environ)), certain=False)
    return BoardUse(certain=told is not None)


def _of_script(
    wanted: Sequence[str | int],
    boards: Mapping[str, Device],
    driver: Mapping[str, float],
    told: BoardUse | None,
    visible: Callable[[], Visible],
) -> BoardUse:
    """What the script asked for; shared with others as far as the driver knows."""
    places, certain = [], True
    for one in wanted:
        place = _named(str(one), boards) if isinstance(one, str) else None
        number = None if place else _NUMBERED.fullmatch(str(one).strip())
        if number:
            places_of_numbers = visible().places
            place = next(iter(places_of_numbers[int(number[1]) :]), None)
        if place and place.device:
            places.append(place)
            certain = certain and place.exact
    shares = {name: driver.get(name, share) for name, share in _joined(places).items()}
    vague = told is not None and not told.certain and bool(driver.keys() & shares.keys())
    return BoardUse(shares, certain and not vague and len(places) == len(wanted))


def _named(text: str, boards: Mapping[str, Device]) -> Place | None:
    """A board by its name, its uuid or bus address, or a beginning of one that fits no other."""
    if text in boards:
        return Place(text)
    start = text.strip().lower()
    fitting = [board.name for board in boards.values() if board.uuid and board.uuid.lower().startswith(start)]
    return Place(fitting[0]) if len(fitting) == 1 and len(start) >= SHORTEST_UUID else None


def _place_of(one: Working, visible: Visible, boards: Mapping[str, Device]) -> Place | None:
    """Where a framework works: by the uuid it tells, else by its number. That of a slice is no board's."""
    is_slice = "MIG " in one.model
    numbered = next(iter(visible.places[one.number :]), None)
    named = next((Place(name) for name, board in boards.items() if one.uuid and board.uuid == one.uuid), None)
    place = named or (numbered if is_slice or not one.uuid else None)
    if place is None or not place.device or not is_slice:
        return place
    return Place(place.device, slice_share(one.model, boards[place.device].model) or place.share)


def _of_this_rank(visible: Visible, environ: Mapping[str, str]) -> Iterable[Place]:
    """The part of the visible boards that is this rank's.

    Ranks that see more boards than they are have as many each, in order. Where they see fewer, either each was given
    boards of its own, if the machine has so many, or all share them.
    """
    rank, size = _rank(environ)
    places = visible.places
    each, machine = len(places) // size, max(visible.machine, len(places))
    if size > 1 and each:
        return places[rank * each : (rank + 1) * each]
    part = min(1.0, machine / (size * len(places))) if places else 1.0
    return [place._replace(share=place.share * part) for place in places]


def _rank(environ: Mapping[str, str]) -> tuple[int, int]:
    """This process's number on its node and how many there are: (0, 1) outside distributed runs."""
    for rank, size in RANKS:
        number, count = (_NUMBER.match(environ.get(name, "")) for name in (rank, size))
        if number and count and int(number[1]) < int(count[1]):
            return int(number[1]), int(count[1])
    return 0, 1


def _joined(places: Iterable[Place]) -> dict[str, float]:
    """Shares by board: slices of one board add up."""
    shares: dict[str, float] = {}
    for place in places:
        if place.device:
            shares[place.device] = min(1.0, shares.get(place.device, 0.0) + place.share)
    return shares
