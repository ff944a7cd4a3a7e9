"""What the package asks for (pyproject.toml) and what is locked (requirements/*.txt)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["Package", "asked", "extras", "locked"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Package:
    """A release in a lock."""

    name: str
    version: str


def locked(lock: str) -> list[Package]:
    """The releases of a lock: `image`, `test` or `build`."""
    text = (ROOT / f"requirements/{lock}.txt").read_text()
    return [Package(*pair) for pair in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)]


def extras() -> set[str]:
    """Every extra of the package."""
    return set(_lists()) - {"dependencies"}


def asked(*wanted: str) -> list[Requirement]:
    """What the package needs on this machine, with these extras."""
    lines = [line for name in ("dependencies", *wanted) for line in _lists()[name]]
    needed = [Requirement(line) for line in lines]
    return [one for one in needed if one.marker is None or one.marker.evaluate()]


def _lists() -> dict[str, list[str]]:
    """The lists of requirements by name; tomllib is not in Python 3.10."""
    text = (ROOT / "pyproject.toml").read_text().partition("[project.entry-points")[0]
    found = re.findall(r"^(\w+) = \[\n((?:  .*\n)*)\]$", text.partition('dynamic = ["version"]')[2], re.MULTILINE)
    return {name: re.findall(r'^  "([^"]+)"', lines, re.MULTILINE) for name, lines in found}
