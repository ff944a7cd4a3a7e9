"""Which boards the kubelet has given to which pods: its pod-resources API, over its socket on this node.

`List` of `v1.PodResourcesLister` is asked every 10 s over one connection; it tells all pods of the node at once. `Get`
tells the same of one pod: it is asked for a pod that the API server has just told of, so that its boards are known at
once. Kubelets before 1.34 do not answer it unless told to: then `List` is asked at once. No right in the cluster's API
is needed, only the socket (gRPC without TLS, root's).

Fields that are read, by number; source: `api.proto` of `k8s.io/kubelet/pkg/apis/podresources/v1`:

    ListPodResourcesResponse: pod_resources 1
    GetPodResourcesRequest: pod_name 1, pod_namespace 2
    GetPodResourcesResponse: pod_resources 1
    PodResources: name 1, namespace 2, containers 3
    ContainerResources: name 1, devices 2, dynamic_resources 5
    ContainerDevices: resource_name 1, device_ids 2
    DynamicResource: claim_resources 4
    ClaimResource: cdi_devices 1 (name 1), driver_name 2, device_name 4

Not in the answer: a pod's uid and phase, and whether a claim is one for administrators, who see a board and do not use
it. Older kubelets list pods that have ended, too, without their boards.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.base import ResolverHealth
from carbon_exporter.jobs.device_ids import claimed_devices, driver_of, is_board, unreplicated
from carbon_exporter.jobs.kubelet_connection import KubeletConnection, MethodMissing, brief, is_there
from carbon_exporter.jobs.protobuf import text_field, texts_and_messages
from carbon_exporter.jobs.workload import DeviceGrant

__all__ = ["SOCKET", "Listing", "PodResources", "parse_listing"]

SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
NAME = "pod-resources"
"""In the label `resolver`."""
KEEP_SECONDS = 60.0
"""What the kubelet said last holds so long while it does not answer: it restarts within seconds, its pods run on."""
LONGEST_PAUSE_SECONDS = 30.0

_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""A DNS subdomain, as the API server demands of the names of pods, namespaces and containers."""
MOST_EXPECTED = 256
"""New pods that are asked for one by one; of more at once `List` tells as soon."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listing:
    """What the kubelet said at one moment."""

    grants: tuple[DeviceGrant, ...] = ()
    """Sorted, each once."""
    pods: frozenset[tuple[str, str]] = frozenset()
    """Namespace and name of all pods of this node, with and without boards."""


def parse_listing(answer: bytes, more: Sequence[str] = ()) -> Listing:
    """What a `ListPodResourcesResponse` tells of boards; `more`: patterns of further resources that are boards.

    Raises `JobResolutionError` if it is no such message, or a pod in it has no proper name.
    """
    grants: set[tuple[str, str, str, str, str]] = set()
    pods = set()
    for pod in texts_and_messages(answer).get(1, ()):
        parts = texts_and_messages(pod)
        name, namespace = _name(parts, 1), _name(parts, 2)
        pods.add((namespace, name))
        for container in parts.get(3, ()):
            grants.update((namespace, name, *given) for given in _given(texts_and_messages(container), more))
    unique = {grant[:4]: DeviceGrant(*grant) for grant in sorted(grants, reverse=True)}
    return Listing(tuple(unique[key] for key in sorted(unique)), frozenset(pods))


def _given(container: dict[int, list[bytes]], more: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Container, device and resource for each board of a container."""
    name = _name(container, 1)
    for devices in container.get(2, ()):
        parts = texts_and_messages(devices)
        resource = _text(parts, 1)
        if is_board(resource, more):
            for identifier in parts.get(2, ()):
                if device := unreplicated(identifier.decode(errors="replace")):
                    yield name, device, resource
    for claim in container.get(5, ()):
        for given in texts_and_messages(claim).get(4, ()):
            parts = texts_and_messages(given)
            cdi_names = [_text(texts_and_messages(one), 1) for one in parts.get(1, ())]
            driver = _text(parts, 2) or driver_of(cdi_names)
            if is_board(driver, more):
                for device in claimed_devices(driver, _text(parts, 4), cdi_names):
                    yield name, device, driver


def _text(message: dict[int, list[bytes]], number: int) -> str:
    """The last of that field, as protobuf has it; empty if there is none."""
    values = message.get(number)
    return values[-1].decode(errors="replace") if values else ""


def _name(message: dict[int, list[bytes]], number: int) -> str:
    name = _text(message, number)
    if not _DNS_NAME.fullmatch(name):
        raise JobResolutionError("a name in it is none")
    return name


