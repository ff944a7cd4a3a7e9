"""Spans on a page of this process: `/metrics`, for a Prometheus that scrapes the script itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from urllib.parse import urlsplit

from carbon_exporter.carbon.grid import Grid
from carbon_exporter.carbon.spans import SpanAccount
from carbon_exporter.errors import ListenError
from carbon_exporter.publish.http import Address, Request, Response, Server
from carbon_exporter.publish.web import Published, Web
from carbon_exporter.sdk.base import Identity
from carbon_exporter.sdk.exposition import SpanExposition
from carbon_exporter.sdk.own_grid import own_grid

__all__ = ["PageOutlet", "start_metrics_server", "started_page"]

_LAST_PORT = 65535
_PATHS = frozenset({"/metrics", "/-/healthy"})


class PageOutlet:
    """Serves what the account holds. A scrape reads memory; what runs is at most a second old there."""

    name = "page"

    def __init__(self, port: int, addr: str = "127.0.0.1", grid: Callable[[], Grid] = own_grid) -> None:
        """Binds the port at once, any free one for 0. Raises `ListenError`."""
        if not 0 <= port <= _LAST_PORT:  # others would be taken modulo 65536, or refused without a reason
            raise ListenError(f"cannot listen on port {port}", remedy=f"a port is a number from 0 to {_LAST_PORT}")
        self._exposition = SpanExposition(grid)
        self._exposition.start(SpanAccount())
        self._web = Web(self._latest, self._exposition.renderer, "")
        self._server = Server(Address(addr, port), self._answer)
        try:
            self._server.start()
        except ListenError as error:
            raise ListenError(error.reason, remedy=_remedy(port)) from error
        self._pid = os.getpid()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.address.port

    @property
    def addr(self) -> str:
        """The host or address that was asked for."""
        return self._server.address.host

    @property
    def is_own(self) -> bool:
        """False in a forked child, where nobody serves it."""
        return self._pid == os.getpid()

    def price_by(self, grid: Callable[[], Grid]) -> None:
        """Show this grid from now on; before `start`."""
        self._exposition = SpanExposition(grid)
        self._exposition.start(SpanAccount())
        self._web = Web(self._latest, self._exposition.renderer, "")

    def start(self, account: SpanAccount, identity: Identity) -> None:  # noqa: ARG002 - the account's keys say who
        """Serve this account from now on."""
        self._exposition.start(account)

    def tell(self) -> None:
        """Nothing to do: the next scrape reads the account."""

    def close(self, patience: float = 0.0) -> None:  # noqa: ARG002 - there is nobody to wait for
        """Stop serving and free the port. What was not scraped by then is lost, as with any page of a process."""
        if self.is_own:
            self._server.stop()
        if self in _STARTED:
            _STARTED.remove(self)

    def forget(self) -> None:
        """In a forked child: let go of the port."""
        self._server.forget()

    def _answer(self, request: Request) -> Response:
        if urlsplit(request.target).path in _PATHS:
            return self._web.answer(request)
        return Response(404, b"not found; there is /metrics\n")

    def _latest(self) -> Published | None:
        latest = self._exposition.latest()
        return Published(*latest) if latest else None


_STARTED: list[PageOutlet] = []


def start_metrics_server(port: int, addr: str = "0.0.0.0") -> PageOutlet:  # noqa: S104 - prometheus_client's default
    """Serve this process's spans at `http://ADDR:PORT/metrics`, for a Prometheus that scrapes the script itself.

    To be called before the first span. It carries spans where no exporter of this node takes them, and the application
    has configured no OpenTelemetry metrics; else the page stays empty, so that nothing is counted twice. It is open to
    whoever reaches `addr`; `127.0.0.1` keeps it on this machine.

    Returns:
        What serves it, with its `port` (any free one for 0) and `close()`.

    Raises:
        ListenError: the port cannot be had; the remedy says what to do.
    """
    page = PageOutlet(port, addr)
    _STARTED.append(page)
    return page


def started_page() -> PageOutlet | None:
    """The page that this process started last, for spans to go to; None if there is none."""
    return next((page for page in reversed(_STARTED) if page.is_own), None)


def _remedy(port: int) -> str:
    return (
        f"another program may listen there (ss -ltnp 'sport = :{port}' shows which): choose another port, 0 for any "
        "that is free; ranks on one node each need their own: PORT + int(os.environ['LOCAL_RANK'])"
    )
