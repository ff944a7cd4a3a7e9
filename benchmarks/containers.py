"""What does a tick cost on a node full of pods? The whole pipeline in this process, over real control groups.

Each pod has a sandbox, a main container and two sidecars, and outside a process that watches over it; a few others are
marked. One process of each container keeps waking up, so that all counters move. What is known of the pods is as
the API server tells it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from support.apiserver import container_id, uid_of
from support.groups import own_groups

from benchmarks.figure import Figure, Plan
from carbon_exporter.carbon.grid import locate_grid
from carbon_exporter.carbon.static import StaticProvider
from carbon_exporter.config import Settings
from carbon_exporter.jobs.api_server import ApiAddress
from carbon_exporter.jobs.namer import Directories, Namer
from carbon_exporter.jobs.pod_watch import PodWatch
from carbon_exporter.jobs.workload import Owner, Pod, PodContainer
from carbon_exporter.publish.prometheus import Renderer
from carbon_exporter.sensors.base import Host
from carbon_exporter.sensors.registry import discover
from carbon_exporter.service.keeper import Keeper
from carbon_exporter.service.pipeline import Pipeline

__all__ = ["figures"]

LIMIT_MS = 50.0
_PODS, _MARKED = 125, 10
"""A kubelet takes 110 pods if nobody tells it otherwise."""
_PROCESSES = {"sandbox": 1, "main": 16, "proxy": 3, "logs": 3}
"""Of a pod, by container."""
_TICKS, _WARM_TICKS = 12, 3
"""A minute of the default interval, in which what is done every 15 s is done as often as it should."""
_PAUSE_SECONDS = 0.2
_MEMORY = Path("/sys/fs/cgroup/memory")
"""The tree of version 1 that counts memory, where it is apart."""
_IN_CONTAINER = (
    'for group in "${@:2}"; do echo $$ > "$group"; done; for ((i = 1; i < $1; i++)); do sleep 3600 & done; '
    "exec {silence}<> <(:); until read -t 1 -u $silence; do :; done"
)
"""$1 processes, in these groups, of which one wakes up every second."""


@dataclass(frozen=True, slots=True)
class _Crowd:
    """What there is."""

    pods: tuple[Pod, ...]
    processes: int
    """On the whole machine, without the kernel's."""
    memory: bool
    """Whether the containers' memory is counted."""

    def __str__(self) -> str:
        """For a figure's note."""
        containers = sum(len(pod.containers) for pod in self.pods)
        memory = "" if self.memory else ", their memory not counted"
        return f"{containers} containers in {len(self.pods)} pods{memory}, {self.processes} processes"


class _Known(PodWatch):
    """What an API server has told, once it has."""

    def __init__(self, pods: tuple[Pod, ...]) -> None:
        super().__init__(ApiAddress("127.0.0.1", 1), "node")
        self._by_uid = {pod.uid: pod for pod in pods}

    def by_uid(self, uid: str) -> Pod | None:
        """As the pod index has it."""
        return self._by_uid.get(uid)


class _Clock:
    """The monotonic clock, moved ahead so that a tick seems to come an interval after the last."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def figures(plan: Plan) -> Iterator[Figure]:
    """CPU milliseconds of a tick, from reading to the rendered page, the mean of a minute's ticks."""
    with _crowd() as around:
        values = tuple(_run(around) for _ in range(plan.runs))
    yield Figure("tick of a node of containers", values, "ms CPU", LIMIT_MS, str(around))


def _run(around: _Crowd) -> float:
    clock, settings = _Clock(), replace(Settings(), jobs_max=1000, series_max=20_000)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        host = Host(clock=clock)
        sensors, findings = discover(host)
        keeper = Keeper(folder / "state")
        stack.callback(keeper.close)
        pipeline = Pipeline(
            settings,
            host=host,
            grid=locate_grid("FR", StaticProvider("lifecycle"), 1.0, {}),
            keeper=keeper,
            sensors=sensors,
            findings=findings,
            namer=Namer(directories=Directories(pods=_Known(around.pods))),
        )
        stack.callback(pipeline.close)
        return _ticks(pipeline, clock, settings.interval)


def _ticks(pipeline: Pipeline, clock: _Clock, interval: float) -> float:
    """Milliseconds of CPU a tick."""
    renderer = Renderer()
    renderer.note_demand("openmetrics", compressed=True)
    used = 0.0
    for number in range(_WARM_TICKS + _TICKS):
        if number == _WARM_TICKS:
            gc.collect()
            gc.freeze()  # as `serve` does
        clock.ahead += interval - _PAUSE_SECONDS
        time.sleep(_PAUSE_SECONDS)
        began = time.process_time()
        snapshot = pipeline.tick()
        renderer.render(snapshot)
        used += time.process_time() - began if number >= _WARM_TICKS else 0.0
    named = sum(key.name.startswith("work-") for key in snapshot.running)
    assert named == _PODS, f"{named} of {_PODS} pods have their name"
    return 1000 * used / _TICKS


@contextmanager
def _crowd() -> Iterator[_Crowd]:
    """Fill the machine while the block runs."""
    pods = tuple(map(_pod, range(_PODS)))
    environ = {key: value for key, value in os.environ.items() if key != "CARBON_JOB"}
    with contextlib.ExitStack() as stack:
        trees = [stack.enter_context(own_groups())]
        if (_MEMORY / "cgroup.procs").exists():
            trees.append(stack.enter_context(own_groups(_MEMORY)))
        for pod in pods:
            for container in pod.containers:
                path = _path(pod, container)
                for tree in trees:
                    tree.make(path)
                files = (str(tree.top / path / "cgroup.procs") for tree in trees)
                count = str(_PROCESSES[container.name])
                _start(stack, environ, "bash", "-c", _IN_CONTAINER, "bash", count, *files)
            _start(stack, environ, "sleep", "3600")
        for number in range(_MARKED):
            _start(stack, environ | {"CARBON_JOB": f"marked-{number % 3}"}, "sleep", "3600")
        yield _Crowd(pods, _count_processes(pods), len(trees) > 1)


def _pod(number: int) -> Pod:
    """Of a Deployment of its own."""
    name = f"work-{number:03}"
    containers = tuple(PodContainer(one, container_id(name, one)) for one in _PROCESSES)
    owner = Owner("StatefulSet", name, controller=True)
    return Pod("team", f"{name}-0", uid_of(name), labels={"app": name}, owners=(owner,), containers=containers)


def _path(pod: Pod, container: PodContainer) -> str:
    uid = pod.uid.replace("-", "_")
    above = f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice"
    return f"{above}/cri-containerd-{container.id}.scope"


def _start(stack: contextlib.ExitStack, environ: dict[str, str], *command: str) -> None:
    process = stack.enter_context(subprocess.Popen(command, env=environ))
    stack.callback(process.kill)


def _count_processes(pods: tuple[Pod, ...]) -> int:
    """Once all of the containers' are there."""
    wanted = len(pods) * (1 + sum(_PROCESSES.values())) + _MARKED
    until = time.monotonic() + 60
    while (count := sum(bool((entry / "exe").is_symlink()) for entry in Path("/proc").glob("[0-9]*"))) < wanted:
        assert time.monotonic() < until, f"{count} of {wanted} processes have started"
        time.sleep(0.5)
    return count
