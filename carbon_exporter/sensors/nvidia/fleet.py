"""All boards of NVIDIA: which there are now, and the session that they share.

The fleet asks the driver only how many boards it lists, and looks at places that no board claims. A known board looks
itself up, on its own thread, so that one that hangs never holds up the search: each unclaimed place has a thread too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from carbon_exporter.errors import SensorError, SensorOutdated, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Device, Host, Kind, Quality, Sample, Sensor
from carbon_exporter.sensors.nvidia.board import OUTDATED_REMEDY, SLOW_TICKS, Board
from carbon_exporter.sensors.nvidia.nvml import Code, Library, Nvml, NvmlError
from carbon_exporter.sensors.nvidia.session import Session

__all__ = ["MISMATCH_REMEDY", "Nvidia"]

MISMATCH_REMEDY = (
    "the library and the kernel module of NVIDIA's driver differ: load the module anew "
    "(sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia; sudo modprobe nvidia) or restart the machine"
)
HANG_REMEDY = "its driver hangs: see dmesg for NVRM: Xid"
SEARCH_SECONDS = 2.0
"""How long the start waits for boards; what answers later is taken in at a later tick."""
TICK_SECONDS = 0.1
"""How long a tick waits for boards that are looked at for the first time."""

_log = logging.getLogger(__name__)


class _Errand:
    """Something done on a thread of its own, because it may hang."""

    def __init__(self, what: Callable[[], None], name: str) -> None:
        self.error: SensorError | None = None
        self._what = what
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ended(self, patience: float) -> bool:
        """Whether it is over within `patience` seconds."""
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._what()
        except SensorError as error:
            self.error = error


class Nvidia(Sensor):
    """The fleet. Its boards are its members; it has no device itself."""

    name = "nvidia"
    devices: tuple[Device, ...] = ()

    def __init__(self, host: Host, library: Library) -> None:
        """No session and no boards yet: `begin` starts them."""
        self._host = host
        self._session = Session(library)
        self._nvml = Nvml(library)
        self._boards: dict[str, Board] = {}
        self._searches: dict[int, _Errand] = {}
        self._lost: dict[int, SensorError] = {}
        self._found: list[Board] = []
        self._beginning: _Errand | None = None
        self._count: int | None = None
        self._ticks = 0
        self._failed = False

    @property
    def members(self) -> tuple[Board, ...]:
        """The boards that the driver lists, by their place."""
        return tuple(sorted(self._boards.values(), key=lambda board: board.index))

    @property
    def covers(self) -> frozenset[Kind]:
        """Processor and memory, if a board's energy is that of a module."""
        return frozenset({"cpu", "dram"}) if any(board.of_module for board in self.members) else frozenset()

    @property
    def quality(self) -> Quality | None:
        """The worst of its boards."""
        known = [board.quality for board in self.members if board.quality is not None]
        return max(known, key=list(Quality).index, default=None)

    def begin(self, patience: float) -> None:
        """Begin the session and find the boards, within `patience` seconds; what is not ready then comes later.

        Raises `SensorUnavailable` if the driver lists no board, and what NVML raises.
        """
        self._beginning = _Errand(self._start, "nvidia-begin")
        if not self._beginning.ended(patience):
            _log.warning("NVML has not answered in %.0f s: %s", patience, HANG_REMEDY)
            return
        error, self._beginning = self._beginning.error, None
        if error is not None:
            self._session.close()
            raise error
        if self._count == 0:
            self._session.close()
            raise SensorUnavailable("NVIDIA's driver lists no board")

    def read(self) -> Sample:
        """Keep the session and the boards up to date; their readings are their own."""
        self._await_beginning()
        self._ticks += 1
        if self._is_uneasy or self._ticks % SLOW_TICKS == 0:
            self._failed = True
            try:
                self._keep_session()
                self._search(TICK_SECONDS)
            except NvmlError as error:
                raise self._told(error) from error
            self._failed = False
        return Sample(failures=self._lost_searches())

    def close(self) -> None:
        """End the session."""
        self._session.close()

    @property
    def _is_uneasy(self) -> bool:
        """Whether there is a reason to look before the time."""
        unfinished = self._failed or self._searches or self._lost or len(self._boards) != self._count
        return bool(unfinished) or any(board.fails or board.missing for board in self._boards.values())

    def _await_beginning(self) -> None:
        if self._beginning is not None:
            if not self._beginning.ended(0):
                raise SensorReadError("NVML has not answered since the start", remedy=HANG_REMEDY)
            self._beginning, self._failed = None, True

    def _start(self) -> None:
        self._session.renew()
        self._keep_session()
        self._search(SEARCH_SECONDS)

    def _keep_session(self) -> None:
        """Count the boards; begin the session anew if that fails, and every second time if no board answers."""
        boards = tuple(self._boards.values())
        if boards and self._ticks % 2 == 0 and all(board.fails for board in boards):
            self._session.renew()
        try:
            self._count = self._counted()
        except NvmlError:
            self._session.renew()
            self._count = self._counted()

    def _counted(self) -> int:
        with self._session:
            return self._nvml.count()

    def _search(self, patience: float) -> None:
        """Compare the driver's list with the known boards, and look at places that none of them claims."""
        count = self._count or 0
        self._dismiss(count)
        boards = tuple(self._boards.values())
        claimed = {board.index for board in boards}
        if len(boards) > count or len(claimed) < len(boards) or any(index >= count for index in claimed):
            for board in boards:
                board.doubted = True
        for index in range(count):
            rests = index in self._lost and self._ticks % 2
            if index not in claimed and index not in self._searches and not rests:
                self._searches[index] = _Errand(self._visitor(index), f"nvidia-search-{index}")
        self._adopt(patience)

    def _dismiss(self, count: int) -> None:
        """Let boards go that the driver does not list any more."""
        for uuid, board in tuple(self._boards.items()):
            lost = board.missing in (Code.GPU_IS_LOST, Code.GPU_NOT_FOUND) and len(self._boards) > count
            if board.missing == Code.NOT_FOUND or lost:
                _log.warning("%s is gone: the driver does not list it any more", board.devices[0].name)
                del self._boards[uuid]

    def _visitor(self, index: int) -> Callable[[], None]:
        """Looks at a place of the driver's list, with calls of its own."""

        def visit() -> None:
            nvml = Nvml(self._session.library)
            with self._session as generation:
                handle = nvml.handle_at(index)
                uuid = nvml.uuid(handle)
                if not uuid:
                    raise NvmlError(Code.UNKNOWN, "nvmlDeviceGetUUID: it has none")
                known = self._boards.get(uuid)
                if known is not None:
                    known.index = index
                    return
                board = Board(self._host, self._session, uuid, nvml.model(handle), index)
                board.meet(handle, generation)
            self._found.append(board)

        return visit

    def _adopt(self, patience: float) -> None:
        """Take in the boards that were found, waiting a while for those that are looked at now."""
        until = time.monotonic() + patience
        for index, errand in tuple(self._searches.items()):
            if errand.ended(max(0.0, until - time.monotonic())):
                del self._searches[index]
                self._lost.pop(index, None)
                if errand.error is not None:
                    self._lost[index] = errand.error
        while self._found:
            board = self._found.pop()
            self._boards.setdefault(board.uuid, board)
        self._lost = {index: error for index, error in self._lost.items() if index < (self._count or 0)}

    def _lost_searches(self) -> tuple[SensorReadError, ...]:
        hanging = [
            SensorReadError(f"the board at index {i} has not answered", remedy=HANG_REMEDY) for i in self._searches
        ]
        failed = [SensorReadError(f"the board at index {i}: {error.reason}") for i, error in self._lost.items()]
        return (*hanging, *failed)

    def _told(self, error: NvmlError) -> SensorReadError:
        """The error as the outside knows it."""
        if error.code == Code.VERSION_MISMATCH and Library.worked:
            return SensorOutdated(error.reason, remedy=OUTDATED_REMEDY)
        return error
