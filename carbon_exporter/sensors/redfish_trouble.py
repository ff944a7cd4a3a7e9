"""What can go wrong between here and a management controller, in our words, each with what mends it.

Only types, numbers and the system's own sentences are taken from an exception, never its text: that may quote a header.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from http.client import RemoteDisconnected
from types import TracebackType

from carbon_exporter.errors import SensorReadError

__all__ = ["Hushed", "explain", "is_broken_connection", "refusal"]

NAME_MISMATCH = frozenset({62, 64})
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
EXPIRED = 10
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED."""

TRUST_REMEDY = (
    "put the controller's certificate, or that of who signed it, into a PEM file and set redfish.ca-file to it; "
    "where the network itself is trusted, redfish.insecure-skip-verify=true does without the check"
)
ADDRESS_REMEDY = "check redfish.url, the network, and that Redfish is switched on in the controller's settings"
CREDENTIALS_REMEDY = (
    "check redfish.username and the content of redfish.password-file, and that the account is not locked; "
    "it needs the role ReadOnly with the right to log in"
)
STATUS_MEANS = {
    400: ("refuses the login as malformed", CREDENTIALS_REMEDY),
    401: ("does not accept the user or the password", CREDENTIALS_REMEDY),
    403: ("forbids it to this user", CREDENTIALS_REMEDY),
    404: ("has no such resource", "a controller with old firmware may lack it: update the firmware"),
    429: ("is busy", ""),
    500: ("has an error of its own", "if it lasts, restart the controller"),
    503: ("is busy or starting", ""),
}
LOGGERS = ("connectionpool", "connection", "response", "poolmanager", "util.retry")

_hushed = threading.local()


class Hushed:
    """Inside the block urllib3 logs nothing on this thread: its lines may quote headers. Other threads' stay."""

    def __enter__(self) -> None:
        for name in LOGGERS:
            logging.getLogger(f"urllib3.{name}").addFilter(_is_heard)
        _hushed.now = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _hushed.now = False


def _is_heard(_: logging.LogRecord) -> bool:
    return not getattr(_hushed, "now", False)


def refusal(host: str, status: int, more: str) -> SensorReadError:
    """An answer that is none: its status, and a path or what happens next."""
    means, remedy = STATUS_MEANS.get(status, ("gives no usable answer", ""))
    return SensorReadError(f"{host} {means} (HTTP {status}{more if more[:1] == ';' else f', {more}'})", remedy=remedy)


def explain(error: BaseException, host: str) -> SensorReadError:
    """Our error for what the HTTP library raised."""
    causes = tuple(_causes(error))
    for kinds, tell in (((ssl.SSLError,), _tls), ((OSError,), _network)):
        for cause in causes:
            known = tell(cause, host) if isinstance(cause, kinds) else None
            if known is not None:
                return known
    names = {type(cause).__name__ for cause in causes}
    if any("Timeout" in name for name in names):
        return _late(host)
    if is_broken_connection(error) or "IncompleteRead" in names:
        return SensorReadError(f"{host} breaks off in the middle of an answer")
    return SensorReadError(f"{host} does not speak HTTP as it should ({type(causes[-1]).__name__})")


def is_broken_connection(error: BaseException) -> bool:
    """Whether the other side had closed the connection."""
    return any(
        isinstance(cause, (ConnectionResetError, BrokenPipeError, RemoteDisconnected)) for cause in _causes(error)
    )


def _tls(error: BaseException, host: str) -> SensorReadError:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in NAME_MISMATCH:
            remedy = "write the name that stands in the certificate into redfish.url"
        else:
            remedy = "give the controller a new certificate" if error.verify_code == EXPIRED else TRUST_REMEDY
        return SensorReadError(f"the certificate of {host} is not trusted: {error.verify_message}", remedy=remedy)
    why = (getattr(error, "reason", None) or "no reason given").replace("_", " ").lower()
    remedy = "redfish.url must lead to its TLS port; a controller with outdated TLS needs newer firmware"
    return SensorReadError(f"{host} does not speak usable TLS: {why}", remedy=remedy)


def _network(error: BaseException, host: str) -> SensorReadError | None:
    if isinstance(error, socket.gaierror):
        return SensorReadError(f"the name {host} cannot be resolved: {error.strerror}", remedy=ADDRESS_REMEDY)
    if isinstance(error, TimeoutError):
        return _late(host)
    if isinstance(error, OSError) and error.strerror:
        return SensorReadError(f"{host} cannot be reached: {error.strerror}", remedy=ADDRESS_REMEDY)
    return None


def _late(host: str) -> SensorReadError:
    return SensorReadError(f"{host} does not answer in time", remedy=ADDRESS_REMEDY)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all it came from, outermost first: requests and urllib3 wrap in each of these ways."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = (getattr(one, "reason", None), *one.args, one.__cause__, one.__context__)
        waiting += [other for other in inner if isinstance(other, BaseException)]
