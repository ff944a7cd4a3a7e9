"""Pods as an API server tells them: its JSON, read for the few fields that name a job, as `Pod` facts.

Strict about sizes and about what identifies a pod; what is missing, or more than we know of, is no error. Field names
and meanings are those of the Kubernetes API, core/v1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from types import MappingProxyType

import msgspec

from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.workload import Owner, Pod, PodContainer

__all__ = ["Event", "Page", "decode_event", "decode_page", "decode_pod", "parse_cpus"]

MOST_ENTRIES, LONGEST_ENTRY = 256, 512
"""Labels, annotations, owners and containers kept of a pod, and the characters kept of each text."""
MOST_CPUS = 1e6
JOB, SERVICE = "CARBON_JOB", "OTEL_SERVICE_NAME"
CONFIG_HASH, CONFIG_MIRROR = "kubernetes.io/config.hash", "kubernetes.io/config.mirror"
"""The kubelet's marks on the API's picture of a static pod, whose control group has the hash for its uid."""

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_UID = re.compile(r"[0-9A-Za-z][-0-9A-Za-z._]{0,127}")
_VERSION = re.compile(r"[!-~]{1,256}")
_CONTINUE = re.compile(r"[!-~]{1,16384}")
_CONTAINER_ID = re.compile(r"[a-z][-a-z0-9+.]{0,31}://([0-9a-f]{64})")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']{1,512})'\]")
_REFERENCE = re.compile(r"\$(?:\$|\(([^()$]{0,256})\))")
_SCALES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_SCALES |= {f"{prefix}i": 1024.0 ** (power + 1) for power, prefix in enumerate("KMGTPE")}
_QUANTITY = re.compile(
    r"(\+?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?)([KMGTPE]i|[numkMGTPE]?)"
)


class _FieldRef(msgspec.Struct):
    fieldPath: str | None = None  # noqa: N815 - the API's own spelling, here and below


class _ValueFrom(msgspec.Struct):
    fieldRef: _FieldRef | None = None  # noqa: N815


class _Variable(msgspec.Struct):
    name: str
    value: str | None = None
    valueFrom: _ValueFrom | None = None  # noqa: N815


class _Resources(msgspec.Struct):
    requests: dict[str, str | int | float] | None = None


class _Container(msgspec.Struct):
    name: str
    env: list[_Variable] | None = None
    resources: _Resources | None = None
    restartPolicy: str | None = None  # noqa: N815


class _Spec(msgspec.Struct):
    nodeName: str | None = None  # noqa: N815
    containers: list[_Container] | None = None
    initContainers: list[_Container] | None = None  # noqa: N815
    ephemeralContainers: list[_Container] | None = None  # noqa: N815
    resources: _Resources | None = None
    overhead: dict[str, str | int | float] | None = None


class _State(msgspec.Struct):
    name: str
    containerID: str | None = None  # noqa: N815


class _Status(msgspec.Struct):
    containerStatuses: list[_State] | None = None  # noqa: N815
    initContainerStatuses: list[_State] | None = None  # noqa: N815
    ephemeralContainerStatuses: list[_State] | None = None  # noqa: N815


class _Reference(msgspec.Struct):
    kind: str
    name: str
    controller: bool | None = None


class _Metadata(msgspec.Struct):
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    ownerReferences: list[_Reference] | None = None  # noqa: N815
    resourceVersion: str | None = None  # noqa: N815


class _Pod(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec | None = None
    status: _Status | None = None


class _Place(msgspec.Struct):
    """Where a list or a bookmark stands."""

    resourceVersion: str | None = None  # noqa: N815
    continue_: str | None = msgspec.field(default=None, name="continue")


class _Any(msgspec.Struct):
    """What an event is about, whatever it is."""

    metadata: _Place | None = None
    code: int | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _List(msgspec.Struct):
    metadata: _Place
    items: list[msgspec.Raw] | None = None


_READ_POD = msgspec.json.Decoder(_Pod)
_READ_ANY = msgspec.json.Decoder(_Any)
_READ_EVENT = msgspec.json.Decoder(_Event)
_READ_LIST = msgspec.json.Decoder(_List)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch."""

    kind: str
    """`ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`, `ERROR`, or one that we do not know."""
    version: str = ""
    """Where the watch stands after it; empty if it does not say."""
    pod: Pod | None = None
    """None if it is about none of this node, or one that cannot be read."""
    unreadable: bool = False
    """It is about a pod that cannot be read."""
    code: int = 0
    """Of an error: an HTTP status."""


