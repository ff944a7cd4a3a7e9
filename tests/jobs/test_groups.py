"""Groups: what is a container's, what is its pod's own, and how a name is found that comes late."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.facts import ID, POD_PATH, UID, made_by
from support.groups import Groups
from support.stage import Cluster, Engine, Kubelet, Stage
from support.workloads import run

from carbon_exporter.jobs.base import Activity, Job
from carbon_exporter.jobs.groups import ENVIRONMENT_PERIOD_SECONDS, GONE_LOOKS, MEMORY_PERIOD_SECONDS, MEMORY_TURNS
from carbon_exporter.jobs.namer import PENDING_SECONDS, Directories, Namer
from carbon_exporter.jobs.observer import Observer
from carbon_exporter.jobs.workload import Container, Pod, PodContainer
from carbon_exporter.sensors.base import Host

OTHER = "a0b1c2d3e4f5" + "fedcba9876543210" * 3 + "fedc"
MAIN, SIDECAR = f"{POD_PATH}/{ID}", f"{POD_PATH}/{OTHER}"
PARTS = (PodContainer("main", ID, job="bert"), PodContainer("proxy", OTHER, job="mesh"))
"""They have no name in common, so that the pod's own has another one."""
POD = Pod("ml", "train-x2b4d", UID, owners=(made_by("Job", "train"),), containers=PARTS, cpus_requested=3.0)
TRAIN, BERT, MESH, UNKNOWN = Job("train", "ml"), Job("bert", "ml"), Job("mesh", "ml"), Job("pod-0cb8ae4c")
DOCKER = f"/docker/{ID}"
SLURM = "/slurm/uid_1000/job_211"


def watching(stage: Stage, **directories: Cluster | Kubelet | Engine) -> Observer:
    """An observer that has looked once."""
    observer = Observer(stage.host, reservations=True, namer=Namer(directories=Directories(**directories)))  # type: ignore[arg-type]
    observer.observe()
    return observer


def looked(observer: Observer) -> Activity:
    activity = observer.observe()
    assert activity is not None
    assert all(min(usage.cpu_seconds, usage.memory_bytes, usage.cpus_reserved) >= 0 for usage in activity.usages)
    return activity


def used(observer: Observer) -> dict[Job, float]:
    """CPU seconds by job since the last look."""
    return {usage.job: round(usage.cpu_seconds, 6) for usage in looked(observer).usages}


def jobs(observer: Observer) -> set[Job]:
    return {usage.job for usage in looked(observer).usages}


def pod_of(stage: Stage, seconds: Mapping[str, float]) -> None:
    """Set the CPU seconds of a pod and its containers."""
    for path, value in seconds.items():
        stage.group(path, value)


# A pod and its containers


