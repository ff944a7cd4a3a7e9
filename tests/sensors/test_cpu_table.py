"""Names of processors as kernels print them, and the rows that they may and may not find."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.sensors.cpu_table import NEAR_SPREAD, Row, find, find_among, normalise, shipped_rows
from carbon_exporter.units import Watts


def row(model: str, tdp: float, cores: int | None = 8, vendor: str = "Intel") -> Row:
    return Row(vendor, model, Watts(tdp), cores)


@pytest.mark.parametrize(
    ("name", "model", "tdp"),
    [
        ("Intel(R) Xeon(R) Platinum 8280 CPU @ 2.70GHz", "Intel Xeon Platinum 8280", 205),
        ("Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", "Intel Xeon E5-2686 v4", 145),
        ("Intel(R) Xeon(R) CPU           X5650  @ 2.67GHz", "Intel Xeon X5650", 95),
        ("INTEL(R) XEON(R) PLATINUM 8481C CPU @ 2.00GHz", "Intel Xeon Platinum 8481C", 350),
        ("13th Gen Intel(R) Core(TM) i9-13900K", "Intel Core i9-13900K", 125),
        ("Intel(R) Core(TM)2 Duo CPU     E8400  @ 3.00GHz", "Intel Core 2 Duo E8400", 65),
        ("Intel(R) Core(TM) Ultra 7 155H", "Intel Core Ultra 7 155H", 28),
        ("Intel(R) N100", "Intel N100", 6),
        ("AMD EPYC 7742 64-Core Processor", "AMD EPYC 7742", 225),
        ("AMD EPYC 9654 96-Core Processor", "AMD EPYC 9654", 360),
        ("AMD Ryzen 7 PRO 5850U with Radeon Graphics", "AMD Ryzen 7 PRO 5850U", 15),
        ("AMD Ryzen 7 7840HS w/ Radeon 780M Graphics", "AMD Ryzen 7 7840HS", 35),
        ("AMD Ryzen Threadripper PRO 3995WX 64-Cores", "AMD Ryzen Threadripper PRO 3995WX", 280),
        ("AMD FX(tm)-8350 Eight-Core Processor", "AMD FX-8350", 125),
        ("AMD Opteron(tm) Processor 6276", "AMD Opteron 6276", 115),
    ],
)
def test_a_name_as_the_kernel_prints_it_finds_its_own_row(name: str, model: str, tdp: float) -> None:
    match = find(name)
    assert match is not None
    assert (match.row.model, match.row.tdp, match.how) == (model, tdp, "exact match")


@pytest.mark.parametrize("vendor", ["", "Intel", "AMD"])
@pytest.mark.parametrize(
    "name",
    [
        "",
        "AMD EPYC",
        "AMD EPYC Processor",
        "AMD EPYC-Rome Processor",
        "AMD EPYC-Milan-v2 Processor",
        "AMD Ryzen 9",
        "Intel(R) Xeon(R) Processor",
        "Intel(R) Xeon(R) CPU @ 2.20GHz",
        "Intel Xeon Processor (Skylake, IBRS)",
        "Intel Core Processor (Haswell, no TSX, IBRS)",
        "Intel Xeon E312xx (Sandy Bridge, IBRS update)",
        "Intel Core i7 9xx (Nehalem Class Core i7)",
        "Intel(R) Core(TM) i7",
        "Genuine Intel(R) CPU 0000 @ 2.20GHz",
        "QEMU Virtual CPU version 2.5+",
        "Common KVM processor",
        "Common 32-bit KVM processor",
        "AMD Eng Sample: 100-000000053-04_32/20_N",
        "ARMv8 Processor rev 0 (v8l)",
        "Cortex-A72",
    ],
)
def test_a_name_that_designates_no_model_finds_nothing(name: str, vendor: str) -> None:
    assert find(name, vendor) is None


def test_a_row_that_designates_no_model_is_never_found() -> None:
    rows = [row("Intel Xeon", 61), row("Intel Xeon 2.20GHz", 65), row("AMD EPYC", 500, vendor="AMD")]
    for name in ("Intel(R) Xeon(R) CPU @ 2.20GHz", "Intel(R) Xeon(R) CPU 2.20GHz", "AMD EPYC Processor"):
        assert find_among(rows, name) is None


def test_a_suffix_that_is_not_listed_is_a_near_match() -> None:
    match = find("Intel(R) Xeon(R) Platinum 8280Z CPU @ 2.70GHz")
    assert match is not None
    assert (match.row.model, match.how) == ("Intel Xeon Platinum 8280", "near match")


def test_a_suffix_that_decides_about_the_power_is_no_match() -> None:
    assert find("13th Gen Intel(R) Core(TM) i9-13900ZZ") is None
    rows = [row("Intel Core i9-1100", 65), row("Intel Core i9-1100K", 125)]
    assert find_among(rows, "Intel Core i9-1100X") is None


@pytest.mark.parametrize(
    "name",
    [
        "Intel Xeon Gold 6149C",
        "Intel Xeon Silver 6148C",
        "Intel Xeon 6148C",
        "AMD Xeon Gold 6148C",
        "Xeon Gold 6148C",
        "Intel Xeon Gold 61480",
        "Intel Xeon Gold 6148C v2",
    ],
)
def test_a_near_match_agrees_in_vendor_family_and_digits(name: str) -> None:
    assert find_among([row("Intel Xeon Gold 6148", 150)], name) is None


def test_the_vendor_of_cpuid_serves_where_the_name_has_none() -> None:
    rows = [row("Intel Xeon Gold 6148", 150)]
    assert find_among(rows, "Xeon Gold 6148") is None
    assert find_among(rows, "Xeon Gold 6148", "Intel") is not None
    assert find_among(rows, "Intel Xeon Gold 6148", "AMD") is not None


def test_of_rows_that_agree_the_plain_one_with_a_core_count_is_taken() -> None:
    rows = [
        row("Intel Xeon Gold 6148X", 150, None),
        row("Intel Xeon Gold 6148FF", 160),
        row("Intel Xeon Gold 6148F", 160),
    ]
    match = find_among(rows, "Intel Xeon Gold 6148")
    assert match is not None
    assert match.row.model == "Intel Xeon Gold 6148F"


def test_two_rows_of_one_name_that_disagree_are_no_match() -> None:
    rows = [row("AMD FX-4150", 95, vendor="AMD"), row("AMD FX-4150 Quad-Core", 125, vendor="AMD")]
    assert find_among(rows, "AMD FX(tm)-4150 Quad-Core Processor") is None


def test_the_shipped_table_has_no_row_that_makes_no_sense() -> None:
    rows = shipped_rows()
    assert len(rows) > 5000
    assert all(0 < entry.tdp <= 1000 for entry in rows)
    assert all(entry.cores is None or 0 < entry.cores <= 512 for entry in rows)


def test_only_looking_at_rows_with_the_same_digits_loses_none() -> None:
    rows = shipped_rows()
    for entry in rows[::97]:
        assert find(entry.model, entry.vendor) == find_among(rows, entry.model, entry.vendor)


@given(st.text(max_size=60), st.sampled_from(["", "Intel", "AMD"]))
def test_any_text_finds_a_row_or_nothing(name: str, vendor: str) -> None:
    match = find_among([row("Intel Xeon Gold 6148", 150)], name, vendor)
    assert match is None or "6148" in name
    assert find(name, vendor) is None or any(letter.isdigit() for letter in name)


@given(
    st.sampled_from([entry.model for entry in shipped_rows()]), st.sampled_from(["(R)", "(TM)", " CPU", " Processor"])
)
def test_case_marks_and_clock_rate_do_not_tell_models_apart(name: str, mark: str) -> None:
    assert normalise(f"{name.upper()}{mark} 16-Core Processor @ 2.40GHz") == normalise(name)


models = st.from_regex(r"[1-9][0-9]{3}[A-Z]{0,2}", fullmatch=True).map("Intel Xeon Gold {}".format)


@given(st.lists(st.tuples(models, st.floats(1, 500)), max_size=8), models)
def test_whatever_matches_shares_its_digits_and_is_not_contradicted(table: list[tuple[str, float]], name: str) -> None:
    rows = [row(model, tdp) for model, tdp in table]
    match = find_among(rows, name)
    if match is not None:
        assert match.row.model.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ") == name.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        same = [tdp for model, tdp in table if model == match.row.model]
        assert max(same) <= NEAR_SPREAD * min(same)
