"""A machine with NVIDIA boards: builds the fake libnvidia-ml.so.1 (fakenvml.c) and holds the file that it reads.

    fake = FakeNvml(tmp_path / "nvml", boards=8)
    fake.boards[0].constant(300)              # W; or .square(low, high, period), .burst(base, peak, seconds, period)
    fake.boards[1].without_counter()
    with Exporter(*flags, environ=environment(fake)): ...
    fake.boards[0].true_joules(start, end)    # exact, for moments of time.monotonic()

In this process, instead of an exporter's: `load_in_process(fake)`, then `pynvml.nvmlInit()`, and `unload()` in the end.
One process can go on with another fake by the same call; its handles of before are stale then.
`build(without=OLD_DRIVER)` and `environment(fake, without=OLD_DRIVER)` leave functions out.

Changes are seen by all processes at once. Power changes at the moment of the call; registers and the energy counter
show the value of their last refresh (`refresh`, 0.1 s). Errors: `board.error(code)` for all calls on a board,
`board.error(code, "energy")` for a family (a key of `FAMILIES`, or "util"); energy, power and limit hit their fields of
nvmlDeviceGetFieldValues too, one by one. `board.hang(seconds)` blocks calls on the board, and with `lookups=True` also
those that find it. `board.calls[family]` and `fake.calls` count.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import mmap
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import fakenvml_layout as layout
from support.fakenvml_layout import FAMILIES
from support.tools import need
from support.traces import History, Trace, burst, constant, square

__all__ = [
    "FAMILIES",
    "OLD_DRIVER",
    "Board",
    "FakeNvml",
    "Process",
    "Slice",
    "build",
    "environment",
    "load_in_process",
    "unload",
]

OLD_DRIVER = (
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetAttributes_v2",
    "nvmlDeviceGetProcessUtilization",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetArchitecture",
    "nvmlGpmQueryDeviceSupport",
)
"""What a driver of 2017 did not have, as far as the exporter may ask for it."""
LIBRARY = "libnvidia-ml.so.1"
LISTS = {"compute": 1, "graphics": 2, "mps": 4}
_HERE = Path(__file__).parent
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Process:
    """A process with a context on a board."""

    pid: int
    sm: int = 0
    """Per cent of the board's compute time, as samples of utilisation have it; of 0 there is no sample."""
    kind: str = "compute"
    """A key of `LISTS`."""
    gi: int = layout.NO_INSTANCE
    """The MIG instance it runs in."""
    ci: int = layout.NO_INSTANCE
    memory: int | None = 1 << 30
    """Bytes; None where the driver does not know."""
    memory_rate: int = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """A MIG device; the defaults are the smallest of an H100."""

    gi: int
    profile: str = "1g.10gb"
    slices: int = 1
    sm: int = 16
    """Multiprocessors; a whole board has 132."""
    ci: int = 0
    memory: int = 10 << 30
    used: int = 0
    busy: float = 0.0
    """Per cent, as GPM has it."""
    uuid: str = ""


@functools.cache
def build(without: Sequence[str] = ()) -> Path:
    """The directory of a libnvidia-ml.so.1 built from fakenvml.c, without the functions named. Needs gcc.

    It is kept in the directory for temporary files, by the hash of its sources, for the next run.
    """
    sources = b"".join((_HERE / name).read_bytes() for name in ("fakenvml.c", "fakenvml.h", "fakenvml_use.c"))
    name = hashlib.sha256(sources + ",".join(without).encode()).hexdigest()[:20]
    folder = Path(tempfile.gettempdir()) / f"fakenvml-{os.getuid()}-{name}"
    library = folder / LIBRARY
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.getuid(), "what is loaded must be one's own"
    if not library.exists():
        unfinished = folder / f"{LIBRARY}.{os.getpid()}"
        flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", f"-Wl,-soname,{LIBRARY}"]
        renamed = [f"-D{function}=left_out_{function}" for function in without]
        command = [need("gcc"), *flags, *renamed, "-o", str(unfinished), str(_HERE / "fakenvml.c"), "-lm"]
        subprocess.run(command, check=True)
        unfinished.replace(library)
    return folder


