"""Pods, containers and Slurm jobs as control groups, spelt as each runtime spells its own, with what runs in them."""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

from support.apiserver import uid_of
from support.workloads import Program, run

__all__ = ["BURN", "CONTAINERS_COME_AND_GO", "NAMINGS", "PODS_COME_AND_GO", "Naming", "Workload", "start"]


@dataclass(frozen=True)
class Workload:
    """One that runs."""

    job: str
    """What it is called where only paths tell."""
    whole: str
    """The path of the group that counts all that it uses."""
    places: tuple[str, ...]
    """The paths of the groups that its processes are in."""


@dataclass(frozen=True)
class Naming:
    """How a runtime spells its groups; paths may hold {uid}, {uid_}, {hash}, {id}, {other}, {node} and {number}."""

    whole: str
    below: tuple[str, ...]
    """Groups of processes, below the whole; an empty one is the whole itself."""
    job: str

    def workload(self, name: str) -> Workload:
        """The one of this name, with numbers of its own: the same for the same name, and in no other run of tests."""
        name = f"{name} {os.getpid()}"
        uid, digest = uid_of(name), hashlib.sha256(name.encode()).hexdigest()
        words = {
            "uid": uid,
            "uid_": uid.replace("-", "_"),
            "hash": digest[:32],
            "id": digest,
            "other": hashlib.sha256(digest.encode()).hexdigest(),
            "node": hashlib.sha256(b"node of a cluster in containers").hexdigest(),
            "number": str(int(digest[:5], 16) + 1),
        }
        whole = self.whole.format(**words)
        places = tuple(f"{whole}/{part.format(**words)}".rstrip("/") for part in self.below)
        return Workload(self.job.format(**words), whole, places)


_SYSTEMD = "kubepods.slice/kubepods-{0}.slice/kubepods-{0}-pod{{uid_}}.slice"
_KIND = "docker/{node}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice"
_CONTAINERD = ("cri-containerd-{id}.scope", "cri-containerd-{other}.scope/init.scope")
_POD = "pod-{uid:.8}"

NAMINGS = {
    "systemd-containerd-guaranteed": Naming("kubepods.slice/kubepods-pod{uid_}.slice", _CONTAINERD, _POD),
    "systemd-containerd-burstable": Naming(_SYSTEMD.format("burstable"), _CONTAINERD, _POD),
    "systemd-containerd-besteffort": Naming(_SYSTEMD.format("besteffort"), _CONTAINERD, _POD),
    "cgroupfs-containerd-guaranteed": Naming("kubepods/pod{uid}", ("{id}",), _POD),
    "cgroupfs-containerd-burstable": Naming("kubepods/burstable/pod{uid}", ("{id}", "{other}"), _POD),
    "cgroupfs-containerd-besteffort": Naming("kubepods/besteffort/pod{uid}", ("{id}/child",), _POD),
    "systemd-kubelet-cgroupfs-containerd": Naming(
        "system.slice/containerd.service/kubepods-burstable-pod{uid_}.slice:cri-containerd:{id}", ("",), _POD
    ),
    "systemd-crio-guaranteed": Naming("kubepods.slice/kubepods-pod{uid_}.slice", ("crio-{id}.scope/container",), _POD),
    "systemd-crio-burstable": Naming(_SYSTEMD.format("burstable"), ("crio-{id}.scope", "crio-conmon-{id}.scope"), _POD),
    "cgroupfs-crio-besteffort": Naming("kubepods/besteffort/pod{uid}", ("crio-{id}",), _POD),
    "static-pod": Naming(
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{hash}.slice", _CONTAINERD[:1], "pod-{hash:.8}"
    ),
    "kind-pod": Naming(_KIND + "/kubelet-kubepods-burstable-pod{uid_}.slice", _CONTAINERD[:1], _POD),
    "docker-systemd": Naming("system.slice/docker-{id}.scope", ("", "init"), "docker-{id:.12}"),
    "docker-cgroupfs": Naming("docker/{id}", ("",), "docker-{id:.12}"),
    "podman": Naming("machine.slice/libpod-{id}.scope", ("container", "container/init.scope"), "podman-{id:.12}"),
    "podman-payload": Naming("system.slice/job-{number}.service/libpod-payload-{id}", ("",), "podman-{id:.12}"),
    "containerd": Naming("system.slice/nerdctl-{id}.scope", ("",), "containerd-{id:.12}"),
    "slurm": Naming(
        "system.slice/slurmstepd.scope/job_{number}", ("step_0/user/task_0", "step_batch/slurm"), "slurm-{number}"
    ),
}
"""Runtimes, drivers and QoS classes by what people call them."""


def start(code: str, *arguments: object, **environment: str) -> AbstractContextManager[Program]:
    """A program with arguments, such as one of those below."""
    return run(f"sys.argv[1:] = {[str(one) for one in arguments]!r}\n{code}", environment)


BURN = """
seconds, rate = map(float, sys.argv[1:])
say("ready"); wait()
begun, before = time.monotonic(), time.process_time()
while (used := time.process_time() - before) < seconds:
    burn(max(0.0, min(seconds, rate * (time.monotonic() - begun)) - used))
    time.sleep(0.25)
say("done"); wait()
"""
"""`seconds` of CPU time, `rate` a second."""

_COME_AND_GO = """
import hashlib, resource
from pathlib import Path

def live(folder, seconds, burnt):
    # the CPU seconds that a child used in `folder`, in which it lived for `seconds`, and the folder only with it
    begun = time.monotonic()
    folder.mkdir()
    hears, says = os.pipe()
    child = os.fork()
    if child == 0:
        (folder / "cgroup.procs").write_text("0")
        os.write(says, str(time.process_time()).encode())
        burn(burnt)
        time.sleep(max(0.0, begun + seconds - time.monotonic()))
        os._exit(0)
    use = os.wait4(child, 0)[2]
    before = float(os.read(hears, 64))
    os.close(hears); os.close(says)
    while True:
        try:
            folder.rmdir()
            break
        except OSError:
            time.sleep(0.002)
    return use.ru_utime + use.ru_stime - before

def identifier(number):
    return hashlib.sha256(f"{os.getpid()}-{number}".encode()).hexdigest()
"""

CONTAINERS_COME_AND_GO = (
    _COME_AND_GO
    + """
pod, count, burnt = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
say("ready"); wait()
used = sum(live(pod / f"cri-containerd-{identifier(number)}.scope", 0.5, burnt) for number in range(count))
say(used); wait()
"""
)
"""`count` containers in a living pod, one after the other, each of half a second; says what they used."""

PODS_COME_AND_GO = (
    _COME_AND_GO
    + """
above, count, burnt, written = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
say("ready"); wait()
used = 0.0
for number in range(count):
    before = written.stat().st_mtime_ns
    while written.stat().st_mtime_ns == before:
        time.sleep(0.01)
    pod = above / f"pod{identifier(number)[:32]}"
    pod.mkdir()
    used += live(pod / identifier(number), 0.5, burnt)
    pod.rmdir()
say(used); wait()
"""
)
"""`count` pods, each of half a second and between two moments at which the file `written` is written; says the same."""
