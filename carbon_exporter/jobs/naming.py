"""Naming: from the facts about a workload to its job's name, by an ordered list of rules. Pure.

The first rule that knows a name gives it. The order is a setting; a rule that it leaves out is off.

| rule | name |
|---|---|
| `annotation` | the pod's annotation `carbon-exporter.io/job`; outside Kubernetes the container's label of that name |
| `slurm` | the Slurm job's name, `slurm-211` where only its number is known |
| `slurm-id` | always `slurm-211`: each job apart, whatever it is called (not in the default order) |
| `environment` | `CARBON_JOB` |
| `otel` | `OTEL_SERVICE_NAME` (not in the default order) |
| `labels` | labels of training operators and of the batch controller |
| `owner` | what made the pod, as its ownerReferences and labels show |
| `pod` | the pod's name without its random tail or number |
| `container` | the container's name or that of its compose or swarm service, else runtime and short id; `pod-` and the
  head of its uid for a pod of which nothing is known |
| `unit` | the systemd unit, session scope or virtual machine |

In a pod `CARBON_JOB` and `OTEL_SERVICE_NAME` are those of the pod's spec: what a process within says of itself is not
asked there. Outside Kubernetes they are those of the container's first process, outside containers of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from carbon_exporter.jobs.base import Job, clean_name
from carbon_exporter.jobs.naming_kubernetes import ANNOTATION, label_name, owner_name, pod_name, pod_queue
from carbon_exporter.jobs.places import Place
from carbon_exporter.jobs.workload import Container, Pod, PodContainer, SlurmJob

__all__ = [
    "BY_UID",
    "DEFAULT_ORDER",
    "RULES",
    "VARIABLES",
    "Facts",
    "JobInfo",
    "Name",
    "common_info",
    "name_of",
    "parse_order",
]

DEFAULT_ORDER = ("annotation", "slurm", "environment", "labels", "owner", "pod", "container", "unit")

_JOB, _SERVICE = VARIABLES = ("CARBON_JOB", "OTEL_SERVICE_NAME")
"""What of an environment is looked at."""
BY_UID = "pod uid"
"""Why a pod of which nothing is known has its name."""
_SHORT_ID = 12
_SHORT_UID = 8
_COMPOSE = ("com.docker.compose.project", "com.docker.compose.service")
_SWARM = "com.docker.swarm.service.name"

Found = tuple[str, str]
"""A name, not cleaned yet, and what says so."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one workload, a process or a whole group."""

    place: Place | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Of the process; of a container outside Kubernetes that of its first process."""
    pod: Pod | None = None
    pod_container: PodContainer | None = None
    container: Container | None = None
    slurm: SlurmJob | None = None


class JobInfo(NamedTuple):
    """What is said of a job beside its name; empty for what is not known."""

    job_id: str = ""
    """Slurm's number, or the name of Kueue's workload."""
    scheduler: str = ""
    """`slurm`, `kueue`, `volcano`, `kubernetes`."""
    queue: str = ""
    """Slurm's partition, Kueue's local queue, Volcano's queue."""
    user: str = ""
    """Name, or number where only the path tells."""


class Name(NamedTuple):
    """A workload's job, and why it has that name.

    A tuple, as are the keys made of it: all of them are hashed at each tick.
    """

    job: Job
    rule: str
    why: str
    """What said so: a label's key, a variable, a kind of owner."""
    info: JobInfo = JobInfo()
    member: tuple[str, str] = ("", "")
    """Pod and container; both empty outside Kubernetes, the container where it is not known or the pod's own use."""


def name_of(facts: Facts, order: Sequence[str] = DEFAULT_ORDER) -> Name | None:
    """The job of a workload by the first rule of `order` that knows it; None leaves it to `_unattributed_`.

    Names are printable, at most 128 characters long and never reserved ones; a value that is empty once cleaned counts
    as none. The namespace is the pod's, empty outside pods. Never raises.
    """
    for rule in order:
        found = RULES[rule](facts)
        name = clean_name(found[0]) if found else ""
        if found and name:
            namespace = clean_name(facts.pod.namespace) if facts.pod else ""
            return Name(Job(name, namespace), rule, found[1], _info(facts, rule), _member(facts))
    return None


def parse_order(text: str) -> tuple[str, ...]:
    """An order of rules from a setting's text, rules separated by commas. Raises `ValueError` naming what there is."""
    order = tuple(rule.strip() for rule in text.split(","))
    if not set(order) <= RULES.keys() or len(set(order)) < len(order):
        raise ValueError(f"rules, each once, separated by commas, out of {', '.join(RULES)}")
    return order


