"""Control groups: the counters of a real tree whose groups come and go, and of staged ones of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.groups import Groups
from support.workloads import run

from carbon_exporter.jobs.cgroups import CgroupTree, Hierarchy, find_hierarchy
from carbon_exporter.jobs.places import is_owner

ID = "4f5e1d2c3b4a" + "0123456789abcdef" * 3 + "0123"


def hierarchy_of(kind: str, sysfs: Path) -> Hierarchy:
    """A tree of one kind, with nothing in it."""
    root = sysfs / "fs/cgroup"
    files = {
        "unified": ["cgroup.controllers"],
        "hybrid": ["unified/cgroup.controllers", "cpuacct/cpuacct.usage", "memory/memory.stat"],
        "version 1": ["cpuacct/cpuacct.usage", "memory/memory.stat"],
        "version 1, joined": ["cpu,cpuacct/cpuacct.usage", "memory/memory.stat"],
    }[kind]
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("0\n")
    found = find_hierarchy(sysfs)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "version", "folders", "controller"),
    [
        ("unified", 2, ("", ""), ""),
        ("hybrid", 2, ("unified", "memory"), ""),
        ("version 1", 1, ("cpuacct", "memory"), "cpuacct"),
        ("version 1, joined", 1, ("cpu,cpuacct", "memory"), "cpuacct"),
    ],
)
def test_each_way_to_mount_the_tree_is_found(
    tmp_path: Path, kind: str, version: int, folders: tuple[str, str], controller: str
) -> None:
    found, root = hierarchy_of(kind, tmp_path), tmp_path / "fs/cgroup"
    assert (found.version, found.controller) == (version, controller)
    assert (found.cpu_root, found.memory_root) == (root / folders[0], root / folders[1])


def test_a_machine_without_a_tree_has_none(tmp_path: Path) -> None:
    assert find_hierarchy(tmp_path) is None


def test_version_1_is_read_in_nanoseconds_and_with_its_own_memory_fields(tmp_path: Path) -> None:
    hierarchy = hierarchy_of("version 1", tmp_path)
    path = f"/docker/{ID}"
    for root, file, text in (
        (hierarchy.cpu_root, "cpuacct.usage", "2500000000\n"),
        (hierarchy.memory_root, "memory.stat", "cache 9\nrss 1\ntotal_cache 70\ntotal_rss 4096\ntotal_shmem 1024\n"),
    ):
        folder = root / path[1:]
        folder.mkdir(parents=True)
        (folder / file).write_text(text)
    tree = CgroupTree(hierarchy)
    assert tree.cpu_seconds() == {path: 2.5}
    assert tree.memory_bytes(path) == 5120.0
    assert tree.memory_bytes("/docker/none") == tree.cpus_reserved(path) == 0.0


@pytest.mark.parametrize(
    ("cpuset", "cpus"), [("0-3,8\n", 5), ("\n", 0), ("2\n", 1), ("0-127\n", 128), ("x\n", 0), ("3-1\n", 0)]
)
def test_version_2_is_read_in_microseconds_with_its_cpuset(tmp_path: Path, cpuset: str, cpus: int) -> None:
    hierarchy = hierarchy_of("unified", tmp_path)
    unit = hierarchy.cpu_root / "a.service"
    unit.mkdir()
    (unit / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (unit / "memory.stat").write_text("anon 100\nfile 5000\nshmem 20\n")
    (unit / "cpuset.cpus").write_text(cpuset)
    tree = CgroupTree(hierarchy)
    assert tree.cpu_seconds() == {"/a.service": 1.5}
    assert tree.memory_bytes("/a.service") == 120.0
    assert tree.cpus_reserved("/a.service") == cpus


def test_a_counter_that_cannot_be_read_costs_its_own_group_only(tmp_path: Path) -> None:
    hierarchy = hierarchy_of("unified", tmp_path)
    for name, text in (("a.service", "usage_usec x\n"), ("b.service", ""), ("c.service", "usage_usec 1000000\n")):
        (hierarchy.cpu_root / name).mkdir()
        (hierarchy.cpu_root / name / "cpu.stat").write_text(text)
    (hierarchy.cpu_root / "d.service").mkdir()
    tree = CgroupTree(hierarchy)
    assert tree.cpu_seconds() == tree.cpu_seconds() == {"/c.service": 1.0}


def test_a_tree_that_vanishes_is_empty(tmp_path: Path) -> None:
    hierarchy = hierarchy_of("unified", tmp_path)
    (hierarchy.cpu_root / "a.service").mkdir()
    (hierarchy.cpu_root / "a.service/cpu.stat").write_text("usage_usec 1\n")
    tree = CgroupTree(hierarchy)
    assert len(tree.cpu_seconds()) == 1
    (tmp_path / "fs").rename(tmp_path / "away")
    assert tree.cpu_seconds() == {}
    (tmp_path / "away").rename(tmp_path / "fs")
    assert len(tree.cpu_seconds()) == 1


@given(
    usage=st.binary(max_size=60), stat=st.binary(max_size=80), cpus=st.binary(max_size=30), pids=st.binary(max_size=30)
)
def test_no_text_of_a_group_makes_trouble(
    tmp_path_factory: pytest.TempPathFactory, usage: bytes, stat: bytes, cpus: bytes, pids: bytes
) -> None:
    for kind in ("unified", "version 1"):
        hierarchy = hierarchy_of(kind, tmp_path_factory.mktemp("tree"))
        texts = {"cpu.stat": b"usage_usec " + usage, "cpuacct.usage": usage, "memory.stat": b"anon " + stat}
        for root in (hierarchy.cpu_root, hierarchy.memory_root):
            (root / "a.service").mkdir(exist_ok=True)
            for name, text in {**texts, "cpuset.cpus": cpus, "cgroup.procs": pids}.items():
                (root / "a.service" / name).write_bytes(text)
        tree = CgroupTree(hierarchy)
        assert tree.cpu_seconds().keys() <= {"/a.service"}
        assert tree.cpus_reserved("/a.service") >= 0
        tree.memory_bytes("/a.service")
        assert len(tree.processes("/a.service", 3)) <= 3


def owners(tree: CgroupTree, groups: Groups) -> set[str]:
    """The groups of this test that the tree sees, relative to its folder."""
    return {path.removeprefix(groups.path + "/") for path in tree.cpu_seconds() if path.startswith(groups.path + "/")}


def real_tree() -> CgroupTree:
    hierarchy = find_hierarchy(Path("/sys"))
    assert hierarchy is not None
    return CgroupTree(hierarchy)


BURN = 'say("ready"); wait(); burn(0.3); say("done"); wait()'
BURN_BELOW = """
say("ready"); wait()
for _ in range(10):
    if os.fork() == 0:
        burn(0.02)
        os._exit(0)
    os.wait()
