"""Addresses to listen on, the sockets that listen there, and what to do about one that cannot be had."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from carbon_exporter.errors import ListenError
from carbon_exporter.publish.unix_socket import listen_unix

__all__ = ["BACKLOG", "Address", "handed_over", "listen", "peer_of"]

BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted; one more waits a second for its second try."""
_OWNER_AND_GROUP = 0o660
_FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""
_NETWORK_BITS = 64


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a TCP port (of one host, or of all with an empty one), or a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """From `HOST:PORT`, `:PORT` or `unix:/PATH`, as `config` has checked it."""
        if text.startswith("unix:"):
            return cls(path=text.removeprefix("unix:"))
        host, _, port = text.rpartition(":")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        """As the user writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.path else f"{host}:{self.port}"


def listen(address: Address) -> socket.socket:
    """A listening socket. Raises `ListenError` with what to do about it."""
    try:
        if address.path:
            return listen_unix(Path(address.path), _OWNER_AND_GROUP, BACKLOG)
        return _listen_tcp(address.host, address.port)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {address}: {error.strerror or error}", remedy=_remedy(error, address)
        ) from error


def handed_over(environ: MutableMapping[str, str]) -> dict[str, socket.socket]:
    """Sockets that systemd has opened for this process (sd_listen_fds(3)), by name; it alone gets them, no child.

    The variables are taken out of `environ`. Raises `ListenError` for what is no listening stream socket.
    """
    pid, count, names = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    numbers = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))
    found: dict[str, socket.socket] = {}
    for number, name in zip(numbers, [*names.split(":"), *[""] * len(numbers)]):  # noqa: B905 - names may be fewer
        key = "health" if name == "health" else "web"
        if key in found:
            raise ListenError(
                f"systemd hands over {count} sockets, more than one of them for {key}",
                remedy="one ListenStream= in carbon-exporter.socket; a second one needs FileDescriptorName=health",
            )
        found[key] = _adopted(number)
    return found


def peer_of(where: object) -> str:
    """By which name a client's connections are counted: its address, of IPv6 its network of 64 bits."""
    if not isinstance(where, tuple):
        return ""
    address = ipaddress.ip_address(str(where[0]).partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((address, _NETWORK_BITS), strict=False))


def _adopted(number: int) -> socket.socket:
    """An open descriptor as a socket of ours."""
    try:
        listener = socket.socket(fileno=number)
        listener.set_inheritable(False)
        if listener.type == socket.SOCK_STREAM and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return listener
        listener.close()
    except OSError as error:
        raise ListenError(
            f"systemd hands over descriptor {number}, which cannot be used: {error.strerror}", remedy=_UNIT
        ) from error
    raise ListenError(f"systemd hands over descriptor {number}, which is no listening stream socket", remedy=_UNIT)


_UNIT = "carbon-exporter.socket needs ListenStream= and Accept=no"


def _listen_tcp(host: str, port: int) -> socket.socket:
    """TCP on one host, or on all addresses of both families where the kernel has IPv6."""
    if not host:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=BACKLOG)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:
        raise OSError(f"{host!r} is not a host name") from error
    family, *_, where = found[0]
    return socket.create_server(where, family=family, backlog=BACKLOG)


def _remedy(error: OSError, address: Address) -> str:
    """What to do when an address cannot be had."""
    other = "choose another with --web.listen-address=HOST:PORT"
    if error.errno == errno.EADDRINUSE and address.path and not Path(address.path).is_socket():
        return f"there is a file of that name: move it away (mv {address.path} {address.path}.old), or {other}"
    if error.errno == errno.EADDRINUSE:
        who = f"ss -ltnp 'sport = :{address.port}'" if not address.path else f"ss -lxp src {address.path}"
        return f"another program listens there ({who} shows which): stop it, or {other}"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS} and address.path:
        return f"this process must be allowed to write to the folder {Path(address.path).parent}, or {other}"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"ports below 1024 need the capability CAP_NET_BIND_SERVICE: {other}"
    return other
