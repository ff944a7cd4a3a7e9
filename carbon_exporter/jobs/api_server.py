"""The Kubernetes API server, as a client in a pod reaches it: GET requests with the service account's token over TLS.

One connection a request, closed after it; each has its time limits, follows no redirect, and can be ended by another
thread. What goes wrong leaves as `JobResolutionError`, and no text of it holds the token.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlencode

from carbon_exporter.errors import JobResolutionError

__all__ = ["BAD_REQUEST", "FORBIDDEN", "GONE", "SECRETS", "Answer", "ApiAddress", "ApiClient", "ApiRefusal", "Lines"]

SECRETS = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts a pod's token and the cluster's certificate authority."""
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
"""For each piece of the head of an answer, which comes when the server has made up the list."""
MOST_TOKEN_BYTES = 65536
LONGEST_PAUSE = 300.0
"""What `Retry-After` may ask of us, in seconds."""

_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
"""A peer that vanished without a word is noticed after a minute, though a watch may be silent for longer."""
_TOKEN = re.compile(rb"[!-~]+")
OK, BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, GONE, BUSY = 200, 400, 401, 403, 410, 429

_REACH = "the exporter must reach the API server: a network policy, a proxy or a firewall may stand between"
_ACCOUNT = "its pod needs a service account, with automountServiceAccountToken not set to false"
_MEANS = {
    UNAUTHORIZED: ("does not accept the service account's token", _ACCOUNT),
    FORBIDDEN: (
        "does not let the service account read pods",
        "give it a ClusterRole with list and watch on pods, and a ClusterRoleBinding; the Helm chart has both",
    ),
    GONE: ("no longer has the changes since then", ""),
    BUSY: ("is busy", ""),
}


@dataclass(frozen=True, slots=True)
class ApiAddress:
    """Where the API server is, and what to show and to trust there."""

    host: str
    port: int
    token_file: Path | None = None
    """Read for each request: the kubelet replaces it about once an hour."""
    ca_file: Path | None = None
    """Who signs the server's certificate; None for those whom this machine trusts."""
    tls: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], secrets: Path = SECRETS) -> ApiAddress | None:
        """As every pod is told it; None outside a cluster. Raises `JobResolutionError` if it makes no sense."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            return None
        if not re.fullmatch(r"[0-9A-Za-z.:\[\]-]{1,253}", host) or not re.fullmatch(r"[0-9]{1,5}", port):
            raise JobResolutionError(
                "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT name no server",
                remedy="leave them as the kubelet sets them",
            )
        return cls(host.strip("[]"), int(port), secrets / "token", secrets / "ca.crt")


class ApiRefusal(JobResolutionError):
    """The server answered, with another status than 200."""

    def __init__(self, host: str, status: int, pause: float = 0.0) -> None:
        """`pause`: how many seconds it asks us to wait."""
        means, remedy = _MEANS.get(status, ("gives no usable answer", ""))
        super().__init__(f"the API server {host} {means} (HTTP {status})", remedy=remedy)
        self.status = status
        self.pause = pause


class Answer:
    """The body of an answer, while it comes in."""

    def __init__(self, response: HTTPResponse, link: socket.socket, host: str, seconds: float) -> None:
        """Each piece must come within `seconds`, and none is begun after them."""
        self._response = response
        self._host = host
        self._until = time.monotonic() + seconds
        link.settimeout(seconds)

    def pieces(self) -> Iterator[bytes]:
        """As they come. Raises `JobResolutionError` if it breaks off or takes too long."""
        while True:
            try:
                piece = self._response.read1(1 << 16)
            except (OSError, HTTPException, ValueError) as error:
                raise _explained(error, self._host) from None
            if time.monotonic() > self._until:
                raise _explained(TimeoutError(), self._host)
            if not piece:
                return
            yield piece

    def body(self, most: int) -> bytes:
        """All of it, if it has `most` bytes or fewer."""
        whole = bytearray()
        for piece in self.pieces():
            whole += piece
            if len(whole) > most:
                raise JobResolutionError(f"the API server {self._host} answers with more than {most >> 20} MiB")
        return bytes(whole)


class ApiClient:
    """Asks one server, one request at a time. `close` is for any thread."""

    def __init__(self, address: ApiAddress, patience: float = ANSWER_SECONDS) -> None:
        """Nothing is sent before the first `get`. `patience`: seconds that the server has to begin its answer."""
        self._address = address
        self._patience = patience
        self._link: socket.socket | None = None
        self._closed = False

    @contextmanager
    def get(self, path: str, query: Mapping[str, str], seconds: float) -> Iterator[Answer]:
        """The answer to a GET; its body may take `seconds`. Raises `JobResolutionError`, for a status `ApiRefusal`."""
        headers = {"Accept": "application/json", "User-Agent": "carbon-exporter", "Connection": "close"}
        if self._address.token_file is not None:
            headers["Authorization"] = f"Bearer {_token(self._address.token_file)}"
        host = self._address.host
        connection = self._connection()
        try:
            try:
                connection.connect()
                link = self._link = connection.sock
                for option, value in _KEEPALIVE:
                    link.setsockopt(socket.IPPROTO_TCP, option, value)
                link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                if self._closed:
                    raise ConnectionAbortedError  # `close` came before there was a link to cut
                link.settimeout(self._patience)
                connection.request("GET", f"{path}?{urlencode(query)}", headers=headers)
                response = connection.getresponse()
            except (OSError, HTTPException, ValueError) as error:
                raise _explained(error, host) from None
            with response:
                if response.status != OK:
                    raise ApiRefusal(host, response.status, _pause(response.headers.get("Retry-After", "")))
                yield Answer(response, link, host, seconds)
        finally:
            self._link = None
            connection.close()

    def close(self) -> None:
        """End the request under way, if there is one, and all later ones. Does not wait."""
        self._closed = True
        link = self._link
        if link is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(link, socket.SHUT_RDWR)  # below TLS, whose state is the other thread's

    def _connection(self) -> HTTPConnection:
        address = self._address
        if not address.tls:
            return HTTPConnection(address.host, address.port, timeout=CONNECT_SECONDS)
        from http.client import HTTPSConnection  # noqa: PLC0415 - a Python without OpenSSL has none

        return HTTPSConnection(address.host, address.port, timeout=CONNECT_SECONDS, context=_trust(address.ca_file))


class Lines:
    """Cuts a stream of bytes into lines, and keeps none that is too long."""

    def __init__(self, longest: int) -> None:
        """`longest`: bytes."""
        self._longest = longest
        self._parts: list[bytes] = []
        self._size = 0
        self.skipped = 0
        """Lines that were too long."""

    @property
    def pending(self) -> int:
        """Bytes of the line that has not ended yet, kept or not."""
        return self._size

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that end in this piece, without empty ones."""
        *ended, rest = piece.split(b"\n")
        lines = []
        for end in ended:
            self._add(end)
            if self._size > self._longest:
                self.skipped += 1
            elif self._size:
                lines.append(b"".join(self._parts))
            self._parts, self._size = [], 0
        self._add(rest)
        return lines

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._longest:
            self._parts = []
        elif part:
            self._parts.append(part)


