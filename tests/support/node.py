"""A node of Kubernetes, as far as its kernel goes: processes in control groups that a kubelet would name so."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from support.apiserver import container_id, uid_of
from support.groups import Groups, own_groups
from support.workloads import PRELUDE, Program, run

__all__ = ["REST", "Node", "node"]

REST = 'say("here"); wait()'
"""A program that does nothing."""


@dataclass(frozen=True)
class Node:
    """Runs programs in pods of the namespace `ml` until the block ends."""

    groups: Groups
    stack: ExitStack = field(repr=False)

    def run(
        self, name: str, code: str = REST, *, container: str = "main", environment: Mapping[str, str] | None = None
    ) -> Program:
        """A program in a new container of a pod; its host's name is the pod's, as is usual.

        As a runtime does, it starts a process, puts it there, and lets it become the program.
        """
        path = f"{_path(name)}/cri-containerd-{container_id(name, container)}.scope"
        self.groups.make(path)
        command = [sys.executable, "-I", "-S", "-c", PRELUDE + code]
        told = {"HOSTNAME": name, **(environment or {})}
        program = self.stack.enter_context(run(f"wait(); os.execve({command[0]!r}, {command!r}, {told!r})"))
        self.groups.move(program.pid, path)
        program.go_on()
        return program

    def used(self, name: str) -> float:
        """CPU seconds of a pod, by the kernel's own count."""
        return self.groups.used(_path(name))


@contextmanager
def node() -> Iterator[Node]:
    """Skips where this machine has no version 2 tree, or lets nobody make groups in it."""
    with own_groups() as groups, ExitStack() as stack:
        yield Node(groups, stack)


def _path(name: str) -> str:
    return f"kubepods.slice/kubepods-pod{uid_of(f'ml/{name}').replace('-', '_')}.slice"
