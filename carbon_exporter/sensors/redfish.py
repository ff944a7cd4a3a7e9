"""The whole machine's power, as its baseboard management controller tells it by Redfish.

Watts only, integrated here. `EnergykWh` is left alone though it is a counter: its steps are often minutes of power, and
any client may reset it (`EnvironmentMetrics.ResetMetrics`).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from carbon_exporter.config import Settings
from carbon_exporter.config.accepted import controller_url
from carbon_exporter.errors import SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Bmc, Device, Host, Kind, Quality, Reading, Sample, Sensor
from carbon_exporter.sensors.integrator import PowerIntegrator
from carbon_exporter.sensors.redfish_client import ROOT, RedfishClient, resource_path
from carbon_exporter.sensors.redfish_tree import (
    Chassis,
    Source,
    candidates,
    choose,
    members,
    next_page,
    parse_chassis,
    watts_of,
)

__all__ = ["Redfish", "bmc_of", "probe"]

SAMPLING_SECONDS = 5.0
"""Controllers renew their power every 1 to 10 s, and each question costs them a good part of a slow processor."""
FRESH_SECONDS = 4.0
"""A reading that follows a sample this soon asks nothing: together about one request in 5 s, whatever the interval."""
LONGEST_STEP_SECONDS = 30.0
SURVEY_PERIOD_SECONDS = 600.0
SURVEY_PAUSE_SECONDS = 30.0
"""Between two looks at the tree while something is amiss."""
SURVEY_STEP_SECONDS = 2.0
"""How long one call may go on looking at the tree, which may have fifty resources: the rest follows at the next."""
MOST_PAGES = 8
MOST_FAILURES = 3
"""Failed resources in a row after which a survey gives up."""

LICENCE_REMEDY = (
    "some controllers measure power only with newer firmware or a licence; its web page shows whether it does"
)

Found = tuple[tuple[Chassis, Source], ...]
Survey = Generator[None, None, Found]


@dataclass(slots=True)
class _Meter:
    """A chassis that is read."""

    device: Device
    chassis: str
    source: Source
    integrator: PowerIntegrator = field(default_factory=lambda: PowerIntegrator(LONGEST_STEP_SECONDS))


def bmc_of(settings: Settings) -> Bmc | None:
    """The controller that the settings name, None if they name none."""
    if not settings.redfish_url:
        return None
    return Bmc(
        settings.redfish_url,
        settings.redfish_username,
        settings.redfish_password_file,
        settings.redfish_ca_file,
        verify=not settings.redfish_insecure,
        authentication=settings.redfish_authentication,
    )


def probe(host: Host, _covered: frozenset[Kind]) -> Redfish:
    """The sensor, if a controller is set. Nothing is sent: a dead controller is the first reading's trouble.

    Raises `SensorUnavailable` if none is set.
    """
    if host.bmc is None:
        raise SensorUnavailable(
            "no management controller is set", remedy="set redfish.url, redfish.username and redfish.password-file"
        )
    try:
        known = bool(controller_url(host.bmc.url))
    except ValueError:
        known = False
    if not known:
        raise SensorUnavailable("the controller's URL is not https://HOST[:PORT]", remedy="set redfish.url")
    return Redfish(host, host.bmc)


class Redfish(Sensor):
    """The sensor: one device for each chassis that is a machine, known after the first survey of the tree."""

    name = "redfish"
    quality = Quality.INTEGRATED
    sampling_period = SAMPLING_SECONDS

    def __init__(self, host: Host, bmc: Bmc) -> None:
        """Nothing is sent yet."""
        self._clock = host.clock
        self._bmc = bmc
        self._client = RedfishClient(bmc, host.clock)
        self._meters: tuple[_Meter, ...] = ()
        self._names: dict[str, str] = {}
        self._failures: dict[str, SensorReadError] = {}
        self._asked_at: float | None = None
        self._survey: Survey | None = None
        self._surveyed_at: float | None = None

    @property
    def devices(self) -> tuple[Device, ...]:
        """The machines found so far."""
        return tuple(meter.device for meter in self._meters)

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the way to the controller is not protected."""
        if self._bmc.url.startswith("http:"):
            return ("the controller is spoken to without TLS",)
        if not self._bmc.verify:
            return ("the controller's certificate is not checked: redfish.ca-file instead of insecure-skip-verify",)
        return ()

    def read(self) -> Sample:
        """Mean power since the last reading. Raises `SensorReadError` if nothing is known of that time."""
        if self._asked_at is None or self._clock() - self._asked_at >= FRESH_SECONDS:
            self._look()
        readings = tuple(reading for meter in self._meters for reading in self._take(meter))
        failures = tuple(self._failures.values())
        if failures and not readings:
            raise failures[0]
        return Sample(readings, failures)

    def sample(self) -> None:
        """Ask the controller once for each machine's power."""
        self._look()

    def close(self) -> None:
        """Give the session back to the controller."""
        self._client.close()

    def _look(self) -> None:
        self._asked_at = self._clock()
        if self._survey is not None or self._is_survey_due():
            self._go_on_surveying()
        for meter in self._meters:
            name = meter.device.name
            try:
                watts = watts_of(meter.source, self._client.get(meter.source.path))
            except SensorReadError as error:
                self._failures[name] = SensorReadError(error.reason, device=name, remedy=error.remedy)
            else:
                self._failures.pop(name, None)
                meter.integrator.add(self._clock(), watts)

    def _take(self, meter: _Meter) -> tuple[Reading, ...]:
        """What its samples amount to; no bare mark from one that fails, for that says it is well."""
        taken = meter.integrator.take(meter.device)
        failed = meter.device.name in self._failures
        return tuple(reading for reading in taken if reading.power is not None or not failed)

    def _is_survey_due(self) -> bool:
        if self._surveyed_at is None:
            return True
        amiss = self._failures or not self._meters
        return self._clock() - self._surveyed_at >= (SURVEY_PAUSE_SECONDS if amiss else SURVEY_PERIOD_SECONDS)

    def _go_on_surveying(self) -> None:
        """Survey for a while; a survey that fails costs only news where meters are known already."""
        self._survey = self._survey or _survey(self._client, {meter.chassis: meter.source for meter in self._meters})
        until = time.monotonic() + SURVEY_STEP_SECONDS
        try:
            while time.monotonic() < until:
                next(self._survey)
        except StopIteration as end:
            self._failures.pop("", None)
            self._adopt(end.value)
        except SensorReadError as error:
            self._survey = None
            if self._meters or isinstance(error, _NoMachine):
                self._surveyed_at = self._clock()
            if not self._meters:
                self._failures[""] = error

    def _adopt(self, found: Found) -> None:
        """Read these from now on; a chassis keeps its name and its samples."""
        self._survey, self._surveyed_at = None, self._clock()
        known = {meter.chassis: meter for meter in self._meters}
        meters = []
        for chassis, source in found:
            device = self._device(chassis, source, alone=len(found) == 1)
            meter = known.get(chassis.path) or _Meter(device, chassis.path, source)
            meter.device, meter.source = device, source
            meters.append(meter)
        self._meters = tuple(meters)
        names = {meter.device.name for meter in meters}
        self._failures = {name: failure for name, failure in self._failures.items() if name in names}

    def _device(self, chassis: Chassis, source: Source, *, alone: bool) -> Device:
        """A single machine is called `redfish`, one of several by its chassis; neither changes while this runs."""
        if chassis.path not in self._names:
            taken = self._names.values()
            plain = "redfish" if alone and "redfish" not in taken else f"redfish/{chassis.ident}"
            self._names[chassis.path] = plain if plain not in taken else f"redfish{chassis.path}"
        return Device(
            name=self._names[chassis.path],
            kind="node",
            sensor="redfish",
            vendor=chassis.vendor,
            model=chassis.model,
            method=source.method,
            bound="the controller does not tell its tolerance; what changes faster than it is asked, every 5 s, may be "
            "missed",
        )


