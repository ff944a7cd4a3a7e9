"""Lists of boards as CUDA, NVIDIA's container runtime and Slurm write them. Pure.

`CUDA_VISIBLE_DEVICES` (CUDA programming guide, "CUDA Environment Variables") is a comma-separated list of numbers,
uuids (`GPU-…`), beginnings of uuids that fit one board only, and slices (`MIG-…`; `MIG-GPU-<uuid>/<gi>/<ci>` before
driver 470). The first entry that is not valid ends it; an empty list is no board at all. `NVIDIA_VISIBLE_DEVICES`
(container toolkit) has the same and `all`, `none`, `void`, and `<board>:<slice>` by numbers.

A number is a place in an order, and there are two: by PCI address, which is NVML's, and CUDA's own, the fastest board
first, unless `CUDA_DEVICE_ORDER` is `PCI_BUS_ID`. On a machine with boards of one model they are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["ALL", "Resolution", "parse_slurm_gpus", "parse_visible", "resolve"]

ALL = "all"
"""The entry of `NVIDIA_VISIBLE_DEVICES` that means every board."""

MOST_ENTRIES = 256
MOST_CHARACTERS = 16384

_ENTRY = re.compile(
    r"[0-9]{1,5}"
    r"|[0-9]{1,5}:[0-9]{1,3}"
    r"|GPU-[0-9a-fA-F-]{1,36}"
    r"|MIG-GPU-[0-9a-fA-F-]{1,36}/[0-9]{1,3}/[0-9]{1,3}"
    r"|MIG-[0-9a-fA-F-]{1,36}"
)
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Resolution:
    """Which boards a list means on this machine."""

    uuids: tuple[str, ...]
    """Of boards in full; of slices as they were given."""
    certain: bool = True
    """False if numbers were taken in the order of PCI addresses and may have been meant in CUDA's own."""


def parse_visible(text: str) -> tuple[str, ...]:
    """The entries of a list up to the first that is not valid, each once, as they were given; `("all",)` for all.

    Empty for the empty list, `none`, `void`, `-1`, `NoDevFiles` and whatever else is no device.
    """
    if text.strip().lower() == ALL:
        return (ALL,)
    found: dict[str, None] = {}
    for part in text[:MOST_CHARACTERS].split(",")[:MOST_ENTRIES]:
        entry = part.strip()
        if not _ENTRY.fullmatch(entry):
            break
        found[str(int(entry)) if entry.isdecimal() else entry] = None
    return tuple(found)


def parse_slurm_gpus(text: str) -> tuple[str, ...]:
    """The numbers of `SLURM_JOB_GPUS` and its kin, in order, each once: `0,1`, `0-3`; none if it is no such list."""
    found: dict[str, None] = {}
    for part in text[:MOST_CHARACTERS].split(",")[:MOST_ENTRIES]:
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            return ()
        first = int(match[1])
        last = int(match[2] or first)
        if not first <= last < first + MOST_ENTRIES:
            return ()
        found.update(dict.fromkeys(str(number) for number in range(first, last + 1)))
    return tuple(found)[:MOST_ENTRIES]


def resolve(visible: Sequence[str], boards: Sequence[str], environment: Mapping[str, str] | None = None) -> Resolution:
    """The boards, by uuid, that a parsed list means.

    Args:
        visible: what `parse_visible` returned.
        boards: the uuids of all boards in the order of their PCI addresses, as NVML numbers them.
        environment: of the same process, for `CUDA_DEVICE_ORDER`. Without it, numbers are not certain on a machine
            with several boards.

    As for CUDA itself, an entry that fits no board, or more than one, ends the list. Slices stay as they are: which
    there are is not known here. `<board>:<slice>` by numbers is passed over: no list of slices is at hand.
    """
    if tuple(visible) == (ALL,):
        return Resolution(tuple(boards))
    found: dict[str, None] = {}
    certain = True
    by_address = (environment or {}).get("CUDA_DEVICE_ORDER", "") == "PCI_BUS_ID" or len(boards) == 1
    for entry in visible:
        if ":" in entry:
            continue
        uuid = _resolve_one(entry, boards)
        if uuid is None:
            break
        certain = certain and (by_address or not entry.isdecimal())
        found[uuid] = None
    return Resolution(tuple(found), certain)


def _resolve_one(entry: str, boards: Sequence[str]) -> str | None:
    if entry.startswith("MIG-"):
        return entry
    if entry.isdecimal():
        number = int(entry)
        return boards[number] if number < len(boards) else None
    fitting = [uuid for uuid in boards if uuid.lower().startswith(entry.lower())]
    return fitting[0] if len(fitting) == 1 else None
