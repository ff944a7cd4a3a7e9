"""Where this node is: from a setting, from the environment, guessed from the time zone, or not known.

It never asks the network. A guess says that it is one, and knowing nothing is said loudly: the node is then priced at
the world's average.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from carbon_exporter.carbon.base import Location
from carbon_exporter.carbon.static import WORLD, checked_zone, is_known
from carbon_exporter.carbon.tables import time_zones

__all__ = ["locate"]

_VARIABLE = "CARBON_REGION"
_HOW_TO_SET = f"set it with --grid.region=FR, in YAML grid: {{region: FR}}, or with {_VARIABLE}=FR"


def locate(setting: str, environ: Mapping[str, str], etc: Path = Path("/etc")) -> Location:
    """The grid zone of this node, and on whose word.

    `setting` is `grid.region` (empty if not set), `environ` the process's environment, `etc` where the host's
    configuration is mounted.

    Raises:
        RegionUnknown: the setting or CARBON_REGION names a zone that no table knows.
    """
    if setting.strip():
        return Location(checked_zone(setting, "grid.region"), "setting")
    variable = environ.get(_VARIABLE, "")
    if variable.strip():
        return Location(checked_zone(variable, _VARIABLE), "environment")
    return _guess(environ, etc)


def _guess(environ: Mapping[str, str], etc: Path) -> Location:
    seen = list(_local_time_zones(environ, etc))
    for where, time_zone in seen:
        country = time_zones().get(time_zone, "")
        if is_known(country):
            note = f"a guess from the time zone {time_zone} ({where}); if it is wrong, {_HOW_TO_SET}"
            return Location(country, "timezone", note)
    why = ", ".join(f"{time_zone} ({where})" for where, time_zone in seen) or "none"
    note = f"region not known, priced at the world's average: no country with a value in the time zone, {why}"
    return Location(WORLD, "nothing", f"{note}; {_HOW_TO_SET}")


def _local_time_zones(environ: Mapping[str, str], etc: Path) -> Iterator[tuple[str, str]]:
    """The time zones that this machine claims, most deliberate first, each with where it was found."""
    name = etc / "timezone"
    link = etc / "localtime"
    for where, text in (("TZ", environ.get("TZ", "")), (str(name), _first_line(name)), (str(link), _target(link))):
        time_zone = _time_zone_name(text)
        if time_zone:
            yield where, time_zone


def _time_zone_name(text: str) -> str:
    """`Europe/Paris` of `:Europe/Paris` or `/usr/share/zoneinfo/posix/Europe/Paris` (tzset(3))."""
    name = text.strip().removeprefix(":").rpartition("zoneinfo/")[2]
    return name.removeprefix("posix/").removeprefix("right/")


def _first_line(path: Path) -> str:
    try:
        return next(iter(path.read_text(encoding="utf-8", errors="replace").splitlines()), "")
    except OSError:
        return ""


def _target(link: Path) -> str:
    # One step only: the tz database links old names to a bigger neighbour (Iceland to Africa/Abidjan).
    try:
        return str(link.readlink())
    except OSError:
        return ""
