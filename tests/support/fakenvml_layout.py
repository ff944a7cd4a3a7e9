"""The state file of the fake NVML, field by field as fakenvml.h has it; the library refuses a file of another size."""

from __future__ import annotations

from ctypes import Structure, c_char, c_double, c_int32, c_int64, c_uint32, c_uint64

__all__ = [
    "FAMILIES",
    "MAGIC",
    "MAX_BOARDS",
    "MAX_LEFT_OUT",
    "MAX_SEGMENTS",
    "NO_INSTANCE",
    "Board",
    "State",
]

MAGIC = 0x464E564D
MAX_BOARDS, MAX_PROCESSES, MAX_SLICES, MAX_SEGMENTS, MAX_LEFT_OUT = 80, 32, 8, 16, 16
NO_INSTANCE = 0xFFFFFFFF
_FAMILY_NAMES = (
    "identity fields energy power limit procs samples rates memory temperature mig gpm session"  # the order of the enum
)
FAMILIES = {name: number for number, name in enumerate(_FAMILY_NAMES.split())}
"""Families of functions: identity (name, uuid, index, handles …), fields (nvmlDeviceGetFieldValues), energy (the
counter's function), procs (three lists), samples (utilisation by process), and those whose names say it."""

_Text = c_char * 96


class _Segment(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("start_ns", "epoch_ns", "width_ns", "period_ns")),
        *((name, c_double) for name in ("base_mw", "peak_mw", "joules_before_mj")),
    )


class _Process(Structure):
    _fields_ = (*((name, c_uint32) for name in ("pid", "sm", "mem", "lists", "gi", "ci")), ("used", c_uint64))


class _Slice(Structure):
    _fields_ = (
        ("uuid", _Text),
        ("name", _Text),
        *((name, c_uint32) for name in ("gi", "ci", "gi_slices", "ci_slices", "sm_count", "pad")),
        ("memory", c_uint64),
        ("used", c_uint64),
        ("busy", c_double),
    )


class Board(Structure):
    """One board."""

    _fields_ = (
        ("uuid", _Text),
        ("name", _Text),
        ("serial", c_char * 32),
        ("bus_id", c_char * 32),
        *((name, c_uint32) for name in ("arch", "minor", "temperature", "gpu_rate", "memory_rate", "sm_count")),
        *((name, c_uint32) for name in ("compute_mode", "gpm")),
        *((name, c_uint32) for name in ("limit_mw", "limit_least_mw", "limit_most_mw", "limit_default_mw")),
        ("memory", c_uint64),
        ("used", c_uint64),
        ("busy", c_double),
        *((name, c_uint32) for name in ("segments", "averaging", "refresh_ms", "refresh_phase_ms")),
        ("segment", _Segment * MAX_SEGMENTS),
        *((name, c_uint32) for name in ("no_counter", "counter_is_fixed", "power_is_fixed", "fixed_power_mw")),
        ("fixed_counter_mj", c_uint64),
        *((name, c_double) for name in ("counter_offset_mj", "counter_scale", "module_extra_mw")),
        *((name, c_uint32) for name in ("gpu_scope", "module_scope", "counter_of_module", "samples_ms")),
        ("no_samples_code", c_int32),
        ("gone", c_int32),
        ("left_out", c_uint32 * MAX_LEFT_OUT),
        ("error", c_int32),
        ("errors", c_int32 * len(FAMILIES)),
        *((name, c_uint32) for name in ("latency_us", "hang_lookups", "pad")),
        ("hang_until_ns", c_int64),
        ("began_ns", c_int64),
        *((name, c_uint32) for name in ("mig_mode", "slices", "processes", "pad2")),
        ("slice", _Slice * MAX_SLICES),
        ("process", _Process * MAX_PROCESSES),
        ("calls", c_uint64 * len(FAMILIES)),
    )


class State(Structure):
    """The whole file."""

    _fields_ = (
        *((name, c_uint32) for name in ("magic", "size", "boards", "session")),
        ("init_code", c_int32),
        ("session_code", c_int32),
        ("hang_until_ns", c_int64),
        *((name, c_uint64) for name in ("calls", "inits", "session_calls")),
        ("driver", c_char * 80),
        ("order", c_uint32 * MAX_BOARDS),
        ("board", Board * MAX_BOARDS),
    )
