"""`carbon-exporter health`: whether the exporter of these settings answers, for HEALTHCHECK and for scripts."""

from __future__ import annotations

import argparse
import http.client
import socket
import ssl
import sys
from typing import Any

from carbon_exporter.cli.settings import add_flags, load_settings
from carbon_exporter.config import Settings
from carbon_exporter.errors import CarbonExporterError, ConfigError
from carbon_exporter.publish.listening import Address

__all__ = ["register", "run"]

_SECONDS = 3.0
"""Less than HEALTHCHECK allows, so that the reason is told."""
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask one that listens on all
_OK = 200


def register(commands: Any) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "health",
        help="whether the exporter answers (exit code 0 or 1)",
        description="Ask the exporter that has these settings for /-/healthy. The file and the variables that\n"
        "serve reads are read here too; what serve was given as a flag must be given again.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_flags(parser, only={"listen", "health_listen", "web_config"})
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Ask once; returns 0 or 1, for 2 is reserved in HEALTHCHECK."""
    try:
        print(_ask(load_settings(parsed)))
    except CarbonExporterError as error:
        print(f"carbon-exporter: {error}", file=sys.stderr)
        return 1
    return 0


def _ask(settings: Settings) -> str:
    """What a healthy exporter says. Raises `ConfigError`, or `CarbonExporterError` with the reason."""
    address = Address.parse(settings.health_listen or settings.listen)
    connection = _Connection(address, _context(settings))
    try:
        connection.request("GET", "/-/healthy")
        answer = connection.getresponse()
        told = answer.read().decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        raise CarbonExporterError(f"no healthy exporter on {address}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if answer.status != _OK:
        raise CarbonExporterError(f"no healthy exporter on {address}: it answers {answer.status}: {told}")
    return told


class _Connection(http.client.HTTPConnection):
    """HTTP over TCP or a Unix socket, within TLS if there is a context."""

    def __init__(self, address: Address, context: ssl.SSLContext | None) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._address = address
        self._context = context

    def connect(self) -> None:
        self.sock = _open(self._address)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock)


def _open(address: Address) -> socket.socket:
    """A connected socket."""
    if address.path:
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        unix.settimeout(_SECONDS)
        unix.connect(address.path)
        return unix
    return socket.create_connection((_ANY.get(address.host, address.host), address.port), timeout=_SECONDS)


def _context(settings: Settings) -> ssl.SSLContext | None:
    """TLS where the exporter speaks it; whose certificate it is does not matter, for nothing is told to it.

    Raises `ConfigError`.
    """
    if settings.health_listen or settings.web_config is None:
        return None
    from carbon_exporter.publish.web_config import read_web_config  # noqa: PLC0415 - only those with a file need it
    from carbon_exporter.publish.web_schema import REQUIRED  # noqa: PLC0415

    tls = read_web_config(settings.web_config).tls
    if tls is None:
        return None
    if tls.client_auth_type == REQUIRED:
        raise ConfigError("settings", "web.health-address", "", "an address, for this exporter asks for certificates")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