def environment(fake: FakeNvml, without: Sequence[str] = ()) -> dict[str, str]:
    """Environment variables with which a new process finds the fake as its NVML."""
    return {"LD_LIBRARY_PATH": str(build(tuple(without))), "FAKENVML_STATE": str(fake.path)}


def load_in_process(fake: FakeNvml) -> None:
    """Let `pynvml` in this process find `fake`; the first library that was loaded stays."""
    library = ctypes.CDLL(str(build() / LIBRARY), mode=ctypes.RTLD_GLOBAL)
    assert library.fakenvml_attach(os.fsencode(fake.path)) == 0


def unload() -> None:
    """Let `pynvml` in this process find no driver any more (9), so that no later test meets these boards."""
    ctypes.CDLL(str(build() / LIBRARY)).fakenvml_attach(None)


class FakeNvml:
    """The state file, mapped: boards and what befalls the session."""

    def __init__(self, path: Path, boards: int = 8) -> None:
        """Creates the file with boards of 100 W (Hopper, 700 W limit), counters that run, and no processes."""
        self.path = path
        with path.open("w+b") as file:
            file.truncate(ctypes.sizeof(layout.State))
            self.raw = layout.State.from_buffer(mmap.mmap(file.fileno(), 0))
        raw = self.raw
        raw.size, raw.session, raw.driver = ctypes.sizeof(layout.State), 1, b"580.65.06"
        self.boards = tuple(Board(raw.board[slot], slot) for slot in range(layout.MAX_BOARDS))[:boards]
        """By slot: what is removed keeps its place here, but not its index."""
        self.present(range(boards))
        raw.magic = layout.MAGIC

    @property
    def calls(self) -> int:
        """All calls of NVML so far."""
        return int(self.raw.calls)

    @property
    def inits(self) -> int:
        """Calls of nvmlInit so far."""
        return int(self.raw.inits)

    @property
    def session_calls(self) -> int:
        """Calls that concern no board: nvmlInit, nvmlShutdown, versions, the number of boards."""
        return int(self.raw.session_calls)

    def present(self, slots: Sequence[int]) -> None:
        """Which boards there are, in the order of their indices; the others are as good as unplugged."""
        for index, slot in enumerate(slots):
            self.raw.order[index] = slot
        self.raw.boards = len(slots)

    def remove(self, slot: int, code: int = 15) -> None:
        """Take a board out at run time: later ones move up, and its handles answer with `code` (15 or 28)."""
        self.raw.board[slot].gone = code
        self.present([other for other in self.raw.order[: self.raw.boards] if other != slot])

    def restore(self, slot: int) -> None:
        """Bring a board back, at the index it had by its slot."""
        self.raw.board[slot].gone = 0
        self.present(sorted({*self.raw.order[: self.raw.boards], slot}))

    def end_sessions(self) -> None:
        """Every call answers 1 (uninitialised) until the process calls nvmlInit again."""
        self.raw.session += 1

    def session_error(self, code: int, *, init: bool = True, calls: bool = True) -> None:
        """What nvmlInit and all other calls answer from now on: 9 without a driver, 18 after its upgrade; 0 ends it."""
        self.raw.init_code = code if init else 0
        self.raw.session_code = code if calls else 0

    def hang_session(self, seconds: float) -> None:
        """Let nvmlInit and the calls that concern no board block for so long."""
        self.raw.hang_until_ns = time.monotonic_ns() + round(seconds * _NS)

    def clear(self) -> None:
        """End all that was done to the session and to boards that are here."""
        self.session_error(0)
        self.raw.hang_until_ns = 0
        for board in self.boards:
            board.clear()

    def driver(self, version: str) -> None:
        """The driver's version."""
        self.raw.driver = version.encode()