@dataclass(frozen=True, slots=True)
class Page:
    """A list of pods, or one page of it."""

    version: str
    """Where a watch goes on from."""
    more: str
    """What asks for the next page; empty in the last."""
    pods: tuple[Pod, ...]
    """Those of the node."""
    unreadable: int
    """How many cannot be read."""


def decode_event(line: bytes, node: str) -> Event:
    """A line of a watch. Raises `JobResolutionError` if it is none."""
    try:
        event = _READ_EVENT.decode(line)
        if event.type in {"ADDED", "MODIFIED", "DELETED"}:
            return _change(event, node)
        about = _READ_ANY.decode(event.object)
    except (ValueError, RecursionError) as error:
        raise JobResolutionError(f"a line of the watch is no event: {_shape(error)}") from None
    return Event(event.type[:32], _version(about.metadata), code=about.code or 0)


def _change(event: _Event, node: str) -> Event:
    try:
        raw = _READ_POD.decode(event.object)
        return Event(event.type, _version(raw.metadata), _pod(raw, node))
    except (ValueError, RecursionError, JobResolutionError):
        about = _READ_ANY.decode(event.object)
        return Event(event.type, _version(about.metadata), unreadable=True)


def decode_page(body: bytes, node: str) -> Page:
    """The answer to a request for a list. Raises `JobResolutionError` if it is none."""
    try:
        answer = _READ_LIST.decode(body)
    except (ValueError, RecursionError) as error:
        raise JobResolutionError(f"the list of pods is none: {_shape(error)}") from None
    version = _version(answer.metadata)
    if not version:
        raise JobResolutionError("the list of pods has no resourceVersion")
    read = [_read(item, node) for item in answer.items or ()]
    pods = tuple(pod for pod, _ in read if pod is not None)
    return Page(
        version, _matching(_CONTINUE, answer.metadata.continue_), pods, sum(unreadable for _, unreadable in read)
    )


def decode_pod(text: bytes | msgspec.Raw, node: str) -> Pod | None:
    """A pod from its JSON, None if it is on another node. Raises `JobResolutionError` if it cannot be read."""
    try:
        raw = _READ_POD.decode(text)
    except (ValueError, RecursionError) as error:
        raise JobResolutionError(f"a pod cannot be read: {_shape(error)}") from None
    return _pod(raw, node)


def parse_cpus(quantity: str | float) -> float:
    """CPUs from a quantity ("500m", "2", "1e3m"); 0 for what is none, is negative or is more than any machine has.

    Kubernetes' grammar: a decimal number, and a suffix, SI or binary, or an exponent.
    """
    if isinstance(quantity, str):
        match = _QUANTITY.fullmatch(quantity)
        quantity = float(match[1]) * _SCALES[match[2]] if match else 0.0
    return float(quantity) if 0 <= quantity <= MOST_CPUS else 0.0


def _pod(raw: _Pod, node: str) -> Pod | None:
    about, spec = raw.metadata, raw.spec or _Spec()
    namespace, name = _matching(_NAME, about.namespace), _matching(_NAME, about.name)
    uid = _matching(_UID, about.uid)
    if not (namespace and name and uid):
        raise JobResolutionError("a pod without a usable name, namespace or uid")
    if spec.nodeName != node:
        return None
    annotations = about.annotations or {}
    return Pod(
        namespace=namespace,
        name=name,
        uid=uid,
        labels=_bounded(about.labels or {}),
        annotations=_bounded(annotations),
        owners=tuple(
            Owner(one.kind[:LONGEST_ENTRY], one.name[:LONGEST_ENTRY], controller=bool(one.controller))
            for one in islice(about.ownerReferences or (), MOST_ENTRIES)
        ),
        containers=_containers(spec, raw.status or _Status(), about),
        cpus_requested=_cpus_requested(spec),
        mirror_of=_matching(_UID, annotations.get(CONFIG_HASH)) if CONFIG_MIRROR in annotations else "",
    )


def _read(text: msgspec.Raw, node: str) -> tuple[Pod | None, bool]:
    """A pod of this node, or none and whether it cannot be read."""
    try:
        return decode_pod(text, node), False
    except JobResolutionError:
        return None, True


