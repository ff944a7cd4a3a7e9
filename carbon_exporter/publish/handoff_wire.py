"""What a script and the node's exporter say to each other over the Unix socket: one JSON object a line.

A script says `hello`, once; then `spans` as often as it likes, with running totals of its session, so that a line
that is lost or told twice does no harm; and `watch` while it has spans open, to be sent the devices' energy. The
exporter answers `welcome` or `refused`, `seen` for every `spans` whose totals its state file holds, and `energy` and
`boards` while it is watched. Lines are at most `LONGEST_LINE` bytes; whoever sends a longer one, or something else,
is cut off.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

__all__ = [
    "LONGEST_LINE",
    "LONGEST_TEXT",
    "VERSION",
    "BoardShare",
    "Boards",
    "DeviceRow",
    "Energy",
    "FromExporter",
    "FromScript",
    "Grid",
    "Hello",
    "Refused",
    "RunRow",
    "RunSum",
    "Seen",
    "SliceRow",
    "SpanRow",
    "Spans",
    "Watch",
    "Welcome",
    "decode_exporter",
    "decode_script",
    "encode",
    "fit",
]

VERSION = 1
LONGEST_LINE = 65536
LONGEST_TEXT = 256

Amount = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
Text = Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)]
Hex = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{0,32}$")]
KindName = Literal["gpu", "cpu", "dram", "accelerator", "other"]


class SpanRow(msgspec.Struct, frozen=True, array_like=True):
    """The running total of one span name in a session."""

    span: Text
    joules: dict[KindName, Amount]
    seconds: Amount
    count: Annotated[int, msgspec.Meta(ge=0, le=10**12)]
    values: Annotated[dict[Text, float], msgspec.Meta(max_length=8)] = {}
    trace_id: Hex = ""
    span_id: Hex = ""
    trace_joules: Amount = 0.0
    job: Text = ""
    """Whose span it is, if another job's than the script's. Heard only of a script that names itself: not in a
    container, a pod or a Slurm job."""


class RunRow(msgspec.Struct, frozen=True, array_like=True):
    """The running total of a whole run in a session."""

    run: Text
    joules: Amount
    remaining_joules: Amount | None = None
    """What it is still likely to use; None without a prediction."""
    remaining_grams: Amount | None = None
    model: Text = ""
    dataset: Text = ""
    batch_size: Text = ""
    job: Text = ""
    """As of a span."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Who a script says it is. Whose process it is, the exporter takes from the kernel."""

    version: int
    session: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    """Chosen at random once a process; the same after a reconnection."""
    job: Text = ""
    """As the script was told; the exporter's own finding wins where it has one."""
    run: Text = ""
    rank: Text = ""


class Spans(msgspec.Struct, frozen=True, tag="spans"):
    """Running totals of the span names that have changed, and of runs that have."""

    number: Annotated[int, msgspec.Meta(ge=0)]
    """Grows by one a message; `seen` repeats it."""
    rows: Annotated[tuple[SpanRow, ...], msgspec.Meta(max_length=64)]
    runs: Annotated[tuple[RunRow, ...], msgspec.Meta(max_length=16)] = ()


class Watch(msgspec.Struct, frozen=True, tag="watch"):
    """Whether energy is wanted from now on."""

    on: bool


class DeviceRow(msgspec.Struct, frozen=True, array_like=True):
    """A device, as `sensors.base.Device` has it."""

    name: str
    kind: KindName
    sensor: str
    vendor: str
    model: str
    uuid: str
    quality: str
    max_power: float | None
    period: float | None


class Grid(msgspec.Struct, frozen=True, tag="grid"):
    """What a kilowatt-hour costs the air here: sent after `welcome`, and whenever it changes."""

    region: str
    grams_per_kwh: float
    pue: float
    provider: str
    quality: str
    source: str


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """The session is accepted."""

    version: int
    job: str
    namespace: str
    """Empty outside Kubernetes."""
    cpus: int
    """Of the machine: what a package's energy is divided by."""
    memory_total: float
    """Bytes installed, as the kernel sees them."""
    idle: Literal["separate", "shared", "reserved"]
    period: float
    """Seconds between two `energy` messages, at the least."""
    devices: tuple[DeviceRow, ...]


class SliceRow(msgspec.Struct, frozen=True, array_like=True):
    """Joules of a whole device from `start` to `end` (CLOCK_MONOTONIC seconds, the same for all processes)."""

    device: str
    start: float
    end: float
    joules: float
    slack: float
    """How far `start` and `end` may be from the moments at which the counter stood so, in seconds."""


class Energy(msgspec.Struct, frozen=True, tag="energy"):
    """News of the devices."""

    slices: tuple[SliceRow, ...]
    devices: tuple[DeviceRow, ...] = ()
    """All of them again, if they have changed."""


class BoardShare(msgspec.Struct, frozen=True, array_like=True):
    """What the script's process tree pays of a board that it is on."""

    device: str
    share: float


class Boards(msgspec.Struct, frozen=True, tag="boards"):
    """The boards that the script's process tree is on, as the driver lists it; sent whenever it changes."""

    known: bool
    """False where nobody can list the processes of the boards: the script then goes by its environment."""
    shares: tuple[BoardShare, ...]
    certain: bool = True
    """False if shares are equal parts among holders whose use is not known."""


class RunSum(msgspec.Struct, frozen=True, array_like=True):
    """What all ranks of a run on this node have used."""

    run: str
    ranks: int
    joules: float
    grams: float


class Seen(msgspec.Struct, frozen=True, tag="seen"):
    """The `spans` of this number, and all before, are in the state file."""

    number: int
    runs: tuple[RunSum, ...] = ()
    """Those of the session, if several ranks have told of them."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The last thing said before the exporter hangs up."""

    reason: str
    remedy: str


FromScript: TypeAlias = Hello | Spans | Watch
FromExporter: TypeAlias = Welcome | Grid | Energy | Boards | Seen | Refused


def fit(text: str) -> str:
    """A text as the wire takes it: a lone surrogate becomes `?`, and what is too long is cut."""
    return text.encode("utf-8", "replace").decode()[:LONGEST_TEXT]


def encode(message: FromScript | FromExporter) -> bytes:
    """A message as a line."""
    return msgspec.json.encode(message) + b"\n"


def decode_script(line: bytes) -> FromScript:
    """What a script says. Raises `msgspec.DecodeError`, which is a `ValueError`."""
    return _SCRIPT.decode(line)


def decode_exporter(line: bytes) -> FromExporter:
    """What an exporter says. Raises `msgspec.DecodeError`, which is a `ValueError`."""
    return _EXPORTER.decode(line)


_SCRIPT: msgspec.json.Decoder[FromScript] = msgspec.json.Decoder(FromScript)
_EXPORTER: msgspec.json.Decoder[FromExporter] = msgspec.json.Decoder(FromExporter)
