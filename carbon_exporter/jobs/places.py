"""Places: which pod, container, Slurm job, machine, unit or session a control group's path leads to. Pure.

The kernel gives a process or a group as a path such as `/kubepods/burstable/podUID/ID`. Every runtime spells its part
in its own way; a path may hold several, one in the other (a kind cluster is pods within a Docker container). The
deepest workload wins. A unit or session counts only outside containers, pods, virtual machines and Slurm jobs: the
`nginx.service` within a container is that container's. A container within a pod or a Slurm job is still known to be in
it, and so is a Slurm job whose daemon runs in a pod.

The spellings are those of the cgroup drivers of the kubelet, containerd, CRI-O, Docker, Podman, Slurm, libvirt and
systemd, versions 1 and 2 of the tree alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

__all__ = ["Place", "PlaceKind", "is_owner", "owner", "place_of"]

PlaceKind = Literal["pod", "container", "slurm", "machine", "unit", "session"]

REMEMBERED = 16384
"""Paths and parts of paths that are kept parsed: a node has some thousands, and looks at all of them every tick."""
LONGEST_PART = 255
"""The kernel's NAME_MAX: no group's name is longer."""

_POD_SLICE = re.compile(
    r"(?:[^:]*-)?kubepods(?:-(?P<qos>burstable|besteffort))?-pod(?P<uid>[0-9A-Za-z][0-9A-Za-z_]*)\.slice"
)
"""systemd driver. A dash would mean a slice within a slice, so that the uid's dashes are written `_`."""
_WORDS = {"kubepods": "kubepods", "burstable": "qos", "besteffort": "qos"}
"""cgroupfs driver. A guaranteed pod is in `kubepods` itself."""
_NUMBERED = {
    "pod folder": re.compile(r"pod([0-9A-Za-z][0-9A-Za-z_-]*)"),
    "uid": re.compile(r"uid_([0-9]+)"),
    "job": re.compile(r"job_([0-9]+)"),
    "step": re.compile(r"step_([0-9a-z_.+]+)"),
}
"""What counts only where it is expected: pods of the cgroupfs driver below `kubepods`, the others below Slurm's folder.
A static pod's uid is the 32 hex digits of its manifest's hash."""
_CONTAINER = re.compile(
    r"(?:(?P<parent>[^:]*):)?"
    r"(?:(?P<manager>docker|libpod|crio|cri-containerd|containerd|nerdctl)[-:](?:payload-|conmon-)?)?"
    r"(?P<id>[0-9a-f]{64})(?:\.scope)?"
)
"""`docker-ID.scope` and its kin; `PARENT.slice:cri-containerd:ID` is what a runtime that does not ask systemd makes of
systemd's spelling; conmon is a container's own watchman."""
_RUNTIMES = {"libpod": "podman", "cri-containerd": "containerd", "nerdctl": "containerd"}
_FOLDERS = {"docker": "docker", "containerd": "containerd", "crio": "crio", "libpod_parent": "podman"}
"""The folder above a container that is spelt as its bare id tells the runtime."""
_SLURM = re.compile(r"slurm(?:_.+)?|(?:.+_)?slurm(?:stepd)?(?:\..+)?")
"""Version 1 `slurm`, `slurm_HOST`; version 2 `slurmstepd.scope`, `HOST_slurmstepd.scope` with several slurmd."""
_MACHINE = re.compile(
    r"(?:machine-)?qemu-[0-9]+-(?P<scope>.+)\.(?:scope|libvirt-qemu)"
    r"|(?P<folder>.+)\.libvirt-qemu|qemu-[0-9]+-(?P<bare>[^.]+)"
)
"""The number is another one at each start of the machine and no part of its name."""
_USER = re.compile(r"user-([0-9]+)\.slice|user@([0-9]+)\.service")
_SESSION = re.compile(r"session-.+\.scope")
_UNIT = re.compile(r"[^/]+\.(?:service|scope)")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process or a group is. Empty for what it is not in."""

    kind: PlaceKind
    """Of the deepest workload."""
    path: str
    """Of the group at which that workload ends."""
    pod: str = ""
    """Uid with dashes, of a static pod its manifest's hash."""
    qos: str = ""
    """`guaranteed`, `burstable` or `besteffort`, if in a pod."""
    container: str = ""
    """64 hex digits."""
    runtime: str = ""
    """`docker`, `containerd`, `crio` or `podman`; empty where the path does not tell."""
    slurm: str = ""
    """Number of the Slurm job; of an array's task its own."""
    step: str = ""
    """`0`, `batch`, `extern`, `interactive`."""
    name: str = ""
    """Of a unit, a session's scope or a virtual machine, unescaped."""
    user: str = ""
    """Number of the user whose session, service manager or Slurm job it is in."""


class _Part(NamedTuple):
    """What one part of a path is by its spelling alone."""

    kind: str
    name: str
    more: str = ""


