"""The namer: what several directories know of one workload becomes one name, and its boards are that name's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.facts import ID, POD_PATH, UID, at, made_by
from support.stage import Cluster, Engine, Kubelet

from carbon_exporter.jobs.base import RESERVED, UNATTRIBUTED, Allocation, Job, clean_name
from carbon_exporter.jobs.hpc_mapping import HpcMapping
from carbon_exporter.jobs.namer import PENDING_SECONDS, Directories, Known, Namer
from carbon_exporter.jobs.naming import Name
from carbon_exporter.jobs.places import Place
from carbon_exporter.jobs.workload import Container, DeviceGrant, Pod, PodContainer

POD = Pod(
    "ml",
    "train-x2b4d",
    UID,
    owners=(made_by("Job", "train"),),
    containers=(PodContainer("main", ID, job="bert"), PodContainer("proxy")),
)
SLURM = at("/slurm/uid_1000/job_211")
IN_SLURM = at(f"/slurm/uid_1000/job_211/step_0/{ID}")
NOW = 100.0
STEP = {"SLURM_JOB_ID": "211", "SLURM_JOB_NAME": "train", "SLURM_JOB_GPUS": "0,3"}


def named(namer: Namer, place: Place, environment: Mapping[str, str] | None = None) -> Name:
    """A group's name by what is known now."""
    environment = environment or {}
    name = namer.of_group(place, namer.known_of(place, environment), environment)
    assert name is not None
    return name


def granted(container: str, device: str = "GPU-1", pod: str = POD.name) -> DeviceGrant:
    return DeviceGrant("ml", pod, container, device, "nvidia.com/gpu")


# Names


def test_nobody_needs_to_be_asked_for_a_name() -> None:
    namer = Namer()
    assert named(namer, at(POD_PATH)).job == Job("pod-0cb8ae4c")
    assert named(namer, at(f"/docker/{ID}")).job == Job(f"docker-{ID[:12]}")
    assert namer.health() == ()
    assert namer.allocations((), NOW) == ()


def test_the_api_server_tells_of_a_pod_and_of_its_containers() -> None:
    namer = Namer(directories=Directories(pods=Cluster(POD)))
    pod, main = named(namer, at(POD_PATH)), named(namer, at(f"{POD_PATH}/{ID}"))
    assert (pod.job, pod.member) == (Job("bert", "ml"), (POD.name, ""))
    assert (main.job, main.member) == (Job("bert", "ml"), (POD.name, "main"))


def test_a_static_pod_is_known_by_the_uid_in_its_path() -> None:
    hashed = "3c3f1cde7a0b4fe5b0b9f6a2e8d71c55"
    static = Pod("kube-system", "etcd-node1", "the-apis", mirror_of=hashed)
    namer = Namer(directories=Directories(pods=Cluster(static)))
    assert named(namer, at(f"/kubepods/burstable/pod{hashed}")).job.namespace == "kube-system"


def test_an_order_without_a_rule_is_kept_for_processes_and_groups_alike() -> None:
    environment = {"CARBON_JOB": "mine", "OTEL_SERVICE_NAME": "service", **STEP}
    for order, job in (
        (("environment",), "mine"),
        (("otel", "environment"), "service"),
        (("slurm", "environment"), "train"),
        (("slurm-id",), "slurm-211"),
    ):
        name = Namer(order).of_process(environment)
        assert name is not None
        assert name.job == Job(job)
    assert Namer(("unit", "container")).of_process(environment) is None
    assert Namer(("unit",)).of_group(at(f"/docker/{ID}"), Known(), environment) is None


def test_only_variables_that_a_rule_reads_are_looked_for() -> None:
    assert Namer().variables == (b"SLURM_JOB", b"CARBON_JOB")
    assert Namer(("otel", "unit")).variables == (b"OTEL_SERVICE_NAME",)
    assert Namer(("pod", "unit")).variables == ()
    assert Namer(("slurm", "slurm-id")).variables == (b"SLURM_JOB",)


@pytest.mark.parametrize("path", [POD_PATH, f"{POD_PATH}/{ID}", f"/docker/{ID}", "/slurm/job_1", "/a.service"])
def test_processes_are_asked_only_where_a_name_depends_on_them(path: str) -> None:
    place = at(path)
    outside = place.kind == "slurm" or (place.kind == "container" and not place.pod)
    for pods, in_pods in ((None, True), (Cluster(synced=False), True), (Cluster(), False)):
        namer = Namer(directories=Directories(pods=pods, kubelet=Kubelet()))
        assert namer.wants_environment(place) == (outside or (bool(place.pod) and in_pods))
    assert Namer().wants_environment(place) == outside
    assert Namer(directories=Directories(pods=Cluster(synced=False))).wants_environment(place) == outside
    assert namer.wanted_of(place) == ((b"HOSTNAME",) if place.pod else (b"SLURM_JOB", b"CARBON_JOB"))


