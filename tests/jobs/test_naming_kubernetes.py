"""Naming by what Kubernetes says: one name for all pods of a job, without nodes, indices and random tails."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.facts import BATCH, ID, UID, in_pod, info, labelled, made_by, named, pod

from carbon_exporter.jobs.base import Job
from carbon_exporter.jobs.naming import JobInfo, name_of
from carbon_exporter.jobs.naming_kubernetes import TRAINING_LABELS, stem
from carbon_exporter.jobs.workload import Owner, Pod, PodContainer

KUBEFLOW = "training.kubeflow.org/job-name"

DISTRIBUTED: list[tuple[str, str, list[Pod]]] = [
    (
        "PyTorchJob",
        "llama",
        [
            labelled(
                name,
                {KUBEFLOW: "llama", "training.kubeflow.org/replica-index": name[-1]},
                made_by("PyTorchJob", "llama"),
            )
            for name in ("llama-master-0", "llama-worker-0", "llama-worker-1")
        ],
    ),
    (
        "PyTorchJob, by its owner alone",
        "llama",
        [pod(name, made_by("PyTorchJob", "llama")) for name in ("llama-master-0", "llama-worker-7")],
    ),
    (
        "MPIJob, whose launcher is a plain Job",
        "nccl",
        [
            labelled(
                "nccl-launcher-6cd4n",
                {KUBEFLOW: "nccl", "job-name": "nccl-launcher"},
                made_by("Job", "nccl-launcher"),
            ),
            labelled("nccl-worker-0", {KUBEFLOW: "nccl"}, made_by("MPIJob", "nccl")),
            labelled("nccl-worker-1", {"mpi-job-name": "nccl"}, made_by("MPIJob", "nccl")),
        ],
    ),
    (
        "JobSet",
        "pretrain",
        [
            labelled(
                f"pretrain-{part}-0-{index}-x2b4d",
                {"jobset.sigs.k8s.io/jobset-name": "pretrain", BATCH: f"pretrain-{part}-0"},
                made_by("Job", f"pretrain-{part}-0"),
            )
            for part, index in (("leader", 0), ("workers", 0), ("workers", 1))
        ],
    ),
    (
        "RayCluster",
        "raycluster-kuberay",
        [
            labelled(name, {"ray.io/cluster": "raycluster-kuberay"}, made_by("RayCluster", "raycluster-kuberay"))
            for name in ("raycluster-kuberay-head-zxmpl", "raycluster-kuberay-worker-workergroup-s4jwk")
        ],
    ),
    (
        "RayJob with its submitter, before and since KubeRay 1.4",
        "rayjob-sample",
        [
            labelled("rayjob-sample-raycluster-9p82k-head-fcgbz", {"ray.io/cluster": "rayjob-sample-raycluster-9p82k"}),
            labelled("rayjob-sample-9p82k-small-group-worker-vvmcf", {"ray.io/cluster": "rayjob-sample-9p82k"}),
            labelled("rayjob-sample-tlsbl", {BATCH: "rayjob-sample"}, made_by("Job", "rayjob-sample")),
            pod("rayjob-sample-9p82k-head-fcgbz", made_by("RayCluster", "rayjob-sample-9p82k")),
            labelled("any-head-fcgbz", {"ray.io/originated-from-cr-name": "rayjob-sample", "ray.io/cluster": "any"}),
        ],
    ),
    (
        "Volcano job",
        "mnist",
        [
            labelled(name, {"volcano.sh/job-name": "mnist"}, made_by("Job", "mnist"))
            for name in ("mnist-ps-0", "mnist-worker-0")
        ],
    ),
    (
        "LeaderWorkerSet",
        "vllm",
        [
            labelled("vllm-0", {"leaderworkerset.sigs.k8s.io/name": "vllm"}, made_by("StatefulSet", "vllm")),
            labelled("vllm-0-1", {"leaderworkerset.sigs.k8s.io/name": "vllm"}, made_by("StatefulSet", "vllm-0")),
        ],
    ),
    (
        "Spark",
        "etl",
        [
            labelled("etl-driver", {"sparkoperator.k8s.io/app-name": "etl"}, made_by("SparkApplication", "etl")),
            labelled("etl-1f-exec-1", {"sparkoperator.k8s.io/app-name": "etl"}, made_by("Pod", "etl-driver")),
        ],
    ),
    (
        "Argo workflow",
        "steps-7x2kz",
        [
            labelled(name, {"workflows.argoproj.io/workflow": "steps-7x2kz"}, made_by("Workflow", "steps-7x2kz"))
            for name in ("steps-7x2kz-fetch-1384729", "steps-7x2kz-train-90812")
        ],
    ),
    (
        "group of plain pods in Kueue",
        "group",
        [labelled(f"sample-{i}", {"kueue.x-k8s.io/pod-group-name": "group"}) for i in range(3)],
    ),
    (
        "indexed Job, now and by its name before 1.27",
        "sweep",
        [labelled(f"sweep-{i}-{tail}", {BATCH: "sweep"}) for i, tail in ((0, "4xkjq"), (11, "zzv2n"))]
        + [labelled("sweep-2-bcdfg", {"job-name": "sweep"})],
    ),
    (
        "indexed Job, by its owner or its pods' names alone",
        "sweep",
        [pod("sweep-0-4xkjq", made_by("Job", "sweep")), pod("sweep-11-zzv2n"), pod("sweep-0-9kxrt")],
    ),
    (
        "CronJob, whatever the minute",
        "backup",
        [
            labelled("backup-28391231-x2b4d", {BATCH: "backup-28391231"}, made_by("Job", "backup-28391231")),
            pod("backup-29500000-x2b4d", made_by("Job", "backup-29500000")),
            pod("backup-1609459200-x2b4d", made_by("Job", "backup-1609459200")),
            pod("backup-28391231-x2b4d"),
        ],
    ),
    (
        "Deployment over a rollout",
        "web",
        [
            labelled(
                "web-7d764666f9-x2b4d", {"pod-template-hash": "7d764666f9"}, made_by("ReplicaSet", "web-7d764666f9")
            ),
            labelled(
                "web-5d78c9869d-9kxrt", {"pod-template-hash": "5d78c9869d"}, made_by("ReplicaSet", "web-5d78c9869d")
            ),
            labelled("web-db4-9kxrt", {"rollouts-pod-template-hash": "db4"}, made_by("ReplicaSet", "web-db4")),
            pod("web-5d78c9869d-9kxrt"),
        ],
    ),
    ("StatefulSet", "db", [pod("db-0", made_by("StatefulSet", "db")), pod("db-12")]),
    ("DaemonSet", "node-agent", [pod("node-agent-x2b4d", made_by("DaemonSet", "node-agent")), pod("node-agent-9kxrt")]),
    (
        "static pod",
        "etcd",
        [pod(f"etcd-{node}", made_by("Node", node)) for node in ("control-1", "control-2.example.com")],
    ),
]


@pytest.mark.parametrize(("name", "pods"), [case[1:] for case in DISTRIBUTED], ids=[case[0] for case in DISTRIBUTED])
def test_the_pods_of_one_workload_share_one_identity_on_every_node(name: str, pods: list[Pod]) -> None:
    for one in pods:
        for container in (None, PodContainer("main", ID)):
            found = name_of(in_pod(one, container))
            assert found is not None
            assert found.job == Job(name, "ml")
            assert found.rule in {"labels", "owner", "pod"}


@pytest.mark.parametrize("label", TRAINING_LABELS)
def test_each_training_label_names_a_job_and_says_so(label: str) -> None:
    assert named(in_pod(labelled("p", {label: "train", "app": "x"}))) == ("labels", "train", label)
    assert named(in_pod(labelled("p", {label: " "})))[0] == "pod"


def test_the_same_name_in_two_namespaces_is_two_jobs() -> None:
    one, other = (name_of(in_pod(Pod(space, "train", UID))) for space in ("a", "b"))
    assert one is not None
    assert other is not None
    assert (one.job, other.job) == (Job("train", "a"), Job("train", "b"))


def test_an_owner_that_is_no_controller_made_nothing() -> None:
    assert named(in_pod(pod("train-x2b4d", Owner("ConfigMap", "keep")))) == ("pod", "train", "pod name")


def test_what_a_pod_made_is_named_after_that_pod() -> None:
    assert named(in_pod(pod("etl-1f-exec-1", made_by("Pod", "etl-x2b4d")))) == ("owner", "etl", "Pod")
    assert named(in_pod(pod("etl-x2b4d"))) == ("pod", "etl", "pod name")


def test_a_replica_set_of_no_deployment_keeps_its_name() -> None:
    assert named(in_pod(pod("web-x2b4d", made_by("ReplicaSet", "web-abc")))) == ("owner", "web-abc", "ReplicaSet")
    odd = labelled("x", {"pod-template-hash": "7d7"}, made_by("ReplicaSet", "-7d7"))
    assert named(in_pod(odd)) == ("owner", "-7d7", "ReplicaSet")


@pytest.mark.parametrize(
    "name",
    [
        "redis",
        "web-redis",
        "my-nginx",
        "train-20240131",
        "run-h100",
        "a-b",
        "x2b4d",
        "-x2b4d",
        "gpt-v2",
        "llama-vllms-a",
    ],
)
def test_a_name_without_a_random_tail_stays(name: str) -> None:
    assert stem(name) == name


def test_kueues_queue_is_told_and_its_workload_only_where_a_label_names_the_job() -> None:
    notes = {"kueue.x-k8s.io/workload": "job-train-fl4bd"}
    labels = {"kueue.x-k8s.io/queue-name": "user-queue"}
    job = Pod("ml", "train-x2b4d", UID, {**labels, BATCH: "train"}, notes)
    assert info(in_pod(job)) == JobInfo("job-train-fl4bd", "kueue", "user-queue")
    assert info(in_pod(Pod("ml", "web", UID, labels, notes))) == JobInfo("", "kueue", "user-queue")
    admitted = Pod("ml", "web", UID, {"kueue.x-k8s.io/local-queue-name": "local"})
    assert info(in_pod(admitted)) == JobInfo("", "kueue", "local")


@given(st.text(st.characters(), max_size=300))
def test_no_pod_name_makes_trouble(name: str) -> None:
    assert name.startswith(stem(name))
    assert bool(stem(name)) == bool(name)


@given(st.text(string.ascii_lowercase + string.digits + "-", max_size=300))
def test_a_stem_has_no_random_tail_of_a_deployment(name: str) -> None:
    assert stem(f"x{name}-7d764666f9-x2b4d") == f"x{name}" or name.endswith(tuple(string.digits))
