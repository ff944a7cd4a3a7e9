"""The memory of a family: what the kernel tells of it, and at what price it is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from carbon_exporter.sdk.tree_memory import PAGE, TreeMemory, parse_shares

KIBIBYTE = 1024
ROLLUP = b"""55effdcb2000-7ffc64d73000 ---p 00000000 00:00 0                          [rollup]
Rss:                1696 kB
Pss:                 322 kB
Pss_Dirty:           240 kB
Pss_Anon:            200 kB
Pss_File:             82 kB
Pss_Shmem:            40 kB
"""


class Cost:
    """A thread's CPU clock on which each walk takes so much."""

    def __init__(self, walk: float) -> None:
        self.now, self.walk = 0.0, walk

    def __call__(self) -> float:
        self.now += self.walk
        return self.now


def write(proc: Path, pid: int, *, private: int, shares: int | None = None) -> None:
    """A process with so many anonymous pages, and KiB of its own by the kernel's walk."""
    directory = proc / str(pid)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "statm").write_text(f"9999 {private + 30} 30 1 0 1 0\n")
    if shares is not None:
        (directory / "smaps_rollup").write_text(f"x\nPss: 9 kB\nPss_Anon: {shares} kB\nPss_Shmem: 0 kB\n")


def test_mapped_files_are_the_machines_cache() -> None:
    assert parse_shares(ROLLUP) == 240 * KIBIBYTE
    assert parse_shares(ROLLUP.replace(b"Pss_Shmem", b"Psst_Shmem")) == 322 * KIBIBYTE, "before Linux 5.4"


@given(st.binary())
@example(b"Pss: x kB")
@example(b"Pss:")
def test_no_text_raises_anything_else(text: bytes) -> None:
    try:
        assert parse_shares(text) >= 0 or b"-" in text
    except ValueError:
        return


def test_before_its_pages_were_walked_a_child_has_what_it_has_more_than_its_forebear(tmp_path: Path) -> None:
    write(tmp_path, 1, private=100)
    write(tmp_path, 2, private=110)
    write(tmp_path, 3, private=10)
    assert TreeMemory(str(tmp_path)).look([1, 2, 3], 0.0) == 110 * PAGE


def test_then_each_page_counts_once_and_what_comes_later_is_added(tmp_path: Path) -> None:
    for pid in (1, 2):
        write(tmp_path, pid, private=100, shares=200)
    memory = TreeMemory(str(tmp_path), Cost(0.0))
    for now in (0.0, 2.0, 2.1):
        held = memory.look([1, 2], now)
    assert held == 400 * KIBIBYTE
    write(tmp_path, 2, private=107, shares=200)
    assert memory.look([1, 2], 2.2) == 400 * KIBIBYTE, "looked at once a second"
    assert memory.look([1, 2], 3.2) == 400 * KIBIBYTE + 7 * PAGE
    (tmp_path / "2" / "statm").unlink()
    assert memory.look([1, 2], 4.3) == 200 * KIBIBYTE


def test_walks_are_paid_by_waiting(tmp_path: Path) -> None:
    write(tmp_path, 1, private=100, shares=200)
    memory = TreeMemory(str(tmp_path), Cost(0.5))
    memory.look([1], 0.0)
    assert memory.look([1], 2.0) == 200 * KIBIBYTE
    write(tmp_path, 1, private=100, shares=300)
    assert memory.look([1], 501.0) == 200 * KIBIBYTE
    assert memory.look([1], 503.0) == 300 * KIBIBYTE


@pytest.mark.parametrize("text", ["", "1 2", "x y z", "5 1 9 0"])
def test_a_process_that_cannot_be_read_has_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "statm").write_text(text)
    assert TreeMemory(str(tmp_path)).look([1, 2], 0.0) == 0


def test_one_whose_pages_may_not_be_walked_counts_by_the_cheap_numbers(tmp_path: Path) -> None:
    write(tmp_path, 1, private=100)
    memory = TreeMemory(str(tmp_path))
    assert [memory.look([1], now) for now in (0.0, 3.0, 20.0)] == [100 * PAGE] * 3