def test_a_slurm_job_whose_daemon_runs_in_a_pod_is_asked_as_any_other() -> None:
    place = at(f"{POD_PATH}/{ID}/slurmstepd.scope/job_211")
    namer = Namer(directories=Directories(pods=Cluster(POD)))
    assert namer.wants_environment(place)
    assert namer.wanted_of(place) == (b"SLURM_JOB", b"CARBON_JOB")
    assert named(namer, place, STEP).job == Job("train", "ml")


def test_only_a_pod_that_somebody_may_tell_of_waits() -> None:
    for directories, waits in (
        (Directories(), False),
        (Directories(engines=Engine()), False),
        (Directories(pods=Cluster()), True),
        (Directories(pods=Cluster(refused=True)), False),
        (Directories(kubelet=Kubelet()), True),
    ):
        namer = Namer(directories=directories)
        assert namer.awaits(at(POD_PATH), Known()) == waits
        assert not namer.awaits(at(POD_PATH), Known(pod=POD))
        assert not namer.awaits(at(f"/docker/{ID}"), Known())


def test_an_engine_is_asked_only_of_containers_outside_pods() -> None:
    engine = Engine(Container(ID, "web", "docker"))
    namer = Namer(directories=Directories(engines=engine))
    assert named(namer, at(f"/docker/{ID}")).job == Job("web")
    assert named(namer, at(f"{POD_PATH}/{ID}")).job == Job("pod-0cb8ae4c")
    assert namer.known_of(at("/a.service"), {}) == Known()


def test_a_process_with_nothing_to_say_has_no_name() -> None:
    assert Namer().of_process({}) is None
    assert Namer().of_process({"PATH": "/"}) is None
    assert Namer().of_process({"CARBON_JOB": " "}) is None


# Boards given to jobs


def test_a_grant_is_that_of_the_containers_job() -> None:
    kubelet = Kubelet(grants=(granted("main"), granted("proxy", "GPU-2"), granted("gone", "GPU-3")))
    namer = Namer(directories=Directories(pods=Cluster(POD), kubelet=kubelet))
    assert namer.allocations((), NOW) == (
        Allocation("GPU-1", Job("bert", "ml")),
        Allocation("GPU-2", Job("train", "ml")),
        Allocation("GPU-3", Job("bert", "ml")),
    )


def test_a_grant_without_an_api_server_is_named_by_the_pods_name_as_is_its_group() -> None:
    kubelet = Kubelet(("ml", "bert-0"), grants=(granted("main", pod="bert-0"),))
    for pods in (None, Cluster(synced=False, refused=True)):
        namer = Namer(directories=Directories(pods=pods, kubelet=kubelet))
        assert namer.allocations((), NOW) == (Allocation("GPU-1", Job("bert", "ml")),)
        assert named(namer, at(POD_PATH), {"HOSTNAME": "bert-0"}).job == Job("bert", "ml")


def test_a_grant_to_a_pod_of_which_the_api_server_has_not_told_waits_for_it_as_its_group_does() -> None:
    cluster = Cluster()
    kubelet = Kubelet(grants=(granted("main"), granted("main", "GPU-2", pod="other-0")))
    namer = Namer(directories=Directories(pods=cluster, kubelet=kubelet))
    assert {one.job for one in namer.allocations((), NOW)} == {UNATTRIBUTED}
    cluster.pods = (POD,)
    told = {one.uuid: one.job for one in namer.allocations((), NOW + 5)}
    assert told == {"GPU-1": Job("bert", "ml"), "GPU-2": UNATTRIBUTED}
    told = {one.uuid: one.job for one in namer.allocations((), NOW + PENDING_SECONDS)}
    assert told == {"GPU-1": Job("bert", "ml"), "GPU-2": Job("other", "ml")}
    kubelet.given = ()
    assert namer.allocations((), NOW + 20) == ()
    kubelet.given = (granted("main", "GPU-2", pod="other-0"),)
    assert namer.allocations((), NOW + 25) == (Allocation("GPU-2", UNATTRIBUTED),), "it may be another of that name"


def test_replicas_of_one_board_given_to_one_job_are_one_allocation() -> None:
    kubelet = Kubelet(grants=(granted("main"), granted("main"), granted("gone")))
    namer = Namer(directories=Directories(pods=Cluster(POD), kubelet=kubelet))
    assert namer.allocations((), NOW) == (Allocation("GPU-1", Job("bert", "ml")),)


def test_a_slurm_job_has_its_boards_as_long_as_it_runs() -> None:
    namer = Namer()
    name = named(namer, SLURM, STEP)
    given = (Allocation("nvidia0", Job("train")), Allocation("nvidia3", Job("train")))
    assert namer.allocations({name}, NOW) == namer.allocations({name}, NOW) == given
    assert namer.allocations((), NOW) == ()


def test_a_task_of_an_array_has_its_boards_too() -> None:
    namer = Namer()
    task = {**STEP, "SLURM_ARRAY_JOB_ID": "208", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}
    name = named(namer, SLURM, task)
    assert name.info.job_id == "208_3"
    assert len(namer.allocations({name}, NOW)) == 2