class Board:
    """One board; made by `FakeNvml`."""

    def __init__(self, raw: Any, slot: int) -> None:
        """`raw` is its place in the file."""
        self.raw = raw
        self.slot = slot
        raw.uuid = b"GPU-%08x-0000-4000-8000-000000000000" % slot
        raw.name = b"NVIDIA H100 80GB HBM3"
        raw.serial = b"16500%08d" % slot
        raw.bus_id = b"00000000:%02X:00.0" % (slot + 1)
        raw.arch, raw.minor, raw.temperature, raw.sm_count = 9, slot, 40, 132
        raw.limit_mw = raw.limit_most_mw = raw.limit_default_mw = 700_000
        raw.limit_least_mw = 200_000
        raw.memory, raw.used = 80 << 30, 1 << 30
        raw.refresh_ms, raw.refresh_phase_ms, raw.samples_ms = 100, 13 * slot % 100, 167
        raw.gpu_scope, raw.no_samples_code = 1, 6
        raw.counter_offset_mj, raw.counter_scale = 1e12 + slot, 1.0
        raw.began_ns = time.monotonic_ns()
        self._mj = 0.0
        self._start_ns = raw.began_ns
        self._history = History(self._write(constant(100), raw.began_ns))

    @property
    def uuid(self) -> str:
        return bytes(self.raw.uuid).decode()

    @property
    def calls(self) -> Mapping[str, int]:
        """Calls on this board and its slices so far, by family."""
        return {family: int(self.raw.calls[number]) for family, number in FAMILIES.items()}

    def describe(self, name: str = "", uuid: str = "", arch: int | None = None) -> None:
        """Another identity; architectures: 4 Pascal, 5 Volta, 7 Ampere, 9 Hopper, 10 Blackwell."""
        self.raw.name = name.encode() or self.raw.name
        self.raw.uuid = uuid.encode() or self.raw.uuid
        self.raw.arch = arch or self.raw.arch

    # Power and energy

    def constant(self, watts: float) -> None:
        self.draw(constant(watts))

    def square(self, low: float, high: float, period: float) -> None:
        """Half a period (s) high, half a period low."""
        self.draw(square(low, high, period))

    def burst(self, base: float, peak: float, seconds: float, period: float) -> None:
        """`seconds` of `peak` each period (s)."""
        self.draw(burst(base, peak, seconds, period))

    def draw(self, trace: Trace) -> None:
        """From now on draw so; the trace's epoch is now."""
        now_ns = time.monotonic_ns()
        self._mj = self._mj + self._history.now.joules(self._start_ns / _NS, now_ns / _NS) * 1e3
        self._start_ns = now_ns
        self._history.change(now_ns / _NS, self._write(trace, now_ns))

    def true_joules(self, start: float, end: float) -> float:
        """What it drew between two moments of time.monotonic()."""
        return self._history.joules(start, end)

    def refresh(self, seconds: float, phase: float = 0.0) -> None:
        """Seconds between two refreshes of counter and power registers; 0: always fresh."""
        self.raw.refresh_ms, self.raw.refresh_phase_ms = round(seconds * 1e3), round(phase * 1e3)

    def averaging(self) -> None:
        """Its nvmlDeviceGetPowerUsage gives the mean of the last second, and POWER_INSTANT is not known."""
        self.raw.averaging = 1
        self.without_fields(186)

    def without_fields(self, *ids: int) -> None:
        """Fields that it answers with NOT_SUPPORTED, instead of those set before."""
        for place in range(layout.MAX_LEFT_OUT):
            self.raw.left_out[place] = ids[place] if place < len(ids) else 0

    def without_counter(self) -> None:
        """No energy counter, as on a virtual GPU."""
        self.raw.no_counter = 1

    def counter(self, joules: float | None) -> None:
        """A counter that stands at `joules`; None lets it run again."""
        self.raw.counter_is_fixed = int(joules is not None)
        self.raw.fixed_counter_mj = round((joules or 0.0) * 1e3)

    def shift_counter(self, joules: float) -> None:
        """A jump of the counter."""
        self.raw.counter_offset_mj += joules * 1e3

    def reset_counter(self) -> None:
        """The counter begins anew at 0, as after a reload of the driver."""
        elapsed = self._history.now.joules(self._start_ns / _NS, time.monotonic())
        self.raw.counter_offset_mj = -self.raw.counter_scale * (self._mj + elapsed * 1e3)

    def scale_counter(self, factor: float) -> None:
        """A counter that runs too fast or too slow; set it before the first reading."""
        self.raw.counter_scale = factor

    def power_reads(self, watts: float | None) -> None:
        """Power registers that show `watts` whatever the board draws; None lets them tell the truth again."""
        self.raw.power_is_fixed = int(watts is not None)
        self.raw.fixed_power_mw = round((watts or 0.0) * 1e3)

    def limit(self, watts: float) -> None:
        """The enforced limit."""
        self.raw.limit_mw = round(watts * 1e3)

    def module(self, extra: float, *, gpu_scope: bool = False) -> None:
        """Part of a module that draws `extra` watts beside it; its plain counter covers the whole module."""
        self.raw.module_scope = self.raw.counter_of_module = 1
        self.raw.gpu_scope, self.raw.module_extra_mw = int(gpu_scope), extra * 1e3

    # Use

    def processes(self, processes: Sequence[Process]) -> None:
        """Who is on it, instead of those before."""
        self.raw.processes = 0
        for place, one in zip(self.raw.process, processes, strict=False):
            place.pid, place.sm, place.mem, place.lists = one.pid, one.sm, one.memory_rate, LISTS[one.kind]
            place.gi, place.ci, place.used = one.gi, one.ci, (1 << 64) - 1 if one.memory is None else one.memory
        self.raw.processes = len(processes)

    def samples(self, every: float, *, code_if_none: int = 6) -> None:
        """Seconds between two samples of utilisation, and the answer where there is no new one (some drivers: 0)."""
        self.raw.samples_ms, self.raw.no_samples_code = round(every * 1e3), code_if_none

    def mig(self, slices: Sequence[Slice]) -> None:
        """Divide it, so; an empty division leaves MIG on."""
        self.raw.slices = 0
        for number, (place, one) in enumerate(zip(self.raw.slice, slices, strict=False)):
            place.uuid = (
                one.uuid or f"MIG-{self.slot:08x}-0000-5000-8000-{number:04x}{one.gi:04x}{one.ci:04x}"
            ).encode()
            place.name = self.raw.name + b" MIG " + one.profile.encode()
            place.gi, place.ci, place.gi_slices, place.ci_slices = one.gi, one.ci, one.slices, one.slices
            place.sm_count, place.memory, place.used, place.busy = one.sm, one.memory, one.used, one.busy
        self.raw.mig_mode, self.raw.slices = 1, len(slices)

    def whole(self) -> None:
        """MIG off again."""
        self.raw.mig_mode = self.raw.slices = 0

    def busy(self, gpu: int, memory: int = 0) -> None:
        """Utilisation rates, in per cent."""
        self.raw.gpu_rate, self.raw.memory_rate = gpu, memory
        self.raw.busy = float(gpu)

    def gpm(self, *, supported: bool = True) -> None:
        """Whether it has GPM metrics."""
        self.raw.gpm = int(supported)

    # Faults

    def error(self, code: int, family: str = "all") -> None:
        """Answer with this NVML code, on all calls or those of a family ("util": samples and rates); 0 ends it."""
        if family == "all":
            self.raw.error = code
        for name in {"all": (), "util": ("samples", "rates")}.get(family, (family,)):
            self.raw.errors[FAMILIES[name]] = code

    def hang(self, seconds: float, *, lookups: bool = False) -> None:
        """Calls on it block from now on for so long, or until `clear`."""
        self.raw.hang_lookups = int(lookups)
        self.raw.hang_until_ns = time.monotonic_ns() + round(seconds * _NS)

    def latency(self, seconds: float) -> None:
        """What each call on it takes."""
        self.raw.latency_us = round(seconds * 1e6)

    def clear(self) -> None:
        """End errors, hangs and latency."""
        self.raw.error = self.raw.hang_until_ns = self.raw.latency_us = 0
        for number in FAMILIES.values():
            self.raw.errors[number] = 0

    def _write(self, trace: Trace, start_ns: int) -> Trace:
        """Append a segment to the file; returns the trace as it is from `start_ns` on."""
        segment = self.raw.segment[self.raw.segments % layout.MAX_SEGMENTS]
        segment.start_ns = segment.epoch_ns = start_ns
        segment.width_ns, segment.period_ns = round(trace.width * _NS), round(trace.period * _NS)
        segment.base_mw, segment.peak_mw, segment.joules_before_mj = trace.base * 1e3, trace.peak * 1e3, self._mj
        self.raw.segments += 1
        return trace.starting(start_ns / _NS)
