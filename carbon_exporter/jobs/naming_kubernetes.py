"""What Kubernetes' own metadata say of a pod's job: training labels, the owner, or the pod's name. Pure.

Pods of one distributed job get one name on every node. So a name never holds a node, the index of a worker or what a
controller drew at random. Nothing is asked for: all is in the pod's own labels, annotations and ownerReferences.

Random tails are recognised by the letters they are made of: Kubernetes draws them from 27 that hold no vowel, so that a
word such as `redis` or `train` is hardly ever taken for one (k8s.io/apimachinery, util/rand). A ReplicaSet's hash is
the digits of a number spelt with ten of these.
"""

from __future__ import annotations

import re

from carbon_exporter.jobs.workload import Owner, Pod

__all__ = ["ANNOTATION", "TRAINING_LABELS", "label_name", "owner_name", "pod_name", "pod_queue", "stem"]

ANNOTATION = "carbon-exporter.io/job"

TRAINING_LABELS = (
    "training.kubeflow.org/job-name",  # Kubeflow's PyTorchJob, TFJob, MPIJob and kin
    "pytorch-job-name",
    "tf-job-name",
    "mpi-job-name",  # as their first operators spelt it
    "jobset.sigs.k8s.io/jobset-name",  # also those of Kubeflow Trainer 2
    "ray.io/originated-from-cr-name",  # a RayJob or RayService
    "ray.io/cluster",
    "volcano.sh/job-name",
    "leaderworkerset.sigs.k8s.io/name",
    "sparkoperator.k8s.io/app-name",
    "workflows.argoproj.io/workflow",
    "kueue.x-k8s.io/pod-group-name",
    "batch.kubernetes.io/job-name",
    "job-name",  # the same before Kubernetes 1.27
)
"""In the order of asking: what is made of parts comes before its parts, which may be plain Jobs with names of their
own (the launcher of an MPIJob, the Jobs of a JobSet). Labels as the controllers set them on the pods."""

_QUEUES = (
    ("kueue.x-k8s.io/queue-name", "kueue"),
    ("kueue.x-k8s.io/local-queue-name", "kueue"),
    ("volcano.sh/queue-name", "volcano"),
    ("scheduling.volcano.sh/queue-name", "volcano"),
)
_WORKLOAD = "kueue.x-k8s.io/workload"
_HASH_LABELS = ("pod-template-hash", "rollouts-pod-template-hash")
"""Of Deployments; of Argo's Rollouts."""

_RANDOM = "[bcdfghjklmnpqrstvwxz2456789]{5}"
_HASH = "[4-9bcdf]{8,10}"
_TAILS = (
    re.compile(rf"(.+)-{_HASH}-{_RANDOM}"),  # of a Deployment
    re.compile(rf"(.+)-[0-9]{{1,5}}-{_RANDOM}"),  # of an indexed Job
    re.compile(rf"(.+)-{_RANDOM}"),  # of a Job, a DaemonSet
    re.compile(r"(.+)-[0-9]{1,5}"),  # of a StatefulSet
)
_CRON_TAIL = re.compile(r"(.+)-(?:2[7-9][0-9]{6}|3[0-9]{7}|1[5-9][0-9]{8})")
"""A CronJob names its Jobs by the minute since 1970 (27 million was in 2021), before Kubernetes 1.21 by the second; a
date such as 20240131 is neither."""
_RAY_TAIL = re.compile(rf"(.+?)(?:-raycluster)?-{_RANDOM}")
"""KubeRay names the clusters of a RayJob or RayService so, anew with each try."""


def label_name(pod: Pod) -> tuple[str, str] | None:
    """The name that a training operator or the batch controller gave, and the label that says so."""
    for label in TRAINING_LABELS:
        value = pod.labels.get(label, "").strip()
        if value:
            return _without_run(label, value), label
    return None


def owner_name(pod: Pod) -> tuple[str, str] | None:
    """The name of what made the pod, and its kind; None for a pod that no controller made.

    A ReplicaSet's name without the hash that the pod's labels show is the Deployment, a Job's without its time the
    CronJob. A static pod's owner is its node, which its name ends in and the result does not.
    """
    owner = next((one for one in pod.owners if one.controller and one.name.strip()), None)
    if owner is None:
        return None
    if owner.kind == "ReplicaSet":
        return _deployment(pod, owner)
    if owner.kind == "Node":
        return pod.name.removesuffix(f"-{owner.name}"), "static pod"
    if owner.kind == "Pod":
        return stem(owner.name), "Pod"
    name = _without_run({"Job": "job-name", "RayCluster": "ray.io/cluster"}.get(owner.kind, ""), owner.name)
    return name, owner.kind


def pod_name(pod: Pod) -> tuple[str, str] | None:
    """The pod's name without its random tail or number."""
    return (stem(pod.name), "pod name") if pod.name.strip() else None


def pod_queue(pod: Pod) -> tuple[str, str, str]:
    """Scheduler, queue and the scheduler's name for the whole workload, empty where it is none or not known."""
    for key, scheduler in _QUEUES:
        queue = pod.labels.get(key) or pod.annotations.get(key)
        if queue:
            return scheduler, queue, pod.annotations.get(_WORKLOAD, "")
    return "kubernetes", "", ""


def stem(name: str) -> str:
    """A pod's name without what its controller put behind its own: hash, random tail, number, a CronJob's time."""
    for tail in _TAILS:
        match = tail.fullmatch(name)
        if match:
            cron = _CRON_TAIL.fullmatch(match[1])
            return cron[1] if cron else match[1]
    return name


def _deployment(pod: Pod, replicas: Owner) -> tuple[str, str]:
    """The Deployment or Rollout above a ReplicaSet, else the ReplicaSet itself."""
    for label in _HASH_LABELS:
        tail = "-" + pod.labels.get(label, "").strip()
        if len(tail) > 1 and replicas.name.endswith(tail) and replicas.name != tail:
            return replicas.name.removesuffix(tail), "Deployment" if label == _HASH_LABELS[0] else "Rollout"
    return replicas.name, "ReplicaSet"


def _without_run(label: str, name: str) -> str:
    """The name without what is another one for each run of the same: a CronJob's time, a RayJob's try."""
    tails = {"batch.kubernetes.io/job-name": _CRON_TAIL, "job-name": _CRON_TAIL, "ray.io/cluster": _RAY_TAIL}
    tail = tails.get(label)
    match = tail.fullmatch(name) if tail else None
    return match[1] if match else name