def test_slices_are_given_by_their_uuids() -> None:
    namer = Namer()
    name = named(namer, SLURM, {**STEP, "CUDA_VISIBLE_DEVICES": "MIG-a,MIG-b"})
    assert [one.uuid for one in namer.allocations({name}, NOW)] == ["MIG-a", "MIG-b"]


def test_a_process_outside_containers_brings_its_slurm_jobs_boards() -> None:
    namer = Namer()
    name = namer.of_process(STEP)
    assert name is not None
    assert {one.uuid for one in namer.allocations({name}, NOW)} == {"nvidia0", "nvidia3"}


def test_a_container_within_a_slurm_job_takes_nothing_away_from_it() -> None:
    namer = Namer(("environment", "slurm"))
    job, inside = named(namer, SLURM, STEP), named(namer, IN_SLURM, {"CARBON_JOB": "inner"})
    assert (job.job, inside.job) == (Job("train"), Job("inner"))
    assert {one.job for one in namer.allocations({job, inside}, NOW)} == {Job("train")}
    assert named(Namer(), IN_SLURM).job == Job("slurm-211")


def test_a_mapping_directory_gives_boards_by_the_jobs_number(tmp_path: Path) -> None:
    (tmp_path / "0").write_text("211\n")
    (tmp_path / "1.7").write_text("5\n")
    (tmp_path / "2").write_text("x" * 500)
    namer = Namer(directories=Directories(mapping=HpcMapping(tmp_path)))
    name = named(namer, SLURM, {"SLURM_JOB_ID": "211", "SLURM_JOB_NAME": "train"})
    allocations = namer.allocations({name}, NOW)
    assert allocations[:2] == (Allocation("nvidia0", Job("train")), Allocation("nvidia1/gi7", Job("slurm-5")))
    assert len(allocations[2].job.name) == 128
    assert [health.resolver for health in namer.health()] == ["hpc-mapping"]


def test_the_health_of_all_directories_is_told() -> None:
    directories = Directories(pods=Cluster(), kubelet=Kubelet(), engines=Engine())
    told = Namer(directories=directories).health()
    assert [health.resolver for health in told] == ["pods", "pod-resources", "engine"]
    assert len(list(directories)) == 3
    assert list(Directories()) == []


# Whatever anybody says


texts = st.text(st.characters(), max_size=12) | st.sampled_from(["211", "0,1", "_idle_", "MIG-a", "train", UID, ID])
environments = st.dictionaries(
    st.sampled_from(
        ["CARBON_JOB", "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_GPUS", "HOSTNAME", "SLURM_ARRAY_JOB_ID"]
    ),
    texts,
)
paths = st.sampled_from([POD_PATH, f"{POD_PATH}/{ID}", f"/docker/{ID}", SLURM.path, IN_SLURM.path, "/a.service"])
grants = st.builds(DeviceGrant, texts, texts, texts, texts)


@given(
    looks=st.lists(st.tuples(paths, environments), max_size=6),
    given_out=st.lists(grants, max_size=3).map(tuple),
    api=st.booleans(),
)
def test_whatever_is_said_no_name_is_unclean_or_reserved(
    looks: list[tuple[str, dict[str, str]]], given_out: tuple[DeviceGrant, ...], *, api: bool
) -> None:
    kubelet = Kubelet(("ml", "train"), grants=given_out)
    namer = Namer(directories=Directories(pods=Cluster(POD) if api else None, kubelet=kubelet))
    names = {named(namer, at(path), environment) for path, environment in looks}
    names |= {name for _, environment in looks if (name := namer.of_process(environment))}
    given_to = {one.job for one in namer.allocations(names, NOW)}
    for job in {name.job for name in names} | given_to - {UNATTRIBUTED}:
        assert 0 < len(job.name) <= 128
        assert job.name.isprintable()
        assert job not in RESERVED


@given(st.text(max_size=400) | st.sampled_from(["_idle_", " _idle_\t", "_overflow_" + " " * 200 + "x"]))
def test_a_clean_name_is_printable_short_and_never_reserved(text: str) -> None:
    name = clean_name(text)
    assert len(name) <= 128
    assert name.isprintable()
    assert Job(name) not in RESERVED
    assert clean_name(name) == name


def test_reserved_names_lose_their_underscores() -> None:
    assert [clean_name(job.name) for job in sorted(RESERVED)] == ["idle", "overflow", "unattributed"]


def test_the_kubelet_is_asked_for_a_pod_once_the_api_server_has_told_of_it() -> None:
    expected = []

    class Asked(Kubelet):
        def expect(self, namespace: str, name: str) -> None:
            expected.append((namespace, name))

    cluster = Cluster()
    namer = Namer(directories=Directories(pods=cluster, kubelet=Asked()))
    place, nothing = at(POD_PATH), namer.known_of(at(POD_PATH), {})
    assert (nothing, expected) == (Known(), [])
    known = Namer(directories=Directories(pods=Cluster(POD), kubelet=Asked())).known_of(place, {}, nothing)
    assert known.pod == POD
    assert expected == [("ml", POD.name)]
