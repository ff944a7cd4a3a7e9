"""The namer: joins what paths, environments and directories outside know of a workload, and names its job.

It never waits: directories ask on threads of their own, and what they do not know yet is asked again at a later tick.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from carbon_exporter.jobs.base import UNATTRIBUTED, Allocation, Job, ResolverHealth, clean_name
from carbon_exporter.jobs.naming import DEFAULT_ORDER, VARIABLES, Facts, Name, name_of
from carbon_exporter.jobs.places import Place
from carbon_exporter.jobs.slurm import slurm_job, slurm_number
from carbon_exporter.jobs.workload import Container, DeviceGrant, Directory, Pod, PodContainer, SlurmJob

if TYPE_CHECKING:  # none of them is loaded where it is not used
    from carbon_exporter.jobs.engines import Engines
    from carbon_exporter.jobs.hpc_mapping import HpcMapping
    from carbon_exporter.jobs.kubelet import PodResources
    from carbon_exporter.jobs.pod_watch import PodWatch

__all__ = ["PENDING_SECONDS", "Directories", "Known", "Namer"]

PENDING_SECONDS = 15.0
"""So long a new pod waits for the API server's word before it goes by what else is known of it."""
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
    """What the directories know of a group now: its name may change with it."""

    pod: Pod | None = None
    container: Container | None = None


NOTHING_KNOWN = Known()


class _Named(NamedTuple):
    """A Slurm job, and our name for it."""

    slurm: SlurmJob
    job: Job


