"""What survives a restart: the totals, the last raw counters and the jobs, as the body of the state file.

Decoding is strict: a field that is missing, unknown, negative or not finite makes the whole state unbelievable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

from carbon_exporter.carbon.account import Account, CarbonEntry, DeviceKey, JobKey, JobTotal
from carbon_exporter.energy.ledger import Ledger, SavedMark
from carbon_exporter.energy.node import NodeMeters
from carbon_exporter.jobs.base import Job
from carbon_exporter.jobs.boards import Boards
from carbon_exporter.jobs.book import JobBook
from carbon_exporter.jobs.remainder import Remainder
from carbon_exporter.sensors.base import Kind
from carbon_exporter.service.spans import SavedSpans, SpanBook
from carbon_exporter.snapshot import Today
from carbon_exporter.units import Grams, Joules

__all__ = ["Rooms", "State", "decode", "encode", "restore"]

Amount = Annotated[float, msgspec.Meta(ge=0)]
Text = Annotated[str, msgspec.Meta(max_length=256)]


class DeviceRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A device's total in one region."""

    device: Text
    kind: Kind
    region: Text
    joules: Amount


class JobRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A job's total, or a pending entry, on one device in one region."""

    name: Text
    namespace: Text
    device: Text
    kind: Kind
    region: Text
    joules: Amount
    grams: Amount


class SeenRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """How long before the save a job was last seen."""

    name: Text
    namespace: Text
    seconds_ago: Amount


class HolderRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """The one job that held a board at the last look."""

    device: Text
    name: Text
    namespace: Text


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of the state file."""

    boot_id: str
    saved_at: float
    """Unix seconds."""
    monotonic: float
    """Seconds on the clock of that boot."""
    marks: dict[str, SavedMark]
    gap_seconds: dict[str, Amount]
    devices: list[DeviceRow]
    jobs: list[JobRow]
    pending: list[JobRow]
    seen: list[SeenRow]
    folded_total: Annotated[int, msgspec.Meta(ge=0)]
    today: Today
    nodes: dict[str, Amount] = {}
    """Joules by whole-node meter."""
    remainder: float = 0.0
    """0, or the negative joules that the remainder carries forward."""
    holders: list[HolderRow] = []
    spans: SavedSpans = msgspec.field(default_factory=SavedSpans)


@dataclass(frozen=True, slots=True)
class Rooms:
    """The objects whose state survives."""

    ledger: Ledger
    account: Account
    book: JobBook
    nodes: NodeMeters
    boards: Boards
    spans: SpanBook
    remainder: Remainder | None = None
    """None unless the remainder is charged."""


def encode(rooms: Rooms, today: Today, boot_id: str, *, now: float, wall: float) -> bytes:
    """The state as JSON; `now` is monotonic seconds, `wall` Unix seconds."""
    state = State(
        boot_id=boot_id,
        saved_at=wall,
        monotonic=now,
        marks=rooms.ledger.marks(),
        gap_seconds=rooms.ledger.gap_seconds,
        devices=[DeviceRow(*key, joules) for key, joules in rooms.account.devices.items()],
        jobs=[
            JobRow(name, namespace, device, kind, region, joules, grams)
            for ((name, namespace), (device, kind, region)), (joules, grams) in rooms.account.jobs.items()
        ],
        pending=[
            JobRow(name, namespace, device, kind, region, joules, grams)
            for ((name, namespace), (device, kind, region)), joules, grams in rooms.account.pending
        ],
        seen=[SeenRow(job.name, job.namespace, max(0.0, now - at)) for job, at in rooms.book.last_seen().items()],
        folded_total=rooms.book.folded_total,
        today=today,
        nodes=dict(rooms.nodes.totals),
        remainder=min(0.0, rooms.remainder.balance) if rooms.remainder else 0.0,
        holders=[HolderRow(device, job.name, job.namespace) for device, job in rooms.boards.sole_holders().items()],
        spans=rooms.spans.saved(now),
    )
    return msgspec.json.encode(state)


def decode(body: bytes) -> State:
    """Read a state back. Raises `ValueError` with the reason if it cannot be believed."""
    try:
        return msgspec.json.decode(body, type=State)
    except msgspec.DecodeError as error:
        raise ValueError(f"holds something else than this version writes ({error})") from error


def restore(rooms: Rooms, state: State, boot_id: str, *, now: float, wall: float) -> tuple[CarbonEntry, ...]:
    """Put an earlier life's state into the rooms; returns what was pending then and is posted now.

    In the same boot the monotonic clock tells how long nobody counted, and raw counters are caught up from their marks;
    after a reboot only the wall clock is left, and the time away is a gap.
    """
    same_boot = boot_id != "" and state.boot_id == boot_id and now >= state.monotonic
    away = now - state.monotonic if same_boot else max(0.0, wall - state.saved_at)
    if same_boot:
        rooms.ledger.restore(state.marks, state.gap_seconds)
    else:
        rooms.ledger.restore_after_reboot(state.marks, state.gap_seconds, away)
    rooms.book.restore(
        {Job(row.name, row.namespace): now - away - row.seconds_ago for row in state.seen}, state.folded_total, now
    )
    rooms.spans.restore(state.spans, saved_at=now - away, same_boot=same_boot)
    rooms.nodes.restore(state.nodes)
    rooms.boards.restore_sole_holders({row.device: Job(row.name, row.namespace) for row in state.holders})
    if rooms.remainder is not None:
        rooms.remainder.balance = state.remainder
    totals = {_key(row): JobTotal(Joules(row.joules), Grams(row.grams)) for row in state.jobs}
    devices = {DeviceKey(row.device, row.kind, row.region): Joules(row.joules) for row in state.devices}
    pending = [CarbonEntry(_key(row), Joules(row.joules), Grams(row.grams)) for row in state.pending]
    return rooms.account.restore(totals, devices, pending)


def _key(row: JobRow) -> JobKey:
    return JobKey(Job(row.name, row.namespace), DeviceKey(row.device, row.kind, row.region))
