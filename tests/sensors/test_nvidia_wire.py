"""What NVML writes into memory: layouts as the binding has them, and bytes that are anything."""

from __future__ import annotations

import ctypes
import math

import pynvml  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.sensors.nvidia import wire
from carbon_exporter.sensors.nvidia.wire import Attributes, FieldValue, ProcessEntry, UtilizationEntry

anything = st.binary(max_size=400)


def field(kind: int, member: str, value: float, code: int = 0) -> FieldValue:
    """One field as the binding's structure has it, parsed."""
    one = pynvml.c_nvmlFieldValue_t(186, 1, 10**15, 5, kind, code)
    setattr(one.value, member, value)
    (told,) = wire.parse_fields(bytes(one))
    return told


@pytest.mark.parametrize(
    ("kind", "member", "value"),
    [
        *((0, "dVal", 1.5), (1, "uiVal", 2**32 - 1), (2, "ulVal", 2**64 - 1), (3, "ullVal", 2**64 - 1)),
        *((4, "sllVal", -(2**63)), (5, "siVal", -7), (6, "usVal", 65535)),
    ],
)
def test_a_field_has_the_type_that_it_says(kind: int, member: str, value: float) -> None:
    assert field(kind, member, value) == FieldValue(186, 1, 0, value)


@pytest.mark.parametrize("kind", [-1, 7, 2**31 - 1])
def test_a_field_of_an_unknown_type_has_no_value(kind: int) -> None:
    assert field(kind, "uiVal", 5).code != 0


def test_a_field_that_is_no_number_has_no_value() -> None:
    assert field(0, "dVal", math.nan).code != 0
    assert field(0, "dVal", math.inf).code != 0


def test_a_field_that_failed_keeps_its_code() -> None:
    assert field(1, "uiVal", 5, code=3).code == 3


def test_a_request_is_what_the_binding_sends_and_a_driver_that_skips_it_told_nothing() -> None:
    request = wire.field_request(((191, 0), (186, 1)))
    array = (pynvml.c_nvmlFieldValue_t * 2).from_buffer_copy(request)
    assert [(one.fieldId, one.scopeId) for one in array] == [(191, 0), (186, 1)]
    assert all(one.code for one in wire.parse_fields(request))


def test_the_other_structures_are_the_bindings() -> None:
    process = pynvml.c_nvmlProcessInfo_v3_t(11, 1 << 40, 7, 0)
    assert wire.parse_processes(bytes(process)) == (ProcessEntry(11, 7),)
    sample = pynvml.c_nvmlProcessUtilizationSample_t(11, 1 << 50, 60, 1, 2, 3)
    assert wire.parse_samples(bytes(sample)) == (UtilizationEntry(11, 1 << 50, 60),)
    attributes = pynvml.c_nvmlDeviceAttributes(16, 1, 1, 1, 1, 1, 2, 3, 9856)
    assert wire.parse_attributes(bytes(attributes)) == Attributes(16, 2, 9856)
    sizes = (wire.FIELD_BYTES, wire.PROCESS_BYTES, wire.SAMPLE_BYTES, wire.ATTRIBUTES.size)
    assert sizes == tuple(
        ctypes.sizeof(one)
        for one in (
            *(pynvml.c_nvmlFieldValue_t, pynvml.c_nvmlProcessInfo_v3_t),
            *(pynvml.c_nvmlProcessUtilizationSample_t, pynvml.c_nvmlDeviceAttributes),
        )
    )


def test_a_process_without_a_pid_and_a_use_above_all_are_left_out() -> None:
    assert wire.parse_processes(bytes(pynvml.c_nvmlProcessInfo_v3_t(0, 1, 7, 0))) == ()
    assert wire.parse_samples(bytes(pynvml.c_nvmlProcessUtilizationSample_t(11, 5, 101))) == ()
    assert wire.parse_samples(bytes(pynvml.c_nvmlProcessUtilizationSample_t(0, 5, 10))) == ()


@given(anything)
def test_any_bytes_are_parsed(raw: bytes) -> None:
    for told in wire.parse_fields(raw):
        assert told.code or math.isfinite(told.value)
    assert all(entry.pid for entry in wire.parse_processes(raw))
    assert all(0 <= entry.percent <= 100 for entry in wire.parse_samples(raw))
    assert all(number >= 0 for number in wire.parse_attributes(raw))
    assert wire.text_of(raw).isprintable()


def test_a_text_ends_at_its_zero_and_is_printable() -> None:
    assert wire.text_of(b"NVIDIA H100\0rest") == "NVIDIA H100"
    assert wire.text_of(b"\xff\x1b[31mH100\n\0") == "\ufffd?[31mH100?"
