"""The choice of a path: where energy comes from and where spans go, once a process and for good."""

from __future__ import annotations

import logging
import os
import secrets
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carbon_exporter.carbon.grid import Grid
from carbon_exporter.publish.unix_socket import SYSTEM_SOCKET
from carbon_exporter.sdk.base import Identity, Meters, Outlet, Price
from carbon_exporter.sdk.identity import new_run, own_identity
from carbon_exporter.sdk.options import Options
from carbon_exporter.sdk.own_grid import own_grid
from carbon_exporter.sdk.trouble import trouble
from carbon_exporter.sensors.base import Host

__all__ = ["Choice", "choose", "socket_paths"]

_log = logging.getLogger("carbon_exporter.sdk")
CONNECT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What a tracker is made of."""

    path: str
    """`exporter`, `opentelemetry`, `page`, `pushgateway`, or `none`: measured for the script alone."""
    meters: Meters
    outlet: Outlet | None
    identity: Callable[[], Identity]
    price: Callable[[], Price | None]


def choose(
    options: Options,
    environ: Mapping[str, str],
    pids: Callable[[], Collection[int]],
    wanted: Callable[[], Collection[str] | None],
) -> Choice:
    """Ask each path in turn whether it is there. May take a second where an exporter does not answer.

    `pids` are those of this process tree, `wanted` the boards that spans ask for.
    """
    run = options.first_run or options.run
    own = own_identity(environ, sys.argv, new=new_run(), job=options.job, run=run, rank=options.rank)
    asked = options.path or environ.get("CARBON_SDK", "") or "auto"
    if asked in {"auto", "exporter"}:
        linked = _exporter(options, environ, own)
        if linked is not None:
            return linked
        if asked == "exporter":
            why = ConnectionError("no exporter answers")
            trouble("the path is set to exporter", why, "is it running, and its socket readable here?")
    outlet = _outlet(asked, options, environ)
    from carbon_exporter.sdk.own_meters import OwnMeters  # noqa: PLC0415 - of no use beside an exporter

    grid = _grid(options, environ)
    price = Price(
        grid.region, grid.intensity.grams_per_kwh, grid.pue, f"{grid.intensity.provider}/{grid.intensity.quality}"
    )
    meters: Meters = OwnMeters(_host(environ), pids=pids, wanted=wanted)
    return Choice(outlet.name if outlet else "none", meters, outlet, lambda: own, lambda: price)


def socket_paths(environ: Mapping[str, str]) -> Iterator[str]:
    """Where the node's exporter may listen, in the order in which it is looked for."""
    if environ.get("CARBON_SDK_SOCKET"):
        yield environ["CARBON_SDK_SOCKET"]
        return
    yield SYSTEM_SOCKET
    if environ.get("XDG_RUNTIME_DIR"):
        yield os.path.join(environ["XDG_RUNTIME_DIR"], "carbon-exporter", "sdk.sock")  # noqa: PTH118 - as below


def _exporter(options: Options, environ: Mapping[str, str], own: Identity) -> Choice | None:
    """The first socket that accepts."""
    for path in (options.socket,) if options.socket else socket_paths(environ):
        try:
            if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - a socket's name, not a file to work with
                continue
        except OSError:
            continue
        linked = _linked(path, own)
        if linked is not None:
            return linked
    return None


def _linked(path: str, own: Identity) -> Choice | None:
    """The exporter at a socket, if it accepts this process."""
    from carbon_exporter.publish.handoff_wire import VERSION, Hello  # noqa: PLC0415 - where there is a socket
    from carbon_exporter.sdk.exporter_link import ExporterLink  # noqa: PLC0415 - likewise

    hello = Hello(VERSION, secrets.token_hex(16), own.job, own.run, own.rank)
    link = ExporterLink(path, lambda: hello)
    if link.connect(CONNECT_SECONDS):
        return Choice("exporter", link, link, lambda: link.identity or own, lambda: link.price)
    link.close(0.0)
    return None


def _outlet(asked: str, options: Options, environ: Mapping[str, str]) -> Outlet | None:
    """The first way out that is open; the last ones are never tried where another was asked for by name."""
    for name, find in _OUTLETS:
        if asked in {"auto", name}:
            outlet = find(options, environ)
            if outlet is not None:
                return outlet
    if asked not in {"auto", "exporter", "off", *dict(_OUTLETS)}:
        why = ValueError(f"there is no path {asked!r}")
        trouble("CARBON_SDK", why, "accepted: auto, exporter, opentelemetry, page, pushgateway, off")
    return None


def _opentelemetry(options: Options, environ: Mapping[str, str]) -> Outlet | None:
    if "opentelemetry.metrics" not in sys.modules:
        return None
    from carbon_exporter.sdk.otel_outlet import OtelOutlet, is_configured  # noqa: PLC0415 - loads OpenTelemetry

    provider = is_configured()
    return None if provider is None else OtelOutlet(provider, lambda: _grid(options, environ))


def _page(options: Options, environ: Mapping[str, str]) -> Outlet | None:
    if "carbon_exporter.sdk.page_outlet" not in sys.modules:
        return None
    from carbon_exporter.sdk.page_outlet import started_page  # noqa: PLC0415 - loads the web server

    page = started_page()
    if page is not None:
        page.price_by(lambda: _grid(options, environ))
    return page


def _pushgateway(options: Options, environ: Mapping[str, str]) -> Outlet | None:
    url = options.pushgateway or environ.get("CARBON_PUSHGATEWAY", "")
    if not url:
        return None
    from carbon_exporter.sdk.push_outlet import PushOutlet  # noqa: PLC0415 - loads requests

    return PushOutlet(url, lambda: _grid(options, environ))


_OUTLETS: Sequence[tuple[str, Callable[[Options, Mapping[str, str]], Outlet | None]]] = (
    ("opentelemetry", _opentelemetry),
    ("page", _page),
    ("pushgateway", _pushgateway),
)


def _host(environ: Mapping[str, str]) -> Host:
    """Where the kernel's trees are: in a container perhaps mounted elsewhere, told as to the exporter."""
    procfs, sysfs = (environ.get(f"CARBON_EXPORTER_PATH_{name}") for name in ("PROCFS", "SYSFS"))
    return Host(Path(procfs or "/proc"), Path(sysfs or "/sys"))


def _grid(options: Options, environ: Mapping[str, str]) -> Grid:
    return own_grid(environ, region=options.region, pue=options.pue)
