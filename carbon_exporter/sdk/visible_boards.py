"""The boards that a process may use, in the order in which its frameworks number them: by environment and by /proc.

| maker | environment | a number is a place |
|---|---|---|
| NVIDIA | `CUDA_VISIBLE_DEVICES`, within what the container was given | by PCI address (or, uncertain, by speed) |
| AMD | `HIP_VISIBLE_DEVICES` or CUDA's, within `ROCR_VISIBLE_DEVICES` | by PCI address; a die each on boards with two |
| Intel | `ZE_AFFINITY_MASK`: `0`, `0.1` (a tile) | by PCI address; a tile each unless the hierarchy is COMPOSITE |

What an NVIDIA container was given is told by the kernel (the directories of `/proc/driver/nvidia/gpus` whose device
nodes are there), else by `NVIDIA_VISIBLE_DEVICES`. With `all`, which every image of NVIDIA sets, nobody has said that
the boards are this process's: `Visible.named` is false.

A number is of use only where it can mean one board: among boards of one model, or with `CUDA_DEVICE_ORDER=PCI_BUS_ID`
(CUDA's own order has the fastest first). A container that has fewer render nodes than the machine has boards of AMD or
Intel numbers some of them only, and nothing tells which.

Sources: CUDA programming guide, "CUDA Environment Variables"; NVIDIA Container Toolkit, "Specialized configurations";
ROCm, "GPU isolation techniques"; Level Zero, core programming guide, "Environment variables"; pci.ids.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from carbon_exporter.jobs.cuda_devices import ALL, parse_visible
from carbon_exporter.sensors.base import Device

__all__ = ["Place", "Sight", "Visible", "boards_in_sight", "slice_share", "visible_boards"]

MAKERS = ("NVIDIA", "AMD", "Intel")
"""Whose numbers count on a machine with boards of several."""
TWO_DIES = re.compile(r"MI2[15]0X?\b", re.ASCII)
"""AMD's MI250 and MI250X: each die is a device of its own."""
TWO_TILES = re.compile(r"8086:0bd[5-8]", re.ASCII)
"""Intel's Data Center GPU Max 1550 and 1350."""
FOUR_SLICES = re.compile(r"\b(?:A30|RTX PRO 6000)\b", re.ASCII)
"""Boards with so many compute slices; the others that can be divided have seven."""
_PROFILE = re.compile(r"\b(?:MIG )?(?:(\d)c\.)?(\d)g\.\d+gb", re.ASCII)
_OLD_SLICE = re.compile(r"MIG-(GPU-[0-9a-fA-F-]{1,36})/", re.ASCII)
_MASK = re.compile(r"(\d{1,4})(?:\.(\d{1,4}))?", re.ASCII)


class Place(NamedTuple):
    """One entry of the list of visible boards."""

    device: str
    """Name of the board; empty if it is not known which."""
    share: float = 1.0
    """Of the board: less for a slice, a die, a tile."""
    exact: bool = True
    """Whether the share is known, not guessed."""


class Sight(NamedTuple):
    """What the kernel shows to this process."""

    nvidia: tuple[str, ...] | None = None
    """Uuids of NVIDIA's boards by PCI address, `""` for one not yet known; None where that is not told."""
    render_nodes: int | None = None
    """How many of `/dev/dri/renderD*` there are; None where that is not told."""


@dataclass(frozen=True, slots=True)
class Visible:
    """What a process may use."""

    places: tuple[Place, ...]
    """In the frameworks' order."""
    named: bool
    """Whether somebody chose these boards for this process; else they are simply all that there are."""
    machine: int
    """How many boards, or dies or tiles, the machine is known to have."""


