"""Points in time as people write them: RFC 3339, Unix seconds, `now` and `now-7d`."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from carbon_exporter.errors import ConfigError

__all__ = ["parse_moment"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_RELATIVE = re.compile(r"now(?:-(\d{1,9})([smhdw]))?")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_LATEST = 253_402_300_799
"""The last second of the year 9999: beyond it there is no RFC 3339."""
_ACCEPTED = (
    "RFC 3339 with its zone (2026-03-01T12:00:00Z), a day (2026-03-01, from midnight UTC), Unix seconds, now or now-7d"
)


def parse_moment(text: str, key: str, now: float) -> int:
    """Unix seconds, a fraction cut off. Raises `ConfigError`, which names the flag `key`."""
    try:
        moment = _parse(text.strip(), now)
        if 0 <= moment <= _LATEST:
            return int(moment)
    except (ValueError, OverflowError):
        pass
    raise ConfigError("command line", key, text, _ACCEPTED)


def _parse(text: str, now: float) -> float:
    if found := _RELATIVE.fullmatch(text):
        return now - int(found[1] or 0) * _SECONDS[found[2] or "s"]
    if re.fullmatch(r"\d+(\.\d*)?", text):
        return float(text)
    if _DAY.fullmatch(text):
        text += "T00:00:00Z"
    # Python 3.10 reads neither a Z nor fractions of other than three or six digits.
    at = datetime.fromisoformat(re.sub(r"\.\d+", "", re.sub(r"[Zz]$", "+00:00", text)))
    if at.tzinfo is None:
        raise ValueError("without a zone it could be anywhere")
    return at.astimezone(timezone.utc).timestamp()
