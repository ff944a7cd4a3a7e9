"""The files in which a prolog says which job each board was given to."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from time import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.other_user import needs_root, public_directory, run_as_nobody

from carbon_exporter.jobs.base import RESERVED, Job
from carbon_exporter.jobs.hpc_mapping import MOST_FILES, MOST_JOBS, HpcMapping, parse_mapping


def test_each_file_is_a_board_and_each_line_a_job(tmp_path: Path) -> None:
    (tmp_path / "0").write_text("211\n")
    (tmp_path / "1").write_text("212\n213")
    (tmp_path / "2").write_text("")
    (tmp_path / "3.7").write_text("214\r\n\n214\n")
    mapping = HpcMapping(tmp_path)
    assert mapping.grants() == (
        ("nvidia0", "211"),
        ("nvidia1", "212"),
        ("nvidia1", "213"),
        ("nvidia3/gi7", "214"),
    )
    assert mapping.health().success


@pytest.mark.parametrize("name", ["a", "0.tmp", ".0", "0.", "0.1.2", "-1", "GPU-8932", "٣", "0 ", "123456"])
def test_other_files_are_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("211\n")
    mapping = HpcMapping(tmp_path)
    assert mapping.grants() == ()
    assert mapping.health().success


def test_what_prolog_and_epilog_write_is_seen_at_once(tmp_path: Path) -> None:
    mapping = HpcMapping(tmp_path)
    assert mapping.grants() == ()
    (tmp_path / "0").write_text("1")
    assert mapping.grants() == (("nvidia0", "1"),)
    (tmp_path / "0").write_text("2")
    assert mapping.grants() == (("nvidia0", "2"),)
    (tmp_path / "0").write_text("")
    assert mapping.grants() == ()
    (tmp_path / "0").write_text("3")
    assert mapping.grants() == (("nvidia0", "3"),)
    (tmp_path / "0").unlink()
    assert mapping.grants() == ()


def test_a_file_that_is_written_twice_within_one_stamp_of_time_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "0"
    written = int(time())
    now = [float(written)]
    mapping = HpcMapping(tmp_path, lambda: now[0])
    for job in ("1", "2"):
        file.write_text(job)
        os.utime(file, (written, written))
        assert mapping.grants() == (("nvidia0", job),)
    now[0] += 60.0
    assert mapping.grants() == (("nvidia0", "2"),)
    file.write_text("3")  # which nobody does: a minute later, and with the old time
    os.utime(file, (written, written))
    assert mapping.grants() == (("nvidia0", "2"),), "an old file is not read at each tick"


def test_a_directory_that_is_not_there_is_a_failure_with_a_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="carbon_exporter")
    mapping = HpcMapping(tmp_path / "mapping")
    assert mapping.grants() == mapping.grants() == ()
    assert not mapping.health().success
    assert "prolog" in mapping.health().remedy
    (tmp_path / "mapping").mkdir()
    assert mapping.grants() == ()
    assert mapping.health().success
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@needs_root
def test_a_file_that_may_not_be_read_is_told_and_the_others_are_read() -> None:
    with public_directory() as directory:
        (directory / "0").write_text("211")
        (directory / "1").write_text("212")
        (directory / "0").chmod(0o600)

        def check() -> None:
            mapping = HpcMapping(directory)
            assert mapping.grants() == (("nvidia1", "212"),)
            assert not mapping.health().success
            assert mapping.health().remedy == f"let the exporter's user read it: chmod a+rX {directory / '0'}"

        run_as_nobody(check)


def test_pipes_links_and_folders_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("password")
    os.mkfifo(tmp_path / "0")
    (tmp_path / "1").symlink_to(tmp_path / "secret")
    (tmp_path / "2").mkdir()
    (tmp_path / "3").write_text("211")
    mapping = HpcMapping(tmp_path)
    assert mapping.grants() == (("nvidia3", "211"),)
    assert not mapping.health().success


def test_too_much_of_anything_is_cut(tmp_path: Path) -> None:
    for number in range(MOST_FILES + 5):
        (tmp_path / str(number)).write_text("1\n")
    (tmp_path / "0").write_text("".join(f"{job}\n" for job in range(100_000)))
    mapping = HpcMapping(tmp_path)
    boards = [board for board, _ in mapping.grants()]
    assert boards.count("nvidia0") == MOST_JOBS
    assert len(set(boards)) == MOST_FILES
    assert "only 256 are read" in mapping.health().reason


@given(st.binary(max_size=300))
def test_any_text_is_a_list_of_clean_names(text: bytes) -> None:
    jobs = parse_mapping(text)
    assert len(jobs) <= MOST_JOBS
    assert all(job and len(job) <= 128 and job.isprintable() and Job(job) not in RESERVED for job in jobs)
