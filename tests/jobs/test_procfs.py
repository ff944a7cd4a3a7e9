"""Readers of /proc: recorded texts of real kernels give their numbers, and any other text is a `ValueError`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.jobs.procfs import (
    CpuTimes,
    Memory,
    ProcessStat,
    parse_cgroup,
    parse_cpu_times,
    parse_environ,
    parse_memory,
    parse_process_stat,
    parse_pss,
)

PYTHON = (
    b"9274 (python3) R 9271 9271 17260 0 -1 4194560 2865 6550 0 0 10 2 4 3 20 0 1 0 292544 16986112 3388 "
    b"18446744073709551615 94127834787840 94127834788181 140722076335024 0 0 0 0 16781312 2 0 0 0 17 0 0 0 0 0 0 "
    b"94127834799536 94127834800152 94128655994880 140722076342507 140722076342562 140722076342562 140722076344271 0\n"
)
KTHREADD = (
    b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 10 0 0 18446744073709551615 0 0 0 0 0 0 0 2147483647 "
    b"0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)
MEMINFO = b"""MemTotal:       24684084 kB
MemFree:        22615484 kB
MemAvailable:   23751416 kB
Buffers:          317352 kB
Cached:          1022016 kB
HugePages_Total:       0
"""
OLD_MEMINFO = b"MemTotal: 1000 kB\nMemFree: 200 kB\nBuffers: 30 kB\nCached: 400 kB\n"
STAT = b"""cpu  129905 5065 19151 428045 1187 7 791 259 11 3
cpu0 66678 2372 9547 212616 562 0 314 133 0 0
cpu1 63226 2693 9603 215429 624 7 477 125 11 3
intr 1903050 0 0 0
ctxt 4711
btime 1795305832
"""
VERSION_1 = b"""12:hugetlb:/
11:cpu,cpuacct:/docker/4f5e
10:memory:/docker/4f5e
1:name=systemd:/docker/4f5e
"""
HYBRID = b"""3:cpuset:/
2:cpuacct:/system.slice
1:name=systemd:/system.slice/ssh.service
0::/system.slice/ssh.service
"""


def test_a_process_is_read_field_by_field() -> None:
    assert parse_process_stat(PYTHON) == ProcessStat(
        comm=b"python3",
        parent=9271,
        own=12,
        waited=7,
        started=292544,
        resident_pages=3388,
        stack=140722076335024,
        kernel=False,
    )


def test_a_thread_of_the_kernel_is_known_as_one() -> None:
    stat = parse_process_stat(KTHREADD)
    assert stat.kernel
    assert (stat.comm, stat.parent, stat.stack) == (b"kthreadd", 0, 0)


@pytest.mark.parametrize("comm", [b"tmux: server", b"a) R 1 (b", b")", b"", b"((sd-pam))", b"x) ", b"\xff\n\t"])
def test_a_name_may_hold_brackets_and_spaces(comm: bytes) -> None:
    stat = parse_process_stat(PYTHON.replace(b"python3", comm))
    assert (stat.comm, stat.parent, stat.own) == (comm, 9271, 12)


def test_this_process_is_what_the_system_says_it_is() -> None:
    stat = parse_process_stat(Path("/proc/self/stat").read_bytes())
    times = os.times()
    assert stat.parent == os.getppid()
    assert abs(stat.own / os.sysconf("SC_CLK_TCK") - (times.user + times.system)) < 0.05
    assert stat.stack > 0
    assert not stat.kernel


def test_busy_time_is_all_but_idle_waiting_stolen_and_guests() -> None:
    assert parse_cpu_times(STAT) == CpuTimes(129905 + 5065 + 19151 + 7 + 791, 2)


def test_a_kernel_with_four_columns_is_understood() -> None:
    assert parse_cpu_times(b"cpu  1 2 3 4\ncpu0 1 2 3 4\n") == CpuTimes(6, 1)


def test_memory_is_read_in_bytes() -> None:
    assert parse_memory(MEMINFO) == Memory(24684084 * 1024.0, 23751416 * 1024.0)


def test_an_old_kernel_without_available_memory_gets_an_approximation() -> None:
    assert parse_memory(OLD_MEMINFO) == Memory(1000 * 1024.0, 630 * 1024.0)


def test_memory_available_is_never_more_than_there_is() -> None:
    assert parse_memory(OLD_MEMINFO + b"MemAvailable: 9999 kB\n").available == 1000 * 1024.0


def test_an_environment_keeps_equals_signs_and_replaces_what_is_no_text() -> None:
    assert parse_environ(b"A=1\0CARBON_JOB=a=b\0\0bare\0EMPTY=\0BAD=\xff\0") == {
        "A": "1",
        "CARBON_JOB": "a=b",
        "EMPTY": "",
        "BAD": "\ufffd",
    }


def test_groups_are_found_in_every_hierarchy() -> None:
    assert parse_cgroup(VERSION_1)["cpuacct"] == parse_cgroup(VERSION_1)["cpu"] == "/docker/4f5e"
    assert parse_cgroup(HYBRID) == {
        "cpuset": "/",
        "cpuacct": "/system.slice",
        "name=systemd": "/system.slice/ssh.service",
        "": "/system.slice/ssh.service",
    }
    assert parse_cgroup(b"0::/a:b/c\n") == {"": "/a:b/c"}
    assert parse_cgroup("0::/a\x0cb\u2028c\n".encode()) == {"": "/a\x0cb\u2028c"}
    assert parse_cgroup(b"0::/gone (deleted)\n") == {"": "/gone (deleted)"}
    assert parse_cgroup(b"") == parse_cgroup(b"nonsense\n0:x\n") == {}


def test_a_proportional_size_is_read_in_bytes() -> None:
    assert (
        parse_pss(b"5600-7ffc ---p 0 00:00 0   [rollup]\nRss:    900 kB\nPss:    300 kB\nPss_Anon: 5 kB\n") == 307200.0
    )


PARSERS: tuple[Callable[[bytes], object], ...] = (
    parse_process_stat,
    parse_cpu_times,
    parse_memory,
    parse_environ,
    parse_cgroup,
    parse_pss,
)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_process_stat, b""),
        (parse_process_stat, b"1 (a) R 1 2 3"),
        (parse_process_stat, PYTHON.replace(b"9271", b"x")),
        (parse_cpu_times, b""),
        (parse_cpu_times, b"cpu 1 2 3 4\n"),
        (parse_cpu_times, b"cpu 1 2 3 four\ncpu0 1 2 3 4\n"),
        (parse_memory, b"MemFree: 1 kB\n"),
        (parse_memory, b"MemTotal: lots kB\n"),
        (parse_pss, b"Rss: 1 kB\n"),
        (parse_pss, b"Pss: x kB\n"),
        (parse_pss, b"Pss:\n"),
    ],
)
def test_a_text_that_no_kernel_writes_is_refused(parse: Callable[[bytes], object], text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


@given(
    st.binary(max_size=300)
    | st.builds(
        lambda text, at, junk: text[:at] + junk + text[at + len(junk) :],
        st.sampled_from([PYTHON, KTHREADD, MEMINFO, STAT, VERSION_1, HYBRID, b"Pss:    300 kB\n"]),
        st.integers(0, 400),
        st.binary(max_size=8),
    )
)
def test_only_value_errors_escape_from_any_text(text: bytes) -> None:
    for parse in PARSERS:
        with contextlib.suppress(ValueError):
            parse(text)
