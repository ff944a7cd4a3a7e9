"""Places: the paths of real runtimes, what each leads to, and where a workload of its own ends."""

from __future__ import annotations

import time
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.jobs.places import Place, is_owner, owner, place_of

ID = "4f5e1d2c3b4a" + "0123456789abcdef" * 3 + "0123"
OTHER = "a0b1c2d3e4f5" + "fedcba9876543210" * 3 + "fedc"
UID = "0cb8ae4c-8b4a-4d4e-a1a0-3a2b1c0d9e8f"
HASH = "3c3f1cde7a0b4fe5b0b9f6a2e8d71c55"
"""A static pod's uid."""
SYSTEMD = UID.replace("-", "_")
BURSTABLE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SYSTEMD}.slice"
GUARANTEED = f"/kubepods.slice/kubepods-pod{SYSTEMD}.slice"
BEST_EFFORT = f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SYSTEMD}.slice"
KIND = f"/docker/{OTHER}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice"
USER = "/user.slice/user-1000.slice"

IN_BURSTABLE = {"pod": UID, "qos": "burstable"}
IN_GUARANTEED = {"pod": UID, "qos": "guaranteed"}
IN_BEST_EFFORT = {"pod": UID, "qos": "besteffort"}


def container(runtime: str = "", number: str = ID, **more: str) -> dict[str, str]:
    return {"kind": "container", "container": number, "runtime": runtime, **more}


def pod(of: dict[str, str]) -> dict[str, str]:
    return {"kind": "pod", **of}


def unit(name: str, **more: str) -> dict[str, str]:
    return {"kind": "unit", "name": name, **more}


def slurm(number: str, **more: str) -> dict[str, str]:
    return {"kind": "slurm", "slurm": number, **more}


