"""The reader of protobuf's wire format, against an encoder of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kubelet import field, varint

from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.protobuf import text_field, texts_and_messages

NUMBERS = st.integers(1, (1 << 29) - 1)


def test_the_documentations_own_examples() -> None:
    assert texts_and_messages(bytes.fromhex("089601")) == {}
    assert texts_and_messages(bytes.fromhex("120774657374696e67")) == {2: [b"testing"]}
    assert texts_and_messages(bytes.fromhex("1a03089601")) == {3: [bytes.fromhex("089601")]}


def test_fields_of_fixed_length_are_passed_over() -> None:
    message = varint(1 << 3 | 1) + b"12345678" + field(2, "a") + varint(3 << 3 | 5) + b"1234" + field(2, "b")
    assert texts_and_messages(message) == {2: [b"a", b"b"]}


@given(st.lists(st.tuples(NUMBERS, st.one_of(st.binary(max_size=300), st.integers(0, (1 << 64) - 1)))))
def test_what_was_written_is_read(fields: list[tuple[int, bytes | int]]) -> None:
    expected: dict[int, list[bytes]] = {}
    for number, value in fields:
        if isinstance(value, bytes):
            expected.setdefault(number, []).append(value)
    assert texts_and_messages(b"".join(field(*one) for one in fields)) == expected


@pytest.mark.parametrize(
    "message",
    ["0a", "0a05616263", "08", "0880", "09313233", "0d31", "00", "0200", "0b0c", "0f", "08" + "ff" * 10, "ff" * 11],
)
def test_what_is_no_message_is_an_error(message: str) -> None:
    with pytest.raises(JobResolutionError, match="not a protobuf message"):
        texts_and_messages(bytes.fromhex(message))


def test_a_length_beyond_all_memory_is_an_error() -> None:
    with pytest.raises(JobResolutionError, match="cut short"):
        texts_and_messages(varint(1 << 3 | 2) + varint((1 << 63) - 1) + b"abc")


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_our_error(message: bytes) -> None:
    try:
        found = texts_and_messages(message)
    except JobResolutionError:
        return
    assert sum(len(value) for values in found.values() for value in values) <= len(message)


@given(st.integers(1, 15), st.text(max_size=400))
def test_a_text_that_is_written_is_read(number: int, text: str) -> None:
    assert texts_and_messages(text_field(number, text)) == {number: [text.encode()]}
