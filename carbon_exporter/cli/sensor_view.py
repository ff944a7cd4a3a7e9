"""What `carbon-exporter sensors` shows: facts of sources and devices as text for people and as plain values."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from carbon_exporter.cli.table import grid, table
from carbon_exporter.sensors.base import Device, Vitals

__all__ = ["Seen", "Source", "as_json", "as_text", "terminal_width"]

_STATES = {
    "active": "in use",
    "covered": "not needed",
    "missing": "not here",
    "denied": "not allowed",
    "failed": "failed",
}
_HEADER = ("SENSOR", "DEVICE", "POWER", "±", "QUALITY", "LOAD", "MEMORY", "TEMP", "LIMIT")
_NUMBERS = frozenset({"POWER", "±", "LOAD", "MEMORY", "TEMP", "LIMIT"})
_LEFT_OUT_FIRST = ("TEMP", "LIMIT", "MEMORY", "LOAD")
"""Columns that a narrow terminal does without, in this order."""
_SHORTEST_RUN = 3
"""Devices in a row that are named by the first and the last."""
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one device lately."""

    quality: str | None = None
    watts: float | None = None
    uncertainty: float = 0.0
    """W by which sampling alone may have missed the mean, in 95 of 100 cases; 0 where it cannot."""
    vitals: Vitals | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One sensor that was looked for."""

    sensor: str
    state: str
    devices: tuple[Device, ...] = ()
    notes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why it gives nothing, or what of it gives nothing."""
    remedies: tuple[str, ...] = ()


def as_text(sources: Sequence[Source], seen: Mapping[str, Seen], width: int) -> str:
    """A row for each device, and below it what each source is, how far off it may be, and what would make it better."""
    rows = [(one.sensor, _STATES[one.state], "\n".join(_details(one, seen))) for one in sources]
    described = table(("SENSOR", "STATE", "WHAT, HOW, AND WHAT WOULD BE BETTER"), rows, width)
    devices = [device for source in sources for device in source.devices]
    return f"{_device_grid(devices, seen, width)}\n\n{described}" if devices else described


def as_json(sources: Iterable[Source], seen: Mapping[str, Seen]) -> list[dict[str, Any]]:
    """The same as plain values: a list of sources, each with its devices."""
    return [
        {
            "sensor": source.sensor,
            "state": source.state,
            "devices": [_device_values(device, seen.get(device.name, Seen())) for device in source.devices],
            "notes": list(source.notes),
            "reason": "; ".join(source.reasons),
            "remedy": "; ".join(source.remedies),
        }
        for source in sources
    ]


def terminal_width() -> int:
    """Columns of the terminal, as $COLUMNS or the terminal itself has it; 120 where there is none."""
    return shutil.get_terminal_size((120, 24)).columns


def _device_values(device: Device, seen: Seen) -> dict[str, Any]:
    vitals = seen.vitals or Vitals(device.name)
    return {
        "device": device.name,
        "kind": device.kind,
        "vendor": device.vendor,
        "model": device.model,
        "method": device.method,
        "bound": device.bound,
        "update_period_seconds": device.period,
        "quality": seen.quality,
        "power_watts": seen.watts,
        "sampling_uncertainty_watts": seen.uncertainty,
        "power_limit_watts": vitals.power_limit,
        "utilization_ratio": vitals.utilization,
        "memory_used_bytes": vitals.memory_used,
        "temperature_celsius": vitals.temperature,
        "divergence_ratio": vitals.divergence,
    }


def _device_grid(devices: Sequence[Device], seen: Mapping[str, Seen], width: int) -> str:
    """The numbers. Whole-node meters come last, below the sum of the devices, in which they have no part."""
    parts = [device for device in devices if device.kind != "node"]
    rows = [_row(device, seen.get(device.name, Seen())) for device in parts]
    watts = [seen[device.name].watts for device in parts if device.name in seen]
    known = [one for one in watts if one is not None]
    if len(parts) > 1 and len(known) == len(parts):
        total = dict.fromkeys(_HEADER, "") | {"SENSOR": "all", "POWER": _watts(sum(known))}
        rows.append(total)
    rows += [_row(device, seen.get(device.name, Seen())) for device in devices if device.kind == "node"]
    shown = [name for name in _HEADER if name in {"SENSOR", "DEVICE", "POWER"} or any(row[name] for row in rows)]
    dropped = []
    text = _grid_of(shown, rows)
    for name in _LEFT_OUT_FIRST:
        if max(map(len, text.splitlines())) <= width:
            break
        if name in shown:
            shown.remove(name)
            dropped.append(name)
            text = _grid_of(shown, rows)
    if dropped:
        text += f"\n(no room for {', '.join(dropped)}: widen the terminal, or use --json)"
    return text