PLACES: list[tuple[str, str, dict[str, str]]] = [
    # the group at which the workload ends, what lies below it, what it is
    ("/system.slice/docker-" + ID + ".scope", "", container("docker")),
    ("/system.slice/docker-" + ID + ".scope", "/init", container("docker")),
    ("/docker/" + ID, "", container("docker")),
    ("/docker/" + ID, "/system.slice/nginx.service", container("docker")),
    ("/ci.slice/docker-" + ID + ".scope", "", container("docker")),
    ("/ci/team/" + ID, "", container()),
    ("/system.slice:docker:" + ID, "", container("docker")),
    (f"/docker/{OTHER}/docker/{ID}", "", container("docker")),
    ("/ecs/0f3e/" + ID, "", container()),
    ("/containerd/" + ID, "", container("containerd")),
    ("/system.slice/containerd-" + ID, "", container("containerd")),
    ("/system.slice/cri-containerd-" + ID + ".scope", "", container("containerd")),
    ("/system.slice/nerdctl-" + ID + ".scope", "", container("containerd")),
    ("/machine.slice/libpod-" + ID + ".scope", "", container("podman")),
    ("/machine.slice/libpod-" + ID + ".scope", "/container", container("podman")),
    ("/machine.slice/libpod-" + ID + ".scope", f"/libpod-payload-{ID}", container("podman")),
    ("/machine.slice/libpod-" + ID + ".scope", "/container/init.scope", container("podman")),
    ("/machine.slice/libpod-conmon-" + ID + ".scope", "", container("podman")),
    (f"/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope", "", container("podman")),
    ("/libpod_parent/libpod-" + ID, "", container("podman")),
    ("/libpod_parent/" + ID, "", container("podman")),
    ("/system.slice/job.service/libpod-payload-" + ID, "", container("podman")),
    (f"{USER}/user@1000.service/user.slice/libpod-{ID}.scope", "/container", container("podman", user="1000")),
    (f"{USER}/user@1000.service/user.slice/podman-812.scope/libpod-payload-{ID}", "", container("podman", user="1000")),
    # Kubernetes, systemd driver
    (BURSTABLE, "", pod(IN_BURSTABLE)),
    (GUARANTEED, "", pod(IN_GUARANTEED)),
    (BEST_EFFORT, "", pod(IN_BEST_EFFORT)),
    (f"{BURSTABLE}/cri-containerd-{ID}.scope", "", container("containerd", **IN_BURSTABLE)),
    (f"{GUARANTEED}/crio-{ID}.scope", "", container("crio", **IN_GUARANTEED)),
    (f"{GUARANTEED}/crio-{ID}.scope", "/container", container("crio", **IN_GUARANTEED)),
    (f"{GUARANTEED}/crio-conmon-{ID}.scope", "", container("crio", **IN_GUARANTEED)),
    (f"{BEST_EFFORT}/docker-{ID}.scope", "", container("docker", **IN_BEST_EFFORT)),
    (
        f"{BURSTABLE}/cri-containerd-{ID}.scope",
        "/system.slice/nginx.service",
        container("containerd", **IN_BURSTABLE),
    ),
    (
        f"/system.slice/containerd.service/kubepods-burstable-pod{SYSTEMD}.slice:cri-containerd:{ID}",
        "",
        container("containerd", **IN_BURSTABLE),
    ),
    (f"/kubepods-pod{SYSTEMD}.slice:cri-containerd:{ID}", "", container("containerd", **IN_GUARANTEED)),
    (
        f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort-pod{SYSTEMD}.slice",
        "",
        pod(IN_BEST_EFFORT),
    ),
    (f"/kubepods.slice/kubepods-pod{HASH}.slice", "", {"kind": "pod", "pod": HASH, "qos": "guaranteed"}),
    # Kubernetes, cgroupfs driver
    (f"/kubepods/burstable/pod{UID}", "", pod(IN_BURSTABLE)),
    (f"/kubepods/burstable/pod{UID}/{ID}", "", container(**IN_BURSTABLE)),
    (f"/kubepods/besteffort/pod{UID}/{ID}", "/child", container(**IN_BEST_EFFORT)),
    (f"/kubepods/pod{UID}/{ID}", "", container(**IN_GUARANTEED)),
    (f"/kubepods/pod{UID}/crio-{ID}", "", container("crio", **IN_GUARANTEED)),
    (f"/kubelet/kubepods/burstable/pod{UID}/{ID}", "", container(**IN_BURSTABLE)),
    (f"/kubepods/burstable/pod{HASH}/{ID}", "", container(pod=HASH, qos="burstable")),
    # kind: a cluster within a container
    (f"{KIND}/kubelet-kubepods-burstable-pod{SYSTEMD}.slice", "", pod(IN_BURSTABLE)),
    (
        f"{KIND}/kubelet-kubepods-burstable-pod{SYSTEMD}.slice/cri-containerd-{ID}.scope",
        "",
        container("containerd", **IN_BURSTABLE),
    ),
    (f"/docker/{OTHER}/kubelet/kubepods/burstable/pod{UID}/{ID}", "", container(**IN_BURSTABLE)),
    (f"{USER}/user@1000.service/kubelet/kubepods/pod{UID}", "", pod(IN_GUARANTEED)),
    ("/docker/" + OTHER, "/kubelet.slice/kubelet.service", container("docker", OTHER)),
    ("/docker/" + OTHER, "/system.slice/containerd.service", container("docker", OTHER)),
    # seen from a cgroup namespace of its own
    (f"/../../burstable/kubepods-burstable-pod{SYSTEMD}.slice", "", pod(IN_BURSTABLE)),
    # containers within pods
    (f"{BURSTABLE}/cri-containerd-{OTHER}.scope/docker/{ID}", "", container("docker", **IN_BURSTABLE)),
    # Slurm
    ("/slurm/uid_1000/job_211", "", slurm("211", user="1000")),
    ("/slurm/uid_1000/job_211", "/step_0/task_0", slurm("211", step="0", user="1000")),
    ("/slurm_node1/uid_0/job_7", "/step_batch", slurm("7", step="batch", user="0")),
    ("/system.slice/slurmstepd.scope/job_211", "", slurm("211")),
    ("/system.slice/slurmstepd.scope/job_211", "/step_extern/user/task_0", slurm("211", step="extern")),
    ("/system.slice/slurmstepd.scope/job_211", "/step_interactive/slurm", slurm("211", step="interactive")),
    ("/slurm/uid_0/job_7", "/step_0/step_1", slurm("7", step="0", user="0")),
    ("/system.slice/node1_slurmstepd.scope/job_12", "/step_batch/user/task_special", slurm("12", step="batch")),
    ("/node1_slurm/job_9", "/step_1", slurm("9", step="1")),
    (f"/system.slice/slurmstepd.scope/job_5/step_0/user/task_0/{ID}", "", container(slurm="5", step="0")),
    (f"{GUARANTEED}/crio-{ID}.scope/slurmstepd.scope/job_3", "/step_0", slurm("3", step="0", **IN_GUARANTEED)),
    ("/system.slice/slurmstepd.scope", "/system", unit("slurmstepd.scope")),
    ("/system.slice/slurmd.service", "", unit("slurmd.service")),
    ("/system.slice/slurm_exporter.service", "", unit("slurm_exporter.service")),
    # libvirt
    (r"/machine.slice/machine-qemu\x2d1\x2dvm.scope", "/libvirt/vcpu0", {"kind": "machine", "name": "vm"}),
    (
        r"/machine.slice/machine-qemu\x2d12\x2dinstance\x2d0000013e.scope",
        "/libvirt/emulator",
        {"kind": "machine", "name": "instance-0000013e"},
    ),
    ("/machine/qemu-5-test.libvirt-qemu", "/emulator", {"kind": "machine", "name": "test"}),
    ("/machine/instance-0000013e.libvirt-qemu", "/vcpu0", {"kind": "machine", "name": "instance-0000013e"}),
    ("/machine.slice/qemu-2-instance-00000001", "", {"kind": "machine", "name": "instance-00000001"}),
    # systemd
    ("/system.slice/ssh.service", "", unit("ssh.service")),
    ("/system.slice/ssh.service", "/folder", unit("ssh.service")),
    ("/system.slice/system-getty.slice/getty@tty1.service", "", unit("getty@tty1.service")),
    ("/system.slice/run-u42.service", "", unit("run-u42.service")),
    ("/system.slice/run-r0f3e1d2c.scope", "", unit("run-r0f3e1d2c.scope")),
    ("/init.scope", "", unit("init.scope")),
    ("/a.service/b.scope", "/c", unit("b.scope")),
    (r"/system.slice/caf\xc3\xa9.service", "", unit("café.service")),
    (r"/system.slice/bad\xff\x00.service", "", unit("bad\ufffd\x00.service")),
    (f"{USER}/session-3.scope", "", {"kind": "session", "name": "session-3.scope", "user": "1000"}),
    (f"{USER}/session-c1.scope", "/x", {"kind": "session", "name": "session-c1.scope", "user": "1000"}),
    ("/system.slice/session-3.scope", "", unit("session-3.scope")),
    (f"{USER}/user@1000.service", "", unit("user@1000.service", user="1000")),
    (f"{USER}/user@1000.service", "/session.slice", unit("user@1000.service", user="1000")),
    (f"{USER}/user@1000.service/app.slice/app-firefox-12.scope", "", unit("app-firefox-12.scope", user="1000")),
    (f"{USER}/user@1000.service/init.scope", "", unit("init.scope", user="1000")),
    (f"/system.slice/docker-{ID[:-1]}.scope", "", unit(f"docker-{ID[:-1]}.scope")),
]


