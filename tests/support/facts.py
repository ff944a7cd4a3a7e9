"""Facts about workloads, and the names that they get."""

from __future__ import annotations

from carbon_exporter.jobs.naming import DEFAULT_ORDER, Facts, JobInfo, name_of
from carbon_exporter.jobs.places import Place, place_of
from carbon_exporter.jobs.workload import Owner, Pod, PodContainer

__all__ = ["BATCH", "ID", "POD_PATH", "UID", "at", "in_pod", "info", "labelled", "made_by", "named", "pod", "step_of"]

BATCH = "batch.kubernetes.io/job-name"
ID = "4f5e1d2c3b4a" + "0123456789abcdef" * 3 + "0123"
UID = "0cb8ae4c-8b4a-4d4e-a1a0-3a2b1c0d9e8f"
POD_PATH = f"/kubepods/burstable/pod{UID}"


def at(path: str) -> Place:
    place = place_of(path)
    assert place is not None
    return place


def step_of(path: str) -> tuple[str, str] | None:
    """Number and step of the Slurm job that a path leads to."""
    place = place_of(path)
    return (place.slurm, place.step) if place and place.slurm else None


def pod(name: str, *owners: Owner, containers: tuple[PodContainer, ...] = ()) -> Pod:
    return Pod("ml", name, UID, owners=owners, containers=containers)


def made_by(kind: str, name: str) -> Owner:
    return Owner(kind, name, controller=True)


def labelled(name: str, labels: dict[str, str], *owners: Owner) -> Pod:
    return Pod("ml", name, UID, labels=labels, owners=owners)


def named(facts: Facts, order: tuple[str, ...] = DEFAULT_ORDER) -> tuple[str, str, str]:
    """Rule, name and why."""
    name = name_of(facts, order)
    assert name is not None
    return name.rule, name.job.name, name.why


def in_pod(pod: Pod, container: PodContainer | None = None) -> Facts:
    return Facts(at(POD_PATH + (f"/{ID}" if container else "")), pod=pod, pod_container=container)


def info(facts: Facts) -> JobInfo:
    name = name_of(facts)
    assert name is not None
    return name.info
