"""Which chassis of a Redfish tree is this machine, and where it tells its power.

A controller lists many chassis: the machine, boards and modules in it, storage beside it, the enclosure or rack around
it. Only what is a machine as a whole becomes a whole-node meter, and none that is contained in another.
Schemas: Chassis, EnvironmentMetrics and Power of DMTF's DSP8010 (the meaning of their properties: DSP2046).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from carbon_exporter.errors import SensorReadError
from carbon_exporter.sensors.redfish_client import resource_path
from carbon_exporter.units import Watts

__all__ = ["Chassis", "Source", "candidates", "choose", "members", "next_page", "parse_chassis", "watts_of"]

AROUND = frozenset(
    {"Rack", "RackGroup", "Row", "Pod", "ImmersionTank", "HeatExchanger", "PowerStrip", "StorageEnclosure"}
)
"""Types that hold several machines, or none."""
PARTS = frozenset({"Card", "Component", "Drawer", "IPBasedDrive", "Module", "Zone"})
"""Types that stand within a machine; one is taken for the machine only where nothing else is listed."""
SLOTTED = frozenset({"Blade", "Cartridge", "Sled"})
"""Types that are machines in a shared enclosure: the enclosure's power is not theirs."""

PART_NAME = re.compile(
    r"sub-?system|cpu|processor|memory|dimm|gpu|accelerator|fan|cooling|storage|disk|drive|\bnic\b|pci|riser",
    re.IGNORECASE,
)

ALL_ONES = 65535
"""What a 16-bit register holds that nobody has written."""
MOST_WATTS = 100_000.0
"""More than any single machine draws; only nonsense exceeds it."""
SAYABLE = 1e9
_VALUE_REMEDY = "if it lasts, restart the controller or update its firmware"
MOST_MEMBERS = 128
MOST_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Source:
    """Where a chassis tells its power."""

    path: str
    schema: Literal["EnvironmentMetrics", "Power"]

    @property
    def method(self) -> str:
        """How the number comes about, for people."""
        where = "PowerWatts.Reading" if self.schema == "EnvironmentMetrics" else "PowerControl[].PowerConsumedWatts"
        return f"power {where} of {self.path}, integrated over time"


@dataclass(frozen=True, slots=True)
class Chassis:
    """One chassis as the controller describes it."""

    path: str
    ident: str
    """Its `Id`, unique on the controller."""
    kind: str = ""
    """`RackMount`, `Blade`, `Module` …; empty if it does not say."""
    vendor: str = ""
    model: str = ""
    absent: bool = False
    contains: frozenset[str] = frozenset()
    """Paths of other chassis."""
    contained_by: str = ""
    sources: tuple[Source, ...] = field(default=())
    """Where it may tell its power, best first."""