@pytest.mark.parametrize(("path", "below", "place"), PLACES, ids=[path + below for path, below, _ in PLACES])
def test_a_recorded_path_leads_to_its_place(path: str, below: str, place: dict[str, str]) -> None:
    found = place_of(path + below)
    assert found is not None
    values = {field.name: getattr(found, field.name) for field in fields(Place)}
    assert {key: value for key, value in values.items() if value} == {
        key: value for key, value in {"path": path, **place}.items() if value
    }
    assert owner(path + below) == path
    assert is_owner(path)
    assert not below or not is_owner(path + below)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/user.slice",
        USER,
        "/system.slice/.service",
        "/kubepods.slice/kubepods-burstable.slice",
        "/kubepods/burstable",
        "/docker",
        "/slurm/uid_1000",
        "/job_211/step_0",
        "/jobs/job_211",
        "/uid_1000/job_211",
        f"/pod{UID}",
        f"/burstable/pod{UID}",
        f"/other/kubepods/x/pod{UID}",
        f"/lxc/{ID.upper()}",
        "/" + "a" * 300 + ".service",
    ],
)
def test_a_mere_folder_is_nobodys(path: str) -> None:
    assert place_of(path) is None
    assert owner(path) is None
    assert not is_owner(path)


def test_a_pod_and_each_of_its_containers_end_in_groups_of_their_own() -> None:
    inside = f"{BURSTABLE}/cri-containerd-{ID}.scope"
    assert [path for path in ("/kubepods.slice", BURSTABLE, inside, f"{inside}/x") if is_owner(path)] == [
        BURSTABLE,
        inside,
    ]