say("done"); wait()
"""


def test_real_groups_are_counted_as_the_kernel_counts_them(groups: Groups) -> None:
    unit, scope = "burn.service", f"burn.service/inner/docker-{ID}.scope"
    groups.make(unit, scope, "folder.slice")
    tree = real_tree()
    assert owners(tree, groups) == {unit, scope}
    with run(BURN) as outer, run(BURN_BELOW) as inner:
        for program, group in ((outer, unit), (inner, scope)):
            assert program.says() == "ready"
            groups.move(program.pid, group)
        before = tree.cpu_seconds()
        for program in (outer, inner):
            program.go_on()
            assert program.says() == "done"
        after = tree.cpu_seconds()
        used = {group: after[f"{groups.path}/{group}"] - before[f"{groups.path}/{group}"] for group in (unit, scope)}
        assert all(abs(after[f"{groups.path}/{group}"] - groups.used(group)) < 0.02 for group in (unit, scope))
    assert 0.2 <= used[scope] < 0.4, "ten children of 20 ms, none of which was ever seen"
    assert 0.5 <= used[unit] < 0.9, "its own 300 ms and all of the group inside"


def test_a_groups_own_processes_come_first_then_those_below_it(groups: Groups) -> None:
    groups.make("a.service/below/deeper", "a.service/empty", "b.service")
    tree = real_tree()
    with run('say("up"); wait()') as own, run('say("up"); wait()') as below, run('say("up"); wait()') as deeper:
        for program, group in ((deeper, "a.service/below/deeper"), (below, "a.service/below"), (own, "a.service")):
            assert program.says() == "up"
            groups.move(program.pid, group)
        owners(tree, groups)
        path = f"{groups.path}/a.service"
        assert tree.processes(path, 8) == [own.pid, below.pid, deeper.pid]
        assert tree.processes(path, 2) == [own.pid, below.pid]
        assert tree.processes(f"{groups.path}/b.service", 8) == tree.processes("/gone.service", 8) == []


def test_groups_that_come_and_go_are_noticed_at_once(groups: Groups) -> None:
    tree = real_tree()
    groups.make("a.service", "b.slice/b.service")
    assert owners(tree, groups) == {"a.service", "b.slice/b.service"}
    groups.make("b.slice/c.slice/c.service")
    assert owners(tree, groups) == {"a.service", "b.slice/b.service", "b.slice/c.slice/c.service"}
    groups.remove("b.slice/c.slice/c.service")
    groups.remove("b.slice/c.slice")
    groups.remove("a.service")
    assert owners(tree, groups) == {"b.slice/b.service"}


@pytest.mark.parametrize(
    ("gone", "come"),
    [
        ("old.service", "new.service"),
        ("old.slice", "new.slice/new.service"),
        ("old.slice", "new.service"),
        ("old.service", "new.slice/new.service"),
    ],
)
def test_a_group_that_takes_anothers_place_is_noticed_though_the_link_count_stays(
    groups: Groups, gone: str, come: str
) -> None:
    groups.make("same.slice/keeps.service", f"same.slice/{gone}")
    tree = real_tree()
    owners(tree, groups)
    links = (groups.root / groups.path[1:] / "same.slice").stat().st_nlink
    groups.remove(f"same.slice/{gone}")
    groups.make(f"same.slice/{come}")
    assert (groups.root / groups.path[1:] / "same.slice").stat().st_nlink == links
    expected = {"same.slice/keeps.service", f"same.slice/{come}"}
    if not is_owner(come.rpartition("/")[2]):
        expected.discard(f"same.slice/{come}")
    assert owners(tree, groups) == expected


def test_a_folder_that_is_made_anew_with_other_groups_is_noticed(groups: Groups) -> None:
    groups.make("pod.slice/deep.slice/old.service")
    tree = real_tree()
    assert owners(tree, groups) == {"pod.slice/deep.slice/old.service"}
    for path in ("pod.slice/deep.slice/old.service", "pod.slice/deep.slice", "pod.slice"):
        groups.remove(path)
    groups.make("pod.slice/deep.slice/new.service")
    assert owners(tree, groups) == {"pod.slice/deep.slice/new.service"}


NAMES = st.sampled_from(["a.service", "b.slice", "c.scope", f"docker-{ID}.scope", "inner"])
TREES = st.frozensets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=6)


def with_those_above(paths: frozenset[str]) -> set[str]:
    return {"/".join(parts[:depth]) for parts in (path.split("/") for path in paths) for depth in range(1, 4)}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees=st.lists(TREES, min_size=2, max_size=4))
def test_whatever_comes_and_goes_each_look_finds_what_is_there_parents_first(
    groups: Groups, trees: list[frozenset[str]]
) -> None:
    """One set of groups takes the place of another, often of as many, so that their number tells nothing."""
    tree, there = real_tree(), set[str]()
    try:
        for wanted in map(with_those_above, trees):
            for path in sorted(there - wanted, reverse=True):
                groups.remove(path)
                there.discard(path)
            for path in sorted(wanted - there):
                groups.make(path)
                there.add(path)
            expected = {path for path in there if is_owner(f"{groups.path}/{path}")}
            assert owners(tree, groups) == owners(tree, groups) == expected
            found = list(tree.cpu_seconds())
            place = {path: number for number, path in enumerate(found)}
            assert all(place[path] > place.get(path.rpartition("/")[0], -1) for path in found)
    finally:
        for path in sorted(there, reverse=True):
            groups.remove(path)
