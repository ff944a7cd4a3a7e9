"""Drives the fake libamd_smi.so: builds it for the installed `amdsmi`, and writes the registers of its boards.

    with FakeAmdSmi(tmp_path / "state", boards=2) as fake:      # the real binding in this process now sees two boards
        fake.boards[0].current_power = 300
        fake.count(0, joules=12.5)

Nothing moves by itself: a test that plays a power trace turns its clock and writes the registers.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import mmap
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pytest
from support.tools import need

__all__ = ["FAMILIES", "BoardRegisters", "FakeAmdSmi", "address_of", "binding", "build"]

SOURCE = Path(__file__).with_suffix(".c")
FAMILIES = ("identity", "energy", "power", "limit", "activity", "memory", "temperature", "processes")
MOST_BOARDS, MOST_PROCESSES = 16, 32
RESOLUTION = 15.259
"""Microjoules per tick of MI200's counter: 2**-16 J."""


class BoardRegisters(ctypes.Structure):
    """`struct board` of the C source."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("address", "accumulator", "device_id", "limit", "highest_limit")),
        ("memory_used", ctypes.c_uint64),
        ("temperature", ctypes.c_int64),
        ("socket_power", ctypes.c_uint64),
        *((name, ctypes.c_uint32) for name in ("current_power", "average_power", "activity")),
        ("resolution", ctypes.c_float),
        ("processes", ctypes.c_uint32),
        ("pids", ctypes.c_uint32 * MOST_PROCESSES),
        ("errors", ctypes.c_uint32 * len(FAMILIES)),
        ("calls", ctypes.c_uint32 * len(FAMILIES)),
        ("hangs", ctypes.c_uint32),
        ("uuid", ctypes.c_char * 40),
        ("name", ctypes.c_char * 64),
    )


class _State(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("boards", "init_error", "init_hangs", "forgotten")),
        *((name, ctypes.c_uint32) for name in ("inits", "shut_downs")),
        ("board", BoardRegisters * MOST_BOARDS),
    )


def binding() -> Path:
    """The installed binding's file that looks symbols up; without the package the test is skipped."""
    found = importlib.util.find_spec("amdsmi")
    if found is None or found.origin is None:
        if os.environ.get("CI") == "true":
            pytest.fail("amdsmi is not installed (pip install amdsmi)")
        pytest.skip("amdsmi is not installed")
    return Path(found.origin).with_name("amdsmi_wrapper.py")


def build() -> Path:
    """The directory to give as ROCM_PATH: `lib/libamd_smi.so` below it. Built once for each source and binding."""
    source = SOURCE.read_text()
    wanted = re.findall(r"_libraries\['libamd_smi\.so'\]\.(\w+)", binding().read_text())
    here = re.findall(r"^int (amdsmi_\w+)\(", source, re.MULTILINE)
    rest = "".join(f"REST({name})\n" for name in sorted(set(wanted) - set(here)))
    key = hashlib.sha256((source + rest).encode()).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"fakeamdsmi-{os.geteuid()}-{key}"
    library = place / "lib" / "libamd_smi.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as work:
            (Path(work) / "fakeamdsmi_rest.h").write_text(rest)
            made = Path(work) / "made.so"
            flags = (
                "-std=gnu11",
                "-O1",
                "-shared",
                "-fPIC",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-Wl,-soname,libamd_smi.so",
            )
            subprocess.run([need("gcc"), *flags, "-I", work, "-o", made, SOURCE], check=True)
            beside = library.with_suffix(f".{os.getpid()}")
            beside.write_bytes(made.read_bytes())
            beside.replace(library)
    return place


def address_of(text: str) -> int:
    """`0000:c1:00.0` as the register holds it."""
    domain, bus, rest = text.split(":")
    device, function = rest.split(".")
    return int(domain, 16) << 16 | int(bus, 16) << 8 | int(device, 16) << 3 | int(function, 16)


class FakeAmdSmi:
    """A machine's boards, in a file that the library maps."""

    def __init__(self, path: Path, addresses: Sequence[str] = ("0000:03:00.0",)) -> None:
        """Boards that stand still at 100 W, in the order of `addresses`."""
        self.path = path
        path.write_bytes(bytes(ctypes.sizeof(_State)))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.state = _State.from_buffer(self._map)
        self.place = build()
        self.show(addresses)

    @property
    def boards(self) -> Sequence[BoardRegisters]:
        """Those that are shown."""
        return [self.state.board[number] for number in range(self.state.boards)]

    @property
    def environment(self) -> Mapping[str, str]:
        """For a process of its own."""
        return {"ROCM_PATH": str(self.place), "FAKEAMDSMI_STATE": str(self.path)}

    def show(self, addresses: Sequence[str]) -> None:
        """From the next session on these boards are there; each that is new starts at 100 W."""
        before = {board.address: bytes(board) for board in self.boards}
        self.state.boards = len(addresses)
        for number, text in enumerate(addresses):
            board = self.state.board[number]
            known = before.get(address_of(text))
            fresh = known or bytes(BoardRegisters(address=address_of(text), **self._defaults(number)))
            ctypes.memmove(ctypes.addressof(board), fresh, ctypes.sizeof(board))

    def count(self, number: int, joules: float) -> None:
        """Set a board's counter."""
        board = self.boards[number]
        board.accumulator = round(joules * 1e6 / board.resolution)

    def fail(self, number: int, family: str, code: int) -> None:
        """Calls of this family on this board answer `code`; 0 ends it."""
        self.boards[number].errors[FAMILIES.index(family)] = code

    def calls(self, number: int) -> dict[str, int]:
        """How often each family was asked of a board."""
        return dict(zip(FAMILIES, self.boards[number].calls, strict=True))

    def __enter__(self) -> FakeAmdSmi:  # noqa: PYI034 - Self is of Python 3.11
        """Make this process see the boards."""
        self._environment = {key: os.environ.get(key) for key in self.environment}
        os.environ.update(self.environment)
        library = ctypes.CDLL(str(self.place / "lib" / "libamd_smi.so"))
        assert library.fakeamdsmi_attach(str(self.path).encode()) == ctypes.sizeof(_State)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End every hang, so that no thread stays behind; the map stays, because the library holds it."""
        for board in self.boards:
            board.hangs = 0
        self.state.init_hangs = 0
        for key, value in self._environment.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value

    @staticmethod
    def _defaults(number: int) -> dict[str, object]:
        return {
            "device_id": 0x74A1,
            "limit": 750_000_000,
            "highest_limit": 750_000_000,
            "memory_used": 1 << 30,
            "temperature": 45,
            "current_power": 100,
            "average_power": 0xFFFF,
            "activity": 7,
            "resolution": RESOLUTION,
            "uuid": f"{number:02x}ff74a1-0000-1000-80e0-000000000000".encode(),
            "name": b"AMD Instinct MI300X",
        }
