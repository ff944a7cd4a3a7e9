"""AMD's GPUs: by their energy counters where AMD's library is, else by the power that their driver shows.

Which is used when: amdsmi if it loads and sees the board, else the hwmon files of `amdgpu`. Graphics inside a processor
is left out, because its power contains the processor's.
"""

from __future__ import annotations

import threading

from carbon_exporter.errors import SensorError, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.amd_board import Place, SmiBoard
from carbon_exporter.sensors.amd_smi import Session
from carbon_exporter.sensors.amdgpu import (
    DRIVER,
    PROCESSOR_ACCELERATORS,
    HwmonBoard,
    contains_processor,
    is_measured,
    packages,
)
from carbon_exporter.sensors.base import Device, Host, Kind, Quality, Sample, Sensor
from carbon_exporter.sensors.drm import Card, find_cards, text_of

__all__ = ["Amd", "probe"]

Board = SmiBoard | HwmonBoard

START_SECONDS = 3.0
"""How long the start waits for AMD's library; a later answer is taken at the next look."""
LOOK_EVERY = 12
"""Readings between two searches for boards that came or went."""
IN_ONE_PACKAGE: frozenset[Kind] = frozenset({"cpu", "dram"})
DRIVER_REMEDY = "load the driver: sudo modprobe amdgpu"


def probe(host: Host, covered: frozenset[Kind]) -> Amd:
    """The AMD boards of this machine.

    An accelerator that contains its node's processors (MI300A) covers them, and is left out if they are `covered`.
    Raises `SensorUnavailable` if there are none, `SensorPermission` if this process may not read any of them.
    """
    fleet = Amd(host, covered)
    try:
        fleet.start()
    except SensorReadError as error:
        raise SensorUnavailable(error.reason, remedy=error.remedy) from None
    refusals = [board.refusal() for board in fleet.members if isinstance(board, HwmonBoard)]
    if refusals and len(refusals) == len(fleet.members) and all(refusals):
        raise next(refusal for refusal in refusals if refusal)
    return fleet