def _grid_of(names: Sequence[str], rows: Iterable[Mapping[str, str]]) -> str:
    return grid(names, [[row[name] for name in names] for row in rows], _NUMBERS)


def _row(device: Device, seen: Seen) -> dict[str, str]:
    """The cells of one device by their heading; empty where nothing is known."""
    vitals = seen.vitals or Vitals(device.name)
    load, memory, temperature, limit = (
        vitals.utilization,
        vitals.memory_used,
        vitals.temperature,
        vitals.power_limit,
    )
    return {
        "SENSOR": device.sensor,
        "DEVICE": device.name,
        "POWER": "-" if seen.watts is None else _watts(seen.watts),
        "±": _watts(seen.uncertainty) if seen.uncertainty and seen.watts is not None else "",
        "QUALITY": seen.quality or "",
        "LOAD": "" if load is None else f"{100 * load:.0f} %",
        "MEMORY": "" if memory is None else f"{memory / _GIB:.1f} GiB",
        "TEMP": "" if temperature is None else f"{temperature:.0f} °C",
        "LIMIT": "" if limit is None else f"{limit:.0f} W",
    }


def _details(source: Source, seen: Mapping[str, Seen]) -> Iterator[str]:
    """What a source is, in lines; devices that have something in common share a line."""
    devices = source.devices
    for model, names in _shared(devices, lambda device: device.model or device.vendor):
        yield f"{_listed(names)}: {model}" if model else _listed(names)
    for label, value in (
        ("how", lambda device: device.method),
        ("bound", lambda device: device.bound or "not known"),
        ("updates", lambda device: _every(device.period)),
        ("check", lambda device: _divergence(seen.get(device.name, Seen()))),
    ):
        for text, names in _shared(devices, value):
            if text:
                of = "" if len(names) == len(devices) else f" ({_listed(names)})"
                yield f"{label}{of}: {text}"
    yield from (f"note: {note}" for note in source.notes)
    trouble = "trouble: " if devices else ""
    yield from (f"{trouble}{reason}" for reason in source.reasons)
    yield from (f"→ {remedy}" for remedy in source.remedies)


def _shared(devices: Iterable[Device], value: Callable[[Device], str]) -> list[tuple[str, list[str]]]:
    """The values, each with the names of the devices that have it."""
    names: dict[str, list[str]] = {}
    for device in devices:
        names.setdefault(value(device), []).append(device.name)
    return list(names.items())


def _listed(names: Sequence[str]) -> str:
    """`cpu0, gpu0 to gpu7`."""
    runs = []
    for _, group in itertools.groupby(enumerate(map(_numbered, names)), lambda one: (one[1][0], one[1][1] - one[0])):
        run = [f"{prefix}{number}" if number >= 0 else prefix for _, (prefix, number) in group]
        runs += [f"{run[0]} to {run[-1]}"] if len(run) >= _SHORTEST_RUN else run
    return ", ".join(runs)


def _numbered(name: str) -> tuple[str, int]:
    """A name's text and the number at its end; -1 for none that is spelt the usual way."""
    found = re.fullmatch(r"(.*?)(0|[1-9]\d{0,8})", name, re.ASCII | re.DOTALL)
    return (found[1], int(found[2])) if found else (name, -1)


def _every(period: float | None) -> str:
    if period is None:
        return ""
    return f"every {1000 * period:.3g} ms" if period < 1 else f"every {period:.4g} s"


def _divergence(seen: Seen) -> str:
    off = seen.vitals.divergence if seen.vitals else None
    if off is None:
        return ""
    more = "more" if off >= 0 else "less"
    return f"the counter tells {100 * abs(off):.1f} % {more} than its power, integrated over ten minutes"


def _watts(watts: float) -> str:
    return f"{watts:,.1f} W"