def test_the_steps_of_a_slurm_job_and_the_subgroups_of_a_container_are_its_own() -> None:
    job = "/system.slice/slurmstepd.scope/job_1"
    assert {owner(f"{job}/step_{step}/user/task_0") for step in ("0", "1", "extern")} == {job}
    scope = f"/machine.slice/libpod-{ID}.scope"
    assert owner(f"{scope}/libpod-payload-{ID}/x") == scope


def test_five_thousand_groups_are_walked_in_no_time() -> None:
    paths = [
        f"/kubepods.slice/kubepods-pod{i:08x}_0000_4000_8000_000000000000.slice/cri-containerd-{i:064x}.scope"
        for i in range(5000)
    ]

    def look() -> float:
        began = time.process_time()
        assert all(is_owner(path) for path in paths)
        return time.process_time() - began

    look()
    assert min(look() for _ in range(3)) < 0.05, "20 ms here would already be a few times what it takes"


PARTS = st.sampled_from(
    [
        "kubepods",
        "burstable",
        "slurm",
        "slurmstepd.scope",
        "job_1",
        "step_0",
        "uid_1",
        f"pod{UID}",
        f"kubepods-pod{SYSTEMD}.slice",
        f"docker-{ID}.scope",
        OTHER,
        f"kubepods-pod{SYSTEMD}.slice:cri-containerd:{ID}",
        "user-1.slice",
        "session-1.scope",
        r"a\x2d.service",
        r"machine-qemu\x2d1\x2dvm.scope",
        "",
        "..",
    ]
)
ANY = st.text(st.characters(), max_size=40)


@given(st.lists(PARTS | ANY, max_size=12))
def test_no_path_makes_trouble_and_its_owner_is_above_it_and_owns_itself(parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    place = place_of(path)
    assert place == place_of.__wrapped__(path)
    if place is not None:
        assert path == place.path or path.startswith(place.path + "/")
        assert is_owner(place.path)
        again = place_of(place.path)
        assert again is not None
        assert (again.kind, again.pod, again.container, again.slurm, again.name) == (
            place.kind,
            place.pod,
            place.container,
            place.slurm,
            place.name,
        )
        known = {"pod": place.pod, "container": place.container, "slurm": place.slurm}
        assert known.get(place.kind, place.name)


@given(st.text(st.characters(), max_size=600))
def test_no_text_makes_trouble(path: str) -> None:
    for text in (
        path,
        f"/x/{path}.service",
        f"/{path}/docker-{ID}.scope",
        f"/slurm/job_{path}",
        f"/kubepods/pod{path}",
    ):
        place_of(text)


def test_a_path_as_deep_as_the_kernel_allows_is_read() -> None:
    assert place_of("/a" * 2000 + "/x.service") is not None