def members(collection: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths of a collection's members, each once."""
    listed = collection.get("Members")
    paths = (resource_path(member) for member in (listed if isinstance(listed, list) else ()))
    return tuple(dict.fromkeys(path for path in paths if path))[:MOST_MEMBERS]


def next_page(collection: Mapping[str, Any]) -> str:
    """The path of the collection's next page, empty if there is none."""
    return resource_path({"@odata.id": collection.get("Members@odata.nextLink")})


def parse_chassis(path: str, resource: Mapping[str, Any]) -> Chassis:
    """A chassis from its resource; what is missing or of the wrong type is left empty."""
    links = resource.get("Links")
    links = links if isinstance(links, dict) else {}
    below = links.get("Contains")
    status = resource.get("Status")
    found: tuple[tuple[Literal["EnvironmentMetrics", "Power"], str], ...] = (
        ("EnvironmentMetrics", resource_path(resource.get("EnvironmentMetrics"))),
        ("Power", resource_path(resource.get("Power"))),
    )
    return Chassis(
        path=_normal(path),
        ident=_text(resource.get("Id")) or _normal(path).rpartition("/")[2],
        kind=_text(resource.get("ChassisType")),
        vendor=_text(resource.get("Manufacturer")),
        model=_text(resource.get("Model")),
        absent=isinstance(status, dict) and status.get("State") == "Absent",
        contains=frozenset(_normal(resource_path(one)) for one in (below if isinstance(below, list) else ())) - {""},
        contained_by=_normal(resource_path(links.get("ContainedBy"))),
        sources=tuple(Source(place, schema) for schema, place in found if place),
    )


def candidates(listed: Sequence[Chassis]) -> tuple[Chassis, ...]:
    """Those that may be a machine and may tell its power."""
    present = [one for one in listed if not one.absent and one.kind not in AROUND]
    whole = [one for one in present if one.kind not in PARTS]
    return tuple(one for one in whole or present if one.sources)


def choose(listed: Sequence[Chassis], metered: frozenset[str]) -> tuple[Chassis, ...]:
    """Of those that do tell their power (paths in `metered`) the machines, none within another.

    Raises `SensorReadError` if it cannot be told which is this machine.
    """
    telling = [one for one in candidates(listed) if one.path in metered]
    above = _ancestors(listed)
    slotted = [one for one in listed if one.kind in SLOTTED and not one.absent]
    shared = {path for one in slotted for path in above[one.path]}
    machines = [one for one in telling if one.path not in shared or one.kind in SLOTTED]
    if len(slotted) > 1 and (sum(bool(one.sources) for one in slotted) > 1 or not machines):
        raise SensorReadError(
            f"the controller answers for {len(slotted)} machines in one enclosure, and does not say which is this one",
            remedy="set redfish.url to the controller of this machine alone",
        )
    kept = machines or telling
    paths = {one.path for one in kept}
    return tuple(one for one in kept if not any(one.path not in above[upper] for upper in above[one.path] & paths))


def watts_of(source: Source, resource: Mapping[str, Any]) -> Watts:
    """The power in a resource, > 0. Raises `SensorReadError` for none and for what cannot be."""
    value = _environment_power(resource) if source.schema == "EnvironmentMetrics" else _consumed(resource)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        said = "no power" if value is None else f"a {type(value).__name__} for its power"
        raise SensorReadError(f"the controller gives {said} in {source.path}", remedy=_VALUE_REMEDY)
    if not 0 < value <= MOST_WATTS or value == ALL_ONES:
        said = f"a power of {value:.6g} W" if abs(value) < SAYABLE else "an impossible power"
        raise SensorReadError(f"the controller gives {said} in {source.path}", remedy=_VALUE_REMEDY)
    return Watts(float(value))


def _environment_power(resource: Mapping[str, Any]) -> object:
    power = resource.get("PowerWatts")
    return power.get("Reading") if isinstance(power, dict) else None


def _consumed(resource: Mapping[str, Any]) -> object:
    """Of the power controls the first that is the whole chassis: others are processors, memory, boards in it."""
    controls = resource.get("PowerControl")
    for control in controls if isinstance(controls, list) else ():
        if isinstance(control, dict) and "PowerConsumedWatts" in control and not _is_part(control):
            return control["PowerConsumedWatts"]
    return None


def _is_part(control: Mapping[str, Any]) -> bool:
    return any(PART_NAME.search(_text(control.get(key))) for key in ("Name", "PhysicalContext"))


def _ancestors(listed: Sequence[Chassis]) -> dict[str, frozenset[str]]:
    """The paths of all that contain each, however the controller says it; a circle contains nothing."""
    above: dict[str, set[str]] = {one.path: {one.contained_by} - {""} for one in listed}
    for one in listed:
        for path in one.contains:
            above.setdefault(path, set()).add(one.path)
    return {one.path: frozenset(_climb(one.path, above)) for one in listed}


def _climb(path: str, above: Mapping[str, set[str]]) -> Iterator[str]:
    level, seen = {path}, {path}
    for _ in range(MOST_DEPTH):
        level = {upper for one in level for upper in above.get(one, ())} - seen
        seen |= level
        yield from level


def _normal(path: str) -> str:
    """Controllers are not of one mind about a slash at the end."""
    return path.rstrip("/")


def _text(value: object) -> str:
    """A short printable text, else nothing."""
    return value.strip()[:64] if isinstance(value, str) and value.isprintable() else ""
