"""The service: builds the rooms from the settings, runs the sampling loop, starts and stops.

service = Service(settings, os.environ)
service.start()      # address bound, totals restored, first sample taken
service.run()        # samples until stop() is called
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import select
import socket
from collections.abc import Callable, Mapping

from carbon_exporter.carbon.grid import Grid, locate_grid
from carbon_exporter.carbon.registry import PROVIDERS
from carbon_exporter.config import RELOADABLE, Settings, settings_table
from carbon_exporter.errors import CarbonExporterError, ConfigError
from carbon_exporter.jobs.namer import Namer
from carbon_exporter.publish.history import History
from carbon_exporter.publish.http import Address
from carbon_exporter.publish.otlp import OtlpPush
from carbon_exporter.publish.prometheus import Renderer
from carbon_exporter.publish.web import Published, Web
from carbon_exporter.sensors.base import Host, Sensor
from carbon_exporter.sensors.lookout import Lookout
from carbon_exporter.sensors.registry import Finding, discover
from carbon_exporter.sensors.replay import Replay
from carbon_exporter.service.front import Front
from carbon_exporter.service.handoff import Handoff
from carbon_exporter.service.keeper import Keeper, open_keeper
from carbon_exporter.service.outside import directories_of, order_of, privacy_of
from carbon_exporter.service.pipeline import Pipeline
from carbon_exporter.snapshot import Snapshot

__all__ = ["OUTDATED", "Parts", "Service", "find_sensors", "host_of"]

_log = logging.getLogger(__name__)
OUTDATED = 75
"""Exit status (EX_TEMPFAIL of sysexits.h): what a supervisor has to do is to start it again."""
_PUSH_PATIENCE_SECONDS = 2.0
"""For the last push over OTLP at the end."""
_FIRST_INTERVAL_SECONDS = 1.0
"""The second sample comes early, so that there is power to show soon after the start."""


class Parts:
    """What a pipeline is made of, as the settings have it."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], host: Host | None = None) -> None:
        """Finds it all and starts nothing. Raises `ConfigError` or `IntensityError` for settings that cannot be."""
        self._settings = settings
        self.host = host or host_of(settings)
        self.grid = _grid(settings, environ)
        self._order, self._privacy = order_of(settings), privacy_of(settings)
        self.directories = directories_of(settings, environ)
        self._sensors, self.findings = find_sensors(settings, self.host)

    def start(self) -> None:
        """Let the directories begin to ask."""
        for directory in self.directories:
            directory.start()

    def join(self, keeper: Keeper, namer: type[Namer] = Namer) -> Pipeline:
        """The pipeline, once: it reads what `keeper` has and starts the sensors' workers, which are its own to end."""
        return Pipeline(
            self._settings,
            host=self.host,
            grid=self.grid,
            keeper=keeper,
            sensors=self._sensors,
            findings=self.findings,
            lookout=None if self._settings.replay else Lookout(self.host),
            namer=namer(self._order, self.directories),
            privacy=self._privacy,
        )

    def close(self) -> None:
        """Let the directories stop."""
        for directory in self.directories:
            directory.close()