class Namer:
    """Names workloads. Not for use from several threads."""

    def __init__(self, order: Sequence[str] = DEFAULT_ORDER, directories: Directories | None = None) -> None:
        """`order` are the rules, as `naming.parse_order` gives them."""
        self._order = tuple(order)
        self._directories = directories or Directories()
        own = ("slurm", "slurm-id", "environment", "otel")
        self._slurm: dict[str, _Named] = {}
        """By number, as paths and prologs have it."""
        self._listed: frozenset[tuple[str, str]] = frozenset()
        self._namespaces: dict[str, list[str]] = {}
        """By name: namespaces of the pods that the kubelet has `_listed`."""
        self._granted: dict[tuple[str, str], float] = {}
        """When pods of which the API server had not told were first given a board, by namespace and name."""
        self._process_order = tuple(rule for rule in self._order if rule in own)

    @property
    def variables(self) -> tuple[bytes, ...]:
        """What an environment must hold to be of interest."""
        job, service = (name.encode() for name in VARIABLES)
        wanted = {"environment": job, "otel": service, "slurm": b"SLURM_JOB", "slurm-id": b"SLURM_JOB"}
        return tuple(dict.fromkeys(wanted[rule] for rule in self._process_order))

    def wanted_of(self, place: Place) -> tuple[bytes, ...]:
        """What the environment of a process within a group must hold to be of interest."""
        return (HOST_NAME.encode(),) if place.pod and not place.slurm else self.variables

    def of_process(self, environment: Mapping[str, str]) -> Name | None:
        """The job that a process outside containers says it is of."""
        if not environment:
            return None
        facts = Facts(environment=environment, slurm=slurm_job(environment))
        return self._remembered(name_of(facts, self._process_order), facts)

    def known_of(self, place: Place, environment: Mapping[str, str], before: Known = NOTHING_KNOWN) -> Known:
        """What the directories know of a place, or knew `before`, which is returned itself where nothing is new.

        They forget what has ended, and a group may outlive that. `environment` is that of a process within, as far as
        known.
        """
        if place.pod:
            pods = self._pods
            pod = pods.by_uid(place.pod) if pods else self._pod_by_host_name(place, environment)
            if pod is None or pod is before.pod:
                return before
            if before.pod is None and pods and self._directories.kubelet:
                self._directories.kubelet.expect(pod.namespace, pod.name)
            return before._replace(pod=pod)
        engines = self._directories.engines
        container = engines.by_id(place.container) if engines and place.container else None
        return before if container is None or container is before.container else before._replace(container=container)

    def awaits(self, place: Place, known: Known) -> bool:
        """Whether a directory may know more of it soon: a new pod is seen here before the API server tells of it."""
        asked = self._pods or self._directories.kubelet
        return bool(place.pod and known.pod is None and asked is not None)

    def wants_environment(self, place: Place) -> bool:
        """Whether a process within can tell its name: in a pod it is asked only where no API server has told of any."""
        if place.pod and not place.slurm:
            return self._directories.kubelet is not None and not (self._pods and self._pods.synced)
        return place.kind in {"container", "slurm"}

    def of_group(self, place: Place, known: Known, environment: Mapping[str, str]) -> Name | None:
        """The job of a control group; `environment` is that of a process within, as far as it was asked for."""
        slurm = self._slurm_of(place.slurm, environment) if place.slurm else None
        pod = known.pod or (self._pod_by_host_name(place, environment) if place.pod else None)
        facts = Facts(place, environment, pod, _container_of(pod, place.container), known.container, slurm)
        return self._remembered(name_of(facts, self._order), facts)

    def allocations(self, running: Collection[Name], now: float) -> tuple[Allocation, ...]:
        """Which boards schedulers have given to whom.

        Args:
            running: the names of all that runs here.
            now: monotonic seconds.
        """
        alive = {name.info.job_id for name in running if name.info.scheduler == "slurm"}
        self._slurm = {number: one for number, one in self._slurm.items() if clean_name(one.slurm.id) in alive}
        found = [Allocation(_alias(board), one.job) for one in self._slurm.values() for board in one.slurm.boards]
        if self._directories.kubelet is not None:
            grants = self._directories.kubelet.grants()
            found += (Allocation(one.device, self._job_of_grant(one, now)) for one in grants)
            waited = {(one.namespace, one.pod) for one in grants}
            self._granted = {pod: since for pod, since in self._granted.items() if pod in waited}
        if self._directories.mapping is not None:
            for board, number in self._directories.mapping.grants():
                known = self._slurm.get(number)
                found.append(Allocation(board, known.job if known else Job(_name_of_line(number))))
        return tuple(dict.fromkeys(found))

    def health(self) -> tuple[ResolverHealth, ...]:
        """How the directories are."""
        parts = [one.health() for one in self._directories]
        return (*parts, self._directories.mapping.health()) if self._directories.mapping else tuple(parts)

    def _remembered(self, name: Name | None, facts: Facts) -> Name | None:
        """Note a Slurm job: its boards, and what its containers and a prolog's files do not tell of it."""
        place = facts.place
        if name is not None and facts.slurm is not None and (place is None or place.kind == "slurm"):
            number = place.slurm if place else slurm_number(facts.environment) or facts.slurm.id
            self._slurm[number] = _Named(facts.slurm, name.job)
        return name

    def _slurm_of(self, number: str, environment: Mapping[str, str]) -> SlurmJob:
        """The job of a path, as a process within tells of it, or another of its groups; the path is the surer one."""
        told = slurm_job(environment) if slurm_number(environment) == number else None
        known = self._slurm.get(number)
        return told or (known.slurm if known else SlurmJob(number))

    @property
    def _pods(self) -> PodWatch | None:
        """Who tells of pods; None if nobody does, or may: then the kubelet's word is all there will be."""
        pods = self._directories.pods
        return None if pods is None or pods.refused else pods

    def _job_of_grant(self, grant: DeviceGrant, now: float) -> Job:
        """The job of a container that was given a device, the same as that of its control group.

        `_unattributed_` while the API server may tell of its pod soon; without it the pod's name is all that is known.
        """
        pods = self._pods
        pod = pods.by_name(grant.namespace, grant.pod) if pods else None
        if pod is None:
            since = self._granted.setdefault((grant.namespace, grant.pod), now)
            if pods and now - since < PENDING_SECONDS and self.awaits(Place("pod", "", pod=grant.pod), Known()):
                return UNATTRIBUTED
            pod = Pod(grant.namespace, grant.pod, "")
        container = next((one for one in pod.containers if one.name == grant.container), None)
        name = name_of(Facts(pod=pod, pod_container=container), self._order)
        return name.job if name else UNATTRIBUTED

    def _pod_by_host_name(self, place: Place, environment: Mapping[str, str]) -> Pod | None:
        """The pod whose name a process within takes for its host's, if the kubelet knows exactly one of that name."""
        host, kubelet = environment.get(HOST_NAME, ""), self._directories.kubelet
        if not host or kubelet is None:
            return None
        if (listed := kubelet.pods()) is not self._listed:
            self._listed, self._namespaces = listed, {}
            for namespace, name in listed:
                self._namespaces.setdefault(name, []).append(namespace)
        namespaces = self._namespaces.get(host, ())
        return Pod(namespaces[0], host, uid=place.pod) if len(namespaces) == 1 else None


def _container_of(pod: Pod | None, identifier: str) -> PodContainer | None:
    if pod is None or not identifier:
        return None
    return next((one for one in pod.containers if one.id == identifier), None)


def _alias(board: str) -> str:
    """Slurm's number of a board as a board's alias; a uuid as it is."""
    return f"nvidia{board}" if board.isdecimal() else board


def _name_of_line(line: str) -> str:
    """The job that a mapping file calls so: by its number, as Slurm does, or by a name."""
    return clean_name(f"slurm-{line}" if line[:1].isdigit() else line)
