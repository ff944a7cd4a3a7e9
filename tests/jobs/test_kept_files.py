"""Kept files: real groups' counters, read without being opened again, and closed when nobody wants them."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.groups import Groups
from support.workloads import run

from carbon_exporter.jobs.cgroups import CgroupTree, find_hierarchy
from carbon_exporter.jobs.kept_files import MOST, KeptFiles, most_kept


def open_below(folder: Path) -> set[str]:
    """The files below a folder that this process has open."""
    targets = {link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    return {str(target.relative_to(folder)) for target in targets if folder in target.parents}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """A directory's handle, with three files in it."""
    for name in "abc":
        (tmp_path / name).write_text(f"{name} 1\n")
    handle = os.open(tmp_path, os.O_RDONLY)
    yield handle
    os.close(handle)


def test_a_kept_file_is_read_as_it_is_now(tmp_path: Path, folder: int) -> None:
    files = KeptFiles(3)
    assert files.read("a", folder) == b"a 1\n"
    (tmp_path / "a").write_text("a 22\n")
    assert files.read("a", folder) == b"a 22\n"
    assert open_below(tmp_path) == {"a"}


def test_no_more_are_kept_open_than_allowed_and_the_others_are_read_all_the_same(tmp_path: Path, folder: int) -> None:
    files = KeptFiles(2)
    for _ in range(2):
        assert [files.read(name, folder) for name in "abc"] == [b"a 1\n", b"b 1\n", b"c 1\n"]
    assert open_below(tmp_path) == {"a", "b"}
    files.keep({"b", "c"})
    assert files.read("c", folder) == b"c 1\n"
    assert open_below(tmp_path) == {"b", "c"}


def test_they_are_closed_with_their_keeper(tmp_path: Path, folder: int) -> None:
    files = KeptFiles(3)
    files.read("a", folder)
    del files
    gc.collect()
    assert open_below(tmp_path) == set()


def test_what_is_not_there_is_an_error_each_time(tmp_path: Path, folder: int) -> None:
    files = KeptFiles(3)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            files.read("none", folder)
    assert open_below(tmp_path) == set()


def test_half_of_what_may_be_open_is_left_for_others() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for soft in (256, 1024):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
            assert most_kept() == soft // 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert 0 < most_kept() <= MOST


BURN = 'say("ready"); wait(); burn(0.1); say("done"); wait()'


def test_a_group_that_is_made_anew_is_read_anew(groups: Groups) -> None:
    hierarchy = find_hierarchy(Path("/sys"))
    assert hierarchy is not None
    tree = CgroupTree(hierarchy)
    groups.make("a.service", "b.service")
    path = f"{groups.path}/a.service"
    with run(BURN) as program:
        assert program.says() == "ready"
        groups.move(program.pid, "a.service")
        program.go_on()
        assert program.says() == "done"
        used = tree.cpu_seconds()[path]
    assert used >= 0.1
    groups.remove("a.service")
    groups.make("a.service")
    assert tree.cpu_seconds()[path] == 0.0
    assert open_below(groups.top) == {f"{name}.service/{hierarchy.cpu_file}" for name in "ab"}
    groups.remove("a.service")
    assert path not in tree.cpu_seconds()
    assert open_below(groups.top) == {f"b.service/{hierarchy.cpu_file}"}