class Service:
    """One exporter. `start`, then `run` on the main thread; `stop` and `reload` from anywhere."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], host: Host | None = None) -> None:
        """Finds grid and sensors. Raises `ConfigError`, `IntensityError` or `ListenError` for what cannot be used."""
        self.settings = settings
        self._environ = dict(environ)
        self._parts = Parts(settings, self._environ, host)
        self.host, self.grid, self.findings = self._parts.host, self._parts.grid, self._parts.findings
        self._renderer = Renderer(settings.job_label)
        self._published: Published | None = None
        self._history = History()
        web = Web(lambda: self._published, self._renderer, _node(), self._history)
        self._front = Front(settings, self._environ, web.answer)
        self._keeper = open_keeper(settings.storage, self._environ, self.host.wall)
        self._pipeline: Pipeline | None = None
        self._handoff: Handoff | None = None
        self._stopping = False
        self._exit_status = 0
        self._waker, self._wakened = socket.socketpair()
        """A byte sent wakes `run`: safe in a signal handler, where a lock that the main thread holds would not be."""
        self._waker.setblocking(False)
        self._reload: Callable[[], Settings] | None = None
        self._push = OtlpPush.from_environment(self._environ, _node())

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot, None before the first sample."""
        return self._published.snapshot if self._published else None

    @property
    def address(self) -> Address:
        """Where it listens; the real port once started."""
        return self._front.address

    def start(self) -> None:
        """Bind the address, restore the totals, take the first sample. Raises `ListenError`."""
        self._front.start()
        self._parts.start()
        self._pipeline = self._parts.join(self._keeper)
        _warn(self.grid)
        for finding in self.findings:
            if finding.state in {"denied", "failed"}:
                _log.warning("sensor %s is %s: %s; %s", finding.sensor, finding.state, finding.reason, finding.remedy)
        self._handoff = Handoff(self.settings, self._environ, host=self.host, pipeline=self._pipeline, wake=self._wake)
        self._sample()
        self._handoff.start()
        _log.info("listening on %s, sampling every %g s", self.address, self.settings.interval)

    def run(self) -> int:
        """Sample until stopped; returns the exit status. A tick that fails is logged, and the next one tried.

        The status is 0, or `OUTDATED` if a driver was replaced under its library: a fresh process can read it again.
        """
        clock = self.host.clock
        due = clock() + min(_FIRST_INTERVAL_SECONDS, self.settings.interval)
        while not self._stopping:
            if self._sleep_until(due):
                continue
            self._sample()
            due = max(due + self.settings.interval, clock())
            self._stop_if_outdated()
        if self._handoff is not None:
            self._handoff.stop()  # what scripts have said until now is in the last sample
        self._sample()
        self.close()
        return self._exit_status

    def _sleep_until(self, due: float) -> bool:
        """Wait, and see to whoever wakes us meanwhile; whether anybody did."""
        clock, handoff = self.host.clock, self._handoff
        first = min(due, handoff.due) if handoff else due
        awake = bool(select.select([self._wakened], [], [], max(0.0, first - clock()))[0])
        if awake:
            self._wakened.recv(4096)
            self._reload_now()
        if handoff is not None and (awake or clock() < due):
            handoff.attend()
        return awake or clock() < due

    def stop(self) -> None:
        """Ask `run` to take a last sample and return. Safe in a signal handler."""
        self._stopping = True
        self._wake()

    def reload(self, load: Callable[[], Settings]) -> None:
        """Ask `run` to apply what `load` gives. Safe in a signal handler."""
        self._reload = load
        self._wake()

    def close(self) -> None:
        """Stop serving and give everything back."""
        if self._handoff is not None:
            self._handoff.stop()
        self._front.stop()
        self._waker.close()
        self._wakened.close()
        self._parts.close()
        if self._pipeline is not None:
            self._pipeline.close()
        self._keeper.close()
        if self._push is not None:
            self._push.close(_PUSH_PATIENCE_SECONDS)

    def _stop_if_outdated(self) -> None:
        outdated = self._pipeline.outdated if self._pipeline else None
        if outdated is not None and not self._stopping:
            _log.error("ending with status %d, to be started again: %s", OUTDATED, outdated)
            self._exit_status = OUTDATED
            self._stopping = True

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: awake already; closed: ended already
            self._waker.send(b"!")

    def _sample(self) -> None:
        if self._pipeline is None:
            raise RuntimeError("start() comes before run()")
        handoff = self._handoff
        try:
            if handoff is not None:
                handoff.collect()
            snapshot = self._pipeline.tick()
            if handoff is not None:
                handoff.report(self.grid)
            snapshot = dataclasses.replace(
                snapshot,
                http_connections=self._front.connections,
                http_refused=self._front.refused,
                web_config_well=self._front.is_well,
                handoff_peers=handoff.peers if handoff else None,
                handoff_refused=handoff.refused if handoff else {},
            )
            self._published = Published(snapshot, self._renderer.render(snapshot))
            self._history.note(snapshot)
            if self._push is not None:
                self._push.post(snapshot)
        except Exception:  # noqa: BLE001 - one bad tick must not end the exporter; the log has the traceback
            _log.exception("a sample failed; the last one stays published")

    def _reload_now(self) -> None:
        """Apply reloaded settings; bad ones are logged and change nothing."""
        load, self._reload = self._reload, None
        if load is None or self._pipeline is None:
            return
        self._front.reload()
        try:
            wanted = load()
            changed = {field: getattr(wanted, field) for field in RELOADABLE}
            settings = dataclasses.replace(self.settings, **changed)
            grid = _grid(settings, self._environ)
        except CarbonExporterError as error:
            _log.error("settings not reloaded, the old ones stay in force: %s", error)
            return
        for field, setting in settings_table().items():
            if field not in RELOADABLE and getattr(wanted, field) != getattr(self.settings, field):
                _log.warning("%s changed; it takes effect after a restart", setting.key)
        self.settings, self.grid = settings, grid
        self._pipeline.apply(settings, grid)
        logging.getLogger("carbon_exporter").setLevel(settings.log_level.upper())
        _warn(grid)
        _log.info("settings reloaded")


def host_of(settings: Settings) -> Host:
    """The machine as the settings describe it."""
    if not settings.redfish_url:
        return Host(settings.procfs, settings.sysfs, devfs=settings.devfs)
    from carbon_exporter.sensors.redfish import bmc_of  # noqa: PLC0415 - only who has a controller loads TLS for it

    return Host(settings.procfs, settings.sysfs, devfs=settings.devfs, bmc=bmc_of(settings))


def find_sensors(settings: Settings, host: Host) -> tuple[tuple[Sensor, ...], tuple[Finding, ...]]:
    """The sensors to use: this machine's, or a recording alone where one is set. Raises `ConfigError` for a bad one."""
    if settings.replay is None:
        return discover(host)
    replay = Replay(settings.replay, host.clock)
    finding = Finding(
        replay.name, "active", replay.devices, None, f"plays {settings.replay}: not this machine's readings", ""
    )
    return (replay,), (finding,)


def _grid(settings: Settings, environ: Mapping[str, str]) -> Grid:
    if settings.provider not in PROVIDERS:
        raise ConfigError("settings", "grid.provider", settings.provider, ", ".join(PROVIDERS))
    return locate_grid(settings.region, PROVIDERS[settings.provider](settings.scope), settings.pue, environ)


def _warn(grid: Grid) -> None:
    """Say what a reader should know before believing the grams."""
    for warning in grid.warnings:
        _log.warning("grid: %s", warning)


def _node() -> str:
    return os.uname().nodename
