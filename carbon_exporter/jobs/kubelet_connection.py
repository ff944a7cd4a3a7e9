"""The connection to a kubelet's pod-resources API: gRPC without TLS over a Unix socket, root's."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote

from carbon_exporter.errors import JobResolutionError

if TYPE_CHECKING:
    import grpc

__all__ = ["DEADLINE_SECONDS", "KubeletConnection", "MethodMissing", "brief", "is_there"]

DEADLINE_SECONDS = 5.0
LARGEST_ANSWER_BYTES = 16 << 20
"""As Kubernetes' own client of this API has it; a node of 250 pods tells some 100 kB."""

_SERVICE = "/v1.PodResourcesLister/"
_MOUNT = "in a pod, mount the host's /var/lib/kubelet/pod-resources read-only at the same path"
_FLAG = "pass another path with --kubernetes.pod-resources-socket=PATH"


class MethodMissing(JobResolutionError):
    """This kubelet does not answer that question, and never will."""


class KubeletConnection:
    """One connection, kept for as long as the socket is the same and answers. `close` is for any thread."""

    def __init__(self, socket: Path) -> None:
        """Not made yet."""
        self._socket = socket
        self._channel: grpc.Channel | None = None
        self._to: tuple[int, int, int] | None = None

    def ask(self, method: str, request: bytes = b"") -> bytes:
        """The kubelet's answer. Raises `JobResolutionError`: `MethodMissing` if it does not have the method."""
        socket = _find(self._socket)
        try:
            import grpc  # noqa: PLC0415 - a tenth of a second, and only where there is a kubelet
        except ImportError as error:
            raise JobResolutionError(
                f"grpcio cannot be imported ({error}): boards given to pods are not seen",
                remedy="pip install carbon-exporter[kubernetes]",
            ) from None
        if self._channel is None or self._to != socket:
            self.close()
            options = (
                ("grpc.max_receive_message_length", LARGEST_ANSWER_BYTES),
                ("grpc.use_local_subchannel_pool", 1),  # a new channel does not inherit an old one's back-off
                ("grpc.enable_http_proxy", 0),
            )
            self._channel, self._to = grpc.insecure_channel(f"unix:{quote(str(self._socket))}", options), socket
        try:
            question: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(_SERVICE + method)
            return question(request, timeout=DEADLINE_SECONDS)
        except grpc.RpcError as error:
            self.close()
            _explain(error)

    def close(self) -> None:
        """Give it up; a question under way fails at once."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


def _find(socket: Path) -> tuple[int, int, int]:
    """What tells this socket from one that is made anew at the same path.

    Raises `JobResolutionError` if it is not there, is none, or this process may not use it.
    """
    try:
        status = os.stat(socket)
    except PermissionError:
        _refuse(socket)
    except OSError as error:
        remedy = f"{_MOUNT} (the directory: the kubelet makes its socket anew when it starts), or {_FLAG}"
        raise JobResolutionError(f"no kubelet at {socket}: {error.strerror}", remedy=remedy) from None
    if not stat.S_ISSOCK(status.st_mode):
        raise JobResolutionError(f"{socket} is not a socket", remedy=_FLAG)
    if not os.access(socket, os.W_OK, effective_ids=True):
        _refuse(socket)
    return status.st_dev, status.st_ino, status.st_ctime_ns


def _refuse(socket: Path) -> NoReturn:
    raise JobResolutionError(
        f"{socket} may not be used by this user",
        remedy="run it as root, which needs no capability for that (in a pod: securityContext.runAsUser: 0)",
    ) from None


def is_there(directory: Path) -> bool:
    """Whether there is such a directory, as far as anybody may know."""
    try:
        os.stat(directory)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _explain(error: grpc.RpcError) -> NoReturn:
    """Say what gRPC's status means here. Raises `JobResolutionError`."""
    code, details = "", str(error)
    if hasattr(error, "code") and hasattr(error, "details"):  # of what a call raises
        code, details = error.code().name, error.details() or ""
    if code == "DEADLINE_EXCEEDED":
        raise JobResolutionError(f"the kubelet has not answered within {DEADLINE_SECONDS:.0f} s") from None
    if code == "UNIMPLEMENTED" or "disabled" in details:  # by a feature gate, of which only the text tells
        remedy = "Kubernetes 1.20 or later has it"
        raise MethodMissing("the kubelet does not know the pod-resources API v1", remedy=remedy) from None
    raise JobResolutionError(f"the kubelet does not answer: {code} {brief(details)}".rstrip()) from None


def brief(text: str) -> str:
    """A foreign message for a log: one line, printable, at most 200 characters."""
    return "".join(c if c.isprintable() else " " for c in text[:200])