@dataclass(slots=True)
class _Walk:
    """What is known on the way down a path."""

    place: Place | None = None
    above: str = ""
    """The part before."""
    pods: str = ""
    """The QoS class of pods directly below, empty if this is no place for pods."""
    jobs: bool = False
    """Whether Slurm's jobs may be directly below."""
    user: str = ""

    def enter(self, text: str, path: str) -> None:
        """One part deeper."""
        part = _part(text)
        pods, self.pods = self.pods, ""
        jobs, self.jobs = self.jobs, False
        if part.kind == "kubepods":
            self.pods = "guaranteed"
        elif part.kind == "qos" and pods:
            self.pods = part.name
        elif part.kind == "pod" or (part.kind == "pod folder" and pods):
            self._enter_pod(part.name, part.more or pods, path)
        elif part.kind == "container":
            self._enter_container(part, path)
        elif part.kind == "uid" and jobs:
            self.jobs, self.user = True, part.name
        elif part.kind == "job" and jobs:
            self._enter_job(part.name, path)
        elif part.kind == "step" and self.place and self.place.kind == "slurm":
            self.place = replace(self.place, step=self.place.step or part.name)
        else:
            self._enter_unit(part, path)
        self.above = text

    def _enter_pod(self, uid: str, qos: str, path: str) -> None:
        self.user = ""
        self.place = Place("pod", path, pod=uid, qos=qos)

    def _enter_container(self, part: _Part, path: str) -> None:
        """A group within a container that is named after it is no other container."""
        above, _, manager = part.more.rpartition(":")
        slice_of = _POD_SLICE.fullmatch(above)
        if slice_of:
            self._enter_pod(_uid(slice_of["uid"]), slice_of["qos"] or "guaranteed", path)
        was = self.place or Place("container", path)
        if was.container != part.name:
            self.place = Place(
                "container",
                path,
                pod=was.pod,
                qos=was.qos,
                container=part.name,
                runtime=_RUNTIMES.get(manager, manager) or _FOLDERS.get(self.above, ""),
                slurm=was.slurm,
                step=was.step,
                user=self.user,
            )

    def _enter_job(self, number: str, path: str) -> None:
        was = self.place or Place("slurm", path)
        self.place = Place("slurm", path, pod=was.pod, qos=was.qos, slurm=number, user=self.user)

    def _enter_unit(self, part: _Part, path: str) -> None:
        """Units, sessions and machines, which count only where nothing else is above them; and mere folders."""
        self.jobs = part.kind == "slurm"
        if self.place is not None and self.place.kind not in {"unit", "session"}:
            return
        if part.kind == "user":
            self.user = part.more
        if part.kind == "machine":
            self.place = Place("machine", path, name=part.name, user=self.user)
        elif part.name and part.kind in {"unit", "user", "session", "slurm"}:
            kind: PlaceKind = "session" if part.kind == "session" and self.user else "unit"
            self.place = Place(kind, path, name=part.name, user=self.user)


@lru_cache(maxsize=REMEMBERED)
def place_of(path: str) -> Place | None:
    """Where a path of the tree leads, None if into nobody's workload. Never raises.

    Args:
        path: as in /proc/PID/cgroup, or below the hierarchy's root; `/` for the root itself.
    """
    walk = _Walk()
    end = 0
    for text in path.split("/"):
        end += len(text)
        if text:
            walk.enter(text, path[:end])
        end += 1
    return walk.place


def owner(path: str) -> str | None:
    """The path of the group at which the workload of this path ends; None if it is nobody's.

    A pod and each of its containers end in groups of their own: what the pod's counter has beyond theirs is the pod's,
    such as a container that came and went between two looks. A container's or Slurm job's own subgroups are its own.
    """
    place = place_of(path)
    return place.path if place else None


def is_owner(path: str) -> bool:
    """Whether a workload ends at this very group."""
    return bool(path) and owner(path) == path


@lru_cache(maxsize=REMEMBERED)
def _part(text: str) -> _Part:
    """One part of a path."""
    if len(text) > LONGEST_PART:
        return _Part("folder", "")
    if text in _WORDS:
        return _Part(_WORDS[text], text)
    if match := _POD_SLICE.fullmatch(text):
        return _Part("pod", _uid(match["uid"]), match["qos"] or "guaranteed")
    if match := _CONTAINER.fullmatch(text):
        return _Part("container", match["id"], f"{match['parent'] or ''}:{match['manager'] or ''}")
    matches = ((kind, pattern.fullmatch(text)) for kind, pattern in _NUMBERED.items())
    return next((_Part(kind, match[1]) for kind, match in matches if match), None) or _unit(text)


def _unit(text: str) -> _Part:
    """A part that is no container, pod or job: a unit's, a machine's or a mere folder's."""
    name = _unescaped(text) if _UNIT.fullmatch(text) else ""
    if match := _USER.fullmatch(text):
        return _Part("user", name, match[1] or match[2])
    if _SESSION.fullmatch(text):
        return _Part("session", name)
    if _SLURM.fullmatch(text):
        return _Part("slurm", name)
    match = _MACHINE.fullmatch(_unescaped(text))
    if match:
        return _Part("machine", match["scope"] or match["folder"] or match["bare"])
    return _Part("unit" if name else "folder", name)


def _uid(text: str) -> str:
    """A pod's uid as the API spells it."""
    return text.replace("_", "-")


def _unescaped(text: str) -> str:
    r"""A unit's name without systemd's escapes: `\x2d` is a dash within a name, see systemd-escape(1)."""
    if "\\x" not in text:
        return text
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode("utf-8", "replace")).decode(
        "utf-8", "replace"
    )
