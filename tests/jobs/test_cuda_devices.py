"""Lists of boards, as CUDA, NVIDIA's runtime and Slurm write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.jobs.cuda_devices import ALL, MOST_ENTRIES, Resolution, parse_slurm_gpus, parse_visible, resolve

A = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
B = "GPU-8932aaaa-d72c-4106-c12f-20bd9faed9f6"
C = "GPU-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
SLICE = "MIG-41b36413-fc2b-5eb1-9c43-1c6a2e4d3b77"
OLD_SLICE = f"MIG-{A}/7/0"
IN_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}

LISTS = [
    ("", ()),
    (" ", ()),
    ("none", ()),
    ("void", ()),
    ("NoDevFiles", ()),
    ("-1", ()),
    ("all", (ALL,)),
    ("ALL", (ALL,)),
    ("0,all", ("0",)),
    ("0", ("0",)),
    ("2,1", ("2", "1")),
    (" 0 , 3 ", ("0", "3")),
    ("00,01", ("0", "1")),
    ("0,2,-1,1", ("0", "2")),
    ("0,,1", ("0",)),
    ("0,0,1", ("0", "1")),
    ("0.5", ()),
    ("٣", ()),
    ("123456", ()),
    (f"{A},{C}", (A, C)),
    ("GPU-8932f937", ("GPU-8932f937",)),
    ("gpu-8932f937", ()),
    ("GPU-", ()),
    ("GPU-xyz", ()),
    (SLICE, (SLICE,)),
    (f"{OLD_SLICE},{A}", (OLD_SLICE, A)),
    ("0:1,1", ("0:1", "1")),
]


@pytest.mark.parametrize(("text", "entries"), LISTS)
def test_a_list_has_its_entries(text: str, entries: tuple[str, ...]) -> None:
    assert parse_visible(text) == entries


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", ()),
        ("0,1", ("0", "1")),
        ("0-3,7", ("0", "1", "2", "3", "7")),
        ("3-3", ("3",)),
        ("3-1", ()),
        ("0-99999", ()),
        ("0,x", ()),
        (A, ()),
    ],
)
def test_slurm_writes_numbers_and_ranges(text: str, numbers: tuple[str, ...]) -> None:
    assert parse_slurm_gpus(text) == numbers


def test_a_number_is_a_place_in_the_order_of_addresses() -> None:
    assert resolve(("2", "0"), (A, B, C), IN_ORDER) == Resolution((C, A))


@pytest.mark.parametrize("environment", [None, {}, {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}])
def test_a_number_in_an_order_of_cudas_own_is_not_certain(environment: dict[str, str] | None) -> None:
    assert resolve(("1",), (A, B), environment) == Resolution((B,), certain=False)
    assert resolve((A,), (A, B), environment).certain
    assert resolve(("0",), (A,), environment).certain


def test_a_uuid_may_be_abbreviated_as_long_as_it_fits_one_board() -> None:
    assert resolve(("GPU-8932f", "GPU-0"), (A, B, C)).uuids == (A, C)
    assert resolve((C, "GPU-8932", A), (A, B, C)).uuids == (C,)


def test_a_board_that_is_not_there_ends_the_list() -> None:
    assert resolve(("0", "3", "1"), (A, B, C), IN_ORDER).uuids == (A,)
    assert resolve(("GPU-ffff", A), (A,)).uuids == ()


def test_slices_stay_as_they_are_given() -> None:
    assert resolve((SLICE, OLD_SLICE, "0:1"), (A,)).uuids == (SLICE, OLD_SLICE)


def test_all_is_every_board() -> None:
    assert resolve(parse_visible("all"), (A, B)) == Resolution((A, B))


def test_the_same_board_twice_is_one() -> None:
    assert resolve(("0", A), (A, B), IN_ORDER).uuids == (A,)


pieces = st.sampled_from(["0", "1", "17", A, B, "GPU-8", SLICE, OLD_SLICE, "all", "none", "-1", "", "0:1", " "])


@given(st.text(max_size=60) | st.lists(pieces, max_size=8).map(",".join))
def test_any_text_is_a_list(text: str) -> None:
    entries = parse_visible(text)
    assert len(set(entries)) == len(entries) <= MOST_ENTRIES
    assert parse_visible(",".join(entries)) == entries
    resolution = resolve(entries, (A, B, C))
    assert {uuid for uuid in resolution.uuids if uuid.startswith("GPU-")} <= {A, B, C}
    assert all(number.isdecimal() for number in parse_slurm_gpus(text))


def test_a_list_is_bounded() -> None:
    assert len(parse_visible(",".join(str(number) for number in range(5000)))) == MOST_ENTRIES
    assert len(parse_slurm_gpus("0-200,300-500,600-800")) == MOST_ENTRIES