def visible_boards(devices: Sequence[Device], environ: Mapping[str, str], sight: Sight) -> Visible:
    """The boards among `devices` that this environment leaves to a process.

    Args:
        devices: all that is measured on the machine.
        environ: the process's.
        sight: what the kernel shows to it.
    """
    boards = [device for device in devices if device.kind in {"gpu", "accelerator"}]
    for maker in MAKERS:
        own = sorted((board for board in boards if board.vendor == maker), key=_number)
        if own:
            return _FINDERS[maker](own, environ, sight)
    return Visible((), False, 0)


def slice_share(text: str, model: str) -> float | None:
    """A MIG slice's share of its board's compute slices, by the profile in a name (`… MIG 1g.10gb`); None without."""
    found = _PROFILE.search(text)
    whole = 4 if FOUR_SLICES.search(model) else 7
    return min(1.0, int(found[1] or found[2]) / whole) if found else None


@functools.lru_cache(maxsize=4)
def boards_in_sight(procfs: Path = Path("/proc"), devfs: Path = Path("/dev")) -> Sight:
    """Looks once a process: nobody gives boards to a container that runs.

    Containers see the host's /proc/driver unless that is mounted over, but only the device nodes they were given.
    """
    try:
        render = sum(1 for node in (devfs / "dri").iterdir() if node.name.startswith("renderD"))
    except OSError:
        render = None
    try:
        found = []
        for board in sorted((procfs / "driver" / "nvidia" / "gpus").iterdir()):
            facts = dict(_fact(line) for line in (board / "information").read_text(errors="replace").splitlines())
            if (devfs / f"nvidia{facts.get('Device Minor', '')}").exists():
                uuid = facts.get("GPU UUID", "")
                found.append("" if "?" in uuid else uuid)  # question marks until a driver has opened it
        return Sight(tuple(found) or None, render)
    except OSError:
        return Sight(None, render)


