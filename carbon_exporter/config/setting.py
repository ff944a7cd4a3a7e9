"""One setting: how it is named in each source, what it accepts, and what it is for."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["ENVIRONMENT_PREFIX", "Setting", "setting"]

ENVIRONMENT_PREFIX = "CARBON_EXPORTER_"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Setting:
    """How one setting is named, read and explained."""

    key: str
    parse: Callable[[str], Any]
    """From text; raises `ValueError` for what is not accepted."""
    default: str
    accepted: str
    help: str
    reloadable: bool = False
    """Whether SIGHUP applies a change, or only a restart."""

    @property
    def flag(self) -> str:
        """The command line's spelling."""
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """The environment's spelling."""
        return ENVIRONMENT_PREFIX + re.sub(r"[.-]", "_", self.key).upper()


def setting(
    key: str, default: str, parse: Callable[[str], _T], accepted: str, explained: str, *, reloadable: bool = False
) -> _T:
    """A dataclass field that knows its `Setting`."""
    meta = {"setting": Setting(key, parse, default, accepted, explained, reloadable)}
    return dataclasses.field(default=parse(default), metadata=meta)
