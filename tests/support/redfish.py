"""The Redfish sensor on a server of support.bmc, and what a test asks of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import bmc
from support.bmc import PASSWORD, USER, BmcServer, chassis
from support.machine import Clock

from carbon_exporter.errors import SensorReadError
from carbon_exporter.sensors.base import Bmc, Host
from carbon_exporter.sensors.redfish import Redfish, probe

__all__ = ["ONE", "POWER", "SESSIONS", "names", "sensor_of", "status", "trouble", "watts_after"]

POWER = "/redfish/v1/Chassis/1/Power"
SESSIONS = "/redfish/v1/SessionService/Sessions"
ONE = (chassis("1"),)


def sensor_of(server: BmcServer, password_file: Path | None, clock: Clock | None = None, **more: Any) -> Redfish:
    username = USER if password_file else ""
    how = Bmc(server.url, username, password_file, **more)
    return probe(Host(clock=clock or Clock(), bmc=how), frozenset())


def trouble(sensor: Redfish) -> SensorReadError:
    with pytest.raises(SensorReadError) as caught:
        sensor.read()
    assert PASSWORD not in str(caught.value)
    return caught.value


def watts_after(sensor: Redfish, clock: Clock, seconds: float = 5.0) -> dict[str, float]:
    """Mean power by device of the next `seconds`."""
    sensor.read()
    clock.now += seconds
    sample = sensor.read()
    assert not sample.failures
    return {one.device.name: one.power for one in sample.readings if one.power is not None}


def names(sensor: Redfish) -> list[str]:
    return [device.name for device in sensor.devices]


def status(code: int, **headers: str) -> bmc.Answer:
    return lambda handler: handler.send(code, {"error": {}}, headers)