def _fact(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _number(board: Device) -> tuple[int, str]:
    """Boards are named in the order of their PCI addresses: `gpu10` comes after `gpu9`."""
    digits = re.search(r"\d+$", board.name)
    return (int(digits[0]) if digits else 0, board.name)


def _alike(boards: Sequence[Device]) -> bool:
    """Whether all are of one model, so that every order is by PCI address."""
    return len({board.model for board in boards}) == 1


def _of_nvidia(boards: list[Device], environ: Mapping[str, str], sight: Sight) -> Visible:
    given, named = _given_to_container(boards, environ, sight.nvidia)
    by_address = _alike(boards) or environ.get("CUDA_DEVICE_ORDER", "") == "PCI_BUS_ID" or len(given) == 1
    numbered = given if by_address else [Place("")] * len(given)
    text = environ.get("CUDA_VISIBLE_DEVICES")
    if text is not None:
        known = [board for board in boards if any(place.device == board.name for place in given)]
        return Visible(tuple(_picked(parse_visible(text), numbered, known)), True, len(boards))
    return Visible(tuple(given if named else numbered), named, len(boards))


def _given_to_container(
    boards: list[Device], environ: Mapping[str, str], seen: Sequence[str] | None
) -> tuple[list[Place], bool]:
    """What CUDA's numbers count from, and whether somebody named it."""
    everything = [Place(board.name) for board in boards]
    entries = parse_visible(environ.get("NVIDIA_VISIBLE_DEVICES", ALL))
    named = bool(entries) and entries != (ALL,)
    if seen is not None and len(seen) != len(boards):
        here = [next((board for board in boards if board.uuid == uuid), None) for uuid in seen]
        slices = [entry for entry in entries if entry.startswith("MIG-")]
        known = [board for board in here if board is not None]
        places = [Place(board.name if board else "") for board in here]
        return [_slice(entry, known) for entry in slices] or places, named
    whole = not any(entry.startswith("MIG-") or ":" in entry for entry in entries)
    if not named or (whole and len(entries) == len(boards)):
        return everything, named
    places = [place for entry in entries for place in _picked([entry], everything, boards) or [Place("")]]
    return sorted(places, key=everything.index) if set(places) <= set(everything) else places, True


def _picked(entries: Iterable[str], numbered: Sequence[Place], boards: Sequence[Device]) -> list[Place]:
    """The boards of a list of numbers, uuids and slices; the first that fits none, or several, ends it."""
    found: list[Place] = []
    for entry in entries:
        number, colon, _ = entry.partition(":")
        if number.isdecimal():
            places = list(numbered[int(number) : int(number) + 1])
            fitting = [_part(boards, place) for place in places] if colon else places
        elif entry.startswith("MIG-"):
            fitting = [_slice(entry, boards)]
        else:
            fitting = [Place(board.name) for board in boards if _is_called(board, entry)]
        if len(fitting) != 1:
            break
        found += fitting
    return found


def _is_called(board: Device, entry: str) -> bool:
    """By NVIDIA's uuid or a beginning of it, or `GPU-` and AMD's serial number."""
    uuid, text = board.uuid.lower(), entry.lower()
    return uuid.startswith(text) if uuid.startswith("gpu-") else uuid.removeprefix("0x") == text.removeprefix("gpu-")


def _slice(entry: str, boards: Sequence[Device]) -> Place:
    """The board of a MIG slice: its old form names it, else it must be the only one."""
    old = _OLD_SLICE.match(entry)
    named = [board for board in boards if old is None or board.uuid.lower() == old[1].lower()]
    return _part(boards, Place(named[0].name)) if len(named) == 1 else Place("")


def _part(boards: Sequence[Device], place: Place) -> Place:
    """One compute slice of a board: how many there are in a slice is not known here."""
    model = next((board.model for board in boards if board.name == place.device), "")
    return Place(place.device, slice_share("1g.1gb", model) or 1.0, exact=False)


def _of_amd(boards: list[Device], environ: Mapping[str, str], sight: Sight) -> Visible:
    parts = [Place(one.name, 1 / dies) for one in boards for dies in (_dies(one),) for _ in range(dies)]
    numbered = parts if _countable(boards, sight) else [Place("")] * len(parts)
    outer, inner = environ.get("ROCR_VISIBLE_DEVICES"), environ.get("HIP_VISIBLE_DEVICES")
    inner = environ.get("CUDA_VISIBLE_DEVICES") if inner is None else inner
    places = numbered if outer is None else _picked(parse_visible(outer), numbered, boards)
    places = places if inner is None else _picked(parse_visible(inner), places, boards)
    return Visible(tuple(places), outer is not None or inner is not None, len(parts))


def _of_intel(boards: list[Device], environ: Mapping[str, str], sight: Sight) -> Visible:
    tiles = {board.name: 2 if TWO_TILES.search(board.model) else 1 for board in boards}
    parts = [Place(one.name, 1 / tiles[one.name]) for one in boards for _ in range(tiles[one.name])]
    if environ.get("ZE_FLAT_DEVICE_HIERARCHY", "").upper() == "COMPOSITE":
        parts = [Place(board.name) for board in boards]
    numbered = parts if _countable(boards, sight) else [Place("")] * len(parts)
    mask = environ.get("ZE_AFFINITY_MASK")
    if mask is None:
        return Visible(tuple(numbered), False, len(parts))
    found: list[Place] = []
    for entry in mask.split(","):
        match = _MASK.fullmatch(entry.strip())
        if match and int(match[1]) < len(parts):
            whole = numbered[int(match[1])]
            found.append(whole if match[2] is None else Place(whole.device, 1 / tiles.get(whole.device, 1)))
    return Visible(tuple(found), True, len(parts))


def _dies(board: Device) -> int:
    return 2 if TWO_DIES.search(board.model) else 1


def _countable(boards: Sequence[Device], sight: Sight) -> bool:
    """Whether numbers count all boards of the machine, by PCI address."""
    return len(boards) == 1 or (_alike(boards) and (sight.render_nodes is None or sight.render_nodes >= len(boards)))


_FINDERS = {"NVIDIA": _of_nvidia, "AMD": _of_amd, "Intel": _of_intel}
