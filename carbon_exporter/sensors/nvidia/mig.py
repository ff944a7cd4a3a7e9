"""A board that is divided in hardware (MIG): its partitions, their shares, and how busy each is.

A partition is a GPU instance. Its share of the board is its compute slices over those of the whole board, which are as
many as MIG devices can be made of it: the slices of a full board add up to 1, though some of its multiprocessors can
belong to no slice. The layout may change at any time: it is read again piece by piece, so that no tick costs much.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from carbon_exporter.sensors.base import Partition
from carbon_exporter.sensors.nvidia.nvml import Code, Handle, Nvml, NvmlError
from carbon_exporter.sensors.nvidia.refusals import Refusals
from carbon_exporter.sensors.nvidia.wire import Attributes

__all__ = ["Division", "profile_of"]

_PROFILE = re.compile(r"\bMIG (\d{1,2}(?:c\.\d{1,2})?g\.\d{1,4}gb\S*)", re.ASCII)
_MOST_DEVICES = 64
CALLS_A_PIECE = 4
"""To look at one MIG device: handle, instance, size, uuid; and its name if it is new."""
CALLS_A_SAMPLE = 2
CALLS_OF_THE_FIRST = 3
"""Memory for two samples, and one is taken."""
GPM = "utilisation by partition"


@dataclass(slots=True)
class _Samples:
    """GPM's memory for one GPU instance: the sample before and the room for the next."""

    earlier: Handle
    later: Handle
    taken: bool = False
    """Whether `earlier` holds a sample."""


class Division:
    """The partitions of one board. All raise `NvmlError`; for one thread."""

    def __init__(self, nvml: Nvml, refusals: Refusals) -> None:
        """Nothing is known yet."""
        self._nvml = nvml
        self._refusals = refusals
        self._partitions: dict[int, Partition] | None = None
        self._reading: Iterator[dict[int, Partition] | None] | None = None
        self._busy: dict[int, float | None] = {}
        self._samples: dict[int, _Samples] = {}
        self._has_gpm: bool | None = None
        self._turn = 0
        self._whole = 0
        self._sizes: dict[int, Attributes] = {}
        self._strangers: frozenset[int] = frozenset()

    @property
    def known(self) -> bool:
        """Whether the layout has been read."""
        return self._partitions is not None

    def outdated(self, instances: Iterable[int]) -> bool:
        """Whether these GPU instances tell that the layout has changed; instances it never has tell so once."""
        before, self._strangers = self._strangers, frozenset(instances) - (self._partitions or {}).keys()
        return not self.known or bool(self._strangers - before)

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """In the order of their ids, with their last utilisation."""
        found = sorted((self._partitions or {}).items())
        return tuple(replace(partition, utilization=self._busy.get(number)) for number, partition in found)

    def forget(self) -> None:
        """Handles and samples of before are of no use."""
        self._reading, self._samples, self._has_gpm = None, {}, None

    def read_at_once(self, board: Handle) -> None:
        """Read the whole layout."""
        self._reading = None
        for layout in self._read(board):
            if layout is not None:
                self._take(layout)

    def read_on(self, board: Handle, calls: int, *, begin: bool) -> None:
        """Go on reading within so many calls; `begin` a new reading if none is under way."""
        if self._reading is None and begin:
            self._reading = self._read(board)
        until = self._nvml.calls + calls
        while self._reading is not None and self._nvml.calls + CALLS_A_PIECE <= until:
            try:
                layout = next(self._reading)
            except NvmlError:
                self._reading = None
                raise
            if layout is not None:
                self._take(layout)

    def look(self, board: Handle, calls: int) -> None:
        """Take samples of utilisation within so many calls; what is left has its turn at the next look."""
        instances = sorted(self._partitions or {})
        if not instances or not self._refusals.ask(GPM, self._supported, board):
            return
        until = self._nvml.calls + calls
        for _ in instances:
            instance = instances[self._turn % len(instances)]
            if self._nvml.calls + (CALLS_A_SAMPLE if instance in self._samples else CALLS_OF_THE_FIRST) > until:
                return
            self._turn += 1
            self._busy[instance] = self._refusals.ask(GPM, self._utilization, board, instance)

    def _take(self, layout: dict[int, Partition]) -> None:
        self._reading = None
        if layout != self._partitions:
            self._partitions = layout
            self._busy = {number: self._busy.get(number) for number in layout}
            self._samples = {number: samples for number, samples in self._samples.items() if number in layout}

    def _read(self, board: Handle) -> Iterator[dict[int, Partition] | None]:
        """The layout at the end; before that None after each piece."""
        self._whole = self._whole or self._nvml.most_partitions(board)
        layout: dict[int, Partition] = {}
        for index in range(min(self._whole, _MOST_DEVICES)):
            device = self._nvml.partition(board, index)
            if device is not None:
                number, partition = self._partition(device)
                layout.setdefault(number, partition)
            yield None
        yield layout

    def _partition(self, device: Handle) -> tuple[int, Partition]:
        number, size, uuid = self._nvml.instance(device), self._nvml.attributes(device), self._nvml.uuid(device)
        known = (self._partitions or {}).get(number)
        if known is not None and known.uuid == uuid and self._sizes.get(number) == size:
            return number, known
        self._sizes[number] = size
        return number, Partition(
            f"gi{number}", min(1.0, size.slices / self._whole), profile_of(self._nvml.model(device)), uuid
        )

    def _supported(self, board: Handle) -> bool:
        """Whether the board has GPM, asked once a session."""
        if self._has_gpm is None:
            self._has_gpm = self._nvml.has_gpm(board)
        if not self._has_gpm:
            raise NvmlError(Code.NOT_SUPPORTED, "nvmlGpmQueryDeviceSupport")
        return True

    def _utilization(self, board: Handle, instance: int) -> float | None:
        """Busy share of a partition since its last sample; None at the first, and for nonsense."""
        samples = self._samples.get(instance)
        if samples is None:
            samples = _Samples(self._nvml.new_gpm_sample(), self._nvml.new_gpm_sample())
            self._samples[instance] = samples
        if _missing(lambda: self._nvml.gpm_sample(board, instance, samples.later)):
            samples.taken = False
            return None
        first, samples.taken = not samples.taken, True
        samples.earlier, samples.later = samples.later, samples.earlier
        percent = None if first else self._nvml.busy(samples.later, samples.earlier)
        return percent / 100 if percent is not None and 0 <= percent <= 100 else None  # noqa: PLR2004


def profile_of(name: str) -> str:
    """`1g.10gb` in the name of a MIG device; empty if there is none."""
    found = _PROFILE.search(name)
    return found[1] if found else ""


def _missing(call: Callable[[], None]) -> bool:
    """Whether the GPU instance is not there any more."""
    try:
        call()
    except NvmlError as error:
        if error.code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND):
            return True
        raise
    return False