def common_info(infos: Iterable[JobInfo]) -> JobInfo:
    """What all workloads of one job agree upon: a job has one info. Where two say different things, it says nothing."""
    seen = tuple(infos)
    return JobInfo(
        _agreed(one.job_id for one in seen),
        _agreed(one.scheduler for one in seen),
        _agreed(one.queue for one in seen),
        _agreed(one.user for one in seen),
    )


def _agreed(values: Iterable[str]) -> str:
    known = set(values) - {""}
    return known.pop() if len(known) == 1 else ""


def _annotation(facts: Facts) -> Found | None:
    notes = facts.pod.annotations if facts.pod else facts.container.labels if facts.container else {}
    return notes.get(ANNOTATION, ""), ANNOTATION


def _slurm(facts: Facts) -> Found | None:
    """Tasks of an array and repeated runs share the name that they were submitted with."""
    if facts.slurm is not None and clean_name(facts.slurm.name):
        return facts.slurm.name, "SLURM_JOB_NAME"
    return _slurm_id(facts)


def _slurm_id(facts: Facts) -> Found | None:
    number = _slurm_number(facts)
    return (f"slurm-{number}", "job id") if number else None


def _slurm_number(facts: Facts) -> str:
    known = facts.slurm.id.strip() if facts.slurm else ""
    return known or (facts.place.slurm if facts.place else "")


def _environment(facts: Facts) -> Found | None:
    return _variable(facts, _JOB, lambda container: container.job)


def _otel(facts: Facts) -> Found | None:
    return _variable(facts, _SERVICE, lambda container: container.service)


def _variable(facts: Facts, name: str, of_spec: Callable[[PodContainer], str]) -> Found | None:
    """A variable of the process, in a pod of the container's spec.

    What a pod uses beyond its known containers belongs to the name that its containers have in common, if they have
    one: containers that came and went are mostly restarts of them.
    """
    if facts.pod is None and not (facts.place and facts.place.pod):
        return facts.environment.get(name, ""), name
    if facts.pod_container is not None:
        return of_spec(facts.pod_container), name
    return _agreed(of_spec(one).strip() for one in facts.pod.containers) if facts.pod else "", name


def _labels(facts: Facts) -> Found | None:
    return label_name(facts.pod) if facts.pod else None


def _owner(facts: Facts) -> Found | None:
    return owner_name(facts.pod) if facts.pod else None


def _pod(facts: Facts) -> Found | None:
    return pod_name(facts.pod) if facts.pod else None


def _container(facts: Facts) -> Found | None:
    """Replicas of a compose or swarm service share its name: their own ends in a number, or in a task's id.

    A pod without metadata is one workload, not one for each container: these have a new id at each restart.
    """
    place = facts.place
    if place and place.pod:
        return f"pod-{place.pod[:_SHORT_UID]}", BY_UID
    if facts.container is not None:
        return _engine_name(facts.container)
    if place and place.container:
        return f"{place.runtime or 'container'}-{place.container[:_SHORT_ID]}", "container id"
    return None


def _engine_name(container: Container) -> Found:
    project, service = (container.labels.get(label, "").strip() for label in _COMPOSE)
    swarm = container.labels.get(_SWARM, "").strip()
    if swarm:
        return swarm, _SWARM
    if project and service:
        return f"{project}-{service}", _COMPOSE[1]
    name = clean_name(container.name.lstrip("/"))
    return (name, "container name") if name else (f"{container.engine}-{container.id[:_SHORT_ID]}", "container id")


def _unit(facts: Facts) -> Found | None:
    return (facts.place.name, facts.place.kind) if facts.place else None


RULES: Mapping[str, Callable[[Facts], Found | None]] = MappingProxyType(
    {
        "annotation": _annotation,
        "slurm": _slurm,
        "slurm-id": _slurm_id,
        "environment": _environment,
        "otel": _otel,
        "labels": _labels,
        "owner": _owner,
        "pod": _pod,
        "container": _container,
        "unit": _unit,
    }
)
"""All rules by name."""


def _info(facts: Facts, rule: str) -> JobInfo:
    """Kueue's workload is told only where a label names the job: plain pods have one each."""
    user = clean_name((facts.slurm.user if facts.slurm else "") or (facts.place.user if facts.place else ""))
    number = _slurm_number(facts)
    if number:
        queue = clean_name(facts.slurm.partition) if facts.slurm else ""
        return JobInfo(clean_name(number), "slurm", queue, user)
    if facts.pod is not None:
        scheduler, queue, workload = pod_queue(facts.pod)
        return JobInfo(clean_name(workload) if rule == "labels" else "", scheduler, clean_name(queue), user)
    return JobInfo(scheduler="kubernetes" if facts.place and facts.place.pod else "", user=user)


def _member(facts: Facts) -> tuple[str, str]:
    if facts.pod is None:
        return "", ""
    return clean_name(facts.pod.name), clean_name(facts.pod_container.name) if facts.pod_container else ""