def _token(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            token = stream.read(MOST_TOKEN_BYTES + 1).strip()
    except OSError as error:
        raise JobResolutionError(f"{file} cannot be read: {error.strerror}", remedy=_ACCOUNT) from None
    if len(token) > MOST_TOKEN_BYTES or not _TOKEN.fullmatch(token):
        raise JobResolutionError(f"{file} holds no token", remedy=_ACCOUNT)
    return token.decode("ascii")


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    """Made anew for each connection, because the file may be replaced."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # an SSLError is one
        what = "holds no certificate" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
        raise JobResolutionError(f"{ca_file} {what}", remedy=_ACCOUNT) from None


def _pause(retry_after: str) -> float:
    """Seconds; the other form, a date, is not what an API server sends."""
    return min(LONGEST_PAUSE, float(retry_after)) if re.fullmatch(r"[0-9]{1,6}", retry_after) else 0.0


def _explained(error: Exception, host: str) -> JobResolutionError:
    """Our error for what the library raised: its kind and the system's own sentence, never its text."""
    where = f"the API server {host}"
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = "ca.crt beside the service account's token must be that of this cluster"
        return JobResolutionError(f"the certificate of {where} is not trusted: {error.verify_message}", remedy=remedy)
    if isinstance(error, TimeoutError):
        return JobResolutionError(f"{where} does not answer in time", remedy=_REACH)
    if isinstance(error, socket.gaierror):
        return JobResolutionError(f"the name {host} cannot be resolved: {error.strerror}", remedy=_REACH)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return JobResolutionError(f"{where} does not speak usable TLS ({error.reason or 'no reason given'})")
    broken = isinstance(error, (ConnectionResetError, ssl.SSLEOFError))
    if isinstance(error, OSError) and not broken and error.strerror:
        return JobResolutionError(f"{where} cannot be reached: {error.strerror}", remedy=_REACH)
    return JobResolutionError(f"{where} breaks off, or does not speak HTTP as it should")
