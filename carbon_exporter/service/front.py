"""The front of the exporter: its listeners, what guards them, and the probes' own door."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, MutableMapping

from carbon_exporter.config import Settings
from carbon_exporter.publish.gate import Gate, health_alone
from carbon_exporter.publish.http import Address, Limits, Server
from carbon_exporter.publish.listening import handed_over
from carbon_exporter.publish.messages import Request, Response

__all__ = ["Front"]

_log = logging.getLogger(__name__)
_PROBES = Limits(connections=32)


class Front:
    """Serves a handler as the settings say, from `start` to `stop`."""

    def __init__(
        self, settings: Settings, environ: MutableMapping[str, str], handler: Callable[[Request], Response]
    ) -> None:
        """Takes systemd's sockets out of `environ`. Raises `ConfigError` or `ListenError` for what cannot be used."""
        self._gate = Gate(handler, settings.web_config)
        given = handed_over(environ)
        if "web" in given:
            _log.info("listening on systemd's socket instead of %s", settings.listen)
        address = Address.parse(settings.listen)
        self._web = Server(address, self._gate.answer, tls=self._gate.tls, listener=given.get("web"))
        self._servers = [self._web]
        if settings.health_listen or "health" in given:
            address = Address.parse(settings.health_listen or ":0")
            self._servers.append(Server(address, health_alone(handler), _PROBES, listener=given.get("health")))

    @property
    def address(self) -> Address:
        """Where it listens; the real port once started."""
        return self._web.address

    @property
    def connections(self) -> int:
        """Open connections."""
        return sum(server.connections for server in self._servers)

    @property
    def refused(self) -> dict[str, int]:
        """Requests and connections turned away, by reason."""
        counted: Counter[str] = Counter()
        for server in self._servers:
            counted.update(server.refused)
        return dict(counted)

    @property
    def is_well(self) -> bool | None:
        """Whether the web configuration was good when it was last read; None without one."""
        return self._gate.is_well

    def start(self) -> None:
        """Bind and begin to answer. Raises `ListenError`."""
        for server in self._servers:
            server.start()
        self._gate.start()
        for server in self._servers[1:]:
            _log.info("health alone, in the clear, on %s", server.address)

    def reload(self) -> None:
        """Read the web configuration again. Returns at once."""
        self._gate.reload()

    def stop(self) -> None:
        """Stop serving. May be called twice, and also when `start` has failed."""
        for server in self._servers:
            server.stop()
        self._gate.close()