def test_a_pods_own_is_what_its_counter_has_beyond_its_containers(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    pod_of(stage, {POD_PATH: 10.0, MAIN: 7.0, SIDECAR: 2.0})
    observer = watching(stage, pods=Cluster(POD))
    stage.turn()
    pod_of(stage, {POD_PATH: 15.0, MAIN: 10.0, SIDECAR: 3.0})
    assert used(observer) == {TRAIN: 1.0, BERT: 3.0, MESH: 1.0}
    members = {job: {name.member[1] for name in names} for job, names in observer.names.items()}
    assert members == {TRAIN: {""}, BERT: {"main"}, MESH: {"proxy"}}


def test_a_container_that_came_and_went_within_a_living_pod_is_the_pods(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    pod_of(stage, {POD_PATH: 10.0, MAIN: 7.0})
    observer = watching(stage, pods=Cluster(POD))
    stage.turn()
    pod_of(stage, {POD_PATH: 14.0, MAIN: 8.0})
    assert used(observer) == {TRAIN: 3.0, BERT: 1.0}


def test_what_an_ended_container_used_last_is_the_pods(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    pod_of(stage, {POD_PATH: 10.0, MAIN: 7.0, SIDECAR: 2.0})
    observer = watching(stage, pods=Cluster(POD))
    stage.turn()
    stage.remove(SIDECAR)
    pod_of(stage, {POD_PATH: 12.5, MAIN: 8.0})
    assert used(observer) == {TRAIN: 1.5, BERT: 1.0}


def test_memory_and_cpusets_of_containers_are_not_counted_again_in_their_pod(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.group(POD_PATH, 0.0, memory=1000)
    stage.group(MAIN, 0.0, memory=700, cpuset="0-1")
    stage.group(SIDECAR, 0.0, memory=200)
    observer = watching(stage, pods=Cluster(POD))
    stage.turn()
    usages = {usage.job: usage for usage in looked(observer).usages}
    assert [usages[job].memory_bytes for job in (TRAIN, BERT, MESH)] == [100.0, 700.0, 200.0]
    assert [usages[job].cpus_reserved for job in (TRAIN, BERT, MESH)] == [1.0, 2.0, 0.0], "three requested, two pinned"


def test_a_pods_request_is_kept_for_it_only_where_reservations_are_wanted(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    pod_of(stage, {POD_PATH: 0.0})
    for wanted, cpus in ((False, 0.0), (True, 3.0)):
        observer = Observer(stage.host, reservations=wanted, namer=Namer(directories=Directories(pods=Cluster(POD))))
        observer.observe()
        stage.turn()
        assert {usage.job: usage.cpus_reserved for usage in looked(observer).usages} == {TRAIN: cpus}


def test_a_request_that_is_known_late_counts_from_the_next_reading_on(tmp_path: Path) -> None:
    stage, cluster = Stage(tmp_path), Cluster()
    pod_of(stage, {POD_PATH: 0.0})
    observer = watching(stage, pods=cluster)
    cluster.pods = (POD,)
    stage.turn()
    assert [usage.cpus_reserved for usage in looked(observer).usages] == [0.0]
    stage.turn(MEMORY_PERIOD_SECONDS)
    assert [usage.cpus_reserved for usage in looked(observer).usages] == [3.0]


def test_the_memory_of_many_groups_is_not_read_at_one_look(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for number in range(12):
        stage.group(f"{number}.service", 0.0, memory=1)
    observer = watching(stage)
    for number in range(12):
        stage.group(f"{number}.service", 0.0, memory=2)
    known = []
    for _ in range(MEMORY_TURNS):
        stage.turn(MEMORY_PERIOD_SECONDS / MEMORY_TURNS)
        known.append(sum(usage.memory_bytes for usage in looked(observer).usages) - 12)
    assert known == [4, 8, 12]


# Names that come late


def test_a_new_pod_waits_for_its_name_and_has_no_other_meanwhile(tmp_path: Path) -> None:
    stage, cluster = Stage(tmp_path), Cluster()
    pod_of(stage, {POD_PATH: 0.0, MAIN: 0.0})
    observer = watching(stage, pods=cluster)
    stage.turn()
    pod_of(stage, {POD_PATH: 2.0, MAIN: 2.0})
    assert used(observer) == {}
    cluster.pods = (POD,)
    stage.turn()
    pod_of(stage, {POD_PATH: 3.0, MAIN: 3.0})
    assert used(observer) == {TRAIN: 0.0, BERT: 1.0}


@pytest.mark.parametrize("directories", [{"pods": Cluster()}, {"kubelet": Kubelet()}], ids=["API server", "kubelet"])
def test_a_pod_of_which_nobody_knows_goes_by_its_uid_after_fifteen_seconds(
    tmp_path: Path, directories: dict[str, Cluster | Kubelet]
) -> None:
    stage = Stage(tmp_path)
    pod_of(stage, {POD_PATH: 0.0, MAIN: 0.0})
    observer = watching(stage, **directories)
    waited = 0.0
    while waited < PENDING_SECONDS:
        assert jobs(observer) == set() if waited else True
        stage.turn()
        waited += 5.0
    assert jobs(observer) == {UNKNOWN}, "one job, not one for each container"


def test_a_new_container_of_a_pod_that_has_waited_in_vain_is_its_pods_at_once(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    pod_of(stage, {POD_PATH: 0.0})
    observer = watching(stage, kubelet=Kubelet())
    stage.turn(PENDING_SECONDS)
    pod_of(stage, {POD_PATH: 1.0, MAIN: 1.0})
    assert used(observer) == {UNKNOWN: 1.0}
    stage.turn()
    stage.remove(MAIN)
    pod_of(stage, {POD_PATH: 3.0, SIDECAR: 1.0})
    assert used(observer) == {UNKNOWN: 2.0}


def test_without_anybody_to_ask_a_pod_does_not_wait(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    pod_of(stage, {POD_PATH: 0.0, MAIN: 0.0})
    observer = watching(stage)
    stage.turn()
    assert jobs(observer) == {UNKNOWN}


def test_a_pod_that_is_told_of_after_all_has_its_own_name_from_then_on(tmp_path: Path) -> None:
    stage, cluster = Stage(tmp_path), Cluster()
    pod_of(stage, {POD_PATH: 0.0, MAIN: 0.0})
    observer = watching(stage, pods=cluster)
    stage.turn(PENDING_SECONDS)
    assert jobs(observer) == {UNKNOWN}
    cluster.pods = (POD,)
    stage.turn()
    assert jobs(observer) == {TRAIN, BERT}


def test_a_group_that_outlives_what_is_known_of_it_keeps_its_name(tmp_path: Path) -> None:
    stage, cluster, engine = Stage(tmp_path), Cluster(POD), Engine(Container(ID, "web", "docker"))
    pod_of(stage, {POD_PATH: 0.0, DOCKER: 0.0})
    observer = watching(stage, pods=cluster, engines=engine)
    cluster.pods, engine.containers = (), ()
    stage.turn(100.0)
    assert jobs(observer) == {TRAIN, Job("web")}


def test_a_pod_that_changes_its_labels_changes_its_name(tmp_path: Path) -> None:
    stage, cluster = Stage(tmp_path), Cluster(POD)
    pod_of(stage, {POD_PATH: 0.0, MAIN: 0.0})
    observer = watching(stage, pods=cluster)
    cluster.pods = (Pod("ml", POD.name, UID, annotations={"carbon-exporter.io/job": "other"}, containers=PARTS),)
    stage.turn()
    assert jobs(observer) == {Job("other", "ml")}


def test_a_container_whose_engine_tells_its_name_later_is_renamed(tmp_path: Path) -> None:
    stage, engine = Stage(tmp_path), Engine()
    stage.group(DOCKER, 0.0)
    observer = watching(stage, engines=engine)
    stage.turn()
    assert jobs(observer) == {Job(f"docker-{ID[:12]}")}
    engine.containers = (Container(ID, "web", "docker"),)
    stage.turn()
    stage.group(DOCKER, 1.0)
    assert used(observer) == {Job("web"): 1.0}


# What a process within tells


def test_a_container_is_named_by_its_first_process_and_by_no_other(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for path, first in ((DOCKER, {"PATH": "/"}), (f"/docker/{OTHER}", {"CARBON_JOB": "web"})):
        pid = 10 if path == DOCKER else 20
        stage.group(path, 0.0, pids=[pid, pid + 1])
        stage.environment(pid, first)
        stage.environment(pid + 1, {"CARBON_JOB": "inner"})
    observer = watching(stage)
    stage.turn()
    assert jobs(observer) == {Job(f"docker-{ID[:12]}"), Job("web")}


def test_a_container_that_was_seen_before_its_program_began_is_asked_once_more_and_then_left_alone(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path)
    for pid, path in ((10, DOCKER), (20, f"/docker/{OTHER}")):
        stage.group(path, 0.0, pids=[pid])
        stage.environment(pid, {"_LIBCONTAINER_INITTYPE": "standard"})
    observer = watching(stage)
    stage.environment(10, {"CARBON_JOB": "web"})
    stage.turn(ENVIRONMENT_PERIOD_SECONDS)
    assert jobs(observer) == {Job("web"), Job(f"docker-{OTHER[:12]}")}
    stage.environment(20, {"CARBON_JOB": "too late"})
    stage.turn(10 * ENVIRONMENT_PERIOD_SECONDS)
    assert jobs(observer) == {Job("web"), Job(f"docker-{OTHER[:12]}")}


def test_in_a_pod_no_process_is_asked_where_there_is_an_api_server(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for pid, path in ((10, POD_PATH), (11, MAIN)):
        stage.group(path, 0.0, pids=[pid])
        stage.environment(pid, {"CARBON_JOB": "mine", "HOSTNAME": "train-x2b4d"})
    for directories in ({"pods": Cluster(POD)}, dict[str, Cluster]()):
        observer = watching(stage, **directories)
        stage.turn()
        assert jobs(observer) == ({TRAIN, BERT} if directories else {UNKNOWN})


def test_a_pod_has_the_name_that_a_process_takes_for_its_hosts_if_the_kubelet_knows_one_such_pod(
    tmp_path: Path,
) -> None:
    stage, kubelet = Stage(tmp_path), Kubelet()
    stage.group(POD_PATH, 0.0)
    stage.group(SIDECAR, 0.0, pids=[9])
    stage.group(MAIN, 0.0, pids=[10])
    stage.environment(9, {"PATH": "/"})
    stage.environment(10, {"HOSTNAME": "bert-0", "CARBON_JOB": "mine"})
    observer = watching(stage, kubelet=kubelet)
    stage.turn()
    assert jobs(observer) == set(), "it was started after the kubelet was last asked"
    kubelet.names = frozenset({("ml", "bert-0"), ("ml", "other")})
    stage.turn()
    assert jobs(observer) == {Job("bert", "ml")}, "the pod, and the pause container, too"
    kubelet.names = frozenset()
    stage.turn(100.0)
    assert jobs(observer) == {Job("bert", "ml")}


def test_two_pods_of_one_name_in_two_namespaces_are_not_told_apart_by_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.group(POD_PATH, 0.0)
    stage.group(MAIN, 0.0, pids=[10])
    stage.environment(10, {"HOSTNAME": "bert-0"})
    observer = watching(stage, kubelet=Kubelet(("ml", "bert-0"), ("other", "bert-0")))
    stage.turn(PENDING_SECONDS)
    assert jobs(observer) == {UNKNOWN}


def test_a_slurm_group_is_named_by_the_environment_of_a_process_within(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.group(SLURM, 0.0)
    stage.group(f"{SLURM}/step_extern", 0.0, pids=[10])
    stage.group(f"{SLURM}/step_0", 0.0, pids=[11])
    stage.environment(10, {"PATH": "/"})
    stage.environment(11, {"SLURM_JOB_ID": "211", "SLURM_JOB_NAME": "train", "SLURM_JOB_USER": "ada"})
    observer = watching(stage)
    stage.turn()
    assert jobs(observer) == {Job("train")}
    (name,) = observer.names[Job("train")]
    assert (name.rule, name.why) == ("slurm", "SLURM_JOB_NAME")
    assert (name.info.job_id, name.info.scheduler, name.info.user) == ("211", "slurm", "ada")


def test_a_slurm_job_that_cannot_be_asked_goes_by_its_number_until_it_can(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.group(SLURM, 0.0, pids=[10])
    observer = watching(stage)
    stage.turn()
    assert jobs(observer) == {Job("slurm-211")}
    stage.environment(10, {"SLURM_JOB_ID": "211", "SLURM_JOB_NAME": "train"})
    stage.turn(ENVIRONMENT_PERIOD_SECONDS)
    assert jobs(observer) == {Job("train")}


def test_the_path_says_for_sure_which_slurm_job_it_is(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.group(SLURM, 0.0, pids=[10])
    stage.environment(10, {"SLURM_JOB_ID": "99", "SLURM_JOB_NAME": "somebody-elses"})
    observer = watching(stage)
    stage.turn()
    assert jobs(observer) == {Job("slurm-211")}


def test_a_container_within_a_slurm_job_is_that_job(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.group(SLURM, 0.0, pids=[10])
    stage.group(f"{SLURM}/step_0/{ID}", 0.0, pids=[11])
    stage.environment(10, {"SLURM_JOB_ID": "211", "SLURM_JOB_NAME": "train"})
    stage.environment(11, {"CARBON_JOB": "inner"})
    observer = watching(stage)
    stage.turn()
    assert jobs(observer) == {Job("train")}


# Real groups


def test_a_group_that_has_gone_is_remembered_for_two_looks(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.group(DOCKER, 0.0)
    stage.process(10, 0.0, group=DOCKER)
    observer = watching(stage)
    assert observer.job_of(10) == Job(f"docker-{ID[:12]}")
    stage.remove(DOCKER)
    stage.proc.end(10)
    for looks in range(1, GONE_LOOKS + 2):
        stage.turn()
        observer.observe()
        assert (observer.job_of(10) == Job(f"docker-{ID[:12]}")) == (looks <= GONE_LOOKS)


FORKS = """
say("ready"); wait()
for _ in range(6):
    if os.fork() == 0:
        burn(0.05)
        os._exit(0)
    os.wait()
say("done"); wait()
"""


def test_a_real_pod_and_its_container_add_up_to_the_kernels_count(groups: Groups) -> None:
    pod, inside = POD_PATH.lstrip("/"), MAIN.lstrip("/")
    groups.make(pod, inside)
    uid = f"test-{os.getpid()}"
    spec = (PodContainer("main", ID, job=f"inside-{uid}"), PodContainer("gone", OTHER, job=f"gone-{uid}"))
    pod_job = made_by("Job", f"whole-{uid}")
    known = Pod("ml", "a-pod", UID, owners=(pod_job,), containers=spec)
    observer = Observer(Host(), namer=Namer(directories=Directories(pods=Cluster(known))))
    mine, rest = Job(f"inside-{uid}", "ml"), Job(f"whole-{uid}", "ml")
    sums = {mine: 0.0, rest: 0.0}
    with run(FORKS, {"CARBON_JOB": "not read"}) as stays, run(FORKS) as short:
        for program in (stays, short):
            assert program.says() == "ready"
        groups.move(stays.pid, inside)
        observer.observe()
        before = groups.used(pod)
        groups.make(f"{pod}/{OTHER}")
        groups.move(short.pid, f"{pod}/{OTHER}")
        for program in (stays, short):
            program.go_on()
            assert program.says() == "done"
        groups.move(short.pid, "")
        groups.remove(f"{pod}/{OTHER}")
        for usage in looked(observer).usages:
            if usage.job in sums:
                sums[usage.job] += usage.cpu_seconds
        truth = groups.used(pod) - before
    assert sum(sums.values()) == pytest.approx(truth, abs=0.02)
    assert sums[mine] >= 0.29
    assert sums[rest] >= 0.29, "of the container that came and went"
    assert Job("not read") not in observer.names