def _shape(error: Exception) -> str:
    """What was wrong, in the decoder's words: they name fields and types, and quote nothing."""
    if not isinstance(error, msgspec.MsgspecError):
        return type(error).__name__
    return re.sub(r" \(byte [0-9]+\)", "", str(error))[:200]  # where makes no difference, and each log line differ


def _version(about: _Place | _Metadata | None) -> str:
    return _matching(_VERSION, about.resourceVersion) if about else ""


def _matching(pattern: re.Pattern[str], text: str | None) -> str:
    return text if text is not None and pattern.fullmatch(text) else ""


def _bounded(entries: Mapping[str, str]) -> Mapping[str, str]:
    """The first entries, their values cut; a key that is too long is nobody's key."""
    kept = ((key, value[:LONGEST_ENTRY]) for key, value in entries.items() if len(key) <= LONGEST_ENTRY)
    return MappingProxyType(dict(islice(kept, MOST_ENTRIES)))


def _containers(spec: _Spec, status: _Status, about: _Metadata) -> tuple[PodContainer, ...]:
    """All of them: containers, init containers and ephemeral ones have their names from one set."""
    states = chain(
        status.containerStatuses or (), status.initContainerStatuses or (), status.ephemeralContainerStatuses or ()
    )
    ids = {one.name: match[1] for one in states if (match := _CONTAINER_ID.fullmatch(one.containerID or ""))}
    found = []
    specified = chain(spec.containers or (), spec.initContainers or (), spec.ephemeralContainers or ())
    for one in islice(specified, MOST_ENTRIES):
        known = _environment(one.env or (), spec, about)
        job, service = known.get(JOB) or "", known.get(SERVICE) or ""
        found.append(PodContainer(one.name[:LONGEST_ENTRY], ids.get(one.name, ""), job, service))
    return tuple(found)


def _environment(variables: Iterable[_Variable], spec: _Spec, about: _Metadata) -> Mapping[str, str | None]:
    """What the pod itself says of a container's environment; None for what only its node knows. The last one wins."""
    known: dict[str, str | None] = {}
    for one in variables:
        if one.valueFrom is None:
            known[one.name] = _expanded(one.value or "", known)
        else:
            known[one.name] = _field(one.valueFrom.fieldRef, spec, about)
    return known


def _expanded(value: str, known: Mapping[str, str | None]) -> str | None:
    """The value with `$(NAME)` replaced by earlier variables, and `$$` by `$`; None if one of them is not known."""
    value = value[:LONGEST_ENTRY]
    if "$" not in value:
        return value
    if any(match[1] is not None and known.get(match[1]) is None for match in _REFERENCE.finditer(value)):
        return None
    expanded = _REFERENCE.sub(lambda match: "$" if match[1] is None else known[match[1]] or "", value)
    return expanded[:LONGEST_ENTRY]


def _field(reference: _FieldRef | None, spec: _Spec, about: _Metadata) -> str | None:
    """The pod's own field that a variable refers to."""
    path = reference.fieldPath or "" if reference else ""
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        entries = about.labels if subscript[1] == "labels" else about.annotations
        value: str | None = (entries or {}).get(subscript[2], "")
    else:
        plain = {"name": about.name, "namespace": about.namespace, "uid": about.uid}
        value = plain.get(path.removeprefix("metadata.")) if path.startswith("metadata.") else None
        value = spec.nodeName if path == "spec.nodeName" else value
    return value[:LONGEST_ENTRY] if value else value


def _cpus_requested(spec: _Spec) -> float:
    """As the scheduler counts: init containers run one after the other, but those that restart stay (sidecars).

    So it is the larger of what all containers need together, and of what starting up needs at most; the pod's own
    request comes before those of its containers, and the runtime's overhead on top (Kubernetes' resource requests of
    pods, KEP-753 and KEP-2837).
    """
    overhead = parse_cpus((spec.overhead or {}).get("cpu", 0))
    if spec.resources and "cpu" in (spec.resources.requests or {}):
        return _request(spec.resources) + overhead
    sidecars = most = 0.0
    for one in spec.initContainers or ():
        need = _request(one.resources)
        most = max(most, sidecars + need)
        sidecars += need if one.restartPolicy == "Always" else 0.0
    together = sidecars + sum(_request(one.resources) for one in spec.containers or ())
    return max(most, together) + overhead


def _request(resources: _Resources | None) -> float:
    return parse_cpus((resources.requests or {}).get("cpu", 0)) if resources else 0.0
