"""What NVML writes into memory, as facts: pure functions on bytes, which never raise whatever the bytes are.

Layouts are those of nvml.h on 64-bit Linux.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "ATTRIBUTES",
    "FIELD_BYTES",
    "NO_INSTANCE",
    "PROCESS_BYTES",
    "SAMPLE_BYTES",
    "Attributes",
    "FieldValue",
    "ProcessEntry",
    "UtilizationEntry",
    "field_request",
    "parse_attributes",
    "parse_fields",
    "parse_processes",
    "parse_samples",
    "text_of",
]

_FIELD = struct.Struct("=II16xii8s")  # nvmlFieldValue_t: id, scope, timestamp and latency, type, return code, value
_PROCESS = struct.Struct("=I12xII")  # nvmlProcessInfo_t: pid, memory, GPU instance, compute instance
_SAMPLE = struct.Struct("=I4xQI12x")  # nvmlProcessUtilizationSample_t: pid, microseconds, SM per cent, others
ATTRIBUTES = struct.Struct("=I20xI4xQ")
"""nvmlDeviceAttributes_t: multiprocessors, five shared engines, slices of its GPU instance, and of its own, MiB."""
FIELD_BYTES, PROCESS_BYTES, SAMPLE_BYTES = _FIELD.size, _PROCESS.size, _SAMPLE.size

NO_INSTANCE = 0xFFFFFFFF
_UNTOLD = -1
"""Stands in a request where the driver will write its code: a field that it passes over has no value."""

_VALUE = tuple(struct.Struct(layout) for layout in ("=d", "=I4x", "=Q", "=Q", "=q", "=i4x", "=H6x"))
"""nvmlValue_t, by nvmlValueType_t: double, unsigned, unsigned long, twice long long, int, unsigned short."""


class FieldValue(NamedTuple):
    """One field: `code` 0 and a value, or why there is none (-1: the driver said nothing of it)."""

    field: int
    scope: int
    code: int
    value: float


class ProcessEntry(NamedTuple):
    """A process with a context, and the GPU instance that it is in (`NO_INSTANCE`: none)."""

    pid: int
    instance: int

    @property
    def placed(self) -> bool:
        """Whether it is in an instance at all."""
        return self.instance != NO_INSTANCE


class UtilizationEntry(NamedTuple):
    """What a process used: per cent of the multiprocessors' time, at microseconds of the driver's clock."""

    pid: int
    at: int
    percent: int


class Attributes(NamedTuple):
    """The size of a MIG device: multiprocessors, the compute slices of the GPU instance it is in, memory."""

    multiprocessors: int
    slices: int
    memory: int
    """MiB."""


def field_request(wanted: Iterable[tuple[int, int]]) -> bytes:
    """The argument of nvmlDeviceGetFieldValues for fields and scopes."""
    return b"".join(_FIELD.pack(field, scope, 0, _UNTOLD, bytes(8)) for field, scope in wanted)


def parse_fields(raw: bytes) -> tuple[FieldValue, ...]:
    """What nvmlDeviceGetFieldValues wrote; a value that is no number, or of an unknown type, is none."""
    return tuple([_field(*entry) for entry in _FIELD.iter_unpack(_whole(raw, FIELD_BYTES))])


@lru_cache(maxsize=512)
def parse_processes(raw: bytes) -> tuple[ProcessEntry, ...]:
    """The entries of a list of processes, without those that have no pid; kept, for most lists are as they were."""
    entries = _PROCESS.iter_unpack(_whole(raw, PROCESS_BYTES))
    return tuple(ProcessEntry(pid, instance) for pid, instance, _ in entries if pid)


def parse_samples(raw: bytes) -> tuple[UtilizationEntry, ...]:
    """The samples of utilisation that can be: of a process, and at most 100 %."""
    entries = _SAMPLE.iter_unpack(_whole(raw, SAMPLE_BYTES))
    return tuple([UtilizationEntry(pid, at, percent) for pid, at, percent in entries if pid and percent <= 100])  # noqa: PLR2004


def parse_attributes(raw: bytes) -> Attributes:
    """The attributes of a MIG device; all 0 if the bytes are too few."""
    return Attributes(*ATTRIBUTES.unpack(raw[: ATTRIBUTES.size].ljust(ATTRIBUTES.size, b"\0")))


def text_of(raw: bytes) -> str:
    """A C string as printable text."""
    text = raw.split(b"\0", 1)[0].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text).strip()


def _field(field: int, scope: int, kind: int, code: int, raw: bytes) -> FieldValue:
    if code or not 0 <= kind < len(_VALUE):
        return FieldValue(field, scope, code or _UNTOLD, 0.0)
    (value,) = _VALUE[kind].unpack(raw)
    return FieldValue(field, scope, 0, value) if math.isfinite(value) else FieldValue(field, scope, _UNTOLD, 0.0)


def _whole(raw: bytes, size: int) -> bytes:
    """As much as is whole entries."""
    return raw[: len(raw) // size * size]
