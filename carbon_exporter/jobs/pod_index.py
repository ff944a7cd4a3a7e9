"""Which pods there are, and which there were: kept by one thread, looked up by any other without a lock.

A pod that is gone stays known for a while, because what it used is often told later than that it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from carbon_exporter.jobs.workload import Pod

__all__ = ["PodIndex"]

GONE_SECONDS = 600.0
MOST_PODS, MOST_GONE = 4096, 4096
"""Kept at once. A kubelet runs 110 pods if nobody tells it otherwise, and a few hundred at most."""

_Key = TypeVar("_Key")


@dataclass(slots=True)
class _Pods:
    """Pods by all that leads to one."""

    uids: dict[str, Pod] = field(default_factory=dict)
    mirrors: dict[str, Pod] = field(default_factory=dict)
    """By the uid in a static pod's control group."""
    names: dict[tuple[str, str], Pod] = field(default_factory=dict)
    containers: dict[str, Pod] = field(default_factory=dict)

    def learn(self, pod: Pod) -> None:
        self.uids[pod.uid] = pod
        self.names[pod.namespace, pod.name] = pod
        if pod.mirror_of:
            self.mirrors[pod.mirror_of] = pod
        for container in pod.containers:
            if container.id:
                self.containers[container.id] = pod

    def forget(self, pod: Pod) -> None:
        """Drop what leads to this very pod, and nothing that leads to another by now."""
        _drop(self.uids, pod.uid, pod)
        _drop(self.names, (pod.namespace, pod.name), pod)
        _drop(self.mirrors, pod.mirror_of, pod)
        for container in pod.containers:
            _drop(self.containers, container.id, pod)

    def copy(self) -> _Pods:
        return _Pods(self.uids.copy(), self.mirrors.copy(), self.names.copy(), self.containers.copy())


class PodIndex:
    """Changes are for one thread, and are seen at `publish`; lookups are for any.

    Lookups read a frozen picture of the living. Those that are gone may be many more and change one by one, so they
    are not copied: each lookup in them is a single step of the interpreter.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._living = _Pods()
        self._gone = _Pods()
        self._since: dict[str, float] = {}
        """When each of the gone left, by uid, the oldest first."""
        self._picture = _Pods()
        self._changed = False
        self.revision = 0
        """Rises with each change of what lookups find."""

    def by_uid(self, uid: str) -> Pod | None:
        """By the API's uid, or by that in the path of a static pod's control group."""
        now, gone = self._picture, self._gone
        return now.uids.get(uid) or now.mirrors.get(uid) or gone.uids.get(uid) or gone.mirrors.get(uid)

    def by_name(self, namespace: str, name: str) -> Pod | None:
        """The living one of this name, else the last that is gone."""
        key = (namespace, name)
        return self._picture.names.get(key) or self._gone.names.get(key)

    def by_container(self, container_id: str) -> Pod | None:
        """The pod that this container is part of."""
        return self._picture.containers.get(container_id) or self._gone.containers.get(container_id)

    def is_gone(self, uid: str) -> bool:
        """Whether it is known, and is no more."""
        return uid not in self._picture.uids and uid in self._gone.uids

    def replace(self, pods: Iterable[Pod], now: float) -> int:
        """These are all there are (monotonic seconds `now`); returns how many found no room."""
        pods = tuple(pods)
        listed = {pod.uid for pod in pods}
        for pod in [pod for uid, pod in self._living.uids.items() if uid not in listed]:
            self.remove(pod, now)
        return sum(not self.put(pod, now) for pod in pods)

    def put(self, pod: Pod, now: float) -> bool:
        """This one is there, as it is now; false if there is no room for it."""
        before = self._living.uids.get(pod.uid)
        if before == pod:
            return True
        namesake = self._living.names.get((pod.namespace, pod.name))
        if namesake is not None and namesake.uid != pod.uid:
            self.remove(namesake, now)  # one name, one pod: its end was missed
        if before is not None:
            self._living.forget(before)
        elif len(self._living.uids) >= MOST_PODS:
            return False
        self._living.learn(pod)
        self._changed = True
        return True

    def remove(self, pod: Pod, now: float) -> None:
        """This one is gone; the facts are its last."""
        before = self._living.uids.get(pod.uid)
        if before is None and pod.uid in self._since:
            return
        self._bury(pod.uid)
        self._gone.learn(pod)
        self._since[pod.uid] = now
        if before is not None:
            self._living.forget(before)
        self._changed = True

    def purge(self, now: float) -> None:
        """Forget those that have been gone for long, and the oldest of too many."""
        while self._since:
            uid, since = next(iter(self._since.items()))
            if now - since < GONE_SECONDS and len(self._since) <= MOST_GONE:
                return
            self._bury(uid)
            self._changed = True

    def publish(self) -> None:
        """Let lookups find what is known now."""
        if self._changed:
            self._picture, self._changed = self._living.copy(), False
            self.revision += 1

    def _bury(self, uid: str) -> None:
        if self._since.pop(uid, None) is not None:
            self._gone.forget(self._gone.uids[uid])


def _drop(known: dict[_Key, Pod], key: _Key, pod: Pod) -> None:
    if known.get(key) is pod:
        del known[key]
