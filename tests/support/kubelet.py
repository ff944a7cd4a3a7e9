"""A kubelet's pod-resources API: a real gRPC server on a Unix socket, and its messages in protobuf's wire format."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import grpc

from carbon_exporter.jobs.protobuf import texts_and_messages

__all__ = ["Kubelet", "claim", "connections", "container", "devices", "field", "kubelet", "pod", "pods"]


def field(number: int, value: bytes | str | int) -> bytes:
    """One field of a message: a number, or a text or message with its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    payload = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes((*digits, number))


def devices(resource: str, *ids: str) -> bytes:
    """A container's devices of one resource, with the NUMA node that a kubelet tells."""
    topology = field(3, field(1, field(1, 0)))
    return field(2, field(1, resource) + b"".join(field(2, one) for one in ids) + topology)


def claim(driver: str = "", device: str = "", cdi: Sequence[str] = ()) -> bytes:
    """A container's claim of one device; early kubelets tell the CDI's names only."""
    resource = b"".join(field(1, field(1, name)) for name in cdi)
    if driver:
        resource += field(2, driver) + field(3, "node-a") + field(4, device)
    return field(5, field(2, "claim-a") + field(3, "ml") + field(4, resource))


def container(name: str, *parts: bytes) -> bytes:
    """A container with CPUs and memory of its own beside its devices and claims."""
    cpus = field(3, b"\x02\x03\xc8\x01")
    memory = field(4, field(1, "memory") + field(2, 1 << 34))
    return field(3, field(1, name) + cpus + memory + b"".join(parts))


def pod(namespace: str, name: str, *containers: bytes) -> bytes:
    """An entry of the list."""
    return field(1, field(1, name) + field(2, namespace) + b"".join(containers))


def pods(device: str, *names: str) -> bytes:
    """The list for pods of the namespace `ml` that were each given this device."""
    return b"".join(pod("ml", name, container("main", devices("nvidia.com/gpu", device))) for name in names)


class Kubelet:
    """One that runs. What it answers can be changed at any time."""

    def __init__(self, socket: Path, answer: bytes = b"", *, methods: Sequence[str] = ("List",)) -> None:
        """Serve on this socket; `methods` are all that it has."""
        self.answer = answer
        self.alone: dict[tuple[str, str], bytes] = {}
        """What `Get` answers, by namespace and name: an entry as `pod` makes it."""
        self.gets: list[tuple[str, str]] = []
        """The pods that it was asked for."""
        self.error: tuple[grpc.StatusCode, str] | None = None
        """Answer with this status instead."""
        self.questions = 0
        self.go_on = threading.Event()
        """While it is clear, questions wait."""
        self.go_on.set()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        answers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "List": grpc.unary_unary_rpc_method_handler(self._list),
            "Get": grpc.unary_unary_rpc_method_handler(self._get),
        }
        here = {method: answers[method] for method in methods}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1.PodResourcesLister", here),))
        self._server.add_insecure_port(f"unix:{quote(str(socket))}")
        self._server.start()

    def stop(self) -> None:
        """End it at once; its socket goes with it."""
        self.go_on.set()
        self._server.stop(None).wait()

    def _list(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        assert request == b""
        self.questions += 1
        self.go_on.wait(30)
        if self.error is not None:
            context.abort(*self.error)
        return self.answer

    def _get(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        parts = texts_and_messages(request)
        wanted = parts[2][0].decode(), parts[1][0].decode()
        self.gets.append(wanted)
        if wanted not in self.alone:
            context.abort(grpc.StatusCode.UNKNOWN, f"pod {wanted[1]} in namespace {wanted[0]} not found")
        return self.alone[wanted]


@contextmanager
def kubelet(socket: Path, answer: bytes = b"", *, methods: Sequence[str] = ("List",)) -> Iterator[Kubelet]:
    """A kubelet for a while."""
    running = Kubelet(socket, answer, methods=methods)
    try:
        yield running
    finally:
        running.stop()


def connections(socket: Path) -> set[str]:
    """The connections to a socket that are open now: the kernel's inodes of the server's ends."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {line[6] for line in lines if line[-1] == str(socket) and line[5] == "03"}
