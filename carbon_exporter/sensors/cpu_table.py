"""Finds a processor's thermal design power in the shipped table by the name that the kernel prints.

A wrong row is worse than none, so a name that designates no model ("AMD EPYC", "Intel(R) Xeon(R) Processor", a
hypervisor's invention) matches nothing, and a near match may differ from its row in suffix letters only.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal

from carbon_exporter.units import Watts

__all__ = ["Match", "Row", "find", "find_among", "normalise", "shipped_rows"]

NEAR_SPREAD = 1.2
"""All candidates of a near match lie within 20 % of each other; else it is the suffix that decides about the power."""

NOISE = re.compile(
    r"""
    \((?:r|tm|c)\) | [®™©]
    | \([^)]*\)                       # (Skylake, IBRS): a hypervisor's remark
    | @.*                             # @ 2.60GHz, and what follows it
    | \bw(?:ith|/)\s.*                # with Radeon Graphics, w/ Radeon 780M
    | \b\d{1,2}th\s+gen\b             # 13th Gen Intel(R) Core(TM)
    | \b(?:\d{1,3}|single|dual|two|triple|three|quad|four|six|eight|ten|twelve|sixteen)-cores?\b
    | \b(?:cpu|processor|apu)\b
    """,
    re.VERBOSE,
)
VENDORS = frozenset({"intel", "amd", "ampere", "apple", "qualcomm", "via", "nvidia"})
FAMILY = re.compile(r"i[3579]|m[357]|v\d|x[2346]|\d|\d+\.\d+(?:ghz)?|\d+[gm]hz|0+")
"""Tokens with digits that name a family, a generation or a clock rate, not a model: Core i7, v4, Ryzen 9, 2.4GHz."""
SUFFIX = re.compile(r"[a-z]+$")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    vendor: str
    model: str
    tdp: Watts
    cores: int | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """The row that stands for a processor, and how well its name agrees."""

    row: Row
    how: Literal["exact match", "near match"]


@dataclass(frozen=True, slots=True)
class _Name:
    vendor: str
    tokens: tuple[str, ...]

    @property
    def designation(self) -> tuple[str, ...]:
        return tuple(t for t in self.tokens if any("0" <= c <= "9" for c in t) and not FAMILY.fullmatch(t))

    @property
    def stem(self) -> tuple[str, ...]:
        """Tokens without the suffix letters of the designation: `e5 2686 v4`, `8275` for `8275CL`."""
        designation = self.designation
        return tuple(SUFFIX.sub("", t) if t in designation else t for t in self.tokens)


def normalise(name: str, vendor: str = "") -> tuple[str, tuple[str, ...]]:
    """Vendor (lower case, empty if unknown) and the words that tell models apart, in order."""
    words = NOISE.sub(" ", name.lower()).replace("-", " ").replace(",", " ").split()
    named = next((w for w in words if w in VENDORS), "")
    return named or vendor.lower(), tuple(w for w in words if w not in VENDORS)


def find_among(rows: Iterable[Row], name: str, vendor: str = "") -> Match | None:
    """The row for the processor called `name`, or None; `vendor` serves where the name does not say it."""
    wanted = _Name(*normalise(name, vendor))
    if not wanted.vendor or not wanted.designation:
        return None
    exact, near = [], []
    for row in rows:
        candidate = _Name(*normalise(row.model, row.vendor))
        if candidate.vendor != wanted.vendor:
            continue
        if candidate.tokens == wanted.tokens:
            exact.append(row)
        elif candidate.stem == wanted.stem:
            near.append(row)
    if exact:
        return _agreed(exact, "exact match")
    return _agreed(near, "near match")


def _agreed(rows: list[Row], how: Literal["exact match", "near match"]) -> Match | None:
    """The best documented of rows that agree about the power; the shortest name, the plain model, among equals."""
    if not rows or max(row.tdp for row in rows) > NEAR_SPREAD * min(row.tdp for row in rows):
        return None
    return Match(min(rows, key=lambda row: (row.cores is None, len(row.model), row.model)), how)


@lru_cache(maxsize=8)
def find(name: str, vendor: str = "") -> Match | None:
    """`find_among` in the shipped table; only rows that share the longest run of digits are looked at."""
    runs = re.findall(r"\d+", " ".join(_Name(*normalise(name, vendor)).designation), re.ASCII)
    return find_among(shipped_rows(max(runs, key=len)), name, vendor) if runs else None


def shipped_rows(containing: str = "") -> tuple[Row, ...]:
    """Rows of carbon_exporter/data/cpu_tdp.csv whose line contains a text; columns vendor, model, tdp_watts, cores."""
    table = resources.files("carbon_exporter").joinpath("data").joinpath("cpu_tdp.csv")
    header, *lines = table.read_text("utf-8").splitlines()
    records = csv.DictReader([header, *(line for line in lines if containing in line)])
    return tuple(
        Row(r["vendor"], r["model"], Watts(float(r["tdp_watts"])), int(r["cores"]) if r["cores"] else None)
        for r in records
    )
