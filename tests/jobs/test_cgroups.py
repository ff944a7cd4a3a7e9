"""Control groups: names from the paths of real runtimes, and counters of a real tree whose groups come and go."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.groups import Groups
from support.workloads import run

from carbon_exporter.jobs.base import RESERVED, Claim, Job, Workload, clean_name
from carbon_exporter.jobs.cgroups import CgroupNames, CgroupTree, Hierarchy, find_hierarchy, is_owner, owner_path
from carbon_exporter.jobs.environment import EnvironmentNames
from carbon_exporter.jobs.registry import first_claim

ID = "4f5e1d2c3b4a" + "0123456789abcdef" * 3 + "0123"
OTHER = "a0b1c2d3e4f5" + "fedcba9876543210" * 3 + "fedc"
UID = "0cb8ae4c_8b4a_4d4e_a1a0_3a2b1c0d9e8f"
POD = "kubepods-burstable.slice/kubepods-burstable-pod" + UID

PATHS = [
    ("/", None),
    ("", None),
    ("/user.slice", None),
    (f"/docker/{ID}", "container-4f5e1d2c3b4a"),
    (f"/system.slice/docker-{ID}.scope", "docker-4f5e1d2c3b4a"),
    (f"/system.slice/docker-{ID}.scope/init", "docker-4f5e1d2c3b4a"),
    (f"/machine.slice/libpod-{ID}.scope", "podman-4f5e1d2c3b4a"),
    (f"/machine.slice/libpod-{ID}.scope/container", "podman-4f5e1d2c3b4a"),
    (f"/machine.slice/libpod-conmon-{ID}.scope", "podman-4f5e1d2c3b4a"),
    (f"/libpod_parent/libpod-{ID}", "podman-4f5e1d2c3b4a"),
    (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", "podman-4f5e1d2c3b4a"),
    (f"/system.slice/job.service/libpod-payload-{ID}", "podman-4f5e1d2c3b4a"),
    (f"/kubepods.slice/{POD}.slice/crio-{ID}.scope", "crio-4f5e1d2c3b4a"),
    (f"/kubepods.slice/{POD}.slice/crio-conmon-{ID}.scope", "crio-4f5e1d2c3b4a"),
    (f"/kubepods.slice/{POD}.slice/cri-containerd-{ID}.scope", "containerd-4f5e1d2c3b4a"),
    (f"/system.slice/containerd.service/{POD}.slice:cri-containerd:{ID}", "containerd-4f5e1d2c3b4a"),
    (f"/system.slice/nerdctl-{ID}.scope", "containerd-4f5e1d2c3b4a"),
    (f"/kubepods/burstable/pod{UID.replace('_', '-')}/{ID}", "container-4f5e1d2c3b4a"),
    (f"/kubepods/pod{UID.replace('_', '-')}/{ID}", "container-4f5e1d2c3b4a"),
    (
        f"/docker/{OTHER}/kubelet.slice/kubelet-kubepods.slice/kubelet-{POD}.slice/cri-containerd-{ID}.scope",
        "containerd-4f5e1d2c3b4a",
    ),
    (f"/docker/{OTHER}/system.slice/containerd.service", "containerd.service"),
    ("/slurm/uid_1000/job_211/step_0/task_0", None),
    ("/system.slice/slurmstepd.scope/job_211/step_0/user/task_0", "slurmstepd.scope"),
    ("/system.slice/ssh.service", "ssh.service"),
    ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
    ("/init.scope", "init.scope"),
    ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
    ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-12.scope", "app-firefox-12.scope"),
    ("/user.slice/user-1000.slice/user@1000.service/init.scope", "init.scope"),
    (r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/vcpu0", "machine-qemu-1-vm.scope"),
    (r"/system.slice/caf\xc3\xa9.service", "café.service"),
    (r"/system.slice/bad\xff\x00.service", "bad\ufffd?.service"),
    ("/system.slice/.service", None),
    (f"/system.slice/docker-{ID[:-1]}.scope", f"docker-{ID[:-1]}.scope"),
    (f"/lxc/{ID.upper()}", None),
]


@pytest.mark.parametrize(("path", "name"), PATHS)
def test_a_recorded_path_has_its_name(path: str, name: str | None) -> None:
    claim = CgroupNames().claim(Workload(path))
    assert (claim.job.name if claim else None) == name
    if claim is not None:
        assert claim.rule == ("unit" if claim.job.name.endswith((".service", ".scope")) else "container")
        assert owner_path(path) is not None


def test_the_deepest_owner_of_a_path_is_found() -> None:
    assert owner_path("/system.slice/a.service/b.scope/c") == "/system.slice/a.service/b.scope"
    assert owner_path("/system.slice/a.service/folder") == "/system.slice/a.service"
    assert owner_path("/a.service") == "/a.service"
    assert owner_path("/system.slice") is None


@given(st.text(max_size=400))
def test_no_path_makes_trouble_or_an_unclean_name(path: str) -> None:
    for text in (path, f"/x/{path}.service", f"/{path}/docker-{ID}.scope"):
        claim = CgroupNames().claim(Workload(text))
        if claim is not None:
            assert 0 < len(claim.job.name) <= 128
            assert claim.job.name.isprintable()
            assert claim.job not in RESERVED


@given(st.text(max_size=400) | st.sampled_from(["_idle_", " _idle_\t", "_overflow_" + " " * 200 + "x"]))
def test_no_environment_makes_an_unclean_or_reserved_name(value: str) -> None:
    claim = EnvironmentNames().claim(Workload("/", {"CARBON_JOB": value}))
    name = clean_name(value)
    assert claim == (Claim(Job(name), "CARBON_JOB") if name else None)
    assert len(name) <= 128
    assert name.isprintable()
    assert Job(name) not in RESERVED


def test_reserved_names_cannot_be_taken() -> None:
    assert [clean_name(job.name) for job in sorted(RESERVED)] == ["idle", "overflow", "unattributed"]


def test_the_environment_is_asked_before_the_group() -> None:
    workload = Workload("/system.slice/ssh.service", {"CARBON_JOB": "train"})
    assert first_claim(workload) == Claim(Job("train"), "CARBON_JOB")
    assert first_claim(Workload("/system.slice/ssh.service", {"CARBON_JOB": " "})) == Claim(Job("ssh.service"), "unit")
    assert first_claim(Workload("/")) is None


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