class PodResources:
    """The directory of boards given to pods. `grants` and `pods` are for any thread."""

    def __init__(
        self,
        socket: Path = SOCKET,
        period: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        more: Sequence[str] = (),
        expected: bool = False,
    ) -> None:
        """Asks nothing yet.

        Args:
            socket: the kubelet's.
            period: seconds between two questions.
            clock: seconds that never step back.
            more: patterns (`*`, `?`) of further resources, or drivers of claims, that are boards.
            expected: this is known to be a node of Kubernetes: that there is no socket's directory is trouble.
        """
        self._socket = socket
        self._period = period
        self._clock = clock
        self._more = tuple(more)
        self._expected = expected
        self._connection = KubeletConnection(socket)
        self._listing = Listing()
        self._good_at: float | None = None
        self._health = ResolverHealth(NAME, success=True)
        self._revision = 0
        self._expectations: dict[tuple[str, str], None] = {}
        self._gets = True
        """Whether this kubelet may have `Get`."""
        self._closing = threading.Event()
        self._wakened = threading.Event()
        self._thread = threading.Thread(target=self._work, name=NAME, daemon=True)

    @property
    def revision(self) -> int:
        """Rises with each change of what it knows."""
        return self._revision

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def grants(self) -> tuple[DeviceGrant, ...]:
        """Which boards are given to whom, each pair of container and board once."""
        return self._listing.grants

    def pods(self) -> frozenset[tuple[str, str]]:
        """Namespace and name of the pods of this node, with and without boards; older kubelets list ended ones, too."""
        return self._listing.pods

    def expect(self, namespace: str, name: str) -> None:
        """A pod has come to this node: find out soon what it was given."""
        if (namespace, name) not in self._listing.pods and len(self._expectations) < MOST_EXPECTED:
            self._expectations[namespace, name] = None
            self._wakened.set()

    def health(self) -> ResolverHealth:
        """Whether the kubelet answers, and how long that took; where there is none, nothing is amiss."""
        return self._health

    def close(self) -> None:
        """Stop asking, a question that is under way included."""
        self._closing.set()
        self._wakened.set()
        self._connection.close()

    def _work(self) -> None:
        failures, due = 0, time.monotonic()
        while not self._closing.is_set():
            self._wakened.clear()
            if time.monotonic() >= due or not (failures or self._get_expected()):
                self._expectations.clear()
                failures = 0 if self._look() else failures + 1
                due = time.monotonic() + self._pause(failures)
            self._wakened.wait(max(0.0, due - time.monotonic()))
        self._connection.close()

    def _get_expected(self) -> bool:
        """Ask for the pods that have come, one by one. False if `List` must tell of them."""
        while self._expectations:
            namespace, name = self._expectations.popitem()[0]
            if (namespace, name) in self._listing.pods:
                continue
            try:
                if not self._gets:
                    return False
                request = text_field(1, name) + text_field(2, namespace)
                found = parse_listing(self._connection.ask("Get", request), self._more)
            except MethodMissing:
                self._gets = False
                return False
            except Exception:  # noqa: BLE001 - it may not have been admitted yet; of all else `List` tells
                return False
            grants = dict.fromkeys((*self._listing.grants, *found.grants))
            self._replace(Listing(tuple(sorted(grants, key=astuple)), self._listing.pods | found.pods))
        return True

    def _look(self) -> bool:
        """Ask once. False if that failed."""
        began = time.perf_counter()
        try:
            if not (self._expected or self._good_at is not None or is_there(self._socket.parent)):
                self._health = ResolverHealth(NAME, success=True)
                return True
            listing = self._ask()
        except JobResolutionError as error:
            trouble = error
        except Exception as error:  # noqa: BLE001 - whatever gRPC raises costs these facts only
            trouble = JobResolutionError(f"{type(error).__name__}: {brief(str(error))}")
        else:
            self._learn(listing, time.perf_counter() - began)
            return True
        if not self._closing.is_set():
            self._fail(trouble)
        return False

    def _ask(self) -> Listing:
        answer = self._connection.ask("List")
        try:
            return parse_listing(answer, self._more)
        except JobResolutionError as error:
            raise JobResolutionError(
                f"the kubelet's answer cannot be read: {error.reason}",
                remedy="please report this as a bug, with the version of the kubelet",
            ) from None

    def _learn(self, listing: Listing, seconds: float) -> None:
        if not self._health.success:
            _log.info("%s: the kubelet answers again", NAME)
        self._good_at = self._clock()
        self._replace(listing)
        self._health = ResolverHealth(NAME, success=True, seconds=seconds)

    def _fail(self, error: JobResolutionError) -> None:
        self._gets = True  # it may come back as another version
        if self._health.success:
            _log.warning("%s: %s", NAME, error)
        reason = error.reason
        if self._good_at is not None:
            if self._clock() - self._good_at < KEEP_SECONDS:
                reason += f"; its last answer holds for {KEEP_SECONDS:.0f} s"
            else:
                reason += f"; its last answer is older than {KEEP_SECONDS:.0f} s and not used any more"
                if self._listing != Listing():
                    _log.warning("%s: no answer for %.0f s: boards count as given to nobody", NAME, KEEP_SECONDS)
                self._replace(Listing())
        self._health = ResolverHealth(NAME, success=False, reason=reason, remedy=error.remedy)

    def _replace(self, listing: Listing) -> None:
        if listing != self._listing:
            self._listing = listing
            self._revision += 1

    def _pause(self, failures: int) -> float:
        """Seconds until the next question: after failures from 1 s on, doubled each time, up to 30 s, with jitter.

        Never beyond the moment at which the last answer ceases to hold.
        """
        if failures == 0:
            return self._period
        longest = min(LONGEST_PAUSE_SECONDS, min(1.0, self._period) * 2.0 ** min(failures - 1, 16))
        pause = longest * random.uniform(0.5, 1.0)  # noqa: S311 - a moment, not a secret
        if self._good_at is None or self._listing == Listing():
            return pause
        return max(0.01, min(pause, self._good_at + KEEP_SECONDS - self._clock()))
