"""The snapshot as JSON: what `/api/v1/status` answers and the page draws.

Its keys are stable, and the units stand in their names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from carbon_exporter import __version__
from carbon_exporter.carbon.account import JobKey
from carbon_exporter.jobs.base import Job
from carbon_exporter.publish.catalogue import utf8
from carbon_exporter.sensors.base import Vitals
from carbon_exporter.snapshot import DeviceState, SensorHealth, Snapshot
from carbon_exporter.units import Joules, kilowatt_hours

__all__ = ["encode_status", "status"]


def encode_status(snapshot: Snapshot, node: str) -> bytes:
    """The status as UTF-8 JSON; numbers that are not finite become null."""
    plain = status(snapshot, node)
    try:
        return msgspec.json.encode(plain)
    except UnicodeEncodeError:
        return msgspec.json.encode(_as_utf8(plain))


def status(snapshot: Snapshot, node: str) -> dict[str, Any]:
    """The status as plain values: times in Unix seconds, energy in kWh, power in W, emissions in g."""
    powers = [state.power for state in snapshot.devices if state.power is not None]
    store = snapshot.store
    return {
        "version": __version__,
        "node": node,
        "time": snapshot.at,
        "started": snapshot.started,
        "interval_seconds": snapshot.interval,
        "samples": snapshot.samples,
        "ready": snapshot.samples > 0,
        "power_watts": math.fsum(powers) if powers else None,
        "today": {
            "date": snapshot.today.date,
            "energy_kwh": kilowatt_hours(snapshot.today.joules),
            "co2e_grams": snapshot.today.grams,
        },
        "devices": [_device(state, snapshot) for state in snapshot.devices],
        "nodes": [
            {"source": n.source, "method": n.method, "power_watts": n.power, "energy_kwh": kilowatt_hours(n.joules)}
            for n in snapshot.nodes
        ],
        "jobs": _jobs(snapshot),
        "spans": _spans(snapshot),
        "scripts": {"connected": snapshot.handoff_peers, "refused": dict(snapshot.handoff_refused)},
        "grid": _grid(snapshot),
        "pue": snapshot.grid.pue,
        "sensors": [_sensor(health, snapshot.at) for health in snapshot.sensors],
        "resolvers": [
            {"resolver": h.resolver, "success": h.success, "reason": h.reason, "remedy": h.remedy}
            for h in snapshot.resolvers
        ],
        "store": {
            "path": store.path,
            "state": store.state,
            "last_write": store.last_write,
            "reason": store.reason,
            "remedy": store.remedy,
        },
    }


def _as_utf8(plain: Any) -> Any:
    """The same with every text as it can be encoded; Linux has paths and node names that are not UTF-8."""
    if isinstance(plain, dict):
        return {key: _as_utf8(value) for key, value in plain.items()}
    if isinstance(plain, (list, tuple)):
        return [_as_utf8(value) for value in plain]
    return utf8(plain) if isinstance(plain, str) else plain


def _device(state: DeviceState, snapshot: Snapshot) -> dict[str, Any]:
    device, vitals = state.device, state.vitals or Vitals(state.device.name)
    joules = math.fsum(total for key, total in snapshot.device_totals.items() if key.device == device.name)
    return {
        "device": device.name,
        "kind": device.kind,
        "vendor": device.vendor,
        "model": device.model,
        "sensor": device.sensor,
        "quality": state.quality,
        "method": device.method,
        "power_watts": state.power,
        "energy_kwh": kilowatt_hours(Joules(joules)),
        "gap_seconds": state.gap_seconds,
        "bound": device.bound,
        "utilization_ratio": vitals.utilization,
        "memory_used_bytes": vitals.memory_used,
        "temperature_celsius": vitals.temperature,
        "power_limit_watts": vitals.power_limit,
        "meter_divergence_ratio": vitals.divergence,
    }


def _jobs(snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row a job over all devices and regions, the most powerful first."""
    keys: dict[Job, list[JobKey]] = {}
    for key in snapshot.job_totals:
        keys.setdefault(key.job, []).append(key)
    rows = [_job(job, of_job, snapshot) for job, of_job in keys.items()]
    return sorted(rows, key=lambda row: (-(row["power_watts"] or 0.0), -row["energy_kwh"], row["job_name"]))


def _job(job: Job, keys: Iterable[JobKey], snapshot: Snapshot) -> dict[str, Any]:
    keys = tuple(keys)
    powers = [snapshot.job_power[key] for key in keys if key in snapshot.job_power]
    return {
        "job_name": job.name,
        "job_namespace": job.namespace,
        "power_watts": math.fsum(powers) if powers else None,
        "energy_kwh": kilowatt_hours(Joules(math.fsum(snapshot.job_totals[key].joules for key in keys))),
        "co2e_grams": math.fsum(snapshot.job_totals[key].grams for key in keys),
        "live": bool(powers),
        "rule": snapshot.running.get(job, ""),
    }


def _spans(snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row a job, span and rank over all regions, the most energy first."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for key, total in snapshot.spans.items():
        names = (key.job.name, key.job.namespace, key.span, key.rank)
        row = rows.setdefault(names, _empty_span(names))
        row["energy_kwh"] += kilowatt_hours(Joules(math.fsum(total.joules.values())))
        row["co2e_grams"] += total.grams
        row["duration_seconds"] += total.seconds
        row["count"] += total.count
        row["values"].update(total.values)
    return sorted(rows.values(), key=lambda row: (-row["energy_kwh"], row["job_name"], row["span"], row["rank"]))


def _empty_span(names: tuple[str, ...]) -> dict[str, Any]:
    labels = dict(zip(("job_name", "job_namespace", "span", "rank"), names, strict=True))
    return {**labels, "energy_kwh": 0.0, "co2e_grams": 0.0, "duration_seconds": 0.0, "count": 0, "values": {}}


def _grid(snapshot: Snapshot) -> dict[str, Any]:
    intensity, location = snapshot.grid.intensity, snapshot.grid.location
    return {
        "region": location.zone,
        "intensity_grams_per_kwh": intensity.grams_per_kwh,
        "provider": intensity.provider,
        "scope": intensity.scope,
        "basis": intensity.basis,
        "quality": intensity.quality,
        "source": intensity.source,
        "year": intensity.year,
        "located_by": location.located_by,
        "note": " ".join(snapshot.grid.warnings),
    }


def _sensor(health: SensorHealth, now: float) -> dict[str, Any]:
    return {
        "sensor": health.sensor,
        "state": health.state,
        "devices": health.devices,
        "quality": health.quality,
        "reason": health.reason,
        "remedy": health.remedy,
        "errors": sum(health.errors.values()),
        "last_sample_age_seconds": None if health.last_sample is None else max(0.0, now - health.last_sample),
    }
