"""Compresses samples into XOR chunks, by `chunks.c`, which gcc makes into a library of this process."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["LONGEST", "Floats", "Integers", "Span", "crc32c", "encode", "places"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Span = NDArray[np.int32]
LONGEST = 256
"""Samples of a chunk; `chunks.c` has room for no more, Prometheus itself makes 120."""
_SOURCE = Path(__file__).with_name("chunks.c")
_FLAGS = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")


@cache
def _library() -> ctypes.CDLL:
    """Made once a process. Raises FileNotFoundError without gcc."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "chunks.so")
        subprocess.run(["gcc", *_FLAGS, "-o", made, _SOURCE], check=True)
        library = ctypes.CDLL(str(made))
    library.crc32c.restype = ctypes.c_uint32
    library.encode.restype = library.places.restype = ctypes.c_int64
    return library


def crc32c(data: bytes) -> bytes:
    """The sum that the format keeps after its parts (RFC 3720, Castagnoli), four bytes."""
    return int(_library().crc32c(data, ctypes.c_int64(len(data)))).to_bytes(4, "big")


def encode(rows: Floats, first: int, step: int, since: Span, until: Span) -> tuple[memoryview, Integers]:
    """One chunk a row: its samples `since` to `until`, at `first` + `step` x column (ms); and the sizes, 0 for none."""
    series, columns = rows.shape
    assert columns <= LONGEST
    rows = np.ascontiguousarray(rows)
    out = np.empty(series * (32 + 11 * columns), np.uint8)
    sizes = np.empty(series, np.int64)
    written = _library().encode(
        *(_pointer(rows), ctypes.c_int64(series), ctypes.c_int64(columns), _pointer(since), _pointer(until)),
        *(ctypes.c_int64(first), ctypes.c_int64(step), _pointer(out), _pointer(sizes)),
    )
    return out[:written].data, sizes


def places(begins: Integers, ends: Integers, refs: Integers) -> list[bytes]:
    """Of each series (column) where its chunks (rows) are, as the index has it."""
    windows, series = refs.shape
    out = np.empty(series * (10 + 30 * windows), np.uint8)
    sizes = np.empty(series, np.int64)
    arrays = [np.ascontiguousarray(array) for array in (begins, ends, refs)]
    written = _library().places(
        *(_pointer(array) for array in arrays),
        *(ctypes.c_int64(windows), ctypes.c_int64(series), _pointer(out), _pointer(sizes)),
    )
    data, ends_at = out[:written].tobytes(), np.cumsum(sizes).tolist()
    return [data[since:until] for since, until in zip([0, *ends_at[:-1]], ends_at, strict=True)]


def _pointer(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