class _NoMachine(SensorReadError):
    """The whole tree was seen, and no machine in it tells its power."""


@dataclass(slots=True)
class _Luck:
    """How a survey fares: the last failure, and how many came in a row."""

    failure: SensorReadError | None = None
    streak: int = 0

    def get(self, client: RedfishClient, path: str) -> dict[str, Any] | None:
        """The resource, None if it fails; raises `SensorReadError` after three in a row, for then nothing answers."""
        try:
            resource = client.get(path)
        except SensorReadError as error:
            self.failure, self.streak = error, self.streak + 1
            if self.streak >= MOST_FAILURES:
                raise
            return None
        self.streak = 0
        return resource


def _survey(client: RedfishClient, known: Mapping[str, Source]) -> Survey:
    """Find the machines and where each tells its power, with a pause to breathe after each request.

    `known` sources, by chassis, count even while they fail. Raises `SensorReadError` if there is none.
    """
    luck = _Luck()
    paths: list[str] = []
    page = resource_path(client.get(ROOT).get("Chassis"))
    for _ in range(MOST_PAGES):
        yield
        if page:
            collection = client.get(page)
            paths += members(collection)
            page = next_page(collection)
    listed = []
    for path in dict.fromkeys(paths):
        resource = luck.get(client, path)
        yield
        if resource is not None:
            listed.append(parse_chassis(path, resource))
    telling: dict[str, Source] = {}
    for chassis in candidates(listed):
        source = (yield from _source(client, chassis, luck)) or known.get(chassis.path)
        if source is not None:
            telling[chassis.path] = source
    try:
        chosen = choose(listed, frozenset(telling))
    except SensorReadError as error:
        raise _NoMachine(error.reason, remedy=error.remedy) from None
    if not chosen:
        failure = luck.failure or SensorReadError("the controller tells no chassis' power", remedy=LICENCE_REMEDY)
        raise _NoMachine(failure.reason, remedy=failure.remedy)
    return tuple((chassis, telling[chassis.path]) for chassis in chosen)


def _source(client: RedfishClient, chassis: Chassis, luck: _Luck) -> Generator[None, None, Source | None]:
    """The best of its sources that gives a power now."""
    for source in chassis.sources:
        resource = luck.get(client, source.path)
        yield
        if resource is not None:
            try:
                watts_of(source, resource)
            except SensorReadError as error:
                luck.failure = error
            else:
                return source
    return None
