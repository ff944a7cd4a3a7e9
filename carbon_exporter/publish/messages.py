"""What the HTTP server and its handler hand each other, and what a client may take meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

__all__ = ["Handler", "Limits", "Request", "Response"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may take. Times are in seconds."""

    connections: int = 256
    crowd: int = 32
    """With more connections than these, each is answered once in `crowd_seconds` and no more often."""
    crowd_seconds: float = 0.25
    header_bytes: int = 16384
    body_bytes: int = 65536
    handshake_seconds: float = 5.0
    """For TLS to be agreed on."""
    request_seconds: float = 10.0
    """From a connection's beginning to its first complete request, with the handshake in between."""
    idle_seconds: float = 120.0
    """From a response to the next complete request; longer than any usual scrape interval."""
    write_seconds: float = 30.0
    """For a response to be taken whole."""


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request; header names in lower case, the values of a repeated one joined by commas."""

    method: str
    target: str
    headers: Mapping[str, str]
    peer: str = ""
    """The client's address, of IPv6 its network; empty on a Unix socket."""


@dataclass(frozen=True, slots=True)
class Response:
    """What to answer."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Response | Awaitable[Response]]
