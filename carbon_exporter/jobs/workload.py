"""What is known of a workload beside its numbers: the facts from which a job's name is made.

They come from outside (paths, environments, a kubelet, an API server, a container engine, Slurm), each at its own time;
all of them are frozen, and any of them may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from carbon_exporter.jobs.base import ResolverHealth

__all__ = ["Container", "DeviceGrant", "Directory", "Owner", "Pod", "PodContainer", "SlurmJob"]

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Owner:
    """What made a pod, as its ownerReferences say."""

    kind: str
    """`ReplicaSet`, `Job`, `PyTorchJob`."""
    name: str
    controller: bool = False


@dataclass(frozen=True, slots=True)
class PodContainer:
    """A container of a pod."""

    name: str
    id: str = ""
    """64 hex digits; empty before it runs."""
    job: str = ""
    """`CARBON_JOB` as its spec has it, empty if it has none."""
    service: str = ""
    """`OTEL_SERVICE_NAME` as its spec has it, empty if it has none."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A Kubernetes pod of this node."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    annotations: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    owners: tuple[Owner, ...] = ()
    containers: tuple[PodContainer, ...] = ()
    cpus_requested: float = 0.0
    """Sum over its containers, as the scheduler counts it."""
    mirror_of: str = ""
    """The uid in the cgroup's path where it is another one than the API's: a static pod's `config.hash`."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container outside Kubernetes, as its engine (Docker, Podman) knows it."""

    id: str
    """64 hex digits."""
    name: str
    engine: str
    """`docker` or `podman`."""
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """A Slurm job, or a task of an array of jobs, as its steps' environment tells; empty for what it does not."""

    id: str
    """`211`, of an array's task `208_3`."""
    name: str = ""
    user: str = ""
    account: str = ""
    partition: str = ""
    boards: tuple[str, ...] = ()
    """What it was given: uuids, or numbers of boards."""


@dataclass(frozen=True, slots=True)
class DeviceGrant:
    """A device that the kubelet gave to a container, with or without a process on it."""

    namespace: str
    pod: str
    container: str
    device: str
    """Uuid of a board or of a slice of one, without what tells replicas apart; `nvidia0`, `nvidia0/gi5` on GKE."""
    resource: str = ""
    """`nvidia.com/gpu`, or a DRA driver's name."""


class Directory(Protocol):
    """Someone outside who is asked for facts, on a thread of its own: asking may take long, looking up never does."""

    @property
    def revision(self) -> int:
        """Rises with each change of what it knows."""
        ...

    def start(self) -> None:
        """Begin to ask."""
        ...

    def health(self) -> ResolverHealth:
        """Whether it knows what it should; if not, why, and what would mend that."""
        ...

    def close(self) -> None:
        """Stop asking; returns without waiting for a peer that hangs."""
        ...