class Amd(Sensor):
    """All boards. Its own reading only looks for boards that came or went; each board is read by itself."""

    name = "amd"
    devices: tuple[Device, ...] = ()
    covers: frozenset[Kind] = frozenset()

    def __init__(self, host: Host, covered: frozenset[Kind] = frozenset()) -> None:
        """Knows no board before `start`."""
        self._host = host
        self._covered = covered
        self._session = Session()
        self._session_trouble: SensorError | None = None
        self._started: threading.Thread | None = None
        self._cards: tuple[Card, ...] = ()
        self._boards: tuple[Board, ...] = ()
        self._left_out: tuple[str, ...] = ()
        self._useless: set[Place] = set()
        """Boards that AMD's library lists and cannot measure."""
        self._readings = 0

    @property
    def members(self) -> tuple[Board, ...]:
        """A sensor for each board that is there."""
        return self._boards

    @property
    def quality(self) -> Quality | None:
        """The worst of its boards; None while a counter is on trial."""
        qualities = {board.quality for board in self._boards}
        if None in qualities or not qualities:
            return None
        return Quality.INTEGRATED if Quality.INTEGRATED in qualities else Quality.MEASURED

    @property
    def notes(self) -> tuple[str, ...]:
        """Which cards it leaves out, and why no counter is read."""
        trouble = self._session_trouble
        if trouble is None or not any(isinstance(board, HwmonBoard) for board in self._boards):
            return self._left_out
        return (*self._left_out, f"power is sampled, because no energy counter can be read: {trouble}")

    def start(self) -> None:
        """Begin the library's session and find boards; whatever hangs is not waited for.

        Raises `SensorReadError` if there are no boards.
        """
        self._cards = self._find()
        reasons = {card.address: self._reason_against(card) for card in self._cards}
        if all(reasons.values()):
            told = "; ".join(f"{address} is left out: {reason}" for address, reason in reasons.items())
            raise SensorReadError(told or "no card of the driver amdgpu")
        self._session_trouble = SensorReadError("AMD's library has not answered yet")
        self._started = threading.Thread(target=self._begin, name="amd-start", daemon=True)
        self._started.start()
        self._started.join(START_SECONDS)
        if self._started.is_alive():
            self._muster()
        elif not self._boards:
            trouble = f"; {self._session_trouble.reason}" if self._session_trouble else ""
            remedy = self._session_trouble.remedy if self._session_trouble else ""
            raise SensorReadError("; ".join(self._left_out) + trouble, remedy=remedy)

    def read(self) -> Sample:
        """Look for boards if it is time or one of them fails. Raises `SensorReadError` if none is left."""
        due = self._readings % LOOK_EVERY == LOOK_EVERY - 1
        self._readings += 1
        if due or not self._boards or self._session.lost or any(board.failing for board in self._boards):
            self._look(due=due)
        if not self._boards:
            raise SensorReadError("no AMD board is there now", remedy=DRIVER_REMEDY)
        return Sample()

    def close(self) -> None:
        """Give the library back."""
        self._session.end()

    def _begin(self) -> None:
        self._renew()
        self._muster()
        for board in self._boards:
            board.identify()

    def _look(self, *, due: bool) -> None:
        """Find cards anew; begin the library's session anew if others are there, if it was lost, or now and then."""
        if self._started is not None and self._started.is_alive():
            return
        cards = self._find()
        changed, self._cards = cards != self._cards, cards
        unseen = any(card.address not in self._session.addresses for card in cards)
        failing = any(board.failing for board in self._boards)
        if cards and (changed or self._session.lost or (due and (unseen or failing))):
            self._renew()
        self._muster()

    def _renew(self) -> None:
        try:
            if self._session.renew():
                self._session_trouble = None
        except SensorError as error:
            self._session_trouble = error

    def _find(self) -> tuple[Card, ...]:
        try:
            return find_cards(self._host.sysfs, {DRIVER})
        except OSError as error:
            raise SensorReadError(f"{error.filename} cannot be listed: {error.strerror}") from None

    def _muster(self) -> None:
        """A board for each card, the same as before where nothing has changed."""
        before = {(type(board), board.place): board for board in self._boards}
        boards: list[Board] = []
        left_out: list[str] = []
        covers: frozenset[Kind] = frozenset()
        for cards in packages(self._cards):
            reason = self._reason_against(cards[0])
            board = None if reason else self._board(cards, before)
            if board is None:
                left_out.append(f"{cards[0].address} is left out: {reason or 'its driver shows no power of its own'}")
                continue
            boards.append(board)
            left_out.extend(
                f"{card.address} is the second die of {board.place.name}, which reports for both" for card in cards[1:]
            )
            if cards[0].device_id in PROCESSOR_ACCELERATORS:
                covers = IN_ONE_PACKAGE
        self._boards, self._left_out, self.covers = tuple(boards), tuple(left_out), covers

    def _reason_against(self, card: Card) -> str:
        if card.device_id in PROCESSOR_ACCELERATORS:
            if self._covered & IN_ONE_PACKAGE:
                return "its power contains the processors', which another sensor measures"
            return ""
        return "it is a part of a processor, and its power contains the processor's" if contains_processor(card) else ""

    def _board(self, cards: tuple[Card, ...], before: dict[tuple[type, Place], Board]) -> Board | None:
        """The library's view of a board if it has one that is of use, else its driver's, else None."""
        place = self._place(cards)
        known = before.get((SmiBoard, place))
        if known is not None and known.useless and is_measured(cards[0]):
            self._useless.add(place)
        if cards[0].address in self._session.addresses and place not in self._useless:
            return known or SmiBoard(self._host, self._session, place)
        if is_measured(cards[0]):
            return before.get((HwmonBoard, place)) or HwmonBoard(self._host, cards[0], place)
        return None

    def _place(self, cards: tuple[Card, ...]) -> Place:
        card = cards[0]
        seen = sorted(self._session.addresses)
        slot = card.address.rpartition(".")[0]
        scope = "both dies in one number" if len(cards) > 1 else "the whole board"
        if card.device_id in PROCESSOR_ACCELERATORS:
            scope = "the whole package: accelerator, processors and memory"
        return Place(
            name=self._host.names.name("gpu", card.address, self._cards.index(card)),
            dies=tuple(one.address for one in cards),
            serial=text_of(card.path / "unique_id") or card.address,
            model=text_of(card.path / "product_name") or f"PCI device 1002:{card.device_id:04x}",
            partitions=tuple(one for one in seen if one.rpartition(".")[0] == slot and one != card.address),
            scope=scope,
        )
