"""The namer: joins what paths, environments and directories outside know of a workload, and names its job.

It never waits: directories ask on threads of their own, and what they do not know yet is asked again at a later tick.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from carbon_exporter.jobs.base import Allocation, Job, ResolverHealth
from carbon_exporter.jobs.naming import DEFAULT_ORDER, VARIABLES, Facts, Name, name_of
from carbon_exporter.jobs.places import Place
from carbon_exporter.jobs.slurm import slurm_job, slurm_number
from carbon_exporter.jobs.workload import Container, DeviceGrant, Directory, Pod, PodContainer, SlurmJob

if TYPE_CHECKING:  # none of them is loaded where it is not used
    from carbon_exporter.jobs.engines import Engines
    from carbon_exporter.jobs.hpc_mapping import HpcMapping
    from carbon_exporter.jobs.kubelet import PodResources
    from carbon_exporter.jobs.pod_watch import PodWatch

__all__ = ["Directories", "Known", "Namer"]

HOST_NAME = "HOSTNAME"
"""In a container of a pod: the pod's name, unless its spec says otherwise."""


@dataclass(frozen=True, slots=True)
class Directories:
    """Who is asked for what paths and environments do not tell; None for who is not there."""

    pods: PodWatch | None = None
    kubelet: PodResources | None = None
    engines: Engines | None = None
    mapping: HpcMapping | None = None

    def __iter__(self) -> Iterator[Directory]:
        """Those that are started and closed."""
        return iter([one for one in (self.pods, self.kubelet, self.engines) if one is not None])


class Known(NamedTuple):
    """What the directories know of a group now; compared by identity, to see whether its name may have changed."""

    pod: Pod | None = None
    container: Container | None = None


class _SlurmBoards(NamedTuple):
    """A Slurm job's number as its info has it, our name for it, and the boards that it was given."""

    id: str
    job: Job
    boards: tuple[str, ...]


class Namer:
    """Names workloads. Not for use from several threads."""

    def __init__(self, order: Sequence[str] = DEFAULT_ORDER, directories: Directories | None = None) -> None:
        """`order` are the rules, as `naming.parse_order` gives them."""
        self._order = tuple(order)
        self._directories = directories or Directories()
        own = ("slurm", "slurm-id", "environment", "otel")
        self._slurm: dict[str, _SlurmBoards] = {}
        self._process_order = tuple(rule for rule in self._order if rule in own)

    @property
    def variables(self) -> tuple[bytes, ...]:
        """What an environment must hold to be of interest."""
        job, service = (name.encode() for name in VARIABLES)
        wanted = {"environment": job, "otel": service, "slurm": b"SLURM_JOB", "slurm-id": b"SLURM_JOB"}
        return tuple(dict.fromkeys(wanted[rule] for rule in self._process_order))

    def wanted_of(self, place: Place) -> tuple[bytes, ...]:
        """What the environment of a process within a group must hold to be of interest."""
        return (HOST_NAME.encode(),) if place.pod else self.variables

    def of_process(self, environment: Mapping[str, str]) -> Name | None:
        """The job that a process outside containers says it is of."""
        if not environment:
            return None
        facts = Facts(environment=environment, slurm=slurm_job(environment))
        return self._remembered(name_of(facts, self._process_order), facts)

    def known_of(self, place: Place) -> Known:
        """What the directories know of a place now."""
        pods, engines = self._directories.pods, self._directories.engines
        if place.pod:
            return Known(pods.by_uid(place.pod) if pods else None)
        return Known(container=engines.by_id(place.container) if engines and place.container else None)

    def awaits(self, place: Place, known: Known) -> bool:
        """Whether a directory may know more of it soon: a new pod is seen here before the API server tells of it."""
        return bool(place.pod and known.pod is None and self._directories.pods is not None)

    def wants_environment(self, place: Place) -> bool:
        """Whether a process within can tell its name: in a pod it is asked only where there is no API server."""
        if place.pod:
            return self._directories.pods is None and self._directories.kubelet is not None
        return place.kind in {"container", "slurm"}

    def of_group(self, place: Place, known: Known, environment: Mapping[str, str]) -> Name | None:
        """The job of a control group; `environment` is that of a process within, as far as it was asked for."""
        pod = known.pod or (self._pod_by_host_name(place, environment) if place.pod else None)
        slurm = (slurm_job(environment) or SlurmJob(place.slurm)) if place.slurm else None
        facts = Facts(place, environment, pod, _container_of(pod, place.container), known.container, slurm)
        return self._remembered(name_of(facts, self._order), facts)

    def allocations(self, running: Collection[Name]) -> tuple[Allocation, ...]:
        """Which boards schedulers have given to whom; `running` are the names of all that runs here."""
        alive = {name.info.job_id for name in running if name.info.scheduler == "slurm"}
        self._slurm = {number: job for number, job in self._slurm.items() if job.id in alive}
        found = [Allocation(_alias(board), one.job) for one in self._slurm.values() for board in one.boards]
        if self._directories.kubelet is not None:
            for grant in self._directories.kubelet.grants():
                name = self._of_grant(grant)
                if name is not None:
                    found.append(Allocation(grant.device, name.job))
        if self._directories.mapping is not None:
            for board, number in self._directories.mapping.grants():
                known = self._slurm.get(number)
                found.append(Allocation(board, known.job if known else Job(f"slurm-{number}")))
        return tuple(dict.fromkeys(found))

    def health(self) -> tuple[ResolverHealth, ...]:
        """How the directories are."""
        parts = [one.health() for one in self._directories]
        return (*parts, self._directories.mapping.health()) if self._directories.mapping else tuple(parts)

    def _remembered(self, name: Name | None, facts: Facts) -> Name | None:
        """Note the boards of a Slurm job, by its number as paths and prologs have it."""
        if name is not None and facts.slurm is not None:
            number = slurm_number(facts.environment) or facts.slurm.id
            self._slurm[number] = _SlurmBoards(facts.slurm.id, name.job, facts.slurm.boards)
        return name

    def _of_grant(self, grant: DeviceGrant) -> Name | None:
        """The job of a container that was given a device; without an API server its pod's name is all that is known."""
        pods = self._directories.pods
        pod = pods.by_name(grant.namespace, grant.pod) if pods else None
        pod = pod or Pod(grant.namespace, grant.pod, "")
        container = next((one for one in pod.containers if one.name == grant.container), None)
        return name_of(Facts(pod=pod, pod_container=container), self._order)

    def _pod_by_host_name(self, place: Place, environment: Mapping[str, str]) -> Pod | None:
        """The pod whose name a process within takes for its host's, if the kubelet knows exactly one of that name."""
        host, kubelet = environment.get(HOST_NAME, ""), self._directories.kubelet
        if not host or kubelet is None:
            return None
        found = [(namespace, name) for namespace, name in kubelet.pods() if name == host]
        return Pod(*found[0], uid=place.pod) if len(found) == 1 else None


def _container_of(pod: Pod | None, identifier: str) -> PodContainer | None:
    if pod is None or not identifier:
        return None
    return next((one for one in pod.containers if one.id == identifier), None)


def _alias(board: str) -> str:
    """Slurm's number of a board as a board's alias; a uuid as it is."""
    return f"nvidia{board}" if board.isdecimal() else board
