"""A machine of text files, whose processes and control groups a test sets by hand, and directories that know it all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from support.machine import Clock
from support.workloads import TICKS, FakeProc

from carbon_exporter.jobs.api_server import ApiAddress
from carbon_exporter.jobs.base import ResolverHealth
from carbon_exporter.jobs.engines import Engines
from carbon_exporter.jobs.kubelet import PodResources
from carbon_exporter.jobs.observer import Observer
from carbon_exporter.jobs.pod_watch import PodWatch
from carbon_exporter.jobs.workload import Container, DeviceGrant, Pod
from carbon_exporter.sensors.base import Host

__all__ = ["Cluster", "Engine", "Kubelet", "Stage", "rules"]


class Stage:
    """Two CPUs, one /proc, a version 2 tree, and a clock to turn."""

    def __init__(self, root: Path, *, tree: bool = True) -> None:
        self.clock, self.sysfs, self.busy = Clock(), root / "sys", 0
        self.proc = FakeProc(root / "proc")
        self.proc.machine()
        self.host = Host(self.proc.root, self.sysfs, self.clock)
        if tree:
            self.groups.mkdir(parents=True)
            (self.groups / "cgroup.controllers").write_text("cpu memory cpuset\n")

    @property
    def groups(self) -> Path:
        """The root of the tree."""
        return self.sysfs / "fs/cgroup"

    def group(self, path: str, seconds: float, *, memory: int = 0, cpuset: str = "", pids: Iterable[int] = ()) -> None:
        """Set a group's counters, and which processes are in it."""
        folder = self.groups / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.stat").write_text(f"usage_usec {round(seconds * 1e6)}\n")
        (folder / "memory.stat").write_text(f"anon {memory}\nshmem 0\n")
        (folder / "cpuset.cpus").write_text(cpuset + "\n")
        (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    def remove(self, path: str) -> None:
        """A group that is gone."""
        folder = self.groups / path.lstrip("/")
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    def process(self, pid: int, cpu: float, job: str = "", group: str = "/", pages: int = 0) -> None:
        """Set a process that has used `cpu` seconds."""
        self.proc.set(pid, own=round(cpu * TICKS), pages=pages)
        self.environment(pid, {"CARBON_JOB": job})
        self.proc.write(pid, "cgroup", f"0::{group}\n")

    def environment(self, pid: int, environment: Mapping[str, str]) -> None:
        """What a process was started with."""
        (self.proc.root / str(pid)).mkdir(exist_ok=True)
        self.proc.write(pid, "environ", "".join(f"{name}={value}\0" for name, value in environment.items()))

    def turn(self, seconds: float = 5.0, busy: float = 0.0) -> None:
        """Let time pass."""
        self.clock.now += seconds
        self.busy += round(busy * TICKS)
        self.proc.machine(busy=self.busy)


class Cluster(PodWatch):
    """An API server's word without an API server: it knows the pods that it is told of."""

    def __init__(self, *pods: Pod, synced: bool = True, refused: bool = False) -> None:
        super().__init__(ApiAddress("127.0.0.1", 1, tls=False), "node1")
        self.pods, self.synced, self.forbidden = pods, synced, refused

    @property
    def refused(self) -> bool:
        """Whether pods may not be read."""
        return self.forbidden

    def by_uid(self, uid: str) -> Pod | None:
        """By either uid."""
        return next((pod for pod in self.pods if uid in {pod.uid, pod.mirror_of}), None)

    def by_name(self, namespace: str, name: str) -> Pod | None:
        """By name."""
        return next((pod for pod in self.pods if (pod.namespace, pod.name) == (namespace, name)), None)

    def health(self) -> ResolverHealth:
        """Well."""
        return ResolverHealth("pods", success=True)


class Kubelet(PodResources):
    """A kubelet's word without a kubelet."""

    def __init__(self, *names: tuple[str, str], grants: tuple[DeviceGrant, ...] = ()) -> None:
        super().__init__(Path("/nowhere/kubelet.sock"))
        self.names, self.given = frozenset(names), grants

    def pods(self) -> frozenset[tuple[str, str]]:
        """Namespace and name."""
        return self.names

    def grants(self) -> tuple[DeviceGrant, ...]:
        """Who was given what."""
        return self.given

    def health(self) -> ResolverHealth:
        """Well."""
        return ResolverHealth("pod-resources", success=True)


class Engine(Engines):
    """A container engine's word without an engine."""

    def __init__(self, *containers: Container) -> None:
        super().__init__(())
        self.containers = containers

    def by_id(self, container_id: str) -> Container | None:
        """By its id."""
        return next((one for one in self.containers if one.id == container_id), None)

    def health(self) -> ResolverHealth:
        """Well."""
        return ResolverHealth("engine", success=True)


def rules(observer: Observer) -> dict[str, tuple[str, str]]:
    """By which rule each job has its name, and what said so."""
    said = {job.name: {(name.rule, name.why) for name in names} for job, names in observer.names.items()}
    return {job: found.pop() for job, found in said.items() if len(found) == 1}
