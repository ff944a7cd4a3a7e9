"""`carbon-exporter sensors`: what can be measured here, how good it is, what is missing, and what would mend that."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

from carbon_exporter.cli.settings import add_flags, load_settings
from carbon_exporter.cli.table import table
from carbon_exporter.energy.ledger import Ledger
from carbon_exporter.sensors.base import Sensor
from carbon_exporter.sensors.registry import Finding
from carbon_exporter.sensors.worker import SensorWorker, gather

__all__ = ["findings_table", "register", "run"]

_STATES = {
    "active": "in use",
    "covered": "not needed",
    "missing": "not here",
    "denied": "not allowed",
    "failed": "failed",
}
_WATCH_SECONDS = 1.0
"""Long enough for a model to see some load."""
_PATIENCE_SECONDS = 2.0

Seen = tuple[str | None, float | None]
"""A device's quality and watts, as far as they are known."""


def register(commands: Any) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "sensors",
        help="list what can be measured here, how well, and what would make it better",
        description="Look for every source of readings, read it for a second, and say what it gives, how good that is, "
        "and for what is missing the remedy.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="machine-readable: a list of findings")
    add_flags(parser, only={"procfs", "sysfs", "replay"})
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Print the findings, with the watts of one second."""
    from carbon_exporter.sensors.base import Host  # noqa: PLC0415 - --help needs none of the rooms
    from carbon_exporter.service import find_sensors  # noqa: PLC0415

    settings = load_settings(parsed)
    host = Host(settings.procfs, settings.sysfs)
    sensors, findings = find_sensors(settings, host)
    seen = _watch(sensors)
    if parsed.json:
        print(json.dumps([_as_json(finding, seen) for finding in findings], indent=2, ensure_ascii=False))
    else:
        print(findings_table(findings, seen))
    return 0


def findings_table(findings: Sequence[Finding], seen: Mapping[str, Seen]) -> str:
    """The findings for people: a row for each device, and one for each sensor that gives none."""
    rows: list[tuple[str, ...]] = []
    for finding in findings:
        note = "\n".join(part for part in (finding.reason, f"→ {finding.remedy}" if finding.remedy else "") if part)
        for device in finding.devices:
            quality, watts = seen.get(device.name, (None, None))
            power = "-" if watts is None else f"{watts:.1f} W"
            how = "\n".join(part for part in (device.method or device.model, note) if part)
            rows.append((finding.sensor, _STATES[finding.state], device.name, quality or "-", power, how))
        if not finding.devices:
            rows.append((finding.sensor, _STATES[finding.state], "-", "-", "-", note))
    header = ("SENSOR", "STATE", "DEVICE", "QUALITY", "POWER", "HOW, OR WHY NOT")
    return table(header, rows, shutil.get_terminal_size((120, 24)).columns)


def _watch(sensors: Sequence[Sensor]) -> dict[str, Seen]:
    """Quality and mean watts of each device over one second; no watts for those that gave no energy."""
    workers = [SensorWorker(sensor) for sensor in sensors]
    ledger = Ledger()
    ledger.post(gather(workers, _PATIENCE_SECONDS))
    time.sleep(_WATCH_SECONDS)
    readings = gather(workers, _PATIENCE_SECONDS)
    slices = {one.device.name: one for one in ledger.post(readings)}
    for worker in workers:
        worker.close()
    watts = {name: one.joules / (one.end - one.start) for name, one in slices.items()}
    return {reading.device.name: (reading.quality.value, watts.get(reading.device.name)) for reading in readings}


def _as_json(finding: Finding, seen: Mapping[str, Seen]) -> dict[str, Any]:
    """One finding as plain values."""
    devices = [
        {
            "device": device.name,
            "kind": device.kind,
            "vendor": device.vendor,
            "model": device.model,
            "method": device.method,
            "quality": seen.get(device.name, (None, None))[0],
            "power_watts": seen.get(device.name, (None, None))[1],
        }
        for device in finding.devices
    ]
    return {
        "sensor": finding.sensor,
        "state": finding.state,
        "devices": devices,
        "reason": finding.reason,
        "remedy": finding.remedy,
    }
